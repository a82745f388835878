"""Between runs of workflows, their steps and results, and the rows of those."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from perijove.model import Run

RUN = ("id", "owner", "name", "project", "state", "submitted", "ended", "pinned")
"""Columns of a run's row that are fields of :class:`perijove.model.Run`."""
RUN_INSERTED = (*RUN, "final", "archived", "document", "detail")
RUN_UPDATED = ("state", "final", "ended", "pinned", "detail")
STEP = ("run", "step", "item", "state", "job", "number", "key", "cached_from", "seq", "detail")
RESULT = ("key", "owner", "sealed", "workflow", "step", "run", "job", "at", "outputs", "ingredients")
_DETAIL = {
    "reason",
    "parameters",
    "priority",
    "steps",
    "resumed_from",
    "fail_fast",
    "cache",
    "kill_requested",
}
_DETAIL |= {"labels"}


@dataclass(slots=True)
class StepLine:
    """A row of the table ``step``."""

    run: int
    step: str
    item: int
    state: str
    job: int | None
    number: int
    key: str | None
    cached_from: int | None
    seq: int
    detail: dict[str, Any]


@dataclass(slots=True)
class ResultLine:
    """A row of the table ``result``."""

    key: str
    owner: str
    sealed: bool
    workflow: str
    step: str
    run: int
    job: int | None
    at: float
    outputs: dict[str, Any]
    ingredients: dict[str, Any] = field(default_factory=dict)
    """Empty where only what may be taken was asked for: they are many times as long as the rest."""


@dataclass(slots=True)
class Flows:
    """What one transaction writes of workflows."""

    new: dict[int, tuple[Run, str]] = field(default_factory=dict)
    """With the document as JSON."""
    changed: dict[int, Run] = field(default_factory=dict)
    steps: dict[tuple[int, str, int], StepLine] = field(default_factory=dict)
    results: dict[tuple[str, str], ResultLine] = field(default_factory=dict)
    archived: list[int] = field(default_factory=list)
    """Runs whose results nobody is to take any more."""
    removed: list[int] = field(default_factory=list)
    """Runs of which nothing is kept but what their jobs were charged."""

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.steps or self.results or self.archived or self.removed)

    @property
    def last_id(self) -> int:
        """The highest id in it."""
        return max(self.new, default=0)

    @property
    def last_seq(self) -> int:
        """The highest number of a step's change in it."""
        return max((line.seq for line in self.steps.values()), default=0)

    def of(self, number: int) -> Flows:
        """The part of it that is about one run, or about the step that is one job."""
        steps = {key: line for key, line in self.steps.items() if number in (line.run, line.job)}
        return Flows(
            new={number: self.new[number]} if number in self.new else {},
            changed={number: self.changed[number]} if number in self.changed else {},
            steps=steps,
            results={key: line for key, line in self.results.items() if number in (line.run, line.job)},
            archived=[one for one in self.archived if one == number],
            removed=[one for one in self.removed if one == number],
        )

    def numbers(self) -> list[int]:
        """The runs it is about."""
        about = [line.run for line in self.steps.values()]
        about += [line.run for line in self.results.values()]
        return list(dict.fromkeys([*self.new, *self.changed, *about, *self.archived, *self.removed]))


def run_row(run: Run, document: str) -> tuple[Any, ...]:
    """The whole row, in the order of :data:`RUN_INSERTED`."""
    columns = tuple(_plain(getattr(run, name)) for name in RUN)
    return (*columns, _final(run), False, document, _detail(run))


def run_update(run: Run) -> tuple[Any, ...]:
    """What may have changed, in the order of :data:`RUN_UPDATED`, then the id."""
    return (run.state.value, _final(run), run.ended, run.pinned, _detail(run), run.id)


def step_row(line: StepLine) -> tuple[Any, ...]:
    """In the order of :data:`STEP`."""
    return (
        line.run,
        line.step,
        line.item,
        line.state,
        line.job,
        line.number,
        line.key,
        line.cached_from,
        line.seq,
        json.dumps(line.detail) if line.detail else "{}",
    )


def result_row(line: ResultLine) -> tuple[Any, ...]:
    """In the order of :data:`RESULT`."""
    return (
        line.key,
        line.owner,
        line.sealed,
        line.workflow,
        line.step,
        line.run,
        line.job,
        line.at,
        json.dumps(line.outputs),
        json.dumps(line.ingredients),
    )


def run_of(row: Any) -> Run:
    """The run a row holds, without its document."""
    return Run.model_validate({**{name: getattr(row, name) for name in RUN}, **row.detail})


def step_of(row: Any) -> StepLine:
    """The line a row holds."""
    return StepLine(*row)


def result_of(row: Any) -> ResultLine:
    """The line a row holds."""
    return ResultLine(*row)


def _final(run: Run) -> str | None:
    return run.state.value if run.state.ended else None


def _detail(run: Run) -> str:
    return run.model_dump_json(include=_DETAIL, exclude_defaults=True)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
