"""Result records of jobs and of the runs of workflows; runs as files to hand on."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from perijove.model import ConflictError, ResultRecord, Run, StepRun, TooLargeError, Workflow
from perijove_hub.api.description import sends
from perijove_hub.api.finding import (
    JobId,
    Number,
    Who,
    controller_of,
    job_of,
    public_url,
    run_of,
    runs_of,
    view_of,
)
from perijove_hub.identity import Caller
from perijove_hub.workflows import capsule, crate
from perijove_hub.workflows.gathering import Gatherer
from perijove_hub.workflows.record import shareable, shareable_run
from perijove_spawners.store import Store

router = APIRouter()
STEPS = 100_000
"""Of a run that is handed on as one file, at most."""
IN_MEMORY = 16 << 20
"""Bytes of a file that is made without touching the disk."""


@router.get("/jobs/{job_id}/record")
async def record(request: Request, caller: Who, job_id: JobId) -> ResultRecord:
    """Of the job's latest attempt: what went in and came out, where it ran, what it used, how it ended."""
    job = await job_of(request, caller, job_id)
    controller = controller_of(request)
    if controller.board.find(job.id) is not None:
        await controller.committed()  # what it did last is in the history then
    found = await asyncio.to_thread(gatherer(request, caller).record, job)
    if found.machine is None and job.node is not None and not job.state.ended:
        node = controller.ledger.node(job.node)
        found = found.model_copy(update={"machine": node.machine if node is not None else None})
    return shareable(found)


class RunRecords(BaseModel):
    """Records of a run's steps; `next`, given as ``after``, continues."""

    run: Run
    records: list[ResultRecord]
    next: int | None


@router.get("/workflows/{number}/record")
async def records(
    request: Request,
    caller: Who,
    number: int,
    step: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Number | None = None,
) -> RunRecords:
    """The record of each step, in the order of the document; of a cached one that of the job that made it."""
    run, steps = await _ended(request, caller, number, ended=False)
    chosen = [one for one in steps if step in {None, one.step, one.label}]
    start = after or 0
    page = chosen[start : start + limit]
    found = await asyncio.to_thread(
        lambda: list(map(shareable, gatherer(request, caller).records(run, page)))
    )
    return RunRecords(
        run=shareable_run(run), records=found, next=start + limit if start + limit < len(chosen) else None
    )


@router.get("/workflows/{number}/capsule", response_class=Response, responses=sends("application/zip"))
async def capsule_of(request: Request, caller: Who, number: int, data: bool = False) -> StreamingResponse:
    """An ended run as a zip file that can be run again elsewhere; with `data`, its input files too."""
    run, steps = await _ended(request, caller, number)
    workflow, gathered = _document(run), gatherer(request, caller)
    limit = controller_of(request).settings.max_upload

    def make(target: IO[bytes]) -> None:
        source = gathered.source(run.owner)
        found = capsule.contents(workflow, run.parameters, source, data=data, limit=limit)
        made = capsule.documents(run, workflow, gathered.records(run, steps))
        capsule.write(target, run, made, found, source.open)

    return await _zip(make, f"{run.id}.capsule.zip")


@router.get("/workflows/{number}/crate", response_class=Response, responses=sends("application/zip"))
async def crate_of(request: Request, caller: Who, number: int) -> StreamingResponse:
    """An ended run as an RO-Crate (Workflow Run Crate), zipped: its description and code."""
    run, steps = await _ended(request, caller, number)
    workflow, gathered = _document(run), gatherer(request, caller)

    def make(target: IO[bytes]) -> None:
        made = gathered.records(run, steps)
        crate.write(target, run, workflow, list(made), gathered.source(run.owner))

    return await _zip(make, f"{run.id}.crate.zip")


def gatherer(request: Request, caller: Caller) -> Gatherer:
    """Of this request."""
    controller = controller_of(request)
    store: Store = request.app.state.store
    return Gatherer(controller.database, store, f"{public_url(request)}/api/v1", caller)


async def _ended(
    request: Request, caller: Caller, number: int, *, ended: bool = True
) -> tuple[Run, list[StepRun]]:
    """The run with its steps as the database has them; it must have ended, when `ended`."""
    run = await run_of(request, caller, number)
    if ended and not run.state.ended:
        raise ConflictError(f"run {number} has not ended; it can be handed on when it has")
    await controller_of(request).committed()
    steps = await runs_of(request).steps(number)
    if ended and len(steps) > STEPS:
        raise TooLargeError(f"run {number} has {len(steps)} steps; at most {STEPS} go into one file")
    return view_of(caller, run), steps


def _document(run: Run) -> Workflow:
    assert run.workflow is not None, "a single run comes with its document"
    return run.workflow


async def _zip(make: Callable[[IO[bytes]], None], name: str) -> StreamingResponse:
    """What `make` writes, which is made in full first: an error then still has its status."""
    target = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed when it was sent
    try:
        await asyncio.to_thread(make, target)
    except BaseException:
        target.close()
        raise
    size = target.tell()
    target.seek(0)

    def pieces() -> Iterator[bytes]:
        with target:
            while piece := target.read(1 << 20):
                yield piece

    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}
    return StreamingResponse(pieces(), media_type="application/zip", headers=headers)
