"""Where somebody with a browser lets a device in that has none (RFC 8628, section 3.3)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from perijove.model import UserError
from perijove_hub.api.audit import record
from perijove_hub.api.device import devices_of
from perijove_hub.api.tokens import must_have
from perijove_hub.identity import Caller
from perijove_hub.pages.render import form_token, pressed, render, visit
from perijove_hub.tokens.device import DeviceLogin

router = APIRouter(include_in_schema=False)
WORDS = {
    "read": "look at your jobs, logs and files, and change nothing",
    "submit": "do what you do here yourself: submit, end and look at your jobs, read and store your files",
    "admin": "do all that you may do as an administrator, with everybody's jobs",
}


@router.get("/device")
async def page(request: Request, code: str = "") -> Response:
    """Which device asks for what; without a code the field for it."""

    async def show(caller: Caller) -> Response:
        found = devices_of(request).seek(code, caller.name) if code else None
        return _page(request, caller, found, wrong=bool(code) and found is None)

    return await visit(request, show)


@router.post("/device")
async def press(request: Request) -> Response:
    """Yes or no."""

    async def show(caller: Caller) -> Response:
        fields = await pressed(request)
        if fields.get("verb") not in {"approve", "deny"}:
            raise UserError("there is no such button")
        found = devices_of(request).seek(fields.get("code", ""), caller.name)
        if found is None:
            return _page(request, caller, None, wrong=True)
        approved = fields["verb"] == "approve"
        if approved:
            must_have(caller, found.scope)
            told = {"device": found.name, "scope": found.scope, "address": found.address}
            await record(request, caller, "let device in", f"user {caller.name}", after=told)
        devices_of(request).decide(found, caller.name if approved else None)
        return _page(request, caller, found, done="approved" if approved else "denied")

    return await visit(request, show)


def _page(
    request: Request, caller: Caller, login: DeviceLogin | None, *, wrong: bool = False, done: str = ""
) -> Response:
    return render(
        request,
        caller,
        "device",
        title="Log in a device",
        here="account",
        login=login,
        wrong=wrong,
        done=done,
        words=WORDS[login.scope] if login is not None else "",
        token=form_token(request),
    )
