"""Uploaded inputs and kept outputs.

A file is its owner's: whoever uploaded it, or whose job or run made it. For anybody else it is not there,
also when they know its digest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import FieldError, InvalidSpecError, NotFoundError, UserError
from perijove.model.trees import MAX_MANIFEST, entries_of
from perijove.model.values import Digest
from perijove_hub.api.bodies import chunks, json_body, read_body, read_model
from perijove_hub.api.description import BYTES, sends, takes
from perijove_hub.api.finding import JobId, Who, controller_of, job_of
from perijove_hub.garbage import Keeper
from perijove_hub.identity import Caller
from perijove_hub.store import files
from perijove_spawners.store import CHUNK, Entry, Store, is_tree

router = APIRouter()
TREE_TYPE = "application/vnd.perijove.tree+json"
"""Of the list of a folder's files."""


class Uploaded(BaseModel):
    """A file or folder in the store."""

    digest: str
    size: int
    """Bytes."""


class Digests(BaseModel):
    """Files that somebody has, by digest."""

    model_config = ConfigDict(extra="forbid")

    digests: Annotated[list[Digest], Field(max_length=10_000)]


class Missing(BaseModel):
    """Those that have to be uploaded."""

    missing: list[str]


def keeper_of(request: Request) -> Keeper:
    """Who looks after the content store."""
    return controller_of(request).keeper


@router.post("/files", status_code=201, openapi_extra=takes(BYTES))
async def upload(request: Request, caller: Who, owner: str | None = None) -> Uploaded:
    """Put the body into the store; its digest can then be named in ``inputs`` or ``function``."""
    whose = caller.owner(owner)
    announced = request.headers.get("content-length", "")
    await keeper_of(request).make_room(whose, int(announced) if announced.isdecimal() else 0)
    return await take(request, whose)


async def take(request: Request, owner: str, expected: str | None = None) -> Uploaded:
    """The body of `request` as a file of `owner`; ``UserError`` when it is not the `expected` one."""
    keeper, size = keeper_of(request), 0
    store = keeper.store
    writer = await asyncio.to_thread(store.begin)
    try:
        async for chunk in chunks(request, request.app.state.settings.max_upload):
            size += len(chunk)
            await asyncio.to_thread(writer.write, chunk)
        if expected is not None and writer.digest != expected:
            raise UserError(f"what was sent is {writer.digest}, and not {expected}")
        await keeper.make_room(owner, size)
        stored = await asyncio.to_thread(writer.commit)
    finally:
        await asyncio.to_thread(writer.discard)
    await own(request, owner, {stored.digest: stored.size})
    return Uploaded(digest=stored.digest, size=stored.size)


async def own(request: Request, owner: str, sizes: dict[str, int]) -> None:
    """Record whose they are."""
    controller = controller_of(request)
    await asyncio.to_thread(files.add_files, controller.database, owner, sizes, controller.clock())


@router.post("/files/missing", openapi_extra=json_body(Digests))
async def missing(request: Request, caller: Who, owner: str | None = None) -> Missing:
    """Which of these files you have to upload: those that are not yours, or not in the store any more.

    The others stay there for an hour at least, to be named in a job.
    """
    whose = caller.owner(owner)
    asked = (await read_model(request, Digests, 1 << 20)).digests
    have = await _owned(request, whose, asked)
    gone = await keeper_of(request).hold(have.keys())
    return Missing(
        missing=[digest for digest in dict.fromkeys(asked) if digest not in have or digest in gone]
    )


