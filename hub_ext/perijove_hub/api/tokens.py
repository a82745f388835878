"""``/tokens``: API tokens, made, listed and revoked by who owns them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import FieldError, ForbiddenError, InvalidSpecError, NotFoundError, Scope, Token
from perijove.model.values import MAX_ID, Duration, Title
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who
from perijove_hub.identity import Caller
from perijove_hub.tokens.book import Tokens

router = APIRouter()
_WIDTH = {Scope.READ: 0, Scope.SUBMIT: 1, Scope.ADMIN: 2}


class NewToken(BaseModel):
    """What a token is to be."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Title, Field(min_length=1, max_length=100)]
    """Of the device or the program that will use it."""
    scope: Scope = Scope.SUBMIT
    lifetime: Duration | None = None
    """Such as ``30d``; 90 days when not given."""


def tokens_of(request: Request) -> Tokens:
    """The application's tokens."""
    tokens: Tokens = request.app.state.tokens
    return tokens


@router.post("/tokens", status_code=201, openapi_extra=json_body(NewToken))
async def make(request: Request, caller: Who) -> Token:
    """Make a token of one's own; its secret is in this answer and nowhere else."""
    wanted = await read_model(request, NewToken)
    return await make_token(request, caller, wanted.name, wanted.scope, wanted.lifetime)


async def make_token(
    request: Request, caller: Caller, name: str, scope: Scope, lifetime: float | None = None
) -> Token:
    """See :func:`make`. Raises :class:`InvalidSpecError` for a scope wider than the caller's own."""
    must_have(caller, scope)
    return await tokens_of(request).make(caller.name, name, scope, lifetime)


def must_have(caller: Caller, scope: Scope) -> None:
    """Raise unless `caller` came with `scope` or a wider one."""
    if not caller.person:
        raise ForbiddenError("services have tokens of the hub's only")
    widest = caller.scope if caller.admin or caller.scope is not Scope.ADMIN else Scope.SUBMIT
    if _WIDTH[scope] > _WIDTH[widest]:
        said = f"no wider than what you came with yourself: {widest}"
        raise InvalidSpecError(errors=[FieldError("scope", scope, said)])


@router.get("/tokens")
async def tokens(
    request: Request,
    caller: Who,
    owner: Annotated[str | None, Query(max_length=255)] = None,
    all_users: bool = False,
) -> list[Token]:
    """One's tokens that have not expired, without their secrets. Administrators may see anybody's."""
    if owner not in {None, caller.name} or all_users:
        caller.must_administer("see the tokens of others")
    return tokens_of(request).of(None if all_users else owner or caller.name)


@router.delete("/tokens/{number}", status_code=204)
async def revoke(request: Request, caller: Who, number: int) -> Response:
    """Revoke a token at once. Administrators may revoke anybody's."""
    await revoke_token(request, caller, number)
    return Response(status_code=204)


async def revoke_token(request: Request, caller: Caller, number: int) -> None:
    """See :func:`revoke`."""
    found = tokens_of(request).get(number) if 0 <= number <= MAX_ID else None
    if found is None or (found.owner != caller.name and not caller.admin):
        raise NotFoundError(f"you have no token {number}")
    if found.owner != caller.name:
        await record(request, caller, "revoke token", f"user {found.owner}", {"token": found.id})
    await tokens_of(request).revoke(number)
