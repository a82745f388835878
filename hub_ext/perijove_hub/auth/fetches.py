"""The hub's pages are for navigations, its interface for its own scripts; neither is for notebooks' pages.

Behind one host name a page of somebody's notebook server has the hub's origin, and with the cookies of
whoever looks at it could fetch a page of the hub and take the token for forms out of it. Browsers tell such
requests apart (Fetch Metadata Request Headers, W3C) in headers that no script can change. It can change
``Referer`` (``fetch(url, {referrer: ...})``) and add an ``Authorization`` of no use: neither opens a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

HEADERS = {"Cross-Origin-Opener-Policy": "noopener-allow-popups"}
"""A page that was opened by a script is out of that script's reach (HTML, 7.1.3), of the same origin too."""


def is_foreign(headers: Mapping[str, str], path: str, hub: str) -> bool:
    """Whether a script or frame of another page than the hub's makes this request for `path`.

    `hub` is where the hub's pages begin. Its own scripts ask for its interface alone, where JupyterHub wants
    the token of a page from all but requests of mode ``no-cors``. What is no browser says nothing of it all.
    """
    site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
    if site not in {"same-origin", "same-site"}:
        return False
    if mode == "navigate" and headers.get("Sec-Fetch-Dest", "") in {"document", "empty", ""}:
        return False
    if not path.startswith(f"{hub}api/") or mode == "no-cors":
        return True
    return "Authorization" not in headers and not urlsplit(headers.get("Referer", "")).path.startswith(hub)


def guard(handlers: Any) -> None:
    """Have `handlers`, JupyterHub's class of all pages, refuse them. It offers no other place for that."""
    prepare = handlers.prepare

    async def guarded(self: Any) -> None:
        if is_foreign(self.request.headers, self.request.path, self.hub.base_url):
            # As plain text: JupyterHub's page for errors holds a token of forms.
            self.set_status(403)
            self.set_header("Content-Type", "text/plain")
            self.finish("this page is not for scripts of other pages\n")
            return
        await prepare(self)

    if not getattr(prepare, "guards", False):
        guarded.guards = True  # type: ignore[attr-defined]
        handlers.prepare = guarded
