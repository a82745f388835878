"""``/secrets`` and ``/registries``: set and removed here; what they hold is told to jobs only."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from perijove.model import (
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    NotFoundError,
    SecretName,
    UserError,
)
from perijove.model.values import Word
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_body, read_model
from perijove_hub.api.description import BYTES, takes
from perijove_hub.api.desk import asker_of, policy_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.secrets.keeper import LARGEST, Purpose, login_text
from perijove_hub.secrets.registries import is_registry

router = APIRouter()
Project = Annotated[Word | None, Query(description="that of a project, and not your own")]


class ToLogin(BaseModel):
    """A login at an image registry."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=16 << 10, repr=False)]


class Rotated(BaseModel):
    """What became of the key."""

    secrets: int
    """So many were encrypted anew."""


@router.get("/secrets")
async def secrets(request: Request, caller: Who, project: Project = None) -> list[SecretName]:
    """Names of your secrets, or of those of a project that you are in. What they hold is not told."""
    return _names(request, caller, project, "job")


@router.put("/secrets/{name}", openapi_extra=takes(BYTES))
async def put_secret(request: Request, caller: Who, name: Word, project: Project = None) -> SecretName:
    """Set a secret: the body is its value, at most 64 KiB. Of a project: for its leads and administrators."""
    holder = _changing(request, caller, project)
    value = await read_body(request, LARGEST)
    if not value:
        raise UserError("a secret has at least one byte")
    return await _put(request, caller, holder, "job", name, value)


@router.delete("/secrets/{name}", status_code=204)
async def delete_secret(request: Request, caller: Who, name: Word, project: Project = None) -> None:
    """Remove a secret; jobs that were given it keep it until they end."""
    await _remove(request, caller, _changing(request, caller, project), "job", name)


@router.post("/secrets/rotate")
async def rotate(request: Request, caller: Who) -> Rotated:
    """Make a new key and encrypt all secrets with it; for administrators."""
    caller.must_administer("change the key of secrets")
    await record(request, caller, "rotate", "key of secrets")
    return Rotated(secrets=await asyncio.to_thread(controller_of(request).core.secrets.rotate))


@router.get("/registries")
async def registries(request: Request, caller: Who, project: Project = None) -> list[SecretName]:
    """At which image registries you have a login, or a project that you are in."""
    return _names(request, caller, project, "registry")


@router.put("/registries/{name}", openapi_extra=json_body(ToLogin))
async def put_registry(request: Request, caller: Who, name: str, project: Project = None) -> SecretName:
    """Keep a login at the image registry ``HOST`` or ``HOST:PORT``, with which jobs fetch their images."""
    holder = _changing(request, caller, project)
    if not is_registry(name):
        raise UserError(
            f"registry: must be the host of a registry as images name it, such as ghcr.io: {name[:80]!r}"
        )
    try:
        login = await read_model(request, ToLogin)
    except InvalidSpecError as error:
        # What was given holds a password, wherever it is wrong.
        raise InvalidSpecError(errors=[FieldError(e.field, "", e.message) for e in error.errors]) from None
    return await _put(request, caller, holder, "registry", name, login_text(login.username, login.password))


@router.delete("/registries/{name}", status_code=204)
async def delete_registry(request: Request, caller: Who, name: str, project: Project = None) -> None:
    """Forget a login."""
    await _remove(request, caller, _changing(request, caller, project), "registry", name)


def _names(request: Request, caller: Caller, project: str | None, purpose: Purpose) -> list[SecretName]:
    kept = controller_of(request).core.secrets
    if project is None:
        return kept.names(f"user:{caller.name}", purpose)
    if not _changes(request, caller, project) and project not in _own(request, caller):
        raise NotFoundError(f"there is no project {project}")
    return kept.names(f"project:{project}", purpose)


def _changing(request: Request, caller: Caller, project: str | None) -> str:
    """Whose secrets the request changes; raises what there is to say when the caller may not."""
    if project is None:
        return f"user:{caller.name}"
    if _changes(request, caller, project):
        return f"project:{project}"
    if project in _own(request, caller):
        raise ForbiddenError(f"only leads of {project} and administrators may change its secrets")
    raise NotFoundError(f"there is no project {project}")


def _changes(request: Request, caller: Caller, project: str) -> bool:
    known = project in policy_of(controller_of(request)).projects
    return known and (caller.admin or project in caller.leads)


def _own(request: Request, caller: Caller) -> list[str]:
    return asker_of(controller_of(request), caller.name).projects


async def _put(
    request: Request, caller: Caller, holder: str, purpose: Purpose, name: str, value: bytes
) -> SecretName:
    controller = controller_of(request)
    await _note(request, caller, holder, f"set {purpose}", name)
    return await asyncio.to_thread(
        controller.core.secrets.put, holder, purpose, name, value, caller.name, controller.clock()
    )


async def _remove(request: Request, caller: Caller, holder: str, purpose: Purpose, name: str) -> None:
    await _note(request, caller, holder, f"remove {purpose}", name)
    await asyncio.to_thread(controller_of(request).core.secrets.remove, holder, purpose, name)


async def _note(request: Request, caller: Caller, holder: str, act: str, name: str) -> None:
    kind, _, project = holder.partition(":")
    if kind == "project":
        verb, _, purpose = act.partition(" ")
        what = "login" if purpose == "registry" else "secret"
        await record(
            request, caller, f"{verb} {what}", f"project {project}", after={what: name}, project=project
        )
