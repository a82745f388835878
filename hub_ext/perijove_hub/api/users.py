"""Users and guests: who there is, and what administrators and leads of projects do to them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import (
    Budget,
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    LinkedIdentity,
    NotFoundError,
    User,
    UserKind,
    UserState,
)
from perijove.model.values import LINE, Line, Title
from perijove_hub.api.arrivals import users_of
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.tokens.revocation import Revocation
from perijove_hub.users import lifecycle
from perijove_hub.users.lifecycle import Terms
from perijove_hub.users.names import is_name, is_reserved
from perijove_hub.users.person import Person
from perijove_hub.users.watch import Watch
from perijove_spawners.failpoints import reach

router = APIRouter()
Moment = Annotated[float | None, Field(ge=0, le=1e11, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TermsBody(_Body):
    """What a guest is given; what is left out stays, or is as the site has it."""

    expires: Moment = None
    """Seconds since the epoch."""
    budget: Budget = Budget()
    project: Title | None = None

    def terms(self) -> Terms:
        """As the decisions take it."""
        return Terms(self.expires, self.budget, self.project)


class NewUser(TermsBody):
    """Somebody who has not logged in yet."""

    name: Annotated[str, Field(max_length=32)]
    kind: UserKind = UserKind.MEMBER
    number: Annotated[int | None, Field(ge=1, le=9999)] = None
    email: Line = ""
    full_name: Title = ""
    identities: Annotated[list[LinkedIdentity], Field(max_length=20)] = []


class DisableBody(_Body):
    """What becomes of their jobs; by default as the site has it."""

    jobs: Literal["stop", "drain"] | None = None


class PromoteBody(_Body):
    """On which account they work from now on; by default on a number of their own."""

    account: Title | None = None


class RemoveBody(_Body):
    """What becomes of the home that is kept here."""

    files: Title = "kept"
    """``kept``, ``deleted``, or the name of the user whose they are from now on."""


class LoginBody(_Body):
    """A login of a provider."""

    provider: Annotated[str, Field(min_length=1, max_length=64, pattern=LINE)]
    subject: Annotated[Line, Field(min_length=1)]
    email: Line = ""


# ---- who there is


@router.get("/users")
async def users(
    request: Request,
    caller: Who,
    state: Annotated[UserState | None, Query()] = None,
    kind: Annotated[UserKind | None, Query()] = None,
) -> list[User]:
    """Users by name: all for administrators, for leads the guests of their projects, and oneself."""
    return [
        person.user
        for _, person in sorted(users_of(request).people.items())
        if may_see(caller, person.user)
        and (state is None or person.state_at(controller_of(request).clock()) is state)
        and (kind is None or person.user.kind is kind)
    ]


@router.get("/users/{name}")
async def user(request: Request, caller: Who, name: str) -> User:
    """One user."""
    return _seen(request, caller, name).user


def may_see(caller: Caller, user: User) -> bool:
    """Whether `user` exists for this caller."""
    led = user.kind is UserKind.GUEST and user.project is not None and user.project in caller.leads
    return caller.admin or led or user.name == caller.name


def _seen(request: Request, caller: Caller, name: str) -> Person:
    person = users_of(request).people.get(name)
    if person is None or not may_see(caller, person.user):
        raise NotFoundError(f"there is no user {name[:80]}")
    return person


async def _seen_or_made(request: Request, caller: Caller, name: str) -> Person:
    """The same; who has an account and came by another login of the hub gets a record now."""
    users = users_of(request)
    if name not in users.people and (caller.admin or caller.name == name) and users.has_account(name):
        now = controller_of(request).clock()
        await users.add(Person(User(name=name, created=now, activated=now)))
    return _seen(request, caller, name)


async def _managed(request: Request, caller: Caller, name: str, verb: str) -> Person:
    """Somebody whom this caller may do `verb` to: an administrator, or a lead to a guest of the project."""
    person = await _seen_or_made(request, caller, name)
    user = person.user
    led = user.kind is UserKind.GUEST and user.project is not None and user.project in caller.leads
    if not caller.admin and (not led or user.name == caller.name):
        raise ForbiddenError(f"only an administrator may {verb} {name[:80]}")
    return person


def checked(request: Request, caller: Caller, body: TermsBody) -> Terms:
    """What is given. A lead gives no more than the site does by itself, and to the lead's projects."""
    known = controller_of(request).policy.projects
    if body.project is not None and body.project not in (known if caller.admin else caller.leads):
        there = ", ".join(sorted(known if caller.admin else caller.leads))
        text = f"there is no such project; there are: {there}"
        raise InvalidSpecError(errors=[FieldError("project", body.project, text)])
    if caller.admin:
        return body.terms()
    guests, now = request.app.state.settings.guests, controller_of(request).clock()
    disk = body.budget.disk
    if disk is not None and guests.disk is not None and disk > guests.disk:
        text = "more than guests have here; an administrator may give it"
        raise InvalidSpecError(errors=[FieldError("budget.disk", str(disk), text)])
    if body.expires is not None and guests.expires is not None and body.expires > now + guests.expires + 60:
        text = "longer than guests stay here; an administrator may give it"
        raise InvalidSpecError(errors=[FieldError("expires", f"{body.expires:.0f}", text)])
    return body.terms()


