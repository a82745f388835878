"""One job as a page: why it waits, what it uses, its members, and the buttons."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from perijove.model import Job, Reason, State, UserError, format_duration, format_size
from perijove_hub.accounting import efficiency
from perijove_hub.api.actions import act
from perijove_hub.api.finding import controller_of, job_of
from perijove_hub.api.why import OF_JOBS, discreet, measured
from perijove_hub.identity import Caller
from perijove_hub.jobs import arrays
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Event, Hold, Kill, Release, Reschedule, Resume, Suspend
from perijove_hub.pages.plots import fractions
from perijove_hub.pages.queue import jobs_of, number
from perijove_hub.pages.render import form_token, pressed, render, visit
from perijove_hub.store.database import Page

router = APIRouter(include_in_schema=False)
MEMBERS = 50
EVENTS = 100

VERBS = {
    "kill": "Kill",
    "hold": "Hold",
    "release": "Release",
    "suspend": "Suspend",
    "resume": "Resume",
    "reschedule": "Run anew elsewhere",
}


@router.get("/job/{job_id}")
async def page(request: Request, job_id: str, before: str = "") -> Response:
    """The page of one job, array or member."""

    async def show(caller: Caller) -> Response:
        controller = controller_of(request)
        job = controller.board.view(await job_of(request, caller, job_id))
        waits = State.PENDING in states_of(job) or job.state is State.HELD
        found = await controller.why(job) if waits else None
        reason = await discreet(controller, caller, found.reason if found else None)
        members: list[Job] = []
        if arrays.is_group(job):
            listed = Page(array=job.id, limit=MEMBERS, before=number(before))
            members = await asyncio.to_thread(jobs_of, controller, caller, listed)
        history = await asyncio.to_thread(controller.database.events, job=job.id, limit=EVENTS)
        return render(
            request,
            caller,
            "job",
            title=f"job {job.label}",
            renewed=None if job.state.ended else 10,
            job=caller.view(job),
            waits=waits,
            token=form_token(request),
            verbs=[(verb, VERBS[verb]) for verb in verbs_of(job)],
            reason=reason,
            blockers=await blockers_of(controller, caller, reason),
            forecast=found.forecast if found else None,
            hints=found.hints if found else [],
            used=await _used(controller, job),
            members=members,
            following=members[-1].id if len(members) == MEMBERS else None,
            history=history,
        )

    return await visit(request, show)


@router.post("/job/{job_id}")
async def press(request: Request, job_id: str) -> Response:
    """One of its buttons."""

    async def show(caller: Caller) -> Response:
        fields = await pressed(request)
        await act(request, caller, job_id, event_of(fields.get("verb", ""), caller))
        return RedirectResponse(str(request.url.path), 303)

    return await visit(request, show)


def event_of(verb: str, caller: Caller) -> Event:
    """What a button asks for."""
    by = caller.name
    events: dict[str, Event] = {
        "kill": Kill(by),
        "hold": Hold(by),
        "release": Release(by),
        "suspend": Suspend(by),
        "resume": Resume(by),
        "reschedule": Reschedule(by),
    }
    if verb not in events:
        raise UserError(f"there is no such button; there are: {', '.join(events)}")
    return events[verb]


def verbs_of(job: Job) -> list[str]:
    """What can be done to it in its state."""
    if job.state.ended:
        return []
    states = states_of(job)
    found = ["kill"]
    found += ["hold"] if State.PENDING in states else []
    found += ["release"] if State.HELD in states else []
    found += ["suspend"] if State.RUNNING in states else []
    found += ["resume"] if State.SUSPENDED in states else []
    return [*found, *(["reschedule"] if states & {State.RUNNING, State.SUSPENDED} else [])]


def states_of(job: Job) -> set[State]:
    """Its state, or those of a group's members."""
    members = {state for state, count in job.tasks.items() if count}
    return members if arrays.is_group(job) and members else {job.state}


async def blockers_of(
    controller: Controller, caller: Caller, reason: Reason | None
) -> list[tuple[str, str, str]]:
    """What keeps it: words, the name of a job that the caller may look at (or nothing), more words."""
    found = []
    for blocker in reason.blockers if reason else []:
        words = blocker.message or f"{blocker.kind} {blocker.name}"
        job = await controller.find(blocker.name) if blocker.kind in OF_JOBS else None
        if job is None or not caller.may_see(job) or blocker.name not in words:
            found.append((words, "", ""))
        else:
            before, name, after = words.partition(blocker.name)
            found.append((before, name, after))
    return found


async def _used(controller: Controller, job: Job) -> Any:
    if job.started is None or arrays.is_group(job):
        return None
    used = efficiency(await measured(controller, job), controller.clock())
    rows: list[tuple[str, float | None, str]] = []
    for name, one in used.items():
        if one.asked or name == "time":
            known = asdict(one)
            rows.append((_NAMES[name], one.efficiency, _words(name, known["asked"], known["used"])))
    return fractions(rows)


_NAMES = {"cpu": "CPUs", "memory": "memory (peak)", "gpu": "GPUs", "time": "time"}


def _words(name: str, asked: float, used: float) -> str:
    if name == "memory":
        return f"{format_size(int(used))} of {format_size(int(asked))}"
    if name == "time":
        return f"{format_duration(used)} of {format_duration(asked)}" if asked else format_duration(used)
    return f"{100 * used / asked:.0f} % of {'core' if name == 'cpu' else 'GPU'} time" if asked else ""