@router.post("/files/tree", status_code=201, openapi_extra=takes("application/json"))
async def put_tree(request: Request, caller: Who, owner: str | None = None) -> Uploaded:
    """Make a folder of files that are yours: ``{"entries": [{"path", "digest", "executable"}]}``.

    Its digest can be named wherever a file's can. Paths are relative, with ``/``.
    """
    whose, keeper = caller.owner(owner), keeper_of(request)
    entries = await asyncio.to_thread(_entries, await read_body(request, MAX_MANIFEST))
    have = await _owned(request, whose, {one.digest for one in entries})
    gone = await keeper.hold(have.keys())
    errors = [
        FieldError(
            f"entries.{i}.digest", one.digest, "no such file was uploaded by you; POST it to /files first"
        )
        for i, one in enumerate(entries)
        if one.digest not in have or one.digest in gone
    ]
    if errors:
        raise InvalidSpecError(errors=errors[:50])
    sized = [Entry(one.path, one.digest, have[one.digest], one.executable) for one in entries]
    try:
        stored = await asyncio.to_thread(keeper.store.put_tree, sized)
    except ValueError as error:
        raise InvalidSpecError(errors=[FieldError("entries", "", str(error))]) from None
    # Its files are counted as they are; the list itself is small.
    await own(request, whose, {stored.digest: 0})
    return Uploaded(digest=stored.digest, size=stored.size)


@router.get("/files/{digest}", response_class=Response, responses=sends(BYTES, TREE_TYPE))
async def content(
    request: Request,
    caller: Who,
    digest: str,
    path: Annotated[str | None, Query(description="of a file in this folder")] = None,
) -> Response:
    """A file that is yours, as bytes; of a folder the list of its files, or the file `path` in it."""
    await must_own(request, caller, digest)
    store = keeper_of(request).store
    if not is_tree(digest):
        return await streamed(store, digest, digest.removeprefix("sha256:")[:12])
    manifest = await asyncio.to_thread(store.open_tree, digest)
    if path is None:
        return Response(manifest.encoded(), media_type=TREE_TYPE)
    entry = manifest.find(path)
    if entry is None:
        raise NotFoundError(f"there is no file {path[:200]!r} in this folder")
    return await streamed(store, entry.digest, path.rpartition("/")[2])


async def must_own(request: Request, caller: Caller, digest: str) -> None:
    """:class:`NotFoundError` unless it is the caller's, or the caller sees everything."""
    if not (caller.admin or caller.act_as) and digest not in await _owned(request, caller.name, [digest]):
        raise NotFoundError(f"you have no file {digest[:80]}")


@router.get("/jobs/{job_id}/outputs/{name}", response_class=Response, responses=sends(BYTES, TREE_TYPE))
async def output(request: Request, caller: Who, job_id: JobId, name: str) -> Response:
    """A declared output of an ended job; of a folder the list of its files."""
    job = await job_of(request, caller, job_id)
    digest = job.outputs.get(name)
    if digest is None:
        known = ", ".join(sorted(job.outputs)) or "none"
        raise NotFoundError(f"job {job.label} has no output {name[:80]}; it has: {known}")
    store: Store = request.app.state.store
    if is_tree(digest):
        manifest = await asyncio.to_thread(store.open_tree, digest)
        return Response(manifest.encoded(), media_type=TREE_TYPE, headers={"ETag": f'"{digest}"'})
    return await streamed(store, digest, name)


async def streamed(store: Store, digest: str, name: str) -> StreamingResponse:
    """The file's bytes, to be kept as `name`."""
    file: BinaryIO = await asyncio.to_thread(store.open, digest)
    # Before the answer begins: what is damaged, and not long, can still be said so.
    first = await asyncio.to_thread(file.read, CHUNK)

    def pieces() -> Iterator[bytes]:
        with file:
            piece = first
            while piece:
                yield piece
                piece = file.read(CHUNK)

    # RFC 8187: a header has no letters of its own beyond ASCII.
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "ETag": f'"{digest}"'}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def _owned(request: Request, owner: str, digests: Collection[str]) -> dict[str, int]:
    database = controller_of(request).database
    return await asyncio.to_thread(files.owned_sizes, database, owner, set(digests))


def _entries(body: bytes) -> list[Entry]:
    try:
        document: Any = json.loads(body)
        if not isinstance(document, dict) or set(document) != {"entries"}:
            raise ValueError('must be {"entries": [{"path", "digest", "executable"}, ...]}')
        return entries_of(document["entries"])
    except (ValueError, RecursionError) as error:
        raise InvalidSpecError(errors=[FieldError("", "", str(error))]) from None
