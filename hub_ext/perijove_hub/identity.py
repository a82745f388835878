"""Who is asking: a bearer token -> a caller with what they may do."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

from fastapi import Request
from starlette.requests import HTTPConnection

from perijove.model import (
    ForbiddenError,
    Job,
    Kind,
    NotFoundError,
    PerijoveError,
    Scope,
    UnauthorizedError,
    UnavailableError,
)
from perijove_hub.policy.document import Policy
from perijove_hub.tokens.book import Tokens
from perijove_hub.tokens.hub import KEPT, KEPT_LONG, Hub, HubRefusalError
from perijove_hub.tokens.secret import PREFIX
from perijove_hub.users.users import Users

READ, SUBMIT, ADMIN = "custom:perijove:read", "custom:perijove:submit", "custom:perijove:admin"
"""Scopes of hub tokens: look at what is one's own, use the service, see and end everybody's jobs."""
ACT_AS, LOGIN = "custom:perijove:act-as", "custom:perijove:login"
"""Scopes of the hub's services: submit for users, tell who has logged in."""

HIDDEN = "(hidden)"
ENDPOINT = "endpoint.json"
"""How the audit log names the token that `up` left for who runs it."""
Piece = TypeVar("Piece", str, bytes)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    name: str
    admin: bool = False
    act_as: bool = False
    leads: frozenset[str] = frozenset()
    """Projects whose jobs this caller may see and manage."""
    token: str = ""
    """With which token or session they came, as the audit log has it: never the secret itself."""
    scope: Scope = Scope.SUBMIT
    """Of what they came with. ``admin`` says whether they administer, which takes more than the scope."""
    login: bool = False
    """Whether they may tell who has logged in: the hub's authenticator."""
    person: bool = True
    """A user, and no service of the hub's."""
    issued: float | None = math.inf
    """When what they came with was made, seconds since the epoch; None: the hub knows."""

    def owner(self, wanted: str | None) -> str:
        """Whose the jobs of this request are. Raises :class:`ForbiddenError` for somebody else's name."""
        if wanted is None or wanted == self.name:
            return self.name
        if self.act_as:
            return wanted
        raise ForbiddenError(f"you may not submit in the name of {wanted}")

    def sees(self, owner: str) -> bool:
        """Whether jobs of `owner` exist for this caller."""
        return self.admin or self.act_as or owner == self.name

    def may_see(self, job: Job) -> bool:
        """Whether `job` exists for this caller, who may then manage it too."""
        return self.sees(job.owner) or job.spec.project in self.leads

    def must_see(self, job: Job | None, wanted: object) -> Job:
        """`job`; what is not there and what is not theirs look the same (no leak)."""
        if job is None or not self.may_see(job):
            raise NotFoundError(f"there is no job {wanted}")
        return job

    def must_administer(self, what: str) -> None:
        """Raise :class:`ForbiddenError` unless this caller is an administrator; `what` they wanted to do."""
        if not self.admin:
            raise ForbiddenError(f"only an administrator (setting admins, or the hub's) may {what}")

    def role(self, job: Job) -> str:
        """What this caller is to a job that they see: ``owner``, ``lead`` or ``admin``."""
        if job.owner == self.name:
            return "owner"
        return "admin" if self.admin or self.act_as else "lead"

    def view(self, job: Job) -> Job:
        """`job` without what nobody else may know: environments hold tokens, that of a server its own."""
        own = job.owner == self.name and job.spec.kind is not Kind.SERVER
        if own or not job.spec.env:
            return job
        hidden = job.spec.model_copy(update={"env": dict.fromkeys(job.spec.env, HIDDEN)})
        return job.model_copy(update={"spec": hidden})


class Identities(Protocol):
    """From a token to a caller."""

    async def caller(self, token: str) -> Caller:
        """Raises :class:`UnauthorizedError` or :class:`ForbiddenError`."""

    async def administers(self, name: str) -> bool | None:
        """Whether `name` is an administrator now; None: there is no such user (any more)."""

    async def issued(self, caller: Caller) -> float:
        """When what `caller` came with was made, where they do not bring it along."""


