"""``GET /jobs``: lists that stay small, whatever is in the jobs; one job; its history; what it uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from perijove.model import Job, JobEvent, NotFoundError, Stats
from perijove_hub.api.finding import JobId, Number, Who, controller_of, job_of, labels_of, run_of, states_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.store.database import Database, Page

router = APIRouter()
PAGE_BYTES = 4 << 20
"""A page ends early when it grows larger than this; ``next`` goes on."""
LONG = 2048
"""Bytes of a field of a spec above which lists show only its beginning."""
HISTORY = 10_000
"""Events of one job that are told at once."""


@router.get("/jobs")
async def listing(
    request: Request,
    caller: Who,
    state: Annotated[list[str] | None, Query()] = None,
    owner: str | None = None,
    name: str | None = None,
    project: str | None = None,
    array: Number | None = None,
    label: Annotated[list[str] | None, Query()] = None,
    members: bool = False,
    run: Annotated[str | None, Query(pattern="^([0-9]{1,18}|any)$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Number | None = None,
) -> Response:
    """Jobs, newest first; one's own, or for administrators everybody's unless ``owner`` says whose.

    ``state`` may be repeated or separated by commas, and ``live`` stands for all that have not ended.
    ``label`` (``KEY=VALUE``, may be repeated) and ``project`` narrow it down; leads of a project see all of
    its jobs. An array is one row; ``array`` (its id) lists its members, ``members`` those of all arrays.
    ``next`` of the answer, given as ``before``, continues. Fields of a specification that are long are
    shortened, and named in ``shortened`` beside the job.
    """
    controller = controller_of(request)
    whose = owner_seen(caller, owner, project, array is not None or run not in {None, "any"})
    page = Page(
        states=states_of(state or []),
        owner=whose,
        name=name,
        project=project,
        array=array,
        labels=labels_of(label or []),
        members=members,
        limit=limit,
        before=before,
        run="none" if run is None else "any" if run == "any" else int(run),
    )
    if run not in {None, "any"}:
        await run_of(request, caller, int(run or 0))
    if array is not None:
        await job_of(request, caller, str(array))
    text, following = await asyncio.to_thread(_page, controller, caller, page)
    return Response(f'{{"jobs": [{text}], "next": {json.dumps(following)}}}', media_type="application/json")


def owner_seen(caller: Caller, owner: str | None, project: str | None, named: bool = False) -> str | None:
    """Whose jobs a list shows: None for everybody's. `named`: of an array that the caller may see.

    Raises :class:`NotFoundError` for those of others that the caller may not see.
    """
    if caller.admin or caller.act_as or (project is not None and project in caller.leads) or named:
        return owner
    if owner is not None and owner != caller.name:
        raise NotFoundError(f"there are no jobs of {owner[:80]} for you to see")
    return caller.name


def rows_of(database: Database, page: Page) -> Iterator[Job]:
    """The rows of a page, fetched a few at a time: one row may be large."""
    size, left, before = 20, page.limit, page.before
    while left > 0:
        some = min(size, left)
        rows = database.jobs(replace(page, limit=some, before=before))
        yield from rows
        if len(rows) < some:
            return
        left, before, size = left - some, rows[-1].id, min(4 * size, 200)


def _page(controller: Controller, caller: Caller, page: Page) -> tuple[str, int | None]:
    texts, size, last = [], 0, None
    for job in rows_of(controller.database, page):
        known = controller.board.find(job.id) or job
        text = json.dumps(brief(caller.view(controller.board.view(known))))
        size += len(text)
        texts.append(text)
        last = job.id
        if size > PAGE_BYTES:
            break
    full = len(texts) == page.limit or size > PAGE_BYTES
    return ",".join(texts), last if full else None


_LONG_FIELDS = ("script", "command", "args", "env", "parameters", "inputs", "outputs", "depends_on", "labels")


def brief(job: Job) -> dict[str, Any]:
    """The job for a list: what of its spec is long is cut to its beginning."""
    body = job.model_dump(mode="json")
    shortened = [name for name in _LONG_FIELDS if _shorten(body["spec"], name)]
    if shortened:
        body["shortened"] = shortened
    return body


def _shorten(spec: dict[str, Any], name: str) -> bool:
    value = spec[name]
    if not value:
        return False
    if isinstance(value, str):
        if len(value) > LONG:
            spec[name] = value[: LONG // 8] + "..."
            return True
        return False
    if len(json.dumps(value)) <= LONG:
        return False
    if isinstance(value, list):
        spec[name] = [_start(item) for item in value[:4]]
    else:
        spec[name] = {key: _start(item) for key, item in list(value.items())[:4] if len(key) <= LONG}
    return True


def _start(item: Any) -> Any:
    if isinstance(item, str):
        return item if len(item) <= LONG // 8 else item[: LONG // 8] + "..."
    return item if len(json.dumps(item)) <= LONG // 8 else None


@router.get("/jobs/{job_id}")
async def show(request: Request, caller: Who, job_id: JobId) -> Job:
    """One job."""
    job = await job_of(request, caller, job_id)
    return caller.view(controller_of(request).board.view(job))


@router.get("/jobs/{job_id}/events")
async def history(
    request: Request,
    caller: Who,
    job_id: JobId,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=HISTORY)] = 1000,
) -> list[JobEvent]:
    """What happened to it, in order, from the event past ``after`` on."""
    job = await job_of(request, caller, job_id)
    events = controller_of(request).database.events
    return await asyncio.to_thread(events, job=job.id, after=after, limit=limit)


@router.get("/jobs/{job_id}/stats")
async def stats(request: Request, caller: Who, job_id: JobId) -> Stats:
    """What it uses now; all zero when it does not run."""
    job = await job_of(request, caller, job_id)
    if not job.state.on_node or job.node is None:
        return Stats(memory_peak=job.memory_peak, cpu_seconds=job.cpu_seconds)
    found: Stats = await controller_of(request).fabric.call(job.node, "stats", attempt_of(job))
    return found
