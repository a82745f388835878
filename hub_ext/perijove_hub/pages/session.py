"""Browsers log in through the hub (OAuth 2, authorization code) and carry an encrypted cookie.

The cookie serves pages only; the REST interface takes tokens alone, and no cookie shows one. A session
ends with the token behind it, and with a sign-out that is younger than the cookie. A page's buttons need,
beside the cookie, a token that only the page itself holds, so a page of another site has nothing to forge.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken
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
    """Cookies made with `key`; `auth` is the hub's HubOAuth, None where there is no hub.

    Where servers of users have names below the hub's (`apart`), their pages may set cookies for its name too.
    Cookies named ``__Host-`` are the host's own (RFC 6265bis, 4.1.3.2), and are for its every path.
    """

    def __init__(self, key: str, prefix: str, auth: Any = None, *, apart: bool = False) -> None:
        self.auth, self.path, self._apart = auth, f"{prefix}/", apart
        before = "__Host-" if apart else ""
        self._session, self._login = f"{before}{COOKIE}", f"{before}{STATE_COOKIE}"
        self._cookie = Fernet(base64.urlsafe_b64encode(sha256(f"session {key}".encode()).digest()))
        self._state = URLSafeTimedSerializer(key, salt="login")
        self._form = URLSafeTimedSerializer(key, salt="form")

    async def caller(self, request: HTTPConnection) -> Caller | None:
        """Whoever the cookie says; None when it says nothing that still holds."""
        identities: Identities = request.app.state.identities
        try:
            cookie = request.cookies.get(self._session, "").encode()
            token, issued = self._cookie.decrypt(cookie, ttl=DAY), self._cookie.extract_timestamp(cookie)
            caller = await identities.caller(token.decode())
        except (InvalidToken, UnauthorizedError):
            return None
        return replace(caller, issued=float(issued), token=f"session {caller.token}")

    def login(self, wanted: str, *, secure: bool = False) -> RedirectResponse:
        """Off to the hub, and back to the page `wanted`. The state is bound to this browser by a cookie."""
        nonce = secrets.token_urlsafe(16)
        query = {
            "client_id": self.auth.oauth_client_id,
            "redirect_uri": self.auth.oauth_redirect_uri,
            "response_type": "code",
            "state": self._state.dumps([nonce, wanted]),
        }
        answer = RedirectResponse(f"{self.auth.oauth_authorization_url}?{urlencode(query)}", 302)
        self._keep(answer, self._login, nonce, LOGIN, secure=secure)
        return answer

    def begin(self, token: str, page: str | None = None, *, secure: bool = False) -> RedirectResponse:
        """A session for the owner of `token`, on `page` of this service."""
        answer = RedirectResponse(page or self.path, 302)
        sealed = self._cookie.encrypt(token.encode()).decode()
        self._keep(answer, self._session, sealed, DAY, secure=secure)
        self._drop(answer, self._login)
        return answer

    def end(self) -> RedirectResponse:
        """Off, without a session: to the hub's own page that ends it there too."""
        there = f"{self.auth.hub_prefix}logout" if self.auth is not None else f"{self.path}device"
        answer = RedirectResponse(there, 303)
        self._drop(answer, self._session)
        return answer

    def _keep(self, answer: RedirectResponse, name: str, value: str, age: int, *, secure: bool) -> None:
        place = "/" if self._apart else self.path
        secure = secure or self._apart
        answer.set_cookie(name, value, age, path=place, httponly=True, samesite="lax", secure=secure)

    def _drop(self, answer: RedirectResponse, name: str) -> None:
        answer.delete_cookie(name, path="/" if self._apart else self.path, secure=self._apart)

    def _fingerprint(self, request: Request) -> str:
        return sha256(request.cookies.get(self._session, "").encode()).hexdigest()

    def form_token(self, request: Request) -> str:
        """A token for the forms of a page, bound to this browser's session."""
        return str(self._form.dumps(self._fingerprint(request)))

    def check_form(self, request: Request, token: str) -> None:
        """Raise :class:`ForbiddenError` unless a page shown in this session sent the form, lately."""
        mode = request.headers.get("sec-fetch-mode", "navigate")
        site = request.headers.get("sec-fetch-site", "same-origin")
        try:
            given = self._form.loads(token, max_age=FORM)
        except BadSignature:
            given = None
        same = given is not None and secrets.compare_digest(str(given), self._fingerprint(request))
        if not same or mode != "navigate" or site != "same-origin":
            raise ForbiddenError("this form was not sent by the page, or too late; open the page again")

    def check_state(self, request: Request, state: str) -> str:
        """The page that was wanted. :class:`ForbiddenError` unless this browser began that login."""
        try:
            nonce, wanted = self._state.loads(state, max_age=LOGIN)
        except (BadSignature, ValueError, TypeError):
            raise ForbiddenError("this login was not begun here, or too long ago; start again") from None
        if not secrets.compare_digest(str(nonce), request.cookies.get(self._login, "")):
            raise ForbiddenError("this login was begun in another browser; start again")
        return str(wanted)


def is_secure(request: HTTPConnection) -> bool:
    """Whether the browser came by https, as far as proxies say so; wrongly said it harms only who says it."""
    said = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in {request.url.scheme, said}


@router.get("/oauth_callback")
async def callback(request: Request, code: str, state: str) -> RedirectResponse:
    """The hub sends the browser back with a code."""
    sessions: Sessions = request.app.state.sessions
    if sessions.auth is None:
        raise ForbiddenError("there is no hub to log in with")
    wanted = sessions.check_state(request, state)
    token = await sessions.auth.token_for_code(code, sync=False)
    return sessions.begin(token, wanted, secure=is_secure(request))
