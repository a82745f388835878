"""Browsers log in through the hub (OAuth 2, authorization code) and carry a signed cookie.

The cookie serves pages only; the REST interface takes tokens alone. A page's buttons need, beside the
cookie, a token that only the page itself holds, so a page of another site has nothing to forge.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from perijove.model import ForbiddenError, UnauthorizedError
from perijove_hub.identity import Caller, Identities

router = APIRouter(include_in_schema=False)
COOKIE, STATE_COOKIE = "perijove-session", "perijove-login"
DAY = 86400
FORM = 12 * 3600
"""Seconds for which the buttons of an open page work."""
LOGIN = 600
"""Seconds within which a login must be finished."""


class Sessions:
    """Cookies signed with `key`; `auth` is the hub's HubOAuth, None where there is no hub."""

    def __init__(self, key: str, prefix: str, auth: Any = None) -> None:
        self.auth, self.path = auth, f"{prefix}/"
        self._cookie = URLSafeTimedSerializer(key, salt="session")
        self._state = URLSafeTimedSerializer(key, salt="login")
        self._form = URLSafeTimedSerializer(key, salt="form")

    async def caller(self, request: HTTPConnection) -> Caller | None:
        """Whoever the cookie says; None when it says nothing that still holds."""
        identities: Identities = request.app.state.identities
        try:
            token = self._cookie.loads(request.cookies.get(COOKIE, ""), max_age=DAY)
            return await identities.caller(token)
        except (BadSignature, UnauthorizedError):
            return None

    def login(self, wanted: str) -> RedirectResponse:
        """Off to the hub, and back to the page `wanted`. The state is bound to this browser by a cookie."""
        nonce = secrets.token_urlsafe(16)
        query = {
            "client_id": self.auth.oauth_client_id,
            "redirect_uri": self.auth.oauth_redirect_uri,
            "response_type": "code",
            "state": self._state.dumps([nonce, wanted]),
        }
        answer = RedirectResponse(f"{self.auth.oauth_authorization_url}?{urlencode(query)}", 302)
        answer.set_cookie(STATE_COOKIE, nonce, LOGIN, path=self.path, httponly=True, samesite="lax")
        return answer

    def begin(self, token: str, page: str | None = None) -> RedirectResponse:
        """A session for the owner of `token`, on `page` of this service."""
        answer = RedirectResponse(page or self.path, 302)
        answer.set_cookie(
            COOKIE, str(self._cookie.dumps(token)), DAY, path=self.path, httponly=True, samesite="lax"
        )
        answer.delete_cookie(STATE_COOKIE, path=self.path)
        return answer

    def form_token(self, request: Request) -> str:
        """A token for the forms of a page, bound to this browser's session."""
        return str(self._form.dumps(_fingerprint(request)))

    def check_form(self, request: Request, token: str) -> None:
        """Raise :class:`ForbiddenError` unless a page shown in this session sent the form, lately."""
        mode = request.headers.get("sec-fetch-mode", "navigate")
        site = request.headers.get("sec-fetch-site", "same-origin")
        try:
            given = self._form.loads(token, max_age=FORM)
        except BadSignature:
            given = None
        same = given is not None and secrets.compare_digest(str(given), _fingerprint(request))
        if not same or mode != "navigate" or site != "same-origin":
            raise ForbiddenError("this form was not sent by the page, or too late; open the page again")

    def check_state(self, request: Request, state: str) -> str:
        """The page that was wanted. :class:`ForbiddenError` unless this browser began that login."""
        try:
            nonce, wanted = self._state.loads(state, max_age=LOGIN)
        except (BadSignature, ValueError, TypeError):
            raise ForbiddenError("this login was not begun here, or too long ago; start again") from None
        if not secrets.compare_digest(str(nonce), request.cookies.get(STATE_COOKIE, "")):
            raise ForbiddenError("this login was begun in another browser; start again")
        return str(wanted)


def _fingerprint(request: Request) -> str:
    return sha256(request.cookies.get(COOKIE, "").encode()).hexdigest()


@router.get("/oauth_callback")
async def callback(request: Request, code: str, state: str) -> RedirectResponse:
    """The hub sends the browser back with a code."""
    sessions: Sessions = request.app.state.sessions
    if sessions.auth is None:
        raise ForbiddenError("there is no hub to log in with")
    wanted = sessions.check_state(request, state)
    return sessions.begin(await sessions.auth.token_for_code(code, sync=False), wanted)
