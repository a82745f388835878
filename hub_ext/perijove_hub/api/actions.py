"""What is done to jobs that are there: ended, held, moved, changed, run again, cleared away."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from perijove.model import (
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    Job,
    JobSpec,
    State,
    parse_duration,
)
from perijove.model.validation import parse_spec
from perijove_hub.admission import admit
from perijove_hub.api.audit import record, record_on_job
from perijove_hub.api.bodies import json_body, read_body, read_model
from perijove_hub.api.desk import asker_of, policy_of, site_of
from perijove_hub.api.finding import JobId, Who, controller_of, job_of, labels_of
from perijove_hub.identity import Caller
from perijove_hub.jobs import arrays
from perijove_hub.jobs.changes import check
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Event, Hold, Kill, Release, Reschedule, Resume, Suspend
from perijove_hub.jobs.lookup import spec_to_rerun
from perijove_hub.store.database import Page

router = APIRouter()
ARCHIVED_AT_ONCE = 10_000
"""Jobs that one request to archive looks through."""
MAX_CHANGES = 64 << 10
"""Bytes of a request to change a job."""


@router.post("/jobs/{job_id}/kill")
async def kill(
    request: Request,
    caller: Who,
    job_id: JobId,
    dependants: Annotated[bool, Query(description="also those that wait for it")] = False,
) -> Job:
    """End it: SIGTERM, then SIGKILL after the site's grace period. An array with all its members."""
    return await act(request, caller, job_id, Kill(caller.name, dependants))


@router.post("/jobs/{job_id}/hold")
async def hold(request: Request, caller: Who, job_id: JobId) -> Job:
    """Keep a pending job from starting; of an array, the members that wait."""
    return await act(request, caller, job_id, Hold(caller.name))


@router.post("/jobs/{job_id}/release")
async def release(request: Request, caller: Who, job_id: JobId) -> Job:
    """Let a held job start."""
    return await act(request, caller, job_id, Release(caller.name))


@router.post("/jobs/{job_id}/suspend")
async def suspend(request: Request, caller: Who, job_id: JobId) -> Job:
    """Freeze a running job; what it keeps of its resources, the policy says. An array: those that run."""
    return await act(request, caller, job_id, Suspend(caller.name))


@router.post("/jobs/{job_id}/resume")
async def resume(request: Request, caller: Who, job_id: JobId) -> Job:
    """Let a suspended job go on, as soon as it has its resources again."""
    return await act(request, caller, job_id, Resume(caller.name))


@router.post("/jobs/{job_id}/reschedule")
async def reschedule(request: Request, caller: Who, job_id: JobId) -> Job:
    """Take it off its node and let it wait again, as a new attempt in a fresh directory."""
    return await act(request, caller, job_id, Reschedule(caller.name))


async def act(request: Request, caller: Caller, ref: str, event: Event) -> Job:
    """Let a wish of `caller` happen to a job that they may manage."""
    job = await job_of(request, caller, ref)
    await record_on_job(request, caller, type(event).__name__.lower(), job)
    changed = await controller_of(request).act(job.id, event)
    if changed is None:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    return caller.view(changed)


# ---- change


