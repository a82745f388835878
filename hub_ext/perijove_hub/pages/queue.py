"""The queue as a page: one's jobs, where they stand and why."""

from __future__ import annotations

import asyncio
from itertools import islice

from fastapi import APIRouter, Request
from fastapi.responses import Response

from perijove.model import Job, State
from perijove_hub.api.desk import asker_of, policy_of
from perijove_hub.api.finding import controller_of, states_of
from perijove_hub.api.listing import owner_seen, rows_of
from perijove_hub.identity import Caller, Identities, admitted
from perijove_hub.jobs.controller import Controller
from perijove_hub.pages.render import render, visit
from perijove_hub.pages.session import Sessions, is_secure
from perijove_hub.store.database import Page

router = APIRouter(include_in_schema=False)
SHOWN = 50


@router.get("/")
async def queue(
    request: Request,
    token: str | None = None,
    state: str = "",
    project: str = "",
    before: str = "",
) -> Response:
    """The page. Without a hub one enters by the link with the token that ``perijove up`` prints."""
    sessions: Sessions = request.app.state.sessions
    if token is not None and sessions.auth is None:
        identities: Identities = request.app.state.identities
        await admitted(request, await identities.caller(token))
        return sessions.begin(token, secure=is_secure(request))

    async def show(caller: Caller) -> Response:
        controller = controller_of(request)
        mine = asker_of(controller, caller.name).projects
        page = Page(
            states=states_of([state]) if state else (),
            owner=owner_seen(caller, None, project or None),
            project=project or None,
            limit=SHOWN,
            before=number(before),
        )
        jobs = await asyncio.to_thread(jobs_of, controller, caller, page)
        return render(
            request,
            caller,
            "queue",
            title="Queue",
            here="",
            renewed=10,
            jobs=jobs,
            owners=caller.admin or project in caller.leads,
            chosen={"state": state, "project": project},
            states=["live", *State],
            projects=sorted(policy_of(controller).projects) if caller.admin else mine,
            filtered=bool(state or project or before),
            following=jobs[-1].id if len(jobs) == SHOWN else None,
        )

    return await visit(request, show)


def jobs_of(controller: Controller, caller: Caller, page: Page) -> list[Job]:
    """A page's jobs as they are now."""
    board = controller.board
    rows = islice(rows_of(controller.database, page), page.limit)
    return [caller.view(board.view(board.find(job.id) or job)) for job in rows]


def number(text: str) -> int | None:
    """A number in a link; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