async def _note(request: Request, caller: Caller, act: str, person: Person, after: Any = None) -> None:
    before = {"state": person.user.state.value, "kind": person.user.kind.value}
    await record(request, caller, act, f"user {person.user.name}", before, after, project=person.user.project)


# ---- what administrators do


@router.post("/users", status_code=201, openapi_extra=json_body(NewUser))
async def add(request: Request, caller: Who) -> User:
    """Make a user who has not logged in yet, with the logins that will mean them. For administrators."""
    caller.must_administer("add users")
    body = await read_model(request, NewUser)
    settings, now = request.app.state.settings, controller_of(request).clock()
    if not is_name(body.name) or is_reserved(body.name, settings.uids):
        text = "must be a name as system accounts have them, and none that means something else here"
        raise InvalidSpecError(errors=[FieldError("name", body.name, text)])
    checked(request, caller, body)
    guest = body.kind is UserKind.GUEST
    new = User(
        name=body.name,
        kind=body.kind,
        state=UserState.WAITING if guest else UserState.ACTIVE,
        number=body.number,
        email=body.email,
        full_name=body.full_name,
        identities=body.identities,
        created=now,
        activated=None if guest else now,
        expires=body.expires,
        budget=body.budget,
        project=body.project,
        sponsor=caller.name,
    )
    await record(request, caller, "add", f"user {body.name}", after={"kind": body.kind.value})
    return await users_of(request).add(Person(new))


@router.post("/users/{name}/activate", openapi_extra=json_body(TermsBody, optional=True))
async def activate(request: Request, caller: Who, name: str) -> User:
    """Let somebody in who waits. For administrators, and leads of the project a guest was invited to."""
    person = await _managed(request, caller, name, "activate")
    terms = checked(request, caller, await read_model(request, TermsBody, optional=True))
    await _note(request, caller, "activate", person, {"expires": terms.expires})
    return await users_of(request).activate(name, terms, caller.name)


@router.post("/users/{name}/extend", openapi_extra=json_body(TermsBody, optional=True))
async def extend(request: Request, caller: Who, name: str) -> User:
    """Give a guest more time, or another budget. As for activation."""
    person = await _managed(request, caller, name, "extend")
    terms = checked(request, caller, await read_model(request, TermsBody, optional=True))
    budget = terms.budget.model_dump(exclude_none=True) if terms.budget else {}
    await _note(request, caller, "extend", person, {"expires": terms.expires, **budget})
    user = await users_of(request).extend(name, terms)
    watch_of(request).look_again()
    return user


@router.post("/users/{name}/disable", openapi_extra=json_body(DisableBody, optional=True))
async def disable(request: Request, caller: Who, name: str) -> User:
    """Keep somebody out and end their jobs, or let those go on that run. As for activation."""
    person = await _managed(request, caller, name, "disable")
    if name == caller.name:
        raise ConflictError("you would lock yourself out; another administrator may")
    body = await read_model(request, DisableBody, optional=True)
    await _note(request, caller, "disable", person, {"jobs": body.jobs})
    drain = None if body.jobs is None else body.jobs == "drain"
    return await _out(request, await users_of(request).disable(name, drain=drain))


@router.post("/users/{name}/enable")
async def enable(request: Request, caller: Who, name: str) -> User:
    """Let somebody in again who was disabled. As for activation."""
    person = await _managed(request, caller, name, "enable")
    await _note(request, caller, "enable", person)
    return await users_of(request).enable(name)


