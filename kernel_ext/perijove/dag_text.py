"""A run as a table: for terminals by Rich, in plain text, and as rows for whoever draws it otherwise.

A mapped step is one row with the sum of its instances, followed by those of them that say something: that
failed, or run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perijove.dag import ORDER, Standing, by_step, standing_of, sum_text
from perijove.dag_svg import columns, cut
from perijove.model.quantities import format_duration
from perijove.model.runs import Run, StepRun, StepState
from perijove.model.workflow import Workflow

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MOST_ROWS = 200
"""Of a table; a run of more steps is cut, and says so."""
INSTANCES = 8
"""Of a mapped step, beside its sum."""
SIGNS = {
    StepState.WAITING: "\u00b7",
    StepState.PENDING: "\u25cb",
    StepState.HELD: "\u2016",
    StepState.STARTING: "\u25d4",
    StepState.RUNNING: "\u25b8",
    StepState.SUSPENDED: "\u2016",
    StepState.SUCCEEDED: "\u2713",
    StepState.CACHED: "\u21ba",
    StepState.SKIPPED: "\u2013",
    StepState.FAILED: "\u2717",
    StepState.KILLED: "\u2717",
    StepState.REJECTED: "\u2717",
    StepState.LOST: "\u2717",
}
STYLES = {
    StepState.WAITING: "dim",
    StepState.PENDING: "yellow",
    StepState.HELD: "yellow",
    StepState.STARTING: "blue",
    StepState.RUNNING: "blue",
    StepState.SUSPENDED: "magenta",
    StepState.SUCCEEDED: "green",
    StepState.CACHED: "cyan",
    StepState.SKIPPED: "dim",
    StepState.FAILED: "red",
    StepState.KILLED: "red",
    StepState.REJECTED: "red",
    StepState.LOST: "red",
}
_INTERESTING = (StepState.FAILED, StepState.LOST, StepState.KILLED, StepState.RUNNING, StepState.SUSPENDED)
_BAD = (StepState.FAILED, StepState.LOST, StepState.KILLED)
BAR = 8
"""Characters of a bar."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    label: str
    standing: Standing
    inner: bool = False
    """An instance, below the sum of its step."""

    def cells(self, now: float) -> tuple[str, str, str, str]:
        """State, progress, time, why."""
        box = self.standing
        far = bar_text(box)
        said = " ".join(filter(None, [box.progress_text if not box.state.ended else "", box.said]))
        return state_text(box), far, box.time_text(now), said


def rows_of(workflow: Workflow, steps: Iterable[StepRun]) -> list[Row]:
    """The rows of a run, in the workflow's order."""
    by_name = by_step(steps)
    rows = []
    for name, step in workflow.steps.items():
        runs = by_name.get(name, [])
        whole = standing_of(name, step, runs)
        rows.append(Row(name, whole))
        if whole.many and whole.total > 1:
            told = [run for state in _INTERESTING for run in runs if run.state is state]
            one = step.model_copy(update={"map": None})
            rows += [Row(run.label, standing_of(name, one, [run]), inner=True) for run in told[:INSTANCES]]
    return rows


def headline(run: Run, now: float) -> str:
    """For example ``run 12 "fit" running for 2m05s: 3 succeeded, 1 running``."""
    return f'run {run.id} "{cut(run.name, 60)}" {_standing_text(run, now)}'


def _standing_text(run: Run, now: float) -> str:
    spent = format_duration((run.ended or now) - run.submitted)
    word = "after" if run.ended is not None else "for"
    why = f" ({cut(run.reason.message or run.reason.code, 400)})" if run.reason else ""
    sums = sum_text(run.steps)
    return f"{run.state} {word} {spent}{why}{': ' if sums else ''}{sums}"


def state_text(box: Standing) -> str:
    """``running``, or of many ``running, 3 failed`` and ``killed, 3 of 4``."""
    bad = sum(box.states.get(state, 0) for state in _BAD)
    if not bad or bad == box.total:
        return str(box.state)
    return f"{box.state}, {bad:,} of {box.total:,}" if box.state in _BAD else f"{box.state}, {bad:,} failed"


