"""Logging in a terminal by a browser that may be elsewhere: device authorization, RFC 8628."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import webbrowser
from collections.abc import Callable

from perijove.client import AsyncClient
from perijove.model.errors import ForbiddenError, OperatorError, UnavailableError, UserError
from perijove.site import Document

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER = 5.0
"""Seconds by which the pause grows when the service asks for it (RFC 8628, section 3.5)."""
_ENDS = {
    "access_denied": ForbiddenError("you said that this device is not yours; it was not let in"),
    "expired_token": UserError("nobody let this device in within the time; log in again"),
    "invalid_grant": UserError("the service does not know this login any more; log in again"),
}


async def let_in(client: AsyncClient, scope: str, name: str, show: Callable[[str, str], None]) -> str:
    """A token for this device, once somebody has let it in. `show` is called with the page and the code.

    Raises :class:`OperatorError` when what answers is no service that logs devices in.
    """
    begun = await client.post_form("/device/authorization", {"scope": scope, "device_name": name})
    if "device_code" not in begun:
        raise OperatorError(f"{client.url} lets no devices in ({begun.get('error_description', begun)})")
    # The page as it is reached from here, whatever address a proxy told the service.
    show(f"{client.url}/device?code={begun['user_code']}", str(begun["user_code"]))
    return await _waited(client, begun)


async def _waited(client: AsyncClient, begun: Document) -> str:
    asked = {"grant_type": GRANT, "device_code": str(begun["device_code"])}
    pause = float(begun.get("interval", SLOWER))
    give_up = time.monotonic() + float(begun["expires_in"])
    while True:
        await asyncio.sleep(pause)
        try:
            answer = await client.post_form("/device/token", asked)
        except UnavailableError:
            answer = {"error": "authorization_pending"}
        if "access_token" in answer:
            return str(answer["access_token"])
        error = str(answer.get("error"))
        if error == "slow_down":
            pause += SLOWER
        elif error != "authorization_pending":
            raise _ENDS.get(error) or OperatorError(f"the service refused: {error}")
        if time.monotonic() > give_up:
            raise _ENDS["expired_token"]


def open_browser(url: str) -> bool:
    """Show `url` in a browser of this machine; False where there is none to see."""
    seen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if not seen and sys.platform not in {"darwin", "win32"}:
        return False  # a browser inside the terminal would take it over
    with contextlib.suppress(webbrowser.Error, OSError):
        return webbrowser.open(url)
    return False
