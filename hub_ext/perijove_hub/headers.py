"""Headers of every answer: what a browser may do with it, decided once and not by each route.

Behind a hub without subdomains the notebook servers of other users have this service's origin. What keeps
their scripts out of these pages is said where the header is.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP: Final = "Content-Security-Policy"

COMMON: Final = {
    # Another window of the same origin that opened this page, a notebook's, gets no handle on it.
    "Cross-Origin-Opener-Policy": "noopener-allow-popups",
    # No page of another origin embeds an answer as image, script or style (Fetch, 3.7).
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGE: Final = {
    **COMMON,
    # The names of jobs are their owners' text: nothing in the page may run, whatever it holds.
    CSP: "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}
PAGE_WITH_IMAGES: Final = {
    **PAGE,
    # Images are part of the page itself: none is loaded.
    CSP: f"{PAGE[CSP]}; img-src data:",
}
DATA: Final = {
    **COMMON,
    # A document made of an answer of the interface, or of a file of a user, has no origin and no rights.
    CSP: "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox",
}
"""Of all that is no page: answers of the interface, downloads, errors."""

_DATA = [(name.lower().encode(), name.encode(), value.encode()) for name, value in DATA.items()]


class SafeAnswers:
    """ASGI middleware: an answer without a header of :data:`DATA` gets it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name.lower() for name, _ in headers}
                headers += [(name, value) for known, name, value in _DATA if known not in given]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, guarded)
