"""What jobs may run in and see: images, environments, volumes; administrators change what is listed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from perijove.model import ConflictError, NotFoundError
from perijove_hub.admission import Asker, Site
from perijove_hub.admission.images import default_image, offers_of
from perijove_hub.admission.volumes import volumes_of
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.api.policies import edit
from perijove_hub.identity import Caller
from perijove_hub.policy.images import ImageEntry, Pull
from perijove_hub.policy.runenvs import Offer, of_labels
from perijove_hub.policy.volumes import HOME, VolumeEntry
from perijove_spawners.references import Reference

router = APIRouter()


class ImageView(BaseModel):
    """An image that jobs may ask for."""

    name: str | None
    """Of the catalogue; None for one that a node has and a rule allows."""
    image: str
    description: str = ""
    default: bool = False
    """Whether jobs that name none get it, in any of the caller's projects or outside of them."""
    pull: Pull | None = None
    runenv: str | None = None
    features: dict[str, str] = {}
    platforms: list[str] = []
    nodes: list[str] = []
    """Those that have it already."""
    users: list[str] = []
    projects: list[str] = []
    """For whom it is; told to administrators."""


@router.get("/images")
async def images(request: Request, caller: Who) -> list[ImageView]:
    """Images that the caller's jobs may ask for: those with names, then others that nodes have already."""
    controller = controller_of(request)
    return images_seen(site_of(controller), asker_of(controller, caller.name), admin=caller.admin)


def images_seen(site: Site, asker: Asker, *, admin: bool = False) -> list[ImageView]:
    """See :func:`images`; administrators see all that have names."""
    scopes: list[str | None] = [None, *asker.projects]
    where = _where(site)
    defaults = {default_image(site, asker, project) for project in scopes}
    found = []
    for name, entry in sorted(site.policy.images.items()):
        mine = any(entry.admits(asker.name, project, asker.groups) for project in scopes)
        if not mine and not admin:
            continue
        told = {"users": entry.users, "projects": entry.projects} if admin else {}
        found.append(
            ImageView(
                name=name,
                image=entry.reference,
                description=entry.description,
                default=mine and entry.default,
                pull=entry.pull,
                runenv=entry.runenv,
                features=entry.features,
                platforms=entry.platforms,
                nodes=where.get(Reference.parse(entry.image).wanted, []),
                **told,
            )
        )
    named = {Reference.parse(one.image).wanted for one in found}
    found += [
        ImageView(
            name=None, image=image, default=image in defaults, nodes=where[Reference.parse(image).wanted]
        )
        for image in present(site, asker)
        if Reference.parse(image).wanted not in named
    ]
    return found


def _where(site: Site) -> dict[tuple[str, str], list[str]]:
    """Image -> the nodes that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for node in site.nodes:
        for image in node.images:
            try:
                names = found.setdefault(Reference.parse(image).wanted, [])
            except ValueError:
                continue
            if node.name not in names:
                names.append(node.name)
    return found


def present(site: Site, asker: Asker) -> list[str]:
    """Images that nodes have and the user's jobs may ask for by their references."""
    found = []
    for image in sorted({image for node in site.nodes for image in node.images}):
        try:
            reference = Reference.parse(image)
        except ValueError:
            continue
        if any(
            site.lists.allows(reference, project) or asker.granted("any_image", project)
            for project in (None, *asker.projects)
        ):
            found.append(image)
    return found


@router.put("/images/{name}", openapi_extra=json_body(ImageEntry))
async def set_image(request: Request, caller: Who, name: str) -> ImageView:
    """Give an image a name, or change what is said of it. For administrators.

    It becomes part of the policy, whose text is written anew: comments in it are lost.
    """
    caller.must_administer("name images")
    entry = await read_model(request, ImageEntry)
    await _put(request, caller, "images", name, entry)
    controller = controller_of(request)
    seen = images_seen(site_of(controller), asker_of(controller, caller.name), admin=True)
    return next(one for one in seen if one.name == name)


@router.delete("/images/{name}", status_code=204)
async def remove_image(request: Request, caller: Who, name: str) -> Response:
    """Take an image's name away. What runs goes on, and what waits keeps its image. For administrators."""
    caller.must_administer("remove images")
    await _remove(request, caller, "images", name)
    return Response(status_code=204)


# ---- environments


class RunenvView(BaseModel):
    """Something that holds an environment: an image, or a node."""

    os: str
    node: str | None
    """The node whose labels say so; None for an image, which any node may have."""
    runenv: tuple[str, str]
    features: list[tuple[str, str]]
    image: str | None
    """Its name in the catalogue."""


