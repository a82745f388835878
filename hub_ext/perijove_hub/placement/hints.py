"""What would start it now: the same job asking for a little less, where the next pass would then take it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import floor
from typing import Any

import numpy as np

from perijove.model import GpuRequest, Reason, format_duration, format_size
from perijove_hub.placement.access import Access
from perijove_hub.placement.choice import Choice
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.forecast import Forecast
from perijove_hub.placement.request import CORE, matching
from perijove_hub.placement.situation import Situation, respecified, starts

GIB = 1 << 30
TIMES = (86400.0, 14400.0, 3600.0, 900.0)
"""Time limits worth offering: a job that ends soon may run before one that waits for its node."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Changes of the spec with which the job would start in the next pass."""

    changes: dict[str, Any]
    """In the form of a spec: ``{"memory": 12884901888}``."""
    message: str


@dataclass(frozen=True, slots=True)
class Why:
    """All that can be said of a waiting job."""

    reason: Reason | None
    forecast: Forecast | None = None
    hints: list[Hint] = field(default_factory=list)


def hints(entry: Entry, situation: Situation, *, most: int = 3) -> list[Hint]:
    """The least changes, each of one field, with which `entry` would start now; at most `most`."""
    ahead, all_known = situation.ahead(entry)
    if not all_known or starts(entry, ahead, situation):
        return []
    found: list[Hint] = []
    for field_name, value, text in _smaller(entry, situation):
        if any(field_name in hint.changes for hint in found):
            continue  # a milder form of it will do
        if starts(respecified(entry, {field_name: value}), ahead, situation):
            shown = (
                value.model_dump(mode="json", exclude_none=True) if isinstance(value, GpuRequest) else value
            )
            found.append(Hint({field_name: shown}, f"{text} it would start now"))
            if len(found) == most:
                break
    return found


def _smaller(entry: Entry, situation: Situation) -> Iterator[tuple[str, Any, str]]:
    """Less of one thing, the mildest form first."""
    spec, table = entry.job.spec, situation.table
    access = Access(situation.rules.policy, situation.rules.groups_of, table, situation.now)
    choice = Choice(entry.job, table.copy(), Claims(table), access, situation.now, True)
    rows = np.flatnonzero(choice.suited & table.up & ~table.closed)
    for memory in _below(spec.memory, (int(table.memory[row]) for row in rows)):
        rounded = memory // GIB * GIB if memory >= GIB else memory
        yield "memory", rounded, f"with --memory {format_size(rounded)} instead of {format_size(spec.memory)}"
    for cpu in _below(spec.cpu, (floor(int(table.cpu[row]) / CORE * 100) / 100 for row in rows)):
        cores = float(floor(cpu)) if cpu >= 1 else cpu
        yield "cpu", cores, f"with --cpus {cores:g} instead of {spec.cpu:g}"
    if spec.gpus.count:
        yield from _fewer_gpus(entry, situation, rows)
    for limit in TIMES:
        if spec.time_limit is None or limit < spec.time_limit:
            before = f" instead of {format_duration(spec.time_limit)}" if spec.time_limit else ""
            yield "time_limit", limit, f"with --time {format_duration(limit)}{before}"
    if spec.constraints:
        yield "constraints", {}, "without --constraint"
    if spec.node is not None:
        yield "node", None, "without --node"
    if spec.exclusive:
        yield "exclusive", False, "without --exclusive"


def _fewer_gpus(entry: Entry, situation: Situation, rows: Any) -> Iterator[tuple[str, Any, str]]:
    gpus = entry.job.spec.gpus
    if gpus.model is not None or gpus.memory is not None:
        yield "gpus", GpuRequest(count=gpus.count), f"with --gpus {gpus.count} of any model"
    free = (len(matching(gpus, situation.table.devices[int(row)])) for row in rows)
    for count in _below(gpus.count, free):
        model = f"{gpus.model}:" if gpus.model else ""
        fewer = gpus.model_copy(update={"count": count})
        yield "gpus", fewer, f"with --gpus {model}{count} instead of {gpus.count}"


def _below(asked: float, free: Iterator[Any]) -> list[Any]:
    """What is free somewhere and less than was asked for, the most first."""
    return sorted({value for value in free if 0 < value < asked}, reverse=True)[:4]
