"""``/jobs``: submit, look, act."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from perijove.model import (
    ConflictError,
    FieldError,
    InvalidSpecError,
    Job,
    JobEvent,
    JobSpec,
    NotFoundError,
    State,
    Stats,
    UserError,
)
from perijove.model.spec import MAX_ID
from perijove.model.validation import parse_spec, parse_specs
from perijove_hub.admission import Admitted, admit
from perijove_hub.api.bodies import read_body
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.identity import Caller, caller_of
from perijove_hub.jobs.arrays import is_array
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.lifecycle import Event, Hold, Kill, Release, Resumed, Suspended, attempt_of
from perijove_hub.store.database import Page
from perijove_spawners.launcher import LaunchError

router = APIRouter()
Who = Annotated[Caller, Depends(caller_of)]
JobId = Annotated[str, "12, or 12_7 for member 7 of array 12"]
Number = Annotated[int, Query(ge=0, le=MAX_ID)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]

_jobs: TypeAdapter[list[Job]] = TypeAdapter(list[Job])
NODE_PATIENCE = 15.0
"""Seconds a submission waits for a first node after the service has started."""


def controller_of(request: Request) -> Controller:
    """The application's controller."""
    controller: Controller = request.app.state.controller
    return controller


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_SPEC = {"$ref": "#/components/schemas/JobSpec"}


@router.post("/jobs", status_code=201, response_model=Job, openapi_extra=_body(_SPEC))
async def submit(
    request: Request, caller: Who, owner: str | None = None, idempotency_key: Key = None
) -> Response:
    """Submit one job; answered when it is durable.

    A request repeated with the same ``Idempotency-Key`` answers with the job of the first.
    """
    spec = parse_spec(await read_body(request, request.app.state.settings.max_body))
    jobs = await _submit(request, caller.owner(owner), [spec], idempotency_key)
    return _json(jobs[0].model_dump_json(), 201)


@router.post(
    "/jobs/bulk",
    status_code=201,
    response_model=list[Job],
    openapi_extra=_body({"type": "array", "items": _SPEC, "minItems": 1, "maxItems": 10_000}),
)
async def submit_many(
    request: Request, caller: Who, owner: str | None = None, idempotency_key: Key = None
) -> Response:
    """Submit many jobs, all or none."""
    specs = parse_specs(await read_body(request, request.app.state.settings.max_body))
    if not 1 <= len(specs) <= 10_000:
        raise UserError(f"between 1 and 10000 jobs at once, not {len(specs)}")
    jobs = await _submit(request, caller.owner(owner), specs, idempotency_key)
    return _json(_jobs.dump_json(jobs), 201)


async def _submit(request: Request, owner: str, specs: list[JobSpec], key: str | None) -> list[Job]:
    """Submit `specs`, once for each `key`: a repetition answers with the jobs of the first."""
    controller = controller_of(request)
    if key is None:
        return await _accept(controller, owner, specs, None)
    async with controller.one_at_a_time(owner, key):
        given = await controller.submitted(owner, key)
        if given is None:
            return await _accept(controller, owner, specs, {"owner": owner, "key": key})
        return [job for i in given if (job := await find(controller, str(i))) is not None]


async def _accept(
    controller: Controller, owner: str, specs: list[JobSpec], submission: dict[str, Any] | None
) -> list[Job]:
    settings, database = controller.settings, controller.database
    if not controller.joined.is_set():
        await _first_node(controller)
    coming = sum(map(member_count, specs))
    if controller.board.waiting + coming > settings.max_pending:
        raise ConflictError(
            f"{controller.board.waiting} jobs wait already; at most {settings.max_pending} may"
        )
    known = await _known(controller, owner, specs)
    digests = {d for spec in specs for d in (*spec.inputs.values(), spec.function) if d}
    owned = {d for d in digests if await asyncio.to_thread(database.owns, owner, d)}
    asker, site, now = asker_of(controller, owner), site_of(controller), controller.clock()
    admitted, errors = [], []
    for i, spec in enumerate(specs):
        try:
            admitted.append(admit(spec, asker, site, now=now, owns=owned.__contains__, known=known))
        except InvalidSpecError as error:
            prefix = f"{i}." if len(specs) > 1 else ""
            errors += [FieldError(prefix + e.field, e.value, e.message) for e in error.errors]
    if errors:
        raise InvalidSpecError(errors=errors[:50])
    ids = controller.board.new_ids(len(specs))
    jobs = [_new_job(i, owner, one, now) for i, one in zip(ids, admitted, strict=True)]
    return await controller.submit(jobs, known, submission=submission)


def member_count(spec: JobSpec) -> int:
    """How many jobs it makes wait."""
    return len(spec.array.tasks) if spec.array is not None else spec.nodes


def _new_job(job_id: int, owner: str, admitted: Admitted, now: float) -> Job:
    spec = admitted.spec
    return Job(
        id=job_id,
        owner=owner,
        name=spec.title,
        state=State.HELD if spec.hold else State.PENDING,
        launcher=admitted.launcher,
        partition=admitted.partition,
        submitted=now,
        spec=spec,
    )


async def _first_node(controller: Controller) -> None:
    try:
        await asyncio.wait_for(controller.joined.wait(), NODE_PATIENCE)
    except TimeoutError:
        return  # admission says so


async def _known(controller: Controller, owner: str, specs: list[JobSpec]) -> dict[int, Job]:
    """The caller's own jobs that `specs` depend on."""
    wanted = {dependency.job for spec in specs for dependency in spec.depends_on}
    found = {i: await find(controller, str(i)) for i in wanted}
    return {i: job for i, job in found.items() if job is not None and job.owner == owner}


