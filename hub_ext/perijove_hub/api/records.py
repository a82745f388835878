"""Result records of jobs and of the runs of workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fastapi import APIRouter, Request

from perijove.model import Job, NotFoundError, ResultRecord
from perijove_hub.api.finding import JobId, Who, controller_of, job_of
from perijove_hub.workflows.record import inputs_of, record_of
from perijove_spawners.store import Store

router = APIRouter()


@router.get("/jobs/{job_id}/record")
async def record(request: Request, caller: Who, job_id: JobId) -> ResultRecord:
    """Of the job's latest attempt: what went in and came out, where it ran, what it used, how it ended."""
    job = caller.view(await job_of(request, caller, job_id))
    return await recorded(request, job)


async def recorded(request: Request, job: Job) -> ResultRecord:
    """The record of `job`, which the caller may see."""
    controller = controller_of(request)
    store: Store = request.app.state.store
    if controller.board.find(job.id) is not None:
        await controller.committed()  # what it did last is in the history then
    history = await asyncio.to_thread(controller.database.events, job=job.id)
    size = await asyncio.to_thread(total_size, store, inputs_of(job).values())
    base = str(request.base_url).rstrip("/") + f"{controller.settings.prefix}/api/v1"
    found = record_of(job, history, base=base, input_bytes=size)
    if found.machine is None and job.node is not None and not job.state.ended:
        node = controller.ledger.node(job.node)
        found = found.model_copy(update={"machine": node.machine if node is not None else None})
    return found


def total_size(store: Store, digests: Iterable[str]) -> int:
    """Bytes of those of `digests` that the store has."""
    total = 0
    for digest in set(digests):
        try:
            total += store.size(digest)
        except NotFoundError:
            continue
    return total
