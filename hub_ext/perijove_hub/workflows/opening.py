"""Opening the steps that are due: their lists, their conditions, and what the database knows of them."""

from __future__ import annotations

from collections.abc import Callable

from perijove.model import Reason, ReasonCode, StepState
from perijove_hub.store.workflow_tables import WHOLE
from perijove_hub.workflows.live import Live, Unit
from perijove_hub.workflows.progress import Settled
from perijove_hub.workflows.resolve import Unread, Unresolvable, condition_of, elements, holds, per_element

Changed = Callable[[Unit], None]
"""What to do with an instance that came to its end here."""
MOST = 5000
"""Steps that are opened together: nothing else is done meanwhile."""


def open_due(live: Live, changed: Changed) -> set[str]:
    """Open the next steps that are due; digests whose content has to be read for others.

    Instances that have to run are in ``live.ready`` then.
    """
    unread: set[str] = set()
    progress, later, left = live.progress, [], MOST
    while progress.due and left > 0:
        due, progress.due = progress.due[:left], progress.due[left:]
        left -= len(due)
        for step in due:
            try:
                _open(live, step, changed)
            except Unread as wanted:
                unread.add(wanted.digest)
                later.append(step)
            except Unresolvable as wrong:
                _fail(live, step, str(wrong))
    progress.due = [*later, *progress.due]
    return unread


def _open(live: Live, step: int, changed: Changed) -> None:
    declared = live.graph.steps[step]
    line = live.lines.get((live.graph.names[step], WHOLE))
    if line is not None and line.job is None and line.state in {"failed", "skipped", "killed"}:
        live.progress.settle(step, StepState(line.state))
        return
    scope, condition = live.scope(), condition_of(declared)
    if condition is not None and not per_element(condition) and not holds(condition, scope):
        live.progress.settle(step, StepState.SKIPPED)
        return
    listed = elements(declared, scope) if declared.map is not None else None
    skipped: set[int] = set()
    if condition is not None and per_element(condition) and listed is not None:
        for scope.index, scope.item in enumerate(listed):
            if not holds(condition, scope):
                skipped.add(scope.index)
    units = live.open(step, listed)
    for unit in units:
        if unit.item in skipped:
            unit.reason = Reason(
                code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=f"{declared.when} does not hold"
            )
            live.move(unit, StepState.SKIPPED)
            live.progress.end(step, StepState.SKIPPED)
            changed(unit)
        else:
            live.ready.append(unit)


def _fail(live: Live, step: int, message: str) -> None:
    live.whole[step] = Unit(
        step, WHOLE, reason=Reason(code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=message)
    )
    live.progress.settle(step, StepState.FAILED)


def take_settled(live: Live, now: float) -> list[Unit]:
    """Steps that came to their end as a whole since the last time."""
    found, live.progress.settled = live.progress.settled, []
    units = []
    for one in found:
        unit = live.whole.setdefault(one.step, Unit(one.step, WHOLE))
        unit.reason = unit.reason or _why(live, one)
        unit.ended = now
        live.move(unit, one.state)
        line = live.lines.pop((live.graph.names[one.step], WHOLE), None)
        if line is not None and line.state == one.state:
            live.restore(unit, line)
        else:
            units.append(unit)
    return units


def _why(live: Live, settled: Settled) -> Reason:
    name = live.graph.names[settled.because] if settled.because is not None else ""
    if settled.state is StepState.SKIPPED:
        when = live.graph.steps[settled.step].when
        text = f"step {name} was skipped" if name else f"{when} does not hold"
        return Reason(code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=text)
    if settled.state is StepState.REJECTED:
        return Reason(code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=f"upstream failed: step {name}")
    if name:
        text = f"step {name} failed, and the run stops at the first failure"
        return Reason(code=ReasonCode.KILLED_BY_USER, message=text)
    return Reason(code=ReasonCode.KILLED_BY_USER, message="the run was killed")