@router.patch(
    "/jobs/{job_id}",
    response_model=Job,
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def change(request: Request, caller: Who, job_id: JobId) -> Job:
    """Change fields of its specification: ``{"time_limit": "2h"}``.

    Which, and by whom, the policy says. Only the time limit of a job that runs can be changed, and its name.
    """
    wanted = _object(await read_body(request, MAX_CHANGES))
    job = await job_of(request, caller, job_id)
    if job.state.ended:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    controller = controller_of(request)
    spec = _changed(job.spec, wanted)
    changes = {name: getattr(spec, name) for name in _names(wanted) if _differs(job.spec, spec, name)}
    check(job, changes, roles_of(caller, job), policy_of(controller))
    changes = _readmitted(controller, caller, job, spec, changes)
    if not changes:
        return caller.view(controller.board.view(job))
    before = {name: getattr(job.spec, name) for name in changes}
    await record_on_job(request, caller, "change", job, before, changes)
    return caller.view(await controller.change(job.id, changes, caller.name))


_ALIASES = {"time": "time_limit", "cpus": "cpu", "depends": "depends_on"}


def _names(wanted: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(_ALIASES.get(name, name) for name in wanted))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found:
        text = 'must be a JSON object of fields and their new values, as {"time_limit": "2h"}'
        raise InvalidSpecError(errors=[FieldError("", "", text)])
    return found


def _changed(spec: JobSpec, wanted: dict[str, Any]) -> JobSpec:
    """`spec` with the new values, each checked as at submission."""
    before = spec.model_dump(mode="json", exclude_unset=True)
    for name in wanted:
        before.pop(_ALIASES.get(name, name), None)
    try:
        return parse_spec(json.dumps({**before, **wanted}).encode())
    except InvalidSpecError as error:
        mine = [e for e in error.errors if e.field.partition(".")[0] in {*wanted, *_names(wanted)}]
        raise InvalidSpecError(errors=mine or error.errors) from None


def _differs(before: JobSpec, after: JobSpec, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def roles_of(caller: Caller, job: Job) -> set[str]:
    """All that the caller is to the job; an owner may be an administrator too."""
    return {caller.role(job), *(["admin"] if caller.admin or caller.act_as else [])}


def _readmitted(
    controller: Controller, caller: Caller, job: Job, spec: JobSpec, changes: dict[str, Any]
) -> dict[str, Any]:
    """The change as the site allows it. An administrator may give more time than the longest there is."""
    beyond = caller.admin and set(changes) <= {"time_limit"}
    if beyond or not set(changes) & {"time_limit", "cpu", "memory", "partition"}:
        return changes
    asker, site = asker_of(controller, job.owner), site_of(controller)
    identity = controller.identify(job.owner)
    alone = spec.model_copy(update={"depends_on": []})
    admitted = admit(alone, asker, identity, site, now=controller.clock(), known={}).spec
    return {name: getattr(admitted, name) for name in changes}


# ---- run again, clear away


@router.post("/jobs/{job_id}/rerun", status_code=201)
async def rerun(request: Request, caller: Who, job_id: JobId) -> Job:
    """Submit an ended job once more, as a new one; a member of an array by itself. For its owner."""
    job = await job_of(request, caller, job_id)
    if job.owner != caller.name and not caller.act_as:
        raise ForbiddenError(f"it would run in the name of {job.owner}; only they may run it again")
    controller = controller_of(request)
    if job.state.ended:
        _readmit_whole(controller, job)
    return caller.view(await controller.rerun(job, caller.name))


def _readmit_whole(controller: Controller, job: Job) -> None:
    """Raise what a submission of the same job raised now."""
    spec, now = spec_to_rerun(job), controller.clock()
    asker, site = asker_of(controller, job.owner), site_of(controller)
    admit(spec, asker, controller.identify(job.owner), site, now=now, known={})
    errors = controller.board.standing.refusals(job.owner, [(spec, arrays.size(spec) or 1)], now)
    if errors:
        raise InvalidSpecError(errors=errors)


@router.post("/jobs/{job_id}/archive")
async def archive(request: Request, caller: Who, job_id: JobId) -> Job:
    """Remove the directory and logs of an ended job; its record and the accounting stay."""
    job = await job_of(request, caller, job_id)
    if not job.state.ended:
        raise ConflictError(f"job {job.label} is {job.state}; only an ended one can be archived")
    await record_on_job(request, caller, "archive", job)
    controller = controller_of(request)
    await controller.committed()
    await controller.archive([job.id], caller.name)
    await controller.committed()
    return caller.view(await job_of(request, caller, job_id))


@router.delete("/jobs/{job_id}", status_code=204)
async def purge(request: Request, caller: Who, job_id: JobId) -> Response:
    """Remove all that is kept of an ended job but its accounting. For its owner and administrators."""
    job = await job_of(request, caller, job_id)
    if caller.role(job) == "lead":
        raise ForbiddenError("only its owner or an administrator removes a job's record")
    if not job.state.ended:
        raise ConflictError(f"job {job.label} is {job.state}; only an ended one can be removed")
    if job.array_id is not None:
        raise ConflictError(f"{job.label} is a member of {job.array_id}; they can only be removed together")
    await record_on_job(request, caller, "purge", job)
    controller = controller_of(request)
    await controller.committed()
    await controller.purge([job.id], caller.name)
    await controller.committed()
    return Response(status_code=204)


class Archive(BaseModel):
    """Which ended jobs to archive: all that fit everything given."""

    model_config = ConfigDict(extra="forbid")

    older_than: Annotated[float, BeforeValidator(parse_duration)]
    """Time since their end."""
    label: Annotated[list[str], Field(max_length=20)] | str = []
    """``KEY=VALUE``, one or several."""
    state: Annotated[list[State], Field(max_length=20)] = []
    project: Annotated[str, Field(max_length=64)] | None = None
    all_users: bool = False
    """Everybody's; for administrators."""


class Archived(BaseModel):
    """How many were archived; `more` may be: ask again."""

    jobs: int
    more: bool


@router.post("/archive", openapi_extra=json_body(Archive))
async def archive_many(request: Request, caller: Who) -> Archived:
    """Archive one's ended jobs by age, label, state or project."""
    which = await read_model(request, Archive)
    if which.all_users:
        caller.must_administer("archive everybody's jobs")
    labels = labels_of([which.label] if isinstance(which.label, str) else which.label)
    states = tuple(state for state in (which.state or State) if state.ended)
    if which.state and len(states) < len(which.state):
        raise ConflictError(f"only ended jobs can be archived, not {', '.join(which.state)}")
    controller = controller_of(request)
    owner = None if which.all_users else caller.name
    limit = controller.clock() - which.older_than
    found, seen, before = [], 0, None
    while seen < ARCHIVED_AT_ONCE:
        page = Page(states, owner, project=which.project, labels=labels, limit=1000, before=before)
        rows = await asyncio.to_thread(controller.database.jobs, page)
        seen += len(rows)
        found += [job.id for job in rows if not job.archived and (job.ended or limit) < limit]
        if len(rows) < 1000:
            break
        before = rows[-1].id
    if found:
        if which.all_users:
            said = {"jobs": len(found), "older_than": which.older_than}
            await record(request, caller, "archive", "jobs", None, said)
        await controller.archive(found, caller.name)
        await controller.committed()
    return Archived(jobs=len(found), more=seen >= ARCHIVED_AT_ONCE)
