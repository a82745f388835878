"""``/store``: what it holds and what could go; URLs by which files come and go without a token."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from perijove.model import ForbiddenError, UserError, parse_duration
from perijove.model.values import Digest
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.description import BYTES, sends, takes
from perijove_hub.api.files import Uploaded, keeper_of, must_own, own, streamed, take
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.garbage import Usage
from perijove_hub.private_files import kept_secret
from perijove_spawners.store import is_tree

router = APIRouter()
LONGEST = 7 * 86400
"""Seconds that a signed URL may hold at most, as S3 has it (signature version 4)."""

Duration = Annotated[float, BeforeValidator(parse_duration)]


class ToCollect(BaseModel):
    """What a collection is to remove."""

    model_config = ConfigDict(extra="forbid")

    older_than: Duration | None = None
    """Only what was last put so long ago: seconds, or as ``30d``."""
    dry_run: bool = False
    """Only say what would be removed."""


class Collection(BaseModel):
    """What a collection removed, or would; sizes in bytes."""

    files: int
    size: int
    kept_files: int
    kept_size: int
    dry_run: bool


class ToSign(BaseModel):
    """Which file a URL is to be for."""

    model_config = ConfigDict(extra="forbid")

    digest: Digest
    method: Literal["GET", "PUT"] = "GET"
    seconds: Annotated[int, Field(ge=1, le=LONGEST)] = 3600


class Signed(BaseModel):
    """A URL that needs no token until `expires`, seconds since the epoch."""

    url: str
    method: str
    expires: float
    finish: str | None = None
    """After a PUT to `url`, POST nothing to this one: then the file is checked, and yours."""


@router.get("/store")
async def usage(request: Request, caller: Who) -> dict[str, Any]:
    """What the store holds, in bytes: ``size``, ``needed`` by jobs, runs and results, ``pinned`` of that,
    ``recent``, ``collectable``; ``users`` with what each owns (for others than administrators: you).
    """
    found: Usage = await keeper_of(request).usage(None if caller.admin else caller.name)
    return asdict(found)


@router.post("/store/gc", openapi_extra=json_body(ToCollect))
async def collect(request: Request, caller: Who) -> Collection:
    """Remove what no job, run or result needs; for administrators. What was put in the last hour stays."""
    caller.must_administer("collect the store's garbage")
    wanted = await read_model(request, ToCollect)
    if not wanted.dry_run:
        await record(request, caller, "collect", "store", None, {"older_than": wanted.older_than})
    done = await keeper_of(request).collect(older_than=wanted.older_than or 0.0, dry_run=wanted.dry_run)
    return Collection(**asdict(done))


# ---- signed URLs


@router.post("/files/sign", status_code=201, openapi_extra=json_body(ToSign))
async def sign(request: Request, caller: Who) -> Signed:
    """A URL by which a file of yours can be fetched, or one that you announce be sent, without a token.

    Of a store in a bucket it is the bucket's own, so that the bytes pass by the service; otherwise this
    service's.
    """
    wanted = await read_model(request, ToSign)
    if is_tree(wanted.digest):
        raise UserError("digest: a folder has no URL; sign its files")
    now = controller_of(request).clock()
    expires, signed = now + wanted.seconds, {"by": caller.name, "at": now}
    if wanted.method == "GET":
        await must_own(request, caller, wanted.digest)
        await _must_be_there(request, wanted.digest)
        there = await asyncio.to_thread(keeper_of(request).store.sign, wanted.digest, wanted.seconds)
        own_url = _url(request, {"get": wanted.digest, "until": expires, **signed})
        return Signed(url=there or own_url, method="GET", expires=expires)
    upload = secrets.token_hex(16)
    there = await asyncio.to_thread(keeper_of(request).store.sign_upload, upload, wanted.seconds)
    token = {"put": wanted.digest, "owner": caller.name, "until": expires, **signed}
    if there is None:
        return Signed(url=_url(request, token), method="PUT", expires=expires)
    return Signed(url=there, method="PUT", expires=expires, finish=_url(request, {**token, "upload": upload}))


@router.get("/files/signed/{token}", response_class=Response, responses=sends(BYTES))
async def signed_content(request: Request, token: str) -> Response:
    """The file that this signed URL is for; no token needed."""
    digest = str(_opened(request, token, "get")["get"])
    return await streamed(keeper_of(request).store, digest, digest.removeprefix("sha256:")[:12])


@router.put("/files/signed/{token}", status_code=201, openapi_extra=takes(BYTES))
async def signed_upload(request: Request, token: str) -> Uploaded:
    """Send the file that this signed URL was announced for; anything else is refused."""
    told = _opened(request, token, "put")
    return await take(request, str(told["owner"]), str(told["put"]))


@router.post("/files/signed/{token}", status_code=201)
async def signed_finish(request: Request, token: str) -> Uploaded:
    """Take in what was sent to the bucket by a signed URL; refused when it is not what was announced."""
    told, keeper = _opened(request, token, "upload"), keeper_of(request)
    limit = request.app.state.settings.max_upload
    await keeper.make_room(str(told["owner"]), 0)
    stored = await asyncio.to_thread(keeper.store.take_upload, str(told["upload"]), limit=limit)
    if stored.digest != told["put"]:
        raise UserError(f"what was sent is {stored.digest}, and not {told['put']}")
    await keeper.make_room(str(told["owner"]), stored.size)
    await own(request, str(told["owner"]), {stored.digest: stored.size})
    return Uploaded(digest=stored.digest, size=stored.size)


async def _must_be_there(request: Request, digest: str) -> None:
    await asyncio.to_thread(keeper_of(request).store.size, digest)


def _serializer(request: Request) -> URLSafeSerializer:
    key = kept_secret(request.app.state.settings.state / "cookie-key")
    return URLSafeSerializer(key, salt="files")


def _url(request: Request, told: dict[str, Any]) -> str:
    token = _serializer(request).dumps(told)
    assert isinstance(token, str)
    prefix: str = request.app.state.settings.prefix
    return f"{str(request.base_url).rstrip('/')}{prefix}/api/v1/files/signed/{token}"


def _opened(request: Request, token: str, use: str) -> dict[str, Any]:
    """What a signed URL says. :class:`ForbiddenError` unless it is ours, for that use, and holds still."""
    try:
        told: dict[str, Any] = _serializer(request).loads(token)
    except BadSignature:
        raise ForbiddenError("this URL is not one that this service signed") from None
    if use not in told or (use == "put" and "upload" in told):
        raise ForbiddenError("this URL was signed for something else")
    if controller_of(request).clock() > told["until"]:
        raise ForbiddenError("this URL holds no more; have another one signed")
    standing = request.app.state.users.standing(told["by"])
    if standing.state != "active" or told["at"] < standing.valid_from:
        raise ForbiddenError("who had this URL signed was signed out; have another one signed")
    return told
