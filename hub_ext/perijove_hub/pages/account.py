"""One's account as a page: tokens of devices, SSH keys, how to log in from a terminal, logging out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from perijove.model import Scope, Token, UserError, parse_duration
from perijove_hub.api.finding import public_url
from perijove_hub.api.keys import add_key_of, keys_of_user, remove_key_of
from perijove_hub.api.tokens import NewToken, make_token, revoke_token, tokens_of
from perijove_hub.api.users import sign_out
from perijove_hub.identity import Caller
from perijove_hub.pages.queue import number
from perijove_hub.pages.render import form_token, pressed, render, visit
from perijove_hub.pages.session import Sessions

router = APIRouter(include_in_schema=False)
LIFETIMES = ("7d", "30d", "90d", "365d")


@router.get("/account")
async def page(request: Request) -> Response:
    """The page."""

    async def show(caller: Caller) -> Response:
        return await _page(request, caller)

    return await visit(request, show)


@router.post("/account")
async def press(request: Request) -> Response:
    """One of its buttons."""

    async def show(caller: Caller) -> Response:
        fields = await pressed(request)
        match fields.get("verb"):
            case "make":
                # Shown now and never again: no redirect to a page that could be asked for anew.
                return await _page(request, caller, await _make(request, caller, fields))
            case "revoke":
                await revoke_token(request, caller, number(fields.get("token", "")) or -1)
            case "add":
                await add_key_of(request, caller, fields.get("key", ""))
            case "sign-out":
                await sign_out(request, caller, caller.name)
                sessions: Sessions = request.app.state.sessions
                return sessions.end()
            case "remove":
                await remove_key_of(request, caller, fields.get("key", ""))
            case _:
                raise UserError("there is no such button")
        return RedirectResponse(str(request.url.path), 303)

    return await visit(request, show)


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session of this browser, here and at the hub."""

    async def show(caller: Caller) -> Response:
        await pressed(request)
        sessions: Sessions = request.app.state.sessions
        await request.app.state.revocation.end_session(caller)
        return sessions.end()

    return await visit(request, show)


async def _make(request: Request, caller: Caller, fields: dict[str, str]) -> Token:
    try:
        name = NewToken(name=fields.get("name", "")).name
        scope, lifetime = Scope(fields.get("scope", "")), parse_duration(fields.get("lifetime", ""))
    except ValueError:
        raise UserError("a token needs a name of at most 100 letters") from None
    return await make_token(request, caller, name, scope, lifetime)


async def _page(request: Request, caller: Caller, made: Token | None = None) -> Response:
    return render(
        request,
        caller,
        "account",
        title="Account",
        here="account",
        tokens=tokens_of(request).of(caller.name),
        keys=await keys_of_user(request, caller.name),
        made=made,
        scopes=[scope for scope in Scope if scope is not Scope.ADMIN or caller.admin],
        lifetimes=LIFETIMES,
        url=public_url(request),
        token=form_token(request),
    )
