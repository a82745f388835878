"""What all pages share: templates, headers, who looks at them, and forms that only they themselves send."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape

from perijove.dag import ORDER, sum_text
from perijove.inert import printable
from perijove.model import (
    NodeState,
    PerijoveError,
    State,
    UnauthorizedError,
    UnavailableError,
    UserError,
    format_duration,
    format_size,
)
from perijove_hub.api.announcements import told
from perijove_hub.api.bodies import read_body
from perijove_hub.api.desk import maintenance_of
from perijove_hub.api.finding import controller_of
from perijove_hub.headers import PAGE, PAGE_WITH_IMAGES
from perijove_hub.identity import Caller, admitted
from perijove_hub.pages.run_parts import shortly
from perijove_hub.pages.session import Sessions, is_secure

FORM_BYTES = 16 << 10
"""Of the fields of a form."""
PAGES = (
    ("", "Queue"),
    ("workflows", "Workflows"),
    ("usage", "Usage"),
    ("share", "Fair share"),
    ("nodes", "Nodes"),
)

_ORDER = (
    State.SUCCEEDED,
    State.RUNNING,
    State.STARTING,
    State.SUSPENDED,
    State.PENDING,
    State.HELD,
    State.FAILED,
    State.LOST,
    State.KILLED,
    State.REJECTED,
)


def in_order(tasks: Mapping[State, int]) -> list[tuple[State, int]]:
    """States with any members, the good ones first."""
    return [(state, tasks[state]) for state in _ORDER if tasks.get(state)]


def moment(at: float | None, now: float) -> str:
    """A time as people write it, in UTC: the time of day today, else with the date."""
    if at is None:
        return "a time that is not known"
    try:
        then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    except (ValueError, OverflowError, OSError):
        return "a time out of reach"
    return then.strftime("%H:%M UTC" if then.date() == today.date() else "%Y-%m-%d %H:%M UTC")


def colour(state: NodeState) -> str:
    """The class of states of jobs that looks like this one of a node."""
    return {NodeState.UP: "succeeded", NodeState.DOWN: "failed", NodeState.DRAIN: "held"}[state]


def inert(value: Any) -> Any:
    """A text as it may stand beside others; what is HTML already stays so."""
    return printable(value) if type(value) is str else value


templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    finalize=inert,
)
templates.filters.update(
    duration=format_duration,
    size=format_size,
    moment=moment,
    in_order=in_order,
    colour=colour,
    shortly=shortly,
    sums=sum_text,
    steps_in_order=lambda states: [(state, states[state]) for state in ORDER if states.get(state)],
)


def render(request: Request, caller: Caller, name: str, *, status: int = 200, **values: Any) -> Response:
    """The page `name` for `caller`."""
    settings = request.app.state.settings
    text = templates.get_template(f"{name}.html").render(
        caller=caller,
        root=f"{settings.prefix}/",
        pages=PAGES,
        maintenance=maintenance_of(controller_of(request)),
        announcements=told(request, caller),
        now=time.time(),
        **{"renewed": None, "here": None, **values},
    )
    return HTMLResponse(text, status, headers=PAGE_WITH_IMAGES if values.get("images") else PAGE)


async def visit(request: Request, show: Callable[[Caller], Awaitable[Response]]) -> Response:
    """Have `show` make the page for whoever is logged in; what goes wrong is told as a page too."""
    sessions: Sessions = request.app.state.sessions
    found = await sessions.caller(request)
    if found is None and sessions.auth is None:
        raise UnauthorizedError("add ?token=TOKEN to the address; the token is in STATE/endpoint.json")
    if found is None:
        return sessions.login(_own_page(request), secure=is_secure(request))
    try:
        return await show(await admitted(request, found, request.method))
    except UnauthorizedError:
        if sessions.auth is None:
            raise
        return sessions.login(_own_page(request), secure=is_secure(request))
    except (UserError, UnavailableError) as error:
        return _failed(request, found, error)


def _own_page(request: Request) -> str:
    """Path and query of what was asked for: where one goes on after the login."""
    path, query = request.url.path, request.url.query
    prefix: str = request.app.state.settings.prefix
    if request.method != "GET" or not path.startswith(f"{prefix}/") or path.startswith("//"):
        return f"{prefix}/"
    return f"{path}?{query}" if query else path


def _failed(request: Request, caller: Caller, error: PerijoveError) -> Response:
    title = "Not there" if error.status == 404 else "That did not work"
    return render(request, caller, "error", status=error.status, title=title, message=str(error))


def form_token(request: Request) -> str | None:
    """What forms of the page carry; None for what is no browser showing a page to its user.

    A script of another page with the same origin can fetch this one; browsers tell such a request apart
    (Fetch Metadata, ``Sec-Fetch-Mode``), and it gets a page without forms.
    """
    sessions: Sessions = request.app.state.sessions
    if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        return None
    return sessions.form_token(request)


async def pressed(request: Request) -> dict[str, str]:
    """The fields of a form that a page of this session sent. Raises :class:`ForbiddenError` for any other."""
    body = await read_body(request, FORM_BYTES)
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise UserError("what was sent is no form") from None
    sessions: Sessions = request.app.state.sessions
    sessions.check_form(request, fields.get("form", ""))
    return fields
