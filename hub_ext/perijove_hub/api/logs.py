"""``/jobs/{id}/logs``: what a job wrote, once or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from perijove.model import Job, UnavailableError
from perijove.model.values import MAX_ID
from perijove_hub.api.description import sends
from perijove_hub.api.events import event_number, event_stream, message
from perijove_hub.api.finding import JobId, Who, controller_of, find, job_of
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_spawners.protocol import LogChunk

router = APIRouter()
Stream = Literal["stdout", "stderr", "display", "engine"]

CHUNK = 1 << 20
"""Bytes asked of a node at once."""
WAIT = 10.0
"""Seconds a node is asked to wait for more."""
RETRY = 1.0
"""Seconds between two tries while the node does not answer or has not begun."""


@router.get(
    "/jobs/{job_id}/logs",
    response_class=Response,
    responses=sends("text/plain", "text/event-stream"),
)
async def logs(
    request: Request,
    caller: Who,
    job_id: JobId,
    stream: Stream = "stdout",
    offset: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=64 << 20)] = CHUNK,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """A piece of the log from byte ``offset``; with ``follow`` server-sent events until the attempt ends.

    ``Perijove-Log-End: true`` says that nothing will follow the piece.
    """
    job = await job_of(request, caller, job_id)
    if follow:
        resumed = event_number(last_event_id)
        start = offset if resumed is None else resumed
        return event_stream(request, caller, _follow(controller_of(request), job, stream, start))
    chunk = await _read(controller_of(request), job, stream, offset, limit)
    headers = {"Perijove-Log-End": str(chunk.end).lower(), "Perijove-Log-Offset": str(chunk.offset)}
    # Never text/html: a log is a user's text, and opens in the browser of whoever looks at it.
    return Response(
        chunk.data, headers={**headers, "X-Content-Type-Options": "nosniff"}, media_type="text/plain"
    )


async def _read(
    controller: Controller, job: Job, stream: Stream, offset: int, limit: int, wait: float = 0.0
) -> LogChunk:
    """A piece of the log of the job's latest attempt; empty before the first."""
    if job.node is None or job.attempt == 0:
        return LogChunk(b"", offset, end=job.state.ended)
    chunk = await controller.fabric.call(job.node, "logs", attempt_of(job), stream, offset, limit, wait=wait)
    return chunk or LogChunk(b"", offset, end=job.state.ended)


async def _follow(controller: Controller, job: Job, stream: Stream, offset: int) -> AsyncIterator[str]:
    """Events ``chunk`` and at last ``end``. The id of an event is the offset behind it.

    Bytes that are no UTF-8 travel as lone surrogates (PEP 383), so that a client can have the very bytes.
    """
    attempt: int | None = job.attempt or None
    while True:
        current = await find(controller, str(job.id)) or job
        attempt = attempt or current.attempt or None
        again = current.attempt != attempt and attempt is not None  # requeued: this attempt is over
        try:
            chunk = await _read(controller, current, stream, offset, CHUNK, WAIT)
        except UnavailableError:
            await asyncio.sleep(RETRY)
            chunk = LogChunk(b"", offset, end=False)
        data = chunk.data if chunk.end else whole(chunk.data)
        if data and not again:
            offset = chunk.offset + len(data)
            yield message("chunk", {"text": data.decode(errors="surrogateescape")}, offset)
        if again or (chunk.end and len(data) < CHUNK):
            yield message("end", {"state": current.state}, offset)
            return
        if not data:
            # Also what keeps proxies from closing a quiet connection.
            yield ": waiting\n\n"
            if current.node is None or not current.state.on_node or chunk.end is False:
                await asyncio.sleep(RETRY if current.node is None else 0.05)


def whole(data: bytes) -> bytes:
    """`data` without the beginning of a character that its end cuts in two."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if needed > back and len(data) > back else data
    return data