@router.post("/users/{name}/promote", openapi_extra=json_body(PromoteBody, optional=True))
async def promote(request: Request, caller: Who, name: str) -> User:
    """Make a guest a member, of the same name: jobs and files stay theirs. For administrators.

    None of their jobs may be on a node: the files change their owner.
    """
    caller.must_administer("promote guests")
    person = _seen(request, caller, name)
    body = await read_model(request, PromoteBody, optional=True)
    controller = controller_of(request)
    if controller.board.standing.account("user", name, None).running:
        raise ConflictError(f"{name} has jobs that run; promote them when these have ended")
    await _note(request, caller, "promote", person, {"account": body.account})
    await users_of(request).promote(name, body.account)
    reach("serve.promoted")
    await watch_of(request).move(name)
    return users_of(request).must_get(name).user


@router.post("/users/{name}/remove", openapi_extra=json_body(RemoveBody, optional=True))
async def remove(request: Request, caller: Who, name: str) -> User:
    """Remove somebody for good; the name is nobody else's ever. For administrators.

    Their home is kept, deleted, or another user's from now on, once their jobs have ended.
    """
    caller.must_administer("remove users")
    person = _seen(request, caller, name)
    if name == caller.name:
        raise ConflictError("you would lock yourself out; another administrator may")
    body = await read_model(request, RemoveBody, optional=True)
    await _note(request, caller, "remove", person, {"files": body.files})
    return await _out(request, await users_of(request).remove(name, body.files))


@router.post("/users/{name}/release")
async def release(request: Request, caller: Who, name: str) -> User:
    """Let another guest have the pool's account of one who is none any more. For administrators.

    Only when no node has a home of theirs that belongs to it. Directories and logs of their jobs go too: of
    who was removed now; who was promoted has to archive these jobs before.
    """
    caller.must_administer("release accounts")
    person = _seen(request, caller, name)
    lifecycle.released(person)
    jobs = await watch_of(request).left_of(name)
    if jobs and person.user.state is not UserState.REMOVED:
        some = " ".join(str(job) for job in jobs[:5])
        text = f"directories of {len(jobs)} jobs of {name} belong to {person.holds} yet"
        raise ConflictError(f"{text}; archive them: perijove archive {some}{' ...' if len(jobs) > 5 else ''}")
    await _note(request, caller, "release", person, {"account": person.holds, "archived": len(jobs)})
    if jobs:
        await controller_of(request).archive(jobs, caller.name)
    return await users_of(request).release(name)


@router.post("/users/{name}/link", openapi_extra=json_body(LoginBody))
async def link(request: Request, caller: Who, name: str) -> User:
    """Have another login of a provider mean this user. For administrators."""
    caller.must_administer("link logins")
    person = _seen(request, caller, name)
    body = await read_model(request, LoginBody)
    await _note(request, caller, "link", person, {"provider": body.provider, "subject": body.subject})
    login = LinkedIdentity(provider=body.provider, subject=body.subject, email=body.email)
    return await users_of(request).link(name, login)


@router.post("/users/{name}/unlink", openapi_extra=json_body(LoginBody))
async def unlink(request: Request, caller: Who, name: str) -> User:
    """Have a login mean this user no more; who comes by it is somebody new. For administrators."""
    caller.must_administer("unlink logins")
    person = _seen(request, caller, name)
    body = await read_model(request, LoginBody)
    await _note(request, caller, "unlink", person, {"provider": body.provider, "subject": body.subject})
    return await users_of(request).unlink(name, body.provider, body.subject)


@router.post("/users/{name}/sign-out")
async def sign_out(request: Request, caller: Who, name: str) -> User:
    """End all sessions, tokens and notebook servers of somebody: a laptop was lost.

    For oneself, and administrators.
    """
    person = await _seen_or_made(request, caller, name)
    if not caller.admin and name != caller.name:
        raise ForbiddenError(f"only an administrator may sign {name[:80]} out")
    if name != caller.name:
        await _note(request, caller, "sign-out", person)
    return await _out(request, await users_of(request).sign_out(name))


async def _out(request: Request, user: User) -> User:
    """What was let in before is ended now, jobs of who may have none too."""
    revocation: Revocation = request.app.state.revocation
    await asyncio.gather(watch_of(request).end_jobs(), revocation.sign_out(user.name, user.valid_from))
    return user


def watch_of(request: Request) -> Watch:
    """The application's watch over people."""
    watch: Watch = request.app.state.watch
    return watch
