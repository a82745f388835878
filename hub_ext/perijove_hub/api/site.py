"""What forms need, oneself, and whether the service works."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel

from perijove.model import NodeState, PerijoveError, UnavailableError, User
from perijove_hub.admission.images import default_entry
from perijove_hub.admission.volumes import volumes_of
from perijove_hub.api.arrivals import users_of
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.api.images import images_seen
from perijove_hub.users.notices import own_warnings

router = APIRouter()
public = APIRouter()
HEALTH_PATIENCE = 5.0
"""Seconds within which a healthy service has written."""


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
    """Names of the catalogue first, then what nodes have and rules allow."""
    descriptions: dict[str, str]
    """Of those that have one."""
    volumes: list[str]
    projects: list[str]
    """In which the caller may have jobs."""
    partitions: list[str]
    """That the caller may use, in any of these projects."""
    default_project: str | None
    default_partition: str | None
    largest: Size
    free: Size
    """The most that one job could have now."""


class Me(BaseModel):
    """The caller."""

    name: str
    admin: bool
    home: str | None
    user: User | None
    """What is known of them; null for who came by another login of the hub."""
    warnings: list[str]
    """For guests: what is nearly used up."""


@router.get("/site")
async def site(request: Request, caller: Who) -> Site:
    """Launchers, images, volumes and sizes that this caller may ask for."""
    controller, settings = controller_of(request), request.app.state.settings
    ledger, asker = controller.ledger, asker_of(controller, caller.name)
    projects: list[str | None] = [None, *asker.projects]
    known = ledger.nodes
    offered = {launcher.name: launcher for node in known for launcher in node.launchers}
    default = settings.default_launcher or next(iter(offered), None)
    containers = default in offered and offered[default].containers
    rules = site_of(controller)
    listed = images_seen(rules, asker)
    preferred = default_entry(rules, asker, asker.default_project)
    up = [ledger.free(node.name) for node in known if node.state is NodeState.UP]
    return Site(
        launchers=sorted(offered),
        default_launcher=default,
        containers=containers,
        default_image=(preferred[0] if preferred else settings.default_image) if containers else None,
        images=[one.name or one.image for one in listed],
        descriptions={one.name or one.image: one.description for one in listed if one.description},
        volumes=["home", *sorted({v for p in projects for v in volumes_of(rules, asker, p)})],
        projects=asker.projects,
        partitions=sorted({name for project in projects for name in asker.partitions(project)}),
        default_project=asker.default_project,
        default_partition=asker.policy.default_partition,
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
    controller = controller_of(request)
    users = users_of(request)
    user = users.get(caller.name)
    told = own_warnings(users, controller.board.standing, caller.name, controller.clock())
    return Me(name=caller.name, admin=caller.admin, home=home, user=user, warnings=told)


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
