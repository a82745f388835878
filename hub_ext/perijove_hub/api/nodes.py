"""The nodes, what is left of them, and which take no more jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from perijove.model import Gpu, Node, NotFoundError
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller

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
