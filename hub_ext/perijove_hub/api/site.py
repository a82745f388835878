"""What there is: nodes, what forms need, oneself, and whether the service works."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from perijove.model import (
    ForbiddenError,
    Gpu,
    Node,
    NodeState,
    NotFoundError,
    PerijoveError,
    UnavailableError,
)
from perijove_hub.api.jobs import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller

router = APIRouter()
public = APIRouter()
HEALTH_PATIENCE = 5.0
"""Seconds within which a healthy service has written."""


class FreeResources(BaseModel):
    """What is left."""

    cpu: float
    memory: int
    gpus: list[Gpu]


class NodeView(BaseModel):
    """A node and what is left of it."""

    node: Node
    free: FreeResources
    jobs: int
    """How many jobs hold something of it."""


class Size(BaseModel):
    """Of one node: a job cannot be larger."""

    cpu: float = 0.0
    memory: int = 0
    gpus: int = 0


class Site(BaseModel):
    """What a form that submits needs to know."""

    launchers: list[str]
    default_launcher: str | None
    containers: bool
    """Whether the default launcher runs images."""
    default_image: str | None
    images: list[str]
    volumes: list[str]
    largest: Size
    free: Size
    """The most that one job could have now."""


class Me(BaseModel):
    """The caller."""

    name: str
    admin: bool
    home: str | None


@router.get("/nodes")
async def nodes(request: Request, caller: Who) -> list[NodeView]:
    """The nodes, with what is free."""
    return nodes_of(controller_of(request))


class Drain(BaseModel):
    """Why a node takes no more jobs."""

    reason: Annotated[str, Field(max_length=200)] = ""


@router.post("/nodes/{name}/drain")
async def drain(request: Request, caller: Who, name: str, why: Drain) -> NodeView:
    """Let no more jobs start on a node; those that run go on. For administrators."""
    return await _set(request, caller, name, NodeState.DRAIN, why.reason)


@router.post("/nodes/{name}/undrain")
async def undrain(request: Request, caller: Who, name: str) -> NodeView:
    """Let jobs start on it again. For administrators."""
    return await _set(request, caller, name, NodeState.DOWN, "being asked what it runs")


async def _set(request: Request, caller: Caller, name: str, state: NodeState, reason: str) -> NodeView:
    if not caller.admin and not caller.act_as:
        raise ForbiddenError("only an administrator drains nodes")
    controller = controller_of(request)
    if controller.ledger.node(name) is None:
        known = ", ".join(node.name for node in controller.ledger.nodes) or "none"
        raise NotFoundError(f"there is no node {name[:80]}; there are: {known}")
    controller.ledger.mark(name, state, reason)
    if state is NodeState.DOWN:
        await controller.reconcile(name)  # which brings it up
    return next(view for view in nodes_of(controller) if view.node.name == name)


def nodes_of(controller: Controller) -> list[NodeView]:
    """All nodes, by name."""
    ledger, views = controller.ledger, []
    for node in ledger.nodes:
        free = ledger.free(node.name)
        left = FreeResources(cpu=max(0.0, round(free.cpu, 4)), memory=max(0, free.memory), gpus=free.gpus)
        views.append(NodeView(node=node, free=left, jobs=len(ledger.jobs_on(node.name))))
    return views


@router.get("/site")
async def site(request: Request, caller: Who) -> Site:
    """Launchers, images, volumes and sizes that this caller may ask for."""
    ledger, settings = controller_of(request).ledger, request.app.state.settings
    known = ledger.nodes
    offered = {launcher.name: launcher for node in known for launcher in node.launchers}
    default = settings.default_launcher or next(iter(offered), None)
    containers = default in offered and offered[default].containers
    present = {image for node in known for image in node.images}
    images = sorted(image for image in present if any(fnmatchcase(image, p) for p in settings.allowed_images))
    up = [ledger.free(node.name) for node in known if node.state is NodeState.UP]
    return Site(
        launchers=sorted(offered),
        default_launcher=default,
        containers=containers,
        default_image=settings.default_image if containers else None,
        images=images,
        volumes=["home", *sorted(settings.volumes)],
        largest=Size(
            cpu=max((n.cpus for n in known), default=0.0),
            memory=max((n.memory for n in known), default=0),
            gpus=max((len(n.gpus) for n in known), default=0),
        ),
        free=Size(
            cpu=max((round(f.cpu, 4) for f in up), default=0.0),
            memory=max((f.memory for f in up), default=0),
            gpus=max((len(f.gpus) for f in up), default=0),
        ),
    )


@router.get("/me")
async def me(request: Request, caller: Who) -> Me:
    """Who the token says one is."""
    try:
        home = controller_of(request).identify(caller.name).account.home
    except PerijoveError:
        home = None
    return Me(name=caller.name, admin=caller.admin, home=home)


@public.get("/health")
async def health(request: Request) -> dict[str, object]:
    """Answers 200 when work is accepted: the database writes and a node is up."""
    controller = controller_of(request)
    try:
        await asyncio.wait_for(controller.committed(), HEALTH_PATIENCE)
    except TimeoutError:
        raise UnavailableError("the database does not write") from None
    up = [node.name for node in controller.ledger.nodes if node.state is NodeState.UP]
    if not up:
        raise UnavailableError("no node is up")
    return {"status": "ok", "nodes": len(up)}
