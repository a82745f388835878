"""The policy, its reservations, and maintenance: for all to know, for administrators to change."""

from __future__ import annotations

import asyncio
import copy
import difflib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import FieldError, InvalidSpecError, NotFoundError, UserError
from perijove.model.values import Title
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_body, read_model
from perijove_hub.api.description import sends, takes
from perijove_hub.api.desk import maintenance_of, policy_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.policy.document import Policy, load

router = APIRouter()
MAX_POLICY = 256 << 10
"""Bytes of a policy."""
DEEP = 20
"""Levels of a policy's text at most; a policy has five."""
YAML = "text/yaml"


@router.get("/policy", response_class=Response, responses=sends(YAML))
async def policy(request: Request, caller: Who, version: int | None = None) -> Response:
    """The policy in force, or an earlier version, as YAML. For administrators: it names users."""
    caller.must_administer("read the policy")
    text = await text_of(controller_of(request), version)
    return Response(text, media_type=YAML)


@router.put("/policy", response_class=Response, openapi_extra=takes(YAML), responses=sends(YAML))
async def set_policy(request: Request, caller: Who) -> Response:
    """Replace the policy; it holds from the next pass of the queue on. For administrators."""
    caller.must_administer("change the policy")
    text = await _sent(request)
    controller = controller_of(request)
    async with controller.one_at_a_time("", "policy"):
        await _applied(request, caller, "policy", text)
    return Response(text, media_type=YAML)


async def _sent(request: Request) -> str:
    """The policy in the body, which could be applied."""
    text = decoded(await read_body(request, MAX_POLICY))
    if not text.strip():
        raise InvalidSpecError(errors=[FieldError("", "", "no policy was sent; an empty one is written {}")])
    await asyncio.to_thread(accepted, text)
    return text


class Checked(BaseModel):
    """A policy that could be applied, and how it differs from the one in force."""

    valid: bool
    difference: list[str]
    """Lines as diff(1) -u writes them."""


@router.post("/policy/check", openapi_extra=takes(YAML))
async def check_policy(request: Request, caller: Who) -> Checked:
    """Whether a policy could be applied; nothing is changed. For administrators."""
    caller.must_administer("check policies")
    text = await _sent(request)
    before = await text_of(controller_of(request))
    lines = await asyncio.to_thread(difference, before, text, "checked")
    return Checked(valid=True, difference=lines)


LINES = 20_000
"""Of a policy, those that are compared."""


def difference(before: str, after: str, name: str) -> list[str]:
    """How two policies differ, in lines as diff(1) -u writes them."""
    old, new = before.splitlines()[:LINES], after.splitlines()[:LINES]
    return list(difflib.unified_diff(old, new, "in force", name, lineterm=""))


class PolicyVersion(BaseModel):
    """Who applied a policy, and when."""

    version: int
    at: float
    by: str


@router.get("/policy/versions")
async def policy_versions(request: Request, caller: Who) -> list[PolicyVersion]:
    """All policies there were, the newest first. For administrators."""
    caller.must_administer("read the policy")
    versions = await _documents(controller_of(request))
    return [PolicyVersion(version=one.version, at=one.at, by=one.by) for one in versions]


async def _documents(controller: Controller) -> list[Any]:
    return await asyncio.to_thread(controller.database.documents, "policy")


async def text_of(controller: Controller, version: int | None = None) -> str:
    """The policy's text; that of a site without one is empty."""
    found = await _documents(controller)
    if version is None:
        return str(found[0].body) if found else await asyncio.to_thread(_of_the_file, controller)
    wanted = next((one for one in found if one.version == version), None)
    if wanted is None:
        known = f"1 to {found[0].version}" if found else "none"
        raise NotFoundError(f"there is no version {version} of the policy; there are: {known}")
    return str(wanted.body)


def _of_the_file(controller: Controller) -> str:
    """What holds until a policy is applied."""
    try:
        return (controller.settings.state / "policy.yaml").read_text()
    except OSError:
        return ""


def decoded(body: bytes) -> str:
    """The text of a request."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidSpecError(errors=[FieldError("", "", "not UTF-8")]) from None


def accepted(text: str) -> Policy:
    """The policy in `text`. Raises :class:`InvalidSpecError` naming each wrong field."""
    _harmless(text)
    try:
        return load(text)
    except (ValueError, RecursionError, OverflowError, TypeError) as error:
        # PyYAML lets through what dates and numbers raise: 2026-02-31.
        raise InvalidSpecError(errors=[FieldError("", "", f"not a policy: {error}")]) from None


def _harmless(text: str) -> None:
    """Refuse what grows when it is read: aliases of aliases, and levels without end."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                message = f"aliases (*{event.anchor}) are not accepted; write it out"
                raise InvalidSpecError(errors=[FieldError("", f"*{event.anchor}"[:80], message)])
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEP:
                text = f"nested more than {DEEP} levels deep"
                raise InvalidSpecError(errors=[FieldError("", "", text)])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidSpecError(errors=[FieldError("", "", f"not YAML: {str(error)[:500]}")]) from None


# ---- reservations


class ReservationBody(BaseModel):
    """Nodes kept for some, from a date to a date."""

    model_config = ConfigDict(extra="forbid")

    nodes: list[Title]
    start: datetime
    end: datetime
    users: list[Title] = []
    projects: list[Title] = []
    reason: Title = ""


