"""The nodes, what is left of them, and which take no more jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from perijove.model import ConflictError, Gpu, Node, NodeState, NotFoundError
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.store import joining
from perijove_hub.store.audit import Wanted, entries
from perijove_spawners.fabric.news import news
from perijove_spawners.fabric.tls import Authority

router = APIRouter()


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


@router.get("/nodes")
async def nodes(request: Request, caller: Who) -> list[NodeView]:
    """The nodes, with what is free."""
    return nodes_of(controller_of(request))


class Drain(BaseModel):
    """Why a node takes no more jobs."""

    reason: Annotated[str, Field(max_length=200)] = ""


@router.post("/nodes/{name}/drain", openapi_extra=json_body(Drain))
async def drain(request: Request, caller: Who, name: str) -> NodeView:
    """Let no more jobs start on a node, until `undrain`; those that run go on. For administrators."""
    _administered(request, caller, name)
    why = await read_model(request, Drain)
    return await drain_node(request, caller, name, why.reason)


async def drain_node(request: Request, caller: Caller, name: str, reason: str) -> NodeView:
    """See :func:`drain`."""
    controller = _administered(request, caller, name)
    await record(request, caller, "drain", f"node {name}", _standing(controller, name), {"reason": reason})
    await controller.drain(name, reason, caller.name)
    return view_of(controller, name)


@router.post("/nodes/{name}/undrain")
async def undrain(request: Request, caller: Who, name: str) -> NodeView:
    """Let jobs start on it again. For administrators."""
    controller = _administered(request, caller, name)
    await record(request, caller, "undrain", f"node {name}", _standing(controller, name))
    await controller.undrain(name, caller.name)
    return view_of(controller, name)


class Removal(BaseModel):
    """Whether a node is removed though jobs run there."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False
    """Jobs there are lost, or start anew elsewhere when they may."""


class Removed(BaseModel):
    """A node that is none any more."""

    node: str
    certificates: int
    """How many that it had been given are refused from now on."""
    jobs: int
    """How many were lost there."""


@router.post("/nodes/{name}/remove", openapi_extra=json_body(Removal))
async def remove(request: Request, caller: Who, name: str) -> Removed:
    """Remove a node for good: its certificates are refused and its join tokens void. For administrators.

    409 while jobs are there, unless `force` says to lose them; and for a node that is up with a key of its
    own making (on the service's host): its agent has to be stopped first.
    """
    caller.must_administer("remove nodes")
    controller = controller_of(request)
    given = await asyncio.to_thread(controller.database.read, partial(certificates_of, node=name))
    if not given:  # one that joined may be away since before the service was started
        _administered(request, caller, name)
    force = (await read_model(request, Removal, optional=True)).force
    node, jobs = controller.ledger.node(name), len(controller.ledger.jobs_on(name))
    if jobs and not force:
        raise ConflictError(f"{jobs} jobs are on node {name}; drain it, or remove it with force to lose them")
    if not given and node is not None and node.state is not NodeState.DOWN:
        text = f"node {name} is up and has a key that was not given to it by joining"
        raise ConflictError(f"{text}; stop its agent first (perijove drain, then end `perijove node`)")
    after = {"certificates": [f"{serial:x}" for serial in given], "jobs": jobs}
    await record(request, caller, "remove", f"node {name}", _standing(controller, name), after)
    await asyncio.to_thread(controller.database.write, partial(joining.withdraw, node=name))
    await refuse_certificates(request.app.state.settings.tls, controller, given)
    lost = await controller.operations.remove(name, caller.name, rejoins=bool(given))
    await request.app.state.users.node_gone(name)
    await controller.committed()
    return Removed(node=name, certificates=len(given), jobs=lost)


async def refuse_certificates(tls: Path, controller: Controller, serials: Sequence[int]) -> None:
    """Have every party of the links refuse these; what whoever holds them has open ends within seconds."""
    if serials:
        authority = await asyncio.to_thread(Authority.at, tls)
        await asyncio.to_thread(authority.refuse, tls, serials)
        await controller.fabric.refuse(await asyncio.to_thread(news, tls))


def certificates_of(connection: Connection, node: str) -> list[int]:
    """The serial numbers of all certificates that a node was given; the audit log has them for ever."""
    wanted = Wanted(subject=f"node {node}", act="join", limit=10_000)
    said = (entry.after for entry in entries(connection, wanted))
    return [int(one["certificate"], 16) for one in said if isinstance(one, dict) and "certificate" in one]


def _standing(controller: Controller, name: str) -> dict[str, str]:
    node = controller.ledger.node(name)
    return {"state": node.state, "reason": node.reason} if node is not None else {}


def _administered(request: Request, caller: Caller, name: str) -> Controller:
    caller.must_administer("drain nodes")
    controller = controller_of(request)
    if controller.ledger.node(name) is None:
        some = [node.name for node in controller.ledger.nodes]
        more = f" and {len(some) - 20} more" if len(some) > 20 else ""
        known = ", ".join(some[:20]) or "none"
        raise NotFoundError(f"there is no node {name[:80]}; there are: {known}{more}")
    return controller


def nodes_of(controller: Controller) -> list[NodeView]:
    """All nodes, by name."""
    return [view_of(controller, node.name) for node in controller.ledger.nodes]


def view_of(controller: Controller, name: str) -> NodeView:
    """One node."""
    ledger = controller.ledger
    node, free = ledger.node(name), ledger.free(name)
    assert node is not None
    left = FreeResources(cpu=max(0.0, round(free.cpu, 4)), memory=max(0, free.memory), gpus=free.gpus)
    return NodeView(node=node, free=left, jobs=len(ledger.jobs_on(name)))
