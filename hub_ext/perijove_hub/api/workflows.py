"""``/workflows``: begin runs, look at them, act on them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from perijove.model import InvalidSpecError, Run, StepRun, StepState, UserError
from perijove.model.validation import field_errors, parse_json
from perijove_hub.api.bodies import json_body, read_body
from perijove_hub.api.finding import (
    Number,
    Who,
    bare_run_of,
    controller_of,
    run_of,
    runs_of,
    states_of,
    view_of,
)
from perijove_hub.api.jobs import first_node
from perijove_hub.api.listing import owner_seen
from perijove_hub.store.workflow_queries import RunPage
from perijove_hub.workflows.beginning import Wanted, begin
from perijove_hub.workflows.text import run_json

router = APIRouter()
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]


async def read_wanted(request: Request) -> Wanted:
    """The body of a request for a run."""
    data = await read_body(request, request.app.state.settings.max_body)
    body = await asyncio.to_thread(parse_json, data)
    try:
        return Wanted.model_validate(body)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error, Wanted)) from None


@router.post("/workflows", status_code=201, response_model=Run, openapi_extra=json_body(Wanted))
async def submit(
    request: Request, caller: Who, owner: str | None = None, idempotency_key: Key = None
) -> Response:
    """Begin a run; answered when it is durable.

    A request repeated with the same ``Idempotency-Key`` answers with the run of the first.
    """
    whose, wanted = caller.owner(owner), await read_wanted(request)
    await first_node(controller_of(request))
    return await once(request, whose, idempotency_key, wanted)


async def once(
    request: Request, owner: str, key: str | None, wanted: Wanted, resumed_from: int | None = None
) -> Response:
    """Begin a run, once for each `key`."""
    runs, controller = runs_of(request), controller_of(request)
    if key is None:
        return await told(await begin(runs, owner, wanted, resumed_from=resumed_from), 201)
    async with controller.one_at_a_time(owner, key):
        if (waiting := controller.writer.unwritten.get((owner, key))) is not None:
            await controller.committed()
        given = waiting or await asyncio.to_thread(controller.database.submission, owner, key)
        if given is None:
            submission = {"owner": owner, "key": key}
            run = await begin(runs, owner, wanted, resumed_from=resumed_from, submission=submission)
            return await told(run, 201)
        found = await runs.find(given.start)
        if found is None:
            raise UserError(f"Idempotency-Key: {key[:80]!r} was used for job {given.start}")
        return await told(found, 201)


class RunList(BaseModel):
    """A page of runs; `next`, given as ``before``, continues."""

    workflows: list[Run]
    next: int | None


@router.get("/workflows")
async def listing(
    request: Request,
    caller: Who,
    state: Annotated[list[str] | None, Query()] = None,
    owner: str | None = None,
    project: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Number | None = None,
) -> RunList:
    """Runs, newest first, without their documents; whose, as in ``/jobs``."""
    whose = owner_seen(caller, owner, project)
    page = RunPage(states_of(state or []), whose, project, limit, before)
    runs = runs_of(request)
    found = await asyncio.to_thread(controller_of(request).database.workflows.runs, page)
    listed = [runs.live[run.id].record() if run.id in runs.live else run for run in found]
    return RunList(workflows=listed, next=found[-1].id if len(found) == limit else None)


@router.get("/workflows/{number}", response_model=Run)
async def show(request: Request, caller: Who, number: int) -> Response:
    """One run, with its document and how many steps are in each state."""
    return await told(view_of(caller, await run_of(request, caller, number)))


class StepList(BaseModel):
    """A page of steps; `next`, given as ``after``, continues, also while the run goes on."""

    steps: list[StepRun]
    next: int | None


@router.get("/workflows/{number}/steps")
async def steps(
    request: Request,
    caller: Who,
    number: int,
    state: Annotated[list[StepState] | None, Query()] = None,
    step: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Number | None = None,
) -> StepList:
    """Steps of a run in the order of the document, mapped ones once for each element."""
    await bare_run_of(request, caller, number)
    page, following = await runs_of(request).page(number, state or (), step, after or 0, limit=limit)
    return StepList(steps=page, next=following)


async def told(run: Run, status: int = 200) -> Response:
    """A run as the answer; others are answered meanwhile."""
    return Response(await asyncio.to_thread(run_json, run), status, media_type="application/json")
