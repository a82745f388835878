"""A service that does not lead answers with who does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from perijove.model import UnavailableError
from perijove_hub.store.database import TRANSIENT
from perijove_hub.store.leadership import Leadership

log = logging.getLogger(__name__)

LEADER = "Perijove-Leader"
"""Header with the URL of the service that leads."""


class Standby:
    """ASGI middleware: while another service leads, every request is answered 503, with its URL."""

    def __init__(self, app: ASGIApp, leadership: Leadership) -> None:
        self._app, self._leadership = app, leadership

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "lifespan" or self._leadership.ready:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._refer(send)
        else:
            await send({"type": "websocket.close", "code": 1013})  # RFC 6455's registry: try again later

    async def _refer(self, send: Send) -> None:
        url = ""
        with suppress(*TRANSIENT):
            lease = await asyncio.to_thread(self._leadership.leader)
            url = lease.url if lease is not None and lease.left > 0 else ""
        where = f"; {url} does" if url else ""
        problem = UnavailableError(f"this service stands by and takes no requests{where}").problem()
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1")]
        if url:
            headers.append((LEADER.lower().encode(), url.encode()))
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(problem).encode()})


@asynccontextmanager
async def led(
    leadership: Leadership,
    begin: Callable[[], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    died: Callable[[], None],
) -> AsyncIterator[None]:
    """Lead, or stand by until it can: then `begin`; at the end of a leader `end`.

    `died` is called when another took over, or when what leads could not begin.
    """
    leadership.lost = died
    if await asyncio.to_thread(leadership.acquire):
        await begin()
        leadership.ready = True
        waiting = None
    else:
        log.info("another service leads; this one stands by")
        waiting = asyncio.create_task(_follow(leadership, begin, died))
    try:
        yield
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        if leadership.ready:
            leadership.ready = False
            await end()
        await asyncio.to_thread(leadership.release)


async def _follow(
    leadership: Leadership, begin: Callable[[], Awaitable[None]], died: Callable[[], None]
) -> None:
    await leadership.wait()
    try:
        await begin()
    except Exception:
        log.critical("the service cannot begin to lead", exc_info=True)
        died()
    else:
        leadership.ready = True
