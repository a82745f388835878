"""The hub's login asks who somebody is here, and whether they may come in."""

from __future__ import annotations

from fastapi import APIRouter, Request

from perijove.model import ForbiddenError
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import WhoOrLogin
from perijove_hub.identity import Caller
from perijove_hub.users.arrival import Arrival
from perijove_hub.users.person import Standing
from perijove_hub.users.users import Users

router = APIRouter()


def users_of(request: Request) -> Users:
    """The application's users."""
    users: Users = request.app.state.users
    return users


@router.post("/arrivals", openapi_extra=json_body(Arrival))
async def arrive(request: Request, caller: WhoOrLogin) -> Standing:
    """Somebody has logged in at the hub. For the hub's login.

    Newcomers become users, guests that are not invited wait; who is turned away has no name.
    """
    _must_be_login(caller)
    arrival = await read_model(request, Arrival)
    who = arrival.username or arrival.subject
    if arrival.refused:
        answer = Standing(name=None, state="refused", message=arrival.refused)
    else:
        answer = await users_of(request).arrive(arrival)
    came = answer.state == "active"
    said = {"subject": arrival.subject, "state": answer.state, "message": answer.message or None}
    await record(
        request,
        answer.name or caller,
        "login" if came else "login refused",
        f"{arrival.provider}: {who}"[:200],
        after={name: value for name, value in said.items() if value} | {"address": arrival.address},
    )
    return answer


@router.get("/users/{name}/standing")
async def standing(request: Request, caller: WhoOrLogin, name: str) -> Standing:
    """Whether somebody may still come in. For the hub's login and administrators."""
    if not caller.admin:
        _must_be_login(caller)
    return users_of(request).standing(name)


def _must_be_login(caller: Caller) -> None:
    if not caller.login:
        raise ForbiddenError("only the hub's login may ask this")
