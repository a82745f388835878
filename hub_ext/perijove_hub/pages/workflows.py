"""Runs of workflows as a page, newest first."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from perijove.model import State
from perijove_hub.api.finding import controller_of, runs_of, states_of
from perijove_hub.api.listing import owner_seen
from perijove_hub.identity import Caller
from perijove_hub.pages.queue import SHOWN, number
from perijove_hub.pages.render import render, visit
from perijove_hub.store.workflow_queries import RunPage

router = APIRouter(include_in_schema=False)
STATES = ("live", State.RUNNING, State.HELD, State.SUCCEEDED, State.FAILED, State.KILLED)


@router.get("/workflows")
async def page(request: Request, state: str = "", before: str = "") -> Response:
    """The page."""

    async def show(caller: Caller) -> Response:
        states = states_of([state]) if state else ()
        wanted = RunPage(states, owner_seen(caller, None, None), None, SHOWN, number(before))
        found = await asyncio.to_thread(controller_of(request).database.workflows.runs, wanted)
        live = runs_of(request).live
        return render(
            request,
            caller,
            "workflows",
            title="Workflows",
            here="workflows",
            renewed=10,
            runs=[live[run.id].record() if run.id in live else run for run in found],
            owners=caller.admin,
            states=STATES,
            chosen=state,
            paged=bool(before),
            following=found[-1].id if len(found) == SHOWN else None,
        )

    return await visit(request, show)
