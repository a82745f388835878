"""Dashboards of users' Dask clusters: each owner's own, passed on from the scheduler's job.

What comes back was written by a program of the owner's, and is shown to nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

import httpx
import websockets
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response, StreamingResponse
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from perijove.model import Job, Kind, NotFoundError, State, UnavailableError
from perijove_hub.api.finding import controller_of
from perijove_hub.headers import COMMON, CSP
from perijove_hub.identity import RECHECK, Caller, is_welcome, while_welcome
from perijove_hub.jobs.controller import Controller
from perijove_hub.pages.render import visit
from perijove_hub.pages.session import Sessions
from perijove_hub.store.database import Page

router = APIRouter(include_in_schema=False)
LABEL = "dask"
"""Label of a cluster's jobs; its value is the cluster's name in the dashboard's address."""
_KEPT_BACK = {"authorization", "connection", "content-length", "cookie", "host", "te", "upgrade"}
"""Headers of a request that are not the dashboard's business."""
_PASSED = {"content-language", "content-type", "etag", "last-modified", "location", "vary"}
"""Headers of an answer that are the dashboard's business. Others would speak for this service: set its
cookies, widen a service worker's reach (``Service-Worker-Allowed``), let in other sites (CORS)."""
_HEADERS = {**COMMON, CSP: "frame-ancestors 'none'; base-uri 'self'; object-src 'none'"}
PATIENCE = 10.0
"""Seconds a dashboard has to answer."""


@router.get("/dask/{name}")
@router.get("/dask/{name}/{path:path}")
async def page(request: Request, name: str) -> Response:
    """A page of the dashboard."""

    async def show(caller: Caller) -> Response:
        address = await _dashboard(controller_of(request), caller.name, name)
        return await _passed_on(request, caller, address)

    return await visit(request, show)


@router.websocket("/dask/{name}/{path:path}")
async def updates(socket: WebSocket, name: str) -> None:
    """The connection over which a page of the dashboard is kept up to date."""
    sessions: Sessions = socket.app.state.sessions
    # Browsers send cookies along from any page: only pages of this host may open it (RFC 6455, 10.2).
    origin = urlsplit(socket.headers.get("origin", "")).netloc
    caller = await sessions.caller(socket) if origin == socket.headers.get("host") else None
    if caller is None or not await is_welcome(socket, caller, partial(sessions.caller, socket)):
        await socket.close(code=1008)
        return
    try:
        address = await _dashboard(socket.app.state.controller, caller.name, name)
        url = f"ws://{address}{_target(socket)}"
        wanted = [Subprotocol(one) for one in socket.scope.get("subprotocols", [])]
        async with websockets.connect(
            url, subprotocols=wanted or None, open_timeout=PATIENCE, max_size=None, origin=None
        ) as there:
            await socket.accept(subprotocol=there.subprotocol)
            await _both_ways(socket, there, caller)
    except (NotFoundError, UnavailableError, OSError, TimeoutError, websockets.WebSocketException):
        with contextlib.suppress(RuntimeError):
            await socket.close(code=1011)


async def _dashboard(controller: Controller, owner: str, name: str) -> str:
    """``host:port`` of the dashboard of `owner`'s cluster."""
    wanted = Page(owner=owner, labels=((LABEL, name),), states=(State.RUNNING,), limit=500)
    for row in await asyncio.to_thread(controller.database.jobs, wanted):
        job = controller.board.find(row.id) or row
        if address := _address(job):
            return address
    raise NotFoundError("you have no Dask cluster of that name that runs; its jobs may have ended")


def _address(job: Job) -> str | None:
    """Where the dashboard is reached; None for what is no scheduler, or does not run."""
    ports = job.spec.ports
    if job.spec.kind is not Kind.DASK or job.state is not State.RUNNING or len(ports) != 2:
        return None
    return job.endpoint.ports.get(ports[1]) if job.endpoint else None


def _target(request: Request | WebSocket) -> str:
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    query = request.scope.get("query_string", b"").decode("latin-1")
    return f"{path.partition('?')[0]}?{query}" if query else path


async def _passed_on(request: Request, caller: Caller, address: str) -> Response:
    headers = {key: value for key, value in request.headers.items() if key not in _KEPT_BACK}
    client = httpx.AsyncClient(timeout=PATIENCE)
    try:
        asked = client.build_request("GET", f"http://{address}{_target(request)}", headers=headers)
        answer = await client.send(asked, stream=True)
    except httpx.HTTPError as error:
        await client.aclose()
        raise UnavailableError(f"the dashboard does not answer: {error}") from None

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_bytes():
                yield piece
        finally:
            await answer.aclose()
            await client.aclose()

    kept = {key: value for key, value in answer.headers.items() if key.lower() in _PASSED}
    sessions: Sessions = request.app.state.sessions
    shown = while_welcome(request, caller, partial(sessions.caller, request), pieces())
    return StreamingResponse(shown, answer.status_code, headers={**_HEADERS, **kept})


async def _both_ways(socket: WebSocket, there: ClientConnection, caller: Caller) -> None:
    sessions: Sessions = socket.app.state.sessions

    async def watched() -> None:
        while await is_welcome(socket, caller, partial(sessions.caller, socket)):  # noqa: ASYNC110 - no event
            await asyncio.sleep(RECHECK)

    async def out() -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            await there.send(message["bytes"] if text is None else text)

    async def back() -> None:
        async for piece in there:
            await (socket.send_text(piece) if isinstance(piece, str) else socket.send_bytes(piece))

    tasks = {asyncio.ensure_future(one) for one in (out(), back(), watched())}
    _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close()
