"""``/events``: every change of one's jobs, as server-sent events that can be resumed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse

from perijove.model import Job, JobEvent
from perijove_hub.api.description import sends
from perijove_hub.api.finding import Who, controller_of, find, job_of
from perijove_hub.identity import Caller, bearer, while_welcome
from perijove_hub.jobs.controller import Controller

router = APIRouter()
BEAT = 15.0
"""Seconds after which a quiet stream sends a comment, so that proxies keep it open."""


def message(event: str, data: Any, identity: int) -> str:
    """One server-sent event (WHATWG HTML, section 9.2)."""
    return f"id: {identity}\nevent: {event}\ndata: {json.dumps(data)}\n\n"


def event_stream(request: Request, caller: Caller, messages: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events that no proxy keeps or holds back, for as long as `caller` may have them."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    told = while_welcome(request, caller, partial(bearer, request), messages)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


def event_number(last_event_id: str | None) -> int | None:
    """The number that a client was given as an event's id; None for anything else."""
    return int(last_event_id) if last_event_id and re.fullmatch("[0-9]{1,18}", last_event_id) else None


@router.get("/events", response_class=Response, responses=sends("text/event-stream"))
async def events(
    request: Request,
    caller: Who,
    job: str | None = None,
    all_users: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Events ``job``, each with the event and the job as it is after it.

    With ``Last-Event-ID`` (or without it, from now on) nothing is left out: history first, then what comes.
    """
    wanted = (await job_of(request, caller, job)).id if job is not None else None
    owner = None if wanted is not None or (caller.admin and all_users) else caller.name
    after = event_number(last_event_id)
    return event_stream(request, caller, _stream(controller_of(request), caller, wanted, owner, after))


async def _stream(
    controller: Controller, caller: Caller, job: int | None, owner: str | None, after: int | None
) -> AsyncIterator[str]:
    async with controller.subscription() as feed:
        yield ": open\n\n"
        last = after or 0
        if after is not None:
            async for entry, subject in _past(controller, job, owner, after):
                last = entry.seq
                yield _event(entry, caller.view(subject))
        while True:
            try:
                item = await asyncio.wait_for(feed.get(), BEAT)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if item is None:
                return  # too slow a reader: it comes back with its last id
            entry, subject = item
            mine = (owner is None or entry.owner == owner) and (job is None or entry.job == job)
            if mine and entry.seq >= last:
                yield _event(entry, caller.view(controller.board.view(subject)))


async def _past(
    controller: Controller, job: int | None, owner: str | None, after: int
) -> AsyncIterator[tuple[JobEvent, Job]]:
    while True:
        some = await asyncio.to_thread(controller.database.events, after=after, job=job, owner=owner)
        for entry in some:
            after = entry.seq
            if (subject := await find(controller, str(entry.job))) is not None:
                yield entry, controller.board.view(subject)
        if len(some) < 1000:
            return


def _event(entry: JobEvent, job: Job) -> str:
    data = {"event": asdict(entry), "job": job.model_dump(mode="json")}
    return message("job", data, entry.seq)