@router.get("/runenvs")
async def runenvs(request: Request, caller: Who) -> list[RunenvView]:
    """Environments that the caller's jobs may ask for by `runenv` and `require`."""
    controller = controller_of(request)
    site, asker = site_of(controller), asker_of(controller, caller.name)
    offers = dict.fromkeys(
        offer for project in (None, *asker.projects) for offer in offers_of(site, asker, project)
    )
    names = {entry.reference: name for name, entry in site.policy.images.items() if entry.runenv}
    found = [_runenv(offer, names.get(offer.image or "")) for offer in offers]
    found += [
        _runenv(offer, None) for node in site.nodes for offer in of_labels(node.name, node.labels.items())
    ]
    return sorted(found, key=lambda one: (one.runenv, one.node or "", one.image or ""))


def _runenv(offer: Offer, image: str | None) -> RunenvView:
    return RunenvView(
        os=offer.os,
        node=offer.node,
        runenv=(offer.runenv.name, offer.runenv.version or ""),
        features=[(one.name, one.version or "") for one in offer.features],
        image=image,
    )


# ---- volumes


class VolumeView(BaseModel):
    """A volume that jobs may ask for."""

    name: str
    target: str | None
    """Where jobs in containers see it; None: at one's home."""
    description: str = ""
    read_only: bool = False
    source: str | None = None
    users: list[str] = []
    projects: list[str] = []
    """Told to administrators."""


@router.get("/volumes")
async def volumes(request: Request, caller: Who) -> list[VolumeView]:
    """Volumes that the caller's jobs may ask for, in any of their projects or outside of them."""
    controller = controller_of(request)
    return volumes_seen(site_of(controller), asker_of(controller, caller.name), admin=caller.admin)


def volumes_seen(site: Site, asker: Asker, *, admin: bool = False) -> list[VolumeView]:
    """See :func:`volumes`; administrators see all, and what lies behind them."""
    mine = {name for project in (None, *asker.projects) for name in volumes_of(site, asker, project)}
    found = [VolumeView(name=HOME, target=None, description="one's own")]
    for name, volume in sorted(site.lists.volumes.items()):
        if name in mine or admin:
            told: dict[str, Any] = {}
            if admin:
                told = {"source": volume.source, "users": volume.users, "projects": volume.projects}
            found.append(
                VolumeView(
                    name=name,
                    target=volume.target,
                    description=volume.description,
                    read_only=volume.read_only,
                    **told,
                )
            )
    return found


@router.put("/volumes/{name}", openapi_extra=json_body(VolumeEntry))
async def set_volume(request: Request, caller: Who, name: str) -> VolumeView:
    """Let jobs ask for a directory of the nodes, or change how. For administrators.

    It becomes part of the policy, whose text is written anew: comments in it are lost.
    """
    caller.must_administer("set volumes")
    volume = await read_model(request, VolumeEntry)
    _not_of_settings(request, name)
    await _put(request, caller, "volumes", name, volume)
    controller = controller_of(request)
    seen = volumes_seen(site_of(controller), asker_of(controller, caller.name), admin=True)
    return next(one for one in seen if one.name == name)


@router.delete("/volumes/{name}", status_code=204)
async def remove_volume(request: Request, caller: Who, name: str) -> Response:
    """Let no more jobs have it; those that wait for it fail, and what runs goes on. For administrators."""
    caller.must_administer("remove volumes")
    _not_of_settings(request, name)
    await _remove(request, caller, "volumes", name)
    return Response(status_code=204)


def _not_of_settings(request: Request, name: str) -> None:
    if name in request.app.state.settings.volumes:
        raise ConflictError(f"volume {name} is set in perijove.yaml, and changed there")


# ---- parts of the policy


async def _put(request: Request, caller: Caller, part: str, name: str, body: BaseModel) -> None:
    content = body.model_dump(mode="json", exclude_defaults=True)

    def put(policy: dict[str, Any]) -> None:
        policy[part] = {**(policy.get(part) or {}), name: content}

    await edit(request, caller, f"{part.removesuffix('s')} {name[:80]}", put)


async def _remove(request: Request, caller: Caller, part: str, name: str) -> None:
    def remove(policy: dict[str, Any]) -> None:
        kept = policy.get(part) or {}
        if name not in kept:
            known = ", ".join(sorted(map(str, kept))) or "none"
            raise NotFoundError(f"there is no {part.removesuffix('s')} {name[:80]}; there are: {known}")
        del kept[name]

    await edit(request, caller, f"{part.removesuffix('s')} {name[:80]}", remove)
