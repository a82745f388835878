"""The nodes as a page: what they have left, which take no jobs, and for whom they are kept."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from perijove.model import UserError
from perijove_hub.api.finding import controller_of
from perijove_hub.api.nodes import drain_node, undrain, view_of
from perijove_hub.api.policies import Maintenance, reservations_seen, switch_maintenance
from perijove_hub.identity import Caller
from perijove_hub.pages.queue import number
from perijove_hub.pages.render import form_token, pressed, render, visit

router = APIRouter(include_in_schema=False)
SHOWN = 100
RESERVATIONS = 100


@router.get("/nodes")
async def page(request: Request, page: str = "0") -> Response:
    """The page."""

    async def show(caller: Caller) -> Response:
        controller, at = controller_of(request), number(page) or 0
        names = [node.name for node in controller.ledger.nodes]
        part = names[at * SHOWN : (at + 1) * SHOWN]
        return render(
            request,
            caller,
            "nodes",
            title="Nodes",
            here="nodes",
            nodes=[view_of(controller, name) for name in part],
            before=at - 1 if at > 1 else "0" if at == 1 else None,
            following=at + 1 if len(names) > (at + 1) * SHOWN else None,
            reservations=reservations_seen(controller, caller)[:RESERVATIONS],
            token=form_token(request) if caller.admin else None,
        )

    return await visit(request, show)


@router.post("/nodes")
async def press(request: Request) -> Response:
    """One of its buttons."""

    async def show(caller: Caller) -> Response:
        fields = await pressed(request)
        node, reason = fields.get("node", ""), fields.get("reason", "")[:200]
        match fields.get("verb"):
            case "drain":
                await drain_node(request, caller, node, reason)
            case "undrain":
                await undrain(request, caller, node)
            case "maintenance-on":
                await switch_maintenance(request, caller, Maintenance(on=True, reason=reason))
            case "maintenance-off":
                await switch_maintenance(request, caller, Maintenance(on=False))
            case _:
                raise UserError("there is no such button")
        return RedirectResponse(str(request.url.path), 303)

    return await visit(request, show)
