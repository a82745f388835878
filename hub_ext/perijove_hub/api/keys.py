"""``/keys``: one's public keys for SSH."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from perijove.model import FieldError, InvalidSpecError, NotFoundError, SshKey, UserError
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.store.tokens import add_key, keys_of, remove_key
from perijove_hub.tokens.book import durably
from perijove_hub.tokens.ssh_keys import PublicKey, public_key

router = APIRouter()
MOST = 50
"""Keys of one user."""


class NewKey(BaseModel):
    """A key as it is in the file ``.pub``."""

    model_config = ConfigDict(extra="forbid")

    key: str


class AuthorizedKeys(BaseModel):
    """Who may open sessions of a user."""

    name: str
    lines: list[str]
    """As in ``authorized_keys`` (sshd(8)), without options."""


@router.get("/keys")
async def keys(request: Request, caller: Who) -> list[SshKey]:
    """One's keys, the oldest first."""
    return await keys_of_user(request, caller.name)


async def keys_of_user(request: Request, name: str) -> list[SshKey]:
    """See :func:`keys`."""
    return [key.told(at) for key, at in await _kept(request, name)]


@router.post("/keys", status_code=201, openapi_extra=json_body(NewKey))
async def add(request: Request, caller: Who) -> SshKey:
    """Add a key: Ed25519, ECDSA, RSA of 3072 bits at least, or one of a security key."""
    return await add_key_of(request, caller, (await read_model(request, NewKey)).key)


async def add_key_of(request: Request, caller: Caller, line: str) -> SshKey:
    """See :func:`add`."""
    try:
        key = public_key(line)
    except ValueError as error:
        raise InvalidSpecError(errors=[FieldError("key", line[:40], str(error))]) from None
    now = time.time()

    def act(connection: Connection) -> None:
        others = [row for row in keys_of(connection, caller.name) if row.fingerprint != key.fingerprint]
        if len(others) >= MOST:
            raise UserError(f"you have {MOST} keys; remove those that you do not need")
        add_key(connection, caller.name, key.fingerprint, key.line, now)

    await durably(controller_of(request).database, act)
    return key.told(now)


@router.delete("/keys/{fingerprint:path}", status_code=204)
async def remove(request: Request, caller: Who, fingerprint: str) -> Response:
    """Remove a key."""
    await remove_key_of(request, caller, fingerprint)
    return Response(status_code=204)


async def remove_key_of(request: Request, caller: Caller, fingerprint: str) -> None:
    """See :func:`remove`."""
    act = partial(remove_key, owner=caller.name, fingerprint=fingerprint[:200])
    if not await durably(controller_of(request).database, act):
        raise NotFoundError(f"you have no key {fingerprint[:80]}")


@router.get("/users/{name}/keys")
async def authorized(request: Request, caller: Who, name: str) -> AuthorizedKeys:
    """Lines for a user's ``authorized_keys``: for themselves, and for services that act for users."""
    if name != caller.name and not caller.act_as:
        raise NotFoundError(f"there is no user {name[:80]}")
    return AuthorizedKeys(name=name, lines=[key.line for key, _ in await _kept(request, name)])


async def _kept(request: Request, name: str) -> list[tuple[PublicKey, float]]:
    database = controller_of(request).database
    rows = await asyncio.to_thread(database.read, partial(keys_of, owner=name))
    return [(public_key(row.line), row.at) for row in rows]
