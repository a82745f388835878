"""``/nodes/join``: tokens that are good once, and the certificates that hosts get for them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from functools import partial
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import ConflictError, ForbiddenError, NotFoundError, OperatorError, UnavailableError
from perijove.model.values import Word
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.auditing import AuditLog
from perijove_hub.private_files import kept_name
from perijove_hub.settings import Settings
from perijove_hub.store import joining
from perijove_hub.store.joining import JoinRecord
from perijove_spawners.fabric.renewing import renewed
from perijove_spawners.fabric.tls import Authority
from perijove_spawners.fabric.worker import scheduler_address
from perijove_spawners.joining import Joined, JoinToken, answer_of, checked_request

log = logging.getLogger(__name__)
router = APIRouter()
public = APIRouter()
LIFE = 3600.0
"""Seconds in which a token is good."""


class NewToken(BaseModel):
    """Which node is to join."""

    model_config = ConfigDict(extra="forbid")

    node: Word


class JoinTokenView(BaseModel):
    """A token with which one node may join, once; times in seconds since the epoch."""

    node: str
    by: str
    created: float
    expires: float
    used: float | None = None
    token: str | None = None
    """Only in the answer that made it."""
    scheduler: str | None = None
    """Likewise: where the node will look for the scheduler."""
    reachable: bool | None = None
    """Likewise: whether hosts other than the service's own can reach it there."""


@router.post("/nodes/join-tokens", status_code=201, openapi_extra=json_body(NewToken))
async def create_token(request: Request, caller: Who) -> JoinTokenView:
    """A token with which one host may join as that node, once, within an hour. For administrators.

    A token for the same node that was not used holds no more.
    """
    caller.must_administer("let nodes join")
    node = (await read_model(request, NewToken)).node
    settings, controller = _settings(request), controller_of(request)
    scheduler = _scheduler(settings)
    token = JoinToken.make(await asyncio.to_thread(Authority.at, settings.tls))
    now = controller.clock()
    row = JoinRecord(token.hash, node, caller.name, now, now + LIFE, None)
    await record(request, caller, "create join token", f"node {node}", None, {"expires": row.expires})
    await asyncio.to_thread(controller.database.write, partial(joining.add, token=row))
    more = {"token": token.text, "scheduler": scheduler, "reachable": not _is_loopback(scheduler)}
    return _view(row).model_copy(update=more)


@router.get("/nodes/join-tokens")
async def list_tokens(request: Request, caller: Who) -> list[JoinTokenView]:
    """Tokens of the last days, the newest first, without the tokens themselves. For administrators."""
    caller.must_administer("let nodes join")
    rows = await asyncio.to_thread(controller_of(request).database.read, joining.tokens)
    return [_view(row) for row in rows]


@router.delete("/nodes/join-tokens/{node}", status_code=204)
async def withdraw_token(request: Request, caller: Who, node: str) -> Response:
    """Let the token of a node that did not join yet hold no more. For administrators."""
    caller.must_administer("let nodes join")
    controller = controller_of(request)
    known = await asyncio.to_thread(controller.database.read, joining.tokens)
    if not any(row.node == node and row.used is None for row in known):
        raise NotFoundError(f"there is no token for a node {node[:80]} that was not used")
    await record(request, caller, "withdraw join token", f"node {node}")
    await asyncio.to_thread(controller.database.write, partial(joining.withdraw, node=node))
    return Response(status_code=204)


class JoinRequest(BaseModel):
    """A host's request; :mod:`perijove_spawners.joining` says how it is made."""

    model_config = ConfigDict(extra="forbid")

    node: Word
    csr: Annotated[str, Field(max_length=8192)]
    """A request for a certificate, PEM (PKCS #10)."""
    key: Annotated[str, Field(max_length=64)]
    """The token's public key, base64."""
    signature: Annotated[str, Field(max_length=128)]
    """With the token, over `node` and `csr`; base64."""


class JoinAnswer(BaseModel):
    """What the node needs, signed by the installation's authority."""

    answer: str
    """A JSON object: ``node``, ``scheduler``, ``store``, ``installation``, ``certificate``, ``authority``
    and ``request``, the SHA-256 of the request for a certificate."""
    signature: str
    """Base64."""


@public.post("/nodes/join", status_code=201, openapi_extra=json_body(JoinRequest))
async def join(request: Request) -> JoinAnswer:
    """Let a host join that has a token: a certificate for its key. No other token is needed."""
    asked = await read_model(request, JoinRequest)
    hash_, public = checked_request(asked.node, asked.csr, asked.key, asked.signature)
    settings, controller = _settings(request), controller_of(request)
    token = await asyncio.to_thread(controller.database.read, partial(joining.find, hash_=hash_))
    now = controller.clock()
    if problem := refusal(token, asked.node, now):
        log.warning("a request to join as node %s was refused: %s", asked.node, problem)
        raise ForbiddenError(problem)
    told = Joined(
        asked.node,
        _scheduler(settings),
        settings.store,
        await asyncio.to_thread(kept_name, settings.state / "installation"),
    )
    authority = await asyncio.to_thread(Authority.at, settings.tls)
    certificate = authority.issue(public, "node", asked.node)
    said = {"certificate": f"{certificate.serial_number:x}"}
    await record(request, f"node {asked.node}", "join", f"node {asked.node}", None, said)
    if not await asyncio.to_thread(controller.database.write, partial(joining.use, hash_=hash_, now=now)):
        raise ForbiddenError("this token has been used; have another one made")
    controller.nodes.gone.discard(asked.node)
    return JoinAnswer(**answer_of(authority, asked.csr, certificate, told))


async def renew_certificate(tls: Path, audit: AuditLog, old: bytes) -> bytes:
    """A node's certificate made anew, in time. :class:`ForbiddenError`: it is none that may be."""
    authority = await asyncio.to_thread(Authority.at, tls)
    name, made = await asyncio.to_thread(renewed, authority, tls, old)
    said = {"certificate": f"{made.serial_number:x}", "renewed": True}
    await audit.note(f"node {name}", "join", f"node {name}", after=said)
    return made.public_bytes(Encoding.PEM)


def refusal(token: JoinRecord | None, node: str, now: float) -> str:
    """Why `node` may not join with `token`; empty when it may."""
    if token is None:
        return "this token is not one of this service, or was withdrawn"
    if token.node != node:
        return f"this token is not for a node named {node}"
    if token.used is not None:
        return "this token has been used; have another one made"
    return "this token has expired; have another one made" if token.expires <= now else ""


def _view(row: JoinRecord) -> JoinTokenView:
    return JoinTokenView(node=row.node, by=row.by, created=row.created, expires=row.expires, used=row.used)


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _scheduler(settings: Settings) -> str:
    if not settings.scheduler:
        raise ConflictError("this service has no Dask scheduler; nodes cannot join it")
    try:
        return scheduler_address(settings.scheduler)
    except (OSError, OperatorError):
        raise UnavailableError("the Dask scheduler has not started yet") from None


def _is_loopback(address: str) -> bool:
    host = address.partition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
