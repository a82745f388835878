"""What a run would do, without doing it: which steps it would take results for, and why the others run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from perijove.model import Cause, PerijoveError, Run, State, StepState, Workflow
from perijove_hub.workflows.live import Live, Unit
from perijove_hub.workflows.opening import open_due, take_settled
from perijove_hub.workflows.results import Results, give
from perijove_hub.workflows.runs import Runs
from perijove_hub.workflows.submitting import Draft, draft, key_of, refused

CHUNK = 500


class Explained(BaseModel):
    """Why a step ran, or would."""

    label: str
    state: StepState
    """Of a run that was not begun: ``cached``, ``pending`` (it would run), ``waiting`` (that depends on what
    those before it make), ``skipped``, ``failed`` or ``rejected``."""
    key: str | None = None
    cached_from: int | None = None
    causes: list[Cause] = []
    message: str = ""


class Explanation(BaseModel):
    """Of each step."""

    steps: list[Explained]


def explained(live: Live, unit: Unit) -> Explained:
    """What is known of an instance."""
    return Explained(
        label=live.label(unit),
        state=unit.state,
        key=unit.key,
        cached_from=unit.cached_from,
        causes=unit.causes,
        message=unit.reason.message if unit.reason is not None else "",
    )


async def explain(
    runs: Runs, owner: str, workflow: Workflow, parameters: dict[str, Any], cache: str
) -> Explanation:
    """Go as far as results of earlier runs reach."""
    now = runs.controller.clock()
    run = Run(
        id=0,
        owner=owner,
        name=workflow.name,
        state=State.RUNNING,
        parameters=parameters,
        submitted=now,
        cache=cache,
    )
    live, results = Live(run, workflow, {}), Results(runs.controller)
    while live.progress.due or live.ready:
        if unread := open_due(live, lambda _unit: None):
            await runs.reading.contents(live, unread)
        take_settled(live, now)
        units = [live.ready.popleft() for _ in range(min(CHUNK, len(live.ready)))]
        drafts = draft(live, units)
        live.ready.extend(drafts.later)
        if drafts.unread:
            await runs.reading.contents(live, drafts.unread)
        await _look(runs, live, results, drafts.some)
        await asyncio.sleep(0)
    return Explanation(steps=[explained(live, unit) for unit in live.all_units()])


async def _look(runs: Runs, live: Live, results: Results, some: Sequence[Draft]) -> None:
    for one in some:
        if not one.wrong:
            try:
                key_of(runs.controller, live, one, await runs.reading.code(live.step_of(one.unit)))
            except PerijoveError as error:
                one.wrong = str(error)
        if one.wrong:
            one.unit.reason = refused(one.wrong)
            live.move(one.unit, StepState.FAILED)
            live.progress.end(one.unit.step, StepState.FAILED)
    for one, result in await results.look(live, [one for one in some if not one.wrong]):
        if result is None:
            live.move(one.unit, StepState.PENDING)
            continue
        give(one.unit, result)
        live.move(one.unit, StepState.CACHED)
        live.progress.end(one.unit.step, StepState.CACHED)