def bar_text(box: Standing) -> str:
    """How far a step is: ``42 %``, ``40 of 100``; empty when it tells of nothing."""
    if box.progress is None or (box.state.ended and not box.many) or (box.many and box.total < 2):
        return ""
    if box.many:
        return f"{box.done:,} of {box.total:,}"
    return f"{100 * min(1.0, max(0.0, box.progress)):.0f} %"


def run_text(run: Run, steps: Iterable[StepRun], now: float, *, width: int = 100) -> str:
    """The table without colours and lines; `width` is what the last column is cut to."""
    lines = [headline(run, now)]
    if run.workflow is None:
        return lines[0]
    rows = rows_of(run.workflow, steps)
    table = [
        (f"{'  ' if row.inner else ''}{SIGNS[row.standing.state]} {row.label}", *row.cells(now))
        for row in rows[:MOST_ROWS]
    ]
    widths = [min(40, max((columns(line[i]) for line in table), default=0)) for i in range(4)]
    room = max(20, width - sum(widths) - 10)
    for line in table:
        cells = [_padded(cut_left(cell, wide), wide) for cell, wide in zip(line, widths, strict=False)]
        lines.append("  ".join([*cells, cut(line[4], room)]).rstrip())
    return "\n".join([*lines, *_left_out(rows)])


def _left_out(rows: Sequence[Row]) -> list[str]:
    return [f"... and {len(rows) - MOST_ROWS:,} more"] if len(rows) > MOST_ROWS else []


def cut_left(text: str, most: int) -> str:
    """Like :func:`cut`, with the spaces before it kept."""
    inside = text.lstrip(" ")
    before = text[: len(text) - len(inside)]
    return before + cut(inside, most - len(before))


def _padded(text: str, wide: int) -> str:
    return text + " " * max(0, wide - columns(text))


def run_table(run: Run, steps: Iterable[StepRun], now: float) -> RenderableType:
    """The run for a terminal. What the console is decides about colours and width."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        ("run ", "bold"),
        (f"{run.id} ", "bold"),
        f"{cut(run.name, 60)} ",
        (str(run.state), STYLES[StepState(run.state)]),
        _standing_text(run, now).removeprefix(run.state),
    )
    if run.workflow is None:
        return head
    rows = rows_of(run.workflow, steps)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", no_wrap=True, max_width=28)
    table.add_column("state", no_wrap=True, min_width=9, max_width=24)
    table.add_column("progress", no_wrap=True, min_width=BAR + 10 if any(map(_has_bar, rows)) else 0)
    table.add_column("time", no_wrap=True, justify="right", min_width=6)
    table.add_column("why", overflow="ellipsis", no_wrap=True)
    for row in rows[:MOST_ROWS]:
        style = STYLES[row.standing.state]
        _, _, spent, said = row.cells(now)
        table.add_row(
            Text(f"{'  ' if row.inner else ''}{SIGNS[row.standing.state]} {row.label}"),
            Text(state_text(row.standing), style),
            _bar(row.standing),
            Text(spent),
            Text(cut(said, 400)),
        )
    left_out = [Text(line, "dim") for line in _left_out(rows)]
    return Group(head, table, *left_out)


def _has_bar(row: Row) -> bool:
    return bool(bar_text(row.standing))


def _bar(box: Standing) -> Text:
    from rich.text import Text

    words = bar_text(box)
    if not words:
        return Text("")
    if not box.many:
        pieces = [(box.progress or 0.0, STYLES[box.state])]
    else:
        shown = [state for state in ORDER if state.ended or state in _INTERESTING]
        pieces = [(box.states.get(state, 0) / box.total, STYLES[state]) for state in shown]
    text, filled, upto = Text(), 0, 0.0
    for part, style in pieces:
        upto = min(1.0, upto + max(0.0, part))
        more = round(BAR * upto) - filled
        text.append("\u2501" * more, style)
        filled += more
    text.append("\u2500" * (BAR - filled), "dim")
    return text.append(f" {words}")


__all__ = ["MOST_ROWS", "SIGNS", "Row", "headline", "rows_of", "run_table", "run_text", "state_text"]
