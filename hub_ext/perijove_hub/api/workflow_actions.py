"""What is done to runs: ended, held, moved, run again; and why their steps ran."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import ConflictError, ForbiddenError, Run
from perijove.model.values import Whole
from perijove_hub.api.audit import record_on_run
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of, run_of, runs_of, view_of
from perijove_hub.api.jobs import first_node
from perijove_hub.api.workflows import Key, once, read_wanted, told
from perijove_hub.identity import Caller
from perijove_hub.workflows.beginning import Wanted, again, checked
from perijove_hub.workflows.dry import Explained, Explanation, explain

router = APIRouter()
Verb = Literal["kill", "hold", "release", "pin", "unpin"]


@router.post("/workflows/{number}/kill", response_model=Run)
async def kill(request: Request, caller: Who, number: int) -> Response:
    """End it: the jobs of its steps are stopped, and those that wait never begin."""
    return await told(await act(request, caller, number, "kill"))


@router.post("/workflows/{number}/hold", response_model=Run)
async def hold(request: Request, caller: Who, number: int) -> Response:
    """Begin no step any more; what runs goes on."""
    return await told(await act(request, caller, number, "hold"))


@router.post("/workflows/{number}/release", response_model=Run)
async def release(request: Request, caller: Who, number: int) -> Response:
    """Go on with a held run."""
    return await told(await act(request, caller, number, "release"))


@router.post("/workflows/{number}/pin", response_model=Run)
async def pin(request: Request, caller: Who, number: int) -> Response:
    """Keep its results, whatever else is collected."""
    return await told(await act(request, caller, number, "pin"))


@router.post("/workflows/{number}/unpin", response_model=Run)
async def unpin(request: Request, caller: Who, number: int) -> Response:
    """Keep its results no longer than those of other runs."""
    return await told(await act(request, caller, number, "unpin"))


async def act(request: Request, caller: Caller, number: int, verb: Verb) -> Run:
    """Let a wish of `caller` happen to a run that they may see, and so manage."""
    run, runs = await run_of(request, caller, number), runs_of(request)
    await record_on_run(request, caller, verb, run)
    match verb:
        case "kill":
            changed = await runs.kill(number)
        case "hold":
            changed = await runs.hold(number, caller.name)
        case "release":
            changed = await runs.release(number, caller.name)
        case _:
            changed = await runs.pin(number, pinned=verb == "pin")
    return view_of(caller, changed)


class RunChange(BaseModel):
    """What of a run can be changed."""

    model_config = ConfigDict(extra="forbid")

    priority: Annotated[Whole, Field(ge=0, le=100)]


@router.patch("/workflows/{number}", response_model=Run, openapi_extra=json_body(RunChange))
async def change(request: Request, caller: Who, number: int) -> Response:
    """Give it another priority: that of its steps moves with it."""
    wanted = await read_model(request, RunChange)
    run = await run_of(request, caller, number)
    before, after = {"priority": run.priority}, {"priority": wanted.priority}
    await record_on_run(request, caller, "change", run, before, after)
    changed = await runs_of(request).prioritise(number, wanted.priority, caller.name)
    return await told(view_of(caller, changed))


class Resumption(BaseModel):
    """What is to be different."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Any] = Field(default_factory=dict)
    """Other values of some parameters."""
    cache: Literal["use", "refresh", "off"] | None = None


@router.post(
    "/workflows/{number}/resume", status_code=201, response_model=Run, openapi_extra=json_body(Resumption)
)
async def resume(request: Request, caller: Who, number: int, idempotency_key: Key = None) -> Response:
    """Begin a new run that takes over what came out well and is determined by the same. For its owner."""
    wanted = await read_model(request, Resumption)
    run = await own_run(request, caller, number)
    return await once(
        request, run.owner, idempotency_key, again(run, wanted.parameters, wanted.cache), number
    )


@router.post("/workflows/{number}/rerun", status_code=201, response_model=Run)
async def rerun(request: Request, caller: Who, number: int, idempotency_key: Key = None) -> Response:
    """Begin the same run once more, as a new one that takes over nothing. For its owner."""
    run = await own_run(request, caller, number)
    return await once(request, run.owner, idempotency_key, again(run, {}, "refresh"))


async def own_run(request: Request, caller: Caller, number: int) -> Run:
    """A run that has ended, of the caller themselves."""
    run = await run_of(request, caller, number)
    if run.owner != caller.name and not caller.act_as:
        raise ForbiddenError(f"it would run in the name of {run.owner}; only they may run it again")
    if not run.state.ended:
        raise ConflictError(f"run {number} is {run.state}; kill it first, or wait for its end")
    await first_node(controller_of(request))
    return run


@router.get("/workflows/{number}/explain")
async def why(request: Request, caller: Who, number: int) -> Explanation:
    """For each step: from which run its result was taken, or why it ran."""
    await run_of(request, caller, number)
    return Explanation(
        steps=[
            Explained(
                label=step.label,
                state=step.state,
                key=step.key,
                cached_from=step.cached_from,
                causes=step.causes,
                message=step.reason.message if step.reason is not None else "",
            )
            for step in await runs_of(request).steps(number)
        ]
    )


@router.post("/workflows/explain", openapi_extra=json_body(Wanted))
async def would(request: Request, caller: Who, owner: str | None = None) -> Explanation:
    """What a run would do: which steps it would take results for, and why the others would run."""
    whose, wanted = caller.owner(owner), await read_wanted(request)
    await first_node(controller_of(request))
    runs = runs_of(request)
    workflow, values = await checked(runs, whose, wanted)
    return await explain(runs, whose, workflow, values, wanted.cache)
