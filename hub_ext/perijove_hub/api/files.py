"""Uploaded inputs and kept outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from perijove.model import NotFoundError
from perijove_hub.api.bodies import chunks
from perijove_hub.api.finding import JobId, Who, controller_of, job_of
from perijove_spawners.store import Store

router = APIRouter()


class Uploaded(BaseModel):
    """A file in the store."""

    digest: str
    size: int


@router.post("/files", status_code=201)
async def upload(request: Request, caller: Who, owner: str | None = None) -> Uploaded:
    """Put the body into the store; its digest can then be named in ``inputs`` or ``function``."""
    store: Store = request.app.state.store
    whose = caller.owner(owner)
    with store.writer() as writer:
        async for chunk in chunks(request, request.app.state.settings.max_upload):
            await asyncio.to_thread(writer.write, chunk)
        stored = await asyncio.to_thread(writer.commit)
    controller = controller_of(request)
    await asyncio.to_thread(
        controller.database.add_file, stored.digest, whose, stored.size, controller.clock()
    )
    return Uploaded(digest=stored.digest, size=stored.size)


@router.get("/jobs/{job_id}/outputs/{name}")
async def output(request: Request, caller: Who, job_id: JobId, name: str) -> StreamingResponse:
    """A declared output of an ended job."""
    job = await job_of(request, caller, job_id)
    digest = job.outputs.get(name)
    if digest is None:
        known = ", ".join(sorted(job.outputs)) or "none"
        raise NotFoundError(f"job {job.label} has no output {name[:80]}; it has: {known}")
    store: Store = request.app.state.store
    file = await asyncio.to_thread(store.open, digest)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(1 << 20):
                yield piece

    # RFC 8187: a header has no letters of its own beyond ASCII.
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "ETag": f'"{digest}"'}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)
