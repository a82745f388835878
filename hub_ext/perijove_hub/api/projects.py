"""Projects, their members and what each may use: parts of the policy that are changed one by one."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import FieldError, ForbiddenError, InvalidSpecError, NotFoundError, UserError
from perijove.model.values import Word
from perijove_hub.api.bodies import SMALL, json_body, read_body, read_model
from perijove_hub.api.desk import policy_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.api.policies import edit
from perijove_hub.identity import Caller

router = APIRouter()
_ANY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
Part = dict[str, Any]
NESTED = 200
"""Lists and objects in what is sent; a project has ten."""


class ProjectPart(BaseModel):
    """A project as the policy has it now."""

    name: str
    project: dict[str, Any]
    made: bool = False
    """It was not there before."""


class UserLimits(BaseModel):
    """What a user may use at most, over all projects."""

    name: str
    limits: dict[str, Any]


class Member(BaseModel):
    """Who is to be in a project."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(min_length=1, max_length=128)]
    """A name; of administrators also a pattern, or ``@GROUP``."""
    lead: bool = False
    """As one who leads it; for administrators."""


@router.put("/projects/{name}", openapi_extra=_ANY)
async def set_project(request: Request, caller: Who, name: str) -> ProjectPart:
    """Make a project, or change the fields that are given; null takes one back. For administrators.

    The fields are those of the policy. Its text is written anew: comments in it are lost.
    """
    caller.must_administer("change projects")
    given = await _object(request)
    made = name not in policy_of(controller_of(request)).projects

    def put(content: Part) -> None:
        project = content.setdefault("projects", {}).setdefault(name, {}) or {}
        merged = {**project, **given}
        content["projects"][name] = {key: value for key, value in merged.items() if value is not None}

    return (await _change(request, caller, name, put)).model_copy(update={"made": made})


@router.delete("/projects/{name}", status_code=204)
async def remove_project(request: Request, caller: Who, name: str) -> Response:
    """Remove a project. Its jobs stay, and so does what they were charged. For administrators."""
    caller.must_administer("change projects")
    _must_lead(request, caller, name)

    def remove(content: Part) -> None:
        (content.get("projects") or {}).pop(name, None)

    await edit(request, caller, f"project {name[:80]}", remove, name)
    return Response(status_code=204)


@router.post("/projects/{name}/members", openapi_extra=json_body(Member))
async def add_member(request: Request, caller: Who, name: str) -> ProjectPart:
    """Let somebody have jobs in the project. For those who lead it, and administrators."""
    _must_lead(request, caller, name)
    who = await read_model(request, Member)
    if who.lead:
        caller.must_administer("say who leads a project")
    if not caller.admin and set(who.user) & set("*?[]@"):
        raise ForbiddenError("only an administrator may add patterns and groups; give one name")

    def put(content: Part) -> None:
        listed = content["projects"][name].setdefault("leads" if who.lead else "members", [])
        if who.user not in listed:
            listed.append(who.user)

    return await _change(request, caller, name, put)


@router.delete("/projects/{name}/members/{user}")
async def remove_member(
    request: Request, caller: Who, name: str, user: str, lead: bool = False
) -> ProjectPart:
    """Let them have no more jobs in the project; those that are there go on. `lead`: they lead it no more."""
    _must_lead(request, caller, name)
    if lead:
        caller.must_administer("say who leads a project")

    def remove(content: Part) -> None:
        project = content["projects"][name]
        listed = project.get("leads" if lead else "members") or []
        if user not in listed:
            raise NotFoundError(f"{user[:80]} is not among the {'leads' if lead else 'members'} of {name}")
        listed.remove(user)
        if not lead:
            (project.get("limits_of") or {}).pop(user, None)

    return await _change(request, caller, name, remove)


@router.put("/projects/{name}/member-limits", openapi_extra=_ANY)
async def limit_members(request: Request, caller: Who, name: str) -> ProjectPart:
    """What each member may use at most, within what all of it may. For those who lead it."""
    _must_lead(request, caller, name)
    given = await _object(request)

    def put(content: Part) -> None:
        content["projects"][name]["member_limits"] = given

    return await _change(request, caller, name, put)


@router.put("/projects/{name}/members/{user}/limits", openapi_extra=_ANY)
async def limit_member(request: Request, caller: Who, name: str, user: str) -> ProjectPart:
    """What one member may use at most, in place of what each may; an empty object takes it back."""
    _must_lead(request, caller, name)
    given = await _object(request)

    def put(content: Part) -> None:
        limits = content["projects"][name].setdefault("limits_of", {})
        limits.pop(user, None)
        if given:
            limits[user] = given

    return await _change(request, caller, name, put)


@router.put("/users/{name}/limits", openapi_extra=_ANY)
async def limit_user(request: Request, caller: Who, name: Word) -> UserLimits:
    """What a user may use at most, over all projects; an empty object takes it back. For administrators."""
    caller.must_administer("limit users")
    given = await _object(request)

    def put(content: Part) -> None:
        users = content.setdefault("users", {})
        users[name] = {**(users.get(name) or {}), "limits": given}

    await edit(request, caller, f"user {name}", put)
    user = policy_of(controller_of(request)).users.get(name)
    return UserLimits(name=name, limits=user.limits.model_dump(exclude_none=True) if user else {})


async def _change(request: Request, caller: Caller, name: str, change: Any) -> ProjectPart:
    await edit(request, caller, f"project {name[:80]}", change, name)
    project = policy_of(controller_of(request)).projects[name]
    return ProjectPart(name=name, project=project.model_dump(mode="json", exclude_defaults=True))


def _must_lead(request: Request, caller: Caller, name: str) -> None:
    """Raise unless the caller may change that project; what is not theirs is as if it were not there."""
    controller = controller_of(request)
    policy = policy_of(controller)
    if name in policy.projects and (caller.admin or name in caller.leads):
        return
    if name in policy.projects_of(caller.name, controller.core.groups_of(caller.name)):
        raise ForbiddenError(f"only those who lead {name} may change it")
    raise NotFoundError(f"there is no project {name[:80]}")


async def _object(request: Request) -> Part:
    body = await read_body(request, SMALL)
    try:
        found = json.loads(body) if body.count(b"[") + body.count(b"{") <= NESTED else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidSpecError(errors=[FieldError("", "", "must be a JSON object")])
    if any(isinstance(key, str) and not key.isprintable() for key in found):
        raise UserError("names of fields are printable text")
    return found
