"""The hub's pages are for navigations and the hub's own scripts, not for scripts of notebook servers.

Behind one host name a page of somebody's notebook server has the hub's origin, and with the cookies of
whoever looks at it could fetch a page of the hub and take the token for forms out of it. Browsers tell such
requests apart (Fetch Metadata Request Headers, W3C), and which page they come from (``Referer``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tornado.web import HTTPError

HEADERS = {"Cross-Origin-Opener-Policy": "noopener-allow-popups"}
"""A page that was opened by a script is out of that script's reach (HTML, 7.1.3), of the same origin too."""


def is_foreign(headers: Mapping[str, str], hub: str) -> bool:
    """Whether a script of a page outside `hub` (the path of the hub's pages) makes this request.

    Requests with a token of their own are nobody's forgery, and what is no browser says nothing of the kind.
    """
    if "Authorization" in headers or headers.get("Sec-Fetch-Site") not in {"same-origin", "same-site"}:
        return False
    shown = headers.get("Sec-Fetch-Dest", "") in {"document", "empty", ""}
    if headers.get("Sec-Fetch-Mode") == "navigate" and shown:
        return False
    return not urlsplit(headers.get("Referer", "")).path.startswith(hub)


def guard(handlers: Any) -> None:
    """Have `handlers`, JupyterHub's class of all pages, refuse them. It offers no other place for that."""
    prepare = handlers.prepare

    async def guarded(self: Any) -> None:
        if is_foreign(self.request.headers, self.hub.base_url):
            raise HTTPError(403, "this page is not for scripts of other pages")
        await prepare(self)

    if not getattr(prepare, "guards", False):
        guarded.guards = True  # type: ignore[attr-defined]
        handlers.prepare = guarded
