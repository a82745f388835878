"""Who is asking: a bearer token -> a caller with what they may do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fastapi import Request

from perijove.model import ForbiddenError, Job, Kind, NotFoundError, UnauthorizedError, UnavailableError
from perijove_hub.accounts import groups_of
from perijove_hub.policy.document import Policy

SUBMIT, ADMIN, ACT_AS = "custom:perijove:submit", "custom:perijove:admin", "custom:perijove:act-as"
"""Scopes of hub tokens: use the service at all, see and end everybody's jobs, submit for others."""

HIDDEN = "(hidden)"


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
            raise ForbiddenError(f"only an administrator may {what}")

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


@dataclass(frozen=True, slots=True)
class SingleUser:
    """The user who runs the service, known by the token that `up` left for them."""

    name: str
    token: str

    async def caller(self, token: str) -> Caller:
        """See :class:`Identities`."""
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise UnauthorizedError("this token is not valid")
        return Caller(self.name, admin=True)


class HubUsers:
    """JupyterHub's users and services, known by hub tokens.

    `auth` is a :class:`jupyterhub.services.auth.HubOAuth` made from the environment of a managed service. An
    answer of the hub is kept for its ``cache_max_age`` seconds: a revoked token lives that long.
    """

    def __init__(self, auth: Any, admins: list[str]) -> None:
        self.auth, self._admins = auth, frozenset(admins)

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
        scopes = set(model.get("scopes", ()))
        if ACT_AS in scopes:
            return Caller(model["name"], act_as=True)
        if SUBMIT not in scopes:
            raise ForbiddenError(f"this token lacks the scope {SUBMIT}")
        admin = ADMIN in scopes or (model.get("kind") == "user" and model["name"] in self._admins)
        return Caller(model["name"], admin=admin)


async def caller_of(request: Request) -> Caller:
    """The caller of a request (a FastAPI dependency)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in {"bearer", "token"} or not token.strip():
        raise UnauthorizedError("give a token: Authorization: Bearer TOKEN")
    identities: Identities = request.app.state.identities
    return known_to(request, await identities.caller(token.strip()))


def known_to(request: Request, caller: Caller) -> Caller:
    """`caller` with the projects that the policy lets them lead."""
    policy: Policy = request.app.state.controller.board.policy
    leads = policy.leads(caller.name, groups_of(caller.name))
    return replace(caller, leads=leads) if leads else caller