@dataclass(frozen=True, slots=True)
class SingleUser:
    """The user who runs the service, known by the token that `up` left for them."""

    name: str
    token: str

    async def caller(self, token: str) -> Caller:
        """See :class:`Identities`."""
        if not secrets.compare_digest(token.encode(errors="surrogatepass"), self.token.encode()):
            raise UnauthorizedError("this token is not valid")
        return Caller(self.name, admin=True, scope=Scope.ADMIN, token=ENDPOINT)

    async def administers(self, name: str) -> bool | None:
        """See :class:`Identities`."""
        return True if name == self.name else None

    async def issued(self, caller: Caller) -> float:
        """See :class:`Identities`. The file is of the user's own."""
        return math.inf


class HubUsers:
    """JupyterHub's users and services, known by hub tokens.

    `auth` is a :class:`jupyterhub.services.auth.HubOAuth` made from the environment of a managed service. An
    answer of the hub is kept for its ``cache_max_age`` seconds: a revoked token lives that long.
    """

    def __init__(self, auth: Any, admins: list[str], hub: Hub) -> None:
        self.auth, self.hub, self._admins = auth, hub, frozenset(admins)

    async def caller(self, token: str) -> Caller:
        """See :class:`Identities`."""
        from tornado.web import HTTPError

        try:
            model = await self.auth.user_for_token(token, sync=False)
        except HTTPError as error:
            if error.status_code >= 500:
                raise UnavailableError("the hub does not answer") from error
            model = None
        if model is None:
            raise UnauthorizedError("this token is not valid, or has expired")
        name, scopes = model["name"], set(model.get("scopes", ()))
        label = f"hub {model.get('token_id') or ''}".strip()
        if model.get("kind") != "user":
            return _service(name, scopes, label)
        scope = _scope(scopes)
        admin = scope is Scope.ADMIN or (scope is Scope.SUBMIT and await self._administers(name, KEPT_LONG))
        widest = Scope.ADMIN if admin else scope
        return Caller(name, admin=bool(admin), token=label, scope=widest, issued=None)

    async def administers(self, name: str) -> bool | None:
        """See :class:`Identities`."""
        return await self._administers(name, KEPT)

    def forget(self) -> None:
        """Ask the hub anew about every token."""
        self.auth.cache.clear()

    async def _administers(self, name: str, kept: float) -> bool | None:
        try:
            found = await self.hub.user(name, kept)
            if found is not None and found.admin:
                found = await self.hub.user(name, KEPT)
        except HubRefusalError:
            # The hub of an operator who gave the service no role that reads users.
            return name in self._admins
        if found is None:
            return None
        return found.admin or name in self._admins

    async def issued(self, caller: Caller) -> float:
        """See :class:`Identities`."""
        return await self.hub.created(caller.name, caller.token.removeprefix("hub "))


def _service(name: str, scopes: set[str], label: str) -> Caller:
    """A service of the hub's, such as the spawner."""
    if ACT_AS in scopes:
        return Caller(name, act_as=True, person=False, token=label)
    if LOGIN in scopes:
        return Caller(name, login=True, person=False, token=label)
    scope = _scope(scopes)
    return Caller(name, admin=scope is Scope.ADMIN, person=False, scope=scope, token=label)


def _scope(scopes: set[str]) -> Scope:
    """The widest of the service's own scopes among those of a hub token."""
    if ADMIN in scopes:
        return Scope.ADMIN
    if SUBMIT in scopes:
        return Scope.SUBMIT
    if READ in scopes:
        return Scope.READ
    raise ForbiddenError(f"this token lacks the scope {SUBMIT} or {READ}")


@dataclass(frozen=True, slots=True)
class OwnFirst:
    """Perijove's own tokens, known by their beginning, and those that `others` know."""

    tokens: Tokens
    others: Identities

    async def caller(self, token: str) -> Caller:
        """See :class:`Identities`."""
        if not token.startswith(PREFIX):
            return await self.others.caller(token)
        found = self.tokens.find(token)
        administers = None if found is None else await self.others.administers(found.owner)
        if found is None or administers is None:
            raise UnauthorizedError("this token is not valid, or has expired")
        return Caller(
            found.owner,
            admin=administers and found.scope is Scope.ADMIN,
            token=f"token {found.id}",
            scope=found.scope,
            issued=found.created,
        )

    async def administers(self, name: str) -> bool | None:
        """See :class:`Identities`."""
        return await self.others.administers(name)

    async def issued(self, caller: Caller) -> float:
        """See :class:`Identities`."""
        return await self.others.issued(caller)