async def find(controller: Controller, ref: str) -> Job | None:
    """The job that `ref` (``12`` or ``12_7``) names, live or from the database."""
    match = re.fullmatch(r"(\d{1,18})(?:_(\d{1,12}))?", ref)
    if match is None:
        return None
    job_id, task = int(match[1]), match[2]
    if task is not None:
        member = await asyncio.to_thread(controller.database.member, job_id, int(task))
        return controller.board.find(member.id) or member if member else None
    return controller.board.find(job_id) or await asyncio.to_thread(controller.database.job, job_id)


async def job_of(request: Request, caller: Caller, ref: str) -> Job:
    """The caller's job `ref`; :class:`NotFoundError` when there is none or it is not theirs."""
    return caller.must_see(await find(controller_of(request), ref), ref)


@router.get("/jobs")
async def listing(
    request: Request,
    caller: Who,
    state: Annotated[list[str] | None, Query()] = None,
    owner: str | None = None,
    name: str | None = None,
    array: Number | None = None,
    label: Annotated[list[str] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Number | None = None,
) -> Response:
    """Jobs, newest first; one's own, or for administrators everybody's unless ``owner`` says whose.

    ``state`` may be repeated or separated by commas, and ``live`` stands for all that have not ended.
    ``label`` (``KEY=VALUE``, may be repeated) and ``array`` (its id: the members) narrow it down.
    ``next`` of the answer, given as ``before``, continues.
    """
    controller = controller_of(request)
    whose = owner if caller.admin or caller.act_as else caller.name
    if owner is not None and not caller.sees(owner):
        raise NotFoundError(f"there are no jobs of {owner} for you to see")
    page = Page(_states(state or []), whose, name, array, _labels(label or []), limit, before)
    rows = await asyncio.to_thread(controller.database.jobs, page)
    jobs = [caller.view(controller.board.view(controller.board.find(job.id) or job)) for job in rows]
    following = rows[-1].id if len(rows) == limit else None
    body = {"jobs": [job.model_dump(mode="json") for job in jobs], "next": following}
    return _json(json.dumps(body))


def _labels(given: list[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for text in given:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=(.*)", text, re.ASCII)
        if match is None:
            raise UserError(f"label: must be KEY=VALUE, not {text[:80]!r}")
        found.append((match[1], match[2]))
    return tuple(found)


def _states(given: list[str]) -> tuple[State, ...]:
    names = [part.strip() for text in given for part in text.split(",") if part.strip()]
    found: list[State] = []
    for name in names:
        if name == "live":
            found += [state for state in State if not state.ended]
        elif name in set(State):
            found.append(State(name))
        else:
            raise UserError(f"state: there is no state {name[:40]!r}; there are: live, {', '.join(State)}")
    return tuple(found)


@router.get("/jobs/{job_id}")
async def show(request: Request, caller: Who, job_id: JobId) -> Job:
    """One job."""
    job = await job_of(request, caller, job_id)
    return caller.view(controller_of(request).board.view(job))


@router.get("/jobs/{job_id}/events")
async def history(request: Request, caller: Who, job_id: JobId) -> list[JobEvent]:
    """What happened to it, in order."""
    job = await job_of(request, caller, job_id)
    return await asyncio.to_thread(controller_of(request).database.events, job=job.id)


@router.post("/jobs/{job_id}/kill")
async def kill(request: Request, caller: Who, job_id: JobId) -> Job:
    """End it: SIGTERM, then SIGKILL after the site's grace period. An array with all its members."""
    return await _act(request, caller, job_id, Kill(caller.name))


@router.post("/jobs/{job_id}/hold")
async def hold(request: Request, caller: Who, job_id: JobId) -> Job:
    """Keep a pending job from starting."""
    return await _act(request, caller, job_id, Hold())


@router.post("/jobs/{job_id}/release")
async def release(request: Request, caller: Who, job_id: JobId) -> Job:
    """Let a held job start."""
    return await _act(request, caller, job_id, Release())


async def _act(request: Request, caller: Caller, ref: str, event: Event) -> Job:
    job = await job_of(request, caller, ref)
    changed = await controller_of(request).act(job.id, event)
    if changed is None:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    return caller.view(changed)


@router.post("/jobs/{job_id}/suspend")
async def suspend(request: Request, caller: Who, job_id: JobId) -> Job:
    """Freeze a running job; it keeps what it holds."""
    return await _freeze(request, caller, job_id, "suspend", State.RUNNING, Suspended())


@router.post("/jobs/{job_id}/resume")
async def resume(request: Request, caller: Who, job_id: JobId) -> Job:
    """Let a suspended job go on."""
    return await _freeze(request, caller, job_id, "resume", State.SUSPENDED, Resumed())


async def _freeze(request: Request, caller: Caller, ref: str, verb: str, needed: State, event: Event) -> Job:
    job = await job_of(request, caller, ref)
    if job.state is not needed or job.node is None or is_array(job):
        raise ConflictError(f"job {job.label} is {job.state}; only a {needed} one can be told to {verb}")
    controller = controller_of(request)
    try:
        await controller.fabric.call(job.node, verb, attempt_of(job))
    except LaunchError as error:
        raise ConflictError(str(error)) from error
    return caller.view(await controller.act(job.id, event) or job)


@router.get("/jobs/{job_id}/stats")
async def stats(request: Request, caller: Who, job_id: JobId) -> Stats:
    """What it uses now; all zero when it does not run."""
    job = await job_of(request, caller, job_id)
    if not job.state.on_node or job.node is None:
        return Stats(memory_peak=job.memory_peak, cpu_seconds=job.cpu_seconds)
    found: Stats = await controller_of(request).fabric.call(job.node, "stats", attempt_of(job))
    return found


def _json(body: str | bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
