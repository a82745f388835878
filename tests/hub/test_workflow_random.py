"""Random workflows in the real service, at once and over a restart, come to what a plain walk computes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove_hub.settings import Settings
from perijove_spawners.protocol import Order

from .working import Flows, WorkingNode, flowing

pytestmark = pytest.mark.slow
SMALL = {"cpu": 0.01, "memory": "4M", "outputs": {"v": "record:v"}}


@dataclass
class Drawn:
    """One step: what it adds up, over what it is mapped, and whether it fails or asks before it runs."""

    takes: list[int]
    over: int | None
    """Mapped over what that step made, with itself where that is no list."""
    fails: bool
    when: tuple[int, int] | None
    """It runs when that step's sum is more than that."""
    cached: bool


@st.composite
def workflows(draw: st.DrawFn) -> list[Drawn]:
    found: list[Drawn] = []
    for i in range(draw(st.integers(2, 7))):
        before = st.sampled_from(range(i)) if i else st.nothing()
        some = draw(st.lists(before, unique=True, max_size=2)) if i else []
        over = draw(st.none() | st.none() | before) if i else None
        when = draw(st.none() | st.none() | st.tuples(before, st.integers(0, 6))) if i else None
        found.append(Drawn(some, over, draw(st.integers(0, 9)) == 0, when, draw(st.booleans())))
    return found


def steps(plan: Sequence[Drawn]) -> dict[str, Any]:
    """The document. Each step records the sum of what it takes, and a list as long as that modulo 4."""
    found = {}
    for i, one in enumerate(plan):
        word = "fail" if one.fails else "add"
        step: dict[str, Any] = {**SMALL, "outputs": {"v": "record:v", "s": "record:s"}, "cache": one.cached}
        step["command"] = [word, f"{i}", *(f"${{{{ jobs:s{n}/s }}}}" for n in one.takes)]
        if one.over is not None:
            step["command"].append("${{ item }}")
            step["map"] = f"jobs:s{one.over}/v"
        if one.when is not None and plan[one.when[0]].over is None:
            step["when"] = f"jobs:s{one.when[0]}/s > {one.when[1]}"
        found[f"s{i}"] = step
    return found


def added(words: Sequence[str]) -> dict[str, Any]:
    """What the job `add WORDS` records."""

    def total(value: Any) -> int:
        return sum(map(total, value)) if isinstance(value, list) else int(value)

    s = sum(total(json.loads(word)) for word in words)
    return {"s": s, "v": list(range(s % 4))}


def walk(plan: Sequence[Drawn]) -> dict[str, tuple[str, int | None]]:
    """Label -> (state, sum), one step after the other."""
    found: dict[str, tuple[str, int | None]] = {}
    made: dict[int, Any] = {}
    states: dict[int, str] = {}
    for i, one in enumerate(plan):
        when = one.when if one.when is not None and plan[one.when[0]].over is None else None
        needs = {*one.takes, *([one.over] if one.over is not None else []), *([when[0]] if when else [])}
        before = {states[n] for n in needs}
        label = f"s{i}"
        if before & {"failed", "rejected"}:
            states[i] = "rejected"
        elif "skipped" in before or (when is not None and not made[when[0]]["s"] > when[1]):
            states[i] = "skipped"
        else:
            words = [f"{i}", *(json.dumps(made[n]["s"]) for n in one.takes)]
            items = made[one.over]["v"] if one.over is not None else None
            states[i] = "failed" if one.fails and items != [] else "succeeded"
            if items is None:
                made[i] = added(words)
                found[label] = (states[i], None if one.fails else made[i]["s"])
                continue
            each = [added([*words, json.dumps(item)]) for item in items]
            made[i] = {"s": [one["s"] for one in each], "v": [one["v"] for one in each]}
            for k, one_made in enumerate(each):
                found[f"{label}[{k}]"] = (states[i], None if one.fails else one_made["s"])
            continue
        found[label] = (states[i], None)
    return found


class Adding(WorkingNode):
    """Its jobs add up; half of them only when the service has been started again."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Order] | None = []

    def end(self, order: Order, values: dict[str, Any]) -> None:
        if self.late is not None and order.attempt.job % 2:
            self.late.append(order)
            return
        assert order.command[0] == "add"
        super().end(order, added(order.command[1:]))


async def ran(plans: Sequence[Sequence[Drawn]], folder: Path) -> list[dict[str, tuple[str, int | None]]]:
    work = Adding()
    where = Settings(state=folder, mode="single")
    async with flowing(where, work) as flows:
        numbers = [await flows.begin(steps(plan), name=f"w{i}") for i, plan in enumerate(plans)]
        await flows.service.settled()
    late, work.late = work.late or [], None
    for order in late:
        work.end(order, {})
    async with flowing(where, work) as flows:
        found = [await outcome(flows, number) for number in numbers]
        jobs = [job for job in work.received if job.number != 1]
        assert not jobs
        assert len(work.received) == len(set(work.received))
        return found


async def outcome(flows: Flows, number: int) -> dict[str, tuple[str, int | None]]:
    run = await flows.ended(number)
    found = {}
    for label, step in (await flows.steps(number)).items():
        state = "succeeded" if step["state"] == "cached" else step["state"]
        made = step["outputs"].get("s")
        found[label] = (state, made["value"] if made is not None else None)
    bad = any(state in {"failed", "rejected"} for state, _ in found.values())
    assert run["state"] == ("failed" if bad else "succeeded")
    return found


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(workflows(), min_size=2, max_size=5))
def test_random_workflows_come_to_what_a_walk_computes(plans: list[list[Drawn]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(ran(plans, Path(folder)))
    assert found == [walk(plan) for plan in plans]
