"""What happens to a run as it happens, and what its steps made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from perijove.model import NotFoundError, Output, Run, StepRun
from perijove_hub.api.description import BYTES, sends
from perijove_hub.api.events import BEAT, event_number, event_stream, message
from perijove_hub.api.finding import Who, run_of, runs_of
from perijove_hub.workflows.runs import Runs
from perijove_spawners.store import Store, is_tree

router = APIRouter()


@router.get("/workflows/{number}/events", response_class=Response, responses=sends("text/event-stream"))
async def events(
    request: Request, caller: Who, number: int, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Events ``step`` (a step of the run as it is now) and ``run``; the stream ends with the run.

    With ``Last-Event-ID`` first comes each step that has changed since, as it is now.
    """
    await run_of(request, caller, number)
    return event_stream(request, caller, _stream(runs_of(request), number, event_number(last_event_id)))


async def _stream(runs: Runs, number: int, after: int | None) -> AsyncIterator[str]:
    async with runs.telling.subscription(number) as feed:
        yield ": open\n\n"
        now = runs.telling.safe
        if after is not None:
            for step in await runs.changed(number, after):
                yield _message(now, "step", step)
        run = await runs.find(number)
        if run is None:
            return
        if run.state.ended or after is not None:
            yield _message(now, "run", run.model_copy(update={"workflow": None}))
        while not run.state.ended:
            try:
                told = await asyncio.wait_for(feed.get(), BEAT)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if told is None:
                return  # too slow a reader: it comes back with its last id
            seq, what, told_of = told
            yield _message(seq, what, told_of)
            if isinstance(told_of, Run):
                run = told_of


def _message(seq: int, what: str, told: Run | StepRun) -> str:
    return message(what, told.model_dump(mode="json"), seq)


@router.get(
    "/workflows/{number}/steps/{label}/outputs/{name}",
    response_class=Response,
    responses=sends(BYTES, "application/json"),
)
async def output(
    request: Request, caller: Who, number: int, label: str, name: str, path: str | None = None
) -> Response:
    """What a step made: a file's bytes, a value as JSON, of a folder its list or the file ``path``."""
    await run_of(request, caller, number)
    step = await runs_of(request).step(number, label)
    found = step.outputs.get(name)
    if found is None:
        known = ", ".join(sorted(step.outputs)) or "none"
        raise NotFoundError(f"step {label} of run {number} has no output {name[:80]}; it has: {known}")
    return await content(request.app.state.store, found, path)


async def content(store: Store, found: Output, path: str | None) -> Response:
    """An output's bytes, or its value."""
    if found.digest is None:
        return JSONResponse(found.value)
    digest, name = found.digest, found.name
    if is_tree(digest):
        manifest = await asyncio.to_thread(store.open_tree, digest)
        if path is None:
            return Response(manifest.encoded(), media_type="application/json")
        entry = manifest.find(path)
        if entry is None:
            raise NotFoundError(f"there is no file {path[:200]} in this folder")
        digest, name = entry.digest, path.rpartition("/")[2]
    file = await asyncio.to_thread(store.open, digest)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(1 << 20):
                yield piece

    # RFC 8187: a header has no letters of its own beyond ASCII.
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "ETag": f'"{digest}"'}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)