async def bearer(request: HTTPConnection) -> Caller:
    """Whose the token of a request is, whatever they may do."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in {"bearer", "token"} or not token.strip():
        raise UnauthorizedError("give a token: Authorization: Bearer TOKEN")
    identities: Identities = request.app.state.identities
    return await identities.caller(token.strip())


async def caller_of(request: Request) -> Caller:
    """The caller of a request (a FastAPI dependency)."""
    caller = await anybody_of(request)
    if caller.login:
        raise ForbiddenError("the hub's login may only ask who comes in")
    return caller


async def anybody_of(request: Request) -> Caller:
    """The caller of a request that the hub's login may make too."""
    caller = await admitted(request, await bearer(request), request.method)
    if caller.token.startswith("token ") and request.client is not None:
        tokens: Tokens = request.app.state.tokens
        tokens.used(int(caller.token.removeprefix("token ")), request.client.host)
    return caller


READING = frozenset({"GET", "HEAD"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""


async def admitted(connection: HTTPConnection, caller: Caller, method: str = "GET") -> Caller:
    """`caller` with the projects that they lead, if they may do this now.

    The one place where it is looked at who may come in at all, with what, and whether only to look. Raises
    :class:`ForbiddenError` and :class:`UnauthorizedError`.
    """
    if caller.person:
        caller = await must_be_welcome(connection, caller)
    if caller.scope is Scope.READ and method not in READING:
        raise ForbiddenError("this token may only read; make one with the scope submit")
    return known_to(connection, caller)


RECHECK = 5.0
"""Seconds after which who listens is looked at again, at the next thing there is to say."""


async def while_welcome(
    connection: HTTPConnection,
    caller: Caller,
    again: Callable[[], Awaitable[Caller | None]],
    pieces: AsyncIterator[Piece],
) -> AsyncIterator[Piece]:
    """`pieces`, as long as `caller` may be here and what they came with holds: `again` finds them anew."""
    async with aclosing(cast("AsyncGenerator[Piece, None]", pieces)) as coming:
        due = time.monotonic() + RECHECK
        async for piece in coming:
            if time.monotonic() >= due:
                if not await is_welcome(connection, caller, again):
                    return
                due = time.monotonic() + RECHECK
            yield piece


async def is_welcome(
    connection: HTTPConnection, caller: Caller, again: Callable[[], Awaitable[Caller | None]]
) -> bool:
    """Whether somebody who was admitted would be again. A hub that is away for a while ends nothing."""
    try:
        if caller.person:
            await must_be_welcome(connection, caller)
    except PerijoveError:
        return False
    try:
        return await again() is not None
    except UnavailableError:
        return True
    except PerijoveError:
        return False


async def must_be_welcome(connection: HTTPConnection, caller: Caller) -> Caller:
    """`caller`, unless they may not be here now, or what they came with is of no use any more."""
    state = connection.app.state
    users: Users = state.users
    standing = users.standing(caller.name)
    if standing.state != "active":
        raise ForbiddenError(standing.message)
    if standing.valid_from > 0:
        issued = caller.issued
        if issued is None:
            issued = await state.identities.issued(caller)
        if issued < standing.valid_from:
            raise UnauthorizedError("you were signed out everywhere; log in again")
    return replace(caller, admin=False) if caller.admin and standing.admin is False else caller


def known_to(connection: HTTPConnection, caller: Caller) -> Caller:
    """`caller` with the projects that the policy lets them lead."""
    controller = connection.app.state.controller
    policy: Policy = controller.board.policy
    leads = policy.leads(caller.name, controller.core.groups_of(caller.name))
    return replace(caller, leads=leads) if leads else caller
