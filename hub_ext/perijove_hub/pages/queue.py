"""The queue as a page: one's jobs, where they stand and why, and what the nodes have left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape

from perijove.model import UnauthorizedError, format_duration, format_size
from perijove_hub.api.jobs import controller_of
from perijove_hub.api.site import nodes_of
from perijove_hub.identity import Identities
from perijove_hub.pages.session import Sessions
from perijove_hub.store.database import Page

router = APIRouter(include_in_schema=False)
SHOWN = 50

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(default=True)
)
_templates.filters["duration"] = format_duration
_templates.filters["size"] = format_size

HEADERS = {
    # The names of jobs are their owners' text: nothing in the page may run, whatever it holds.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@router.get("/")
async def queue(request: Request, token: str | None = None) -> Response:
    """The page. Without a hub one enters by the link with the token that ``perijove up`` prints."""
    sessions: Sessions = request.app.state.sessions
    if token is not None and sessions.auth is None:
        identities: Identities = request.app.state.identities
        await identities.caller(token)
        return sessions.begin(token)
    caller = await sessions.caller(request)
    if caller is None and sessions.auth is None:
        raise UnauthorizedError("open the link that `perijove up` printed, or add ?token=TOKEN")
    if caller is None:
        return sessions.login()
    controller = controller_of(request)
    page = Page(owner=None if caller.admin else caller.name, limit=SHOWN)
    rows = await asyncio.to_thread(controller.database.jobs, page)
    jobs = [controller.board.view(controller.board.find(job.id) or job) for job in rows]
    text = _templates.get_template("queue.html").render(
        caller=caller, jobs=jobs, nodes=nodes_of(controller), now=time.time(), shown=SHOWN
    )
    return HTMLResponse(text, headers=HEADERS)