class ReservationView(BaseModel):
    """A reservation. For whom it is, those see for whom it is, and administrators."""

    name: str
    nodes: list[str]
    start: datetime
    end: datetime
    reason: str
    mine: bool
    """Whether the caller's jobs may run inside it."""
    users: list[str] = []
    projects: list[str] = []


@router.get("/reservations")
async def reservations(request: Request, caller: Who) -> list[ReservationView]:
    """Reservations that have not ended, by their start."""
    return reservations_seen(controller_of(request), caller)


def reservations_seen(controller: Controller, caller: Caller) -> list[ReservationView]:
    """See :func:`reservations`."""
    rules, now = policy_of(controller), controller.clock()
    groups = controller.core.groups_of(caller.name)
    projects = {*rules.projects_of(caller.name, groups), *caller.leads}
    found = []
    for name, one in sorted(rules.reservations.items(), key=lambda item: item[1].start):
        if one.end.timestamp() <= now:
            continue
        mine = any(rules.may_enter(name, caller.name, project, groups) for project in (None, *projects))
        told = mine or caller.admin
        found.append(
            ReservationView(
                name=name,
                nodes=one.nodes,
                start=one.start,
                end=one.end,
                reason=one.reason,
                mine=mine,
                users=one.users if told else [],
                projects=one.projects if told else [],
            )
        )
    return found


@router.put("/reservations/{name}", openapi_extra=json_body(ReservationBody))
async def set_reservation(request: Request, caller: Who, name: str) -> ReservationView:
    """Keep nodes for users or projects, or change what is kept. For administrators.

    It becomes part of the policy, whose text is written anew: comments in it are lost.
    """
    caller.must_administer("reserve nodes")
    wanted, controller = await read_model(request, ReservationBody), controller_of(request)
    end = wanted.end if wanted.end.tzinfo else wanted.end.replace(tzinfo=UTC)
    if end.timestamp() <= controller.clock():
        raise InvalidSpecError(errors=[FieldError("end", wanted.end.isoformat(), "must not be over yet")])

    def put(content: dict[str, Any]) -> None:
        content.setdefault("reservations", {})[name] = wanted.model_dump(mode="json")

    await edit(request, caller, f"reservation {name[:80]}", put)
    return next(one for one in reservations_seen(controller, caller) if one.name == name)


@router.delete("/reservations/{name}", status_code=204)
async def remove_reservation(request: Request, caller: Who, name: str) -> Response:
    """Keep nodes for nobody any more. For administrators."""
    caller.must_administer("remove reservations")

    def remove(content: dict[str, Any]) -> None:
        kept = content.get("reservations") or {}
        if name not in kept:
            known = ", ".join(sorted(kept)) or "none"
            raise NotFoundError(f"there is no reservation {name[:80]}; there are: {known}")
        del kept[name]

    await edit(request, caller, f"reservation {name[:80]}", remove)
    return Response(status_code=204)


async def edit(
    request: Request,
    caller: Caller,
    subject: str,
    change: Callable[[dict[str, Any]], None],
    project: str | None = None,
) -> None:
    """Change the policy's text as data; requests that do so follow each other. Comments are lost.

    `project`: nothing else is changed, and its leads may read of it.
    """
    controller = controller_of(request)
    async with controller.one_at_a_time("", "policy"):
        content = await asyncio.to_thread(yaml.safe_load, await text_of(controller)) or {}
        old = copy.deepcopy(_part(content, project))
        change(content)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        if len(text.encode()) > MAX_POLICY:
            raise UserError("the policy would become too large; remove what has ended")
        await asyncio.to_thread(accepted, text)
        if project is None:
            await _applied(request, caller, subject, text)
        else:
            await record(request, caller, "project", subject, old, _part(content, project), project=project)
            await controller.set_policy(text, caller.name)


def _part(content: dict[str, Any], project: str | None) -> Any:
    return None if project is None else (content.get("projects") or {}).get(project)


async def _applied(request: Request, caller: Caller, subject: str, text: str) -> None:
    controller = controller_of(request)
    lines = await asyncio.to_thread(difference, await text_of(controller), text, "applied")
    await record(request, caller, "policy", subject, None, {"difference": lines})
    await controller.set_policy(text, caller.name)


# ---- maintenance


class Maintenance(BaseModel):
    """Whether nothing new starts, and why."""

    on: bool
    reason: Annotated[str, Field(max_length=200)] = ""


@router.get("/maintenance")
async def maintenance(request: Request, caller: Who) -> Maintenance:
    """Whether maintenance is on: jobs are accepted and wait, those that run go on."""
    reason = maintenance_of(controller_of(request))
    return Maintenance(on=reason is not None, reason=reason or "")


@router.put("/maintenance", openapi_extra=json_body(Maintenance))
async def set_maintenance(request: Request, caller: Who) -> Maintenance:
    """Let nothing start any more, or again. For administrators."""
    caller.must_administer("switch maintenance")
    return await switch_maintenance(request, caller, await read_model(request, Maintenance))


async def switch_maintenance(request: Request, caller: Caller, wanted: Maintenance) -> Maintenance:
    """See :func:`set_maintenance`."""
    caller.must_administer("switch maintenance")
    controller = controller_of(request)
    reason = maintenance_of(controller)
    before = {"on": reason is not None, "reason": reason or ""}
    await record(request, caller, "maintenance", "site", before, wanted.model_dump())
    await controller.maintenance(wanted.reason if wanted.on else None, caller.name)
    return wanted
