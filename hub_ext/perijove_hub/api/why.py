"""Why a job waits, when it will start, what would start it now; and how well it used what it had."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from perijove.model import BlockerKind, Job, Reason, Stats, UnavailableError
from perijove_hub.accounting import efficiency
from perijove_hub.api.finding import JobId, Who, controller_of, job_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.lifecycle import attempt_of

router = APIRouter()


class ForecastView(BaseModel):
    """When it is likely to start, epoch seconds; None: not to be known."""

    earliest: float | None
    likely: float | None
    latest: float | None


class HintView(BaseModel):
    """It would start now with these fields changed."""

    changes: dict[str, Any]
    message: str


class WhyView(BaseModel):
    """Why it does not run."""

    job: Job
    reason: Reason | None
    """What keeps it, with the blockers without which it would start; of an ended job, why it ended."""
    forecast: ForecastView | None
    hints: list[HintView]


@router.get("/jobs/{job_id}/why")
async def why(request: Request, caller: Who, job_id: JobId) -> WhyView:
    """Why it waits (or ended), a forecast of its start as a range, and what would let it start now."""
    job = await job_of(request, caller, job_id)
    controller = controller_of(request)
    found = await controller.why(job)
    forecast = found.forecast
    return WhyView(
        job=caller.view(controller.board.view(job)),
        reason=await discreet(controller, caller, found.reason),
        forecast=None
        if forecast is None
        else ForecastView(earliest=forecast.earliest, likely=forecast.likely, latest=forecast.latest),
        hints=[HintView(changes=dict(hint.changes), message=hint.message) for hint in found.hints],
    )


OF_JOBS = frozenset({BlockerKind.JOB, BlockerKind.AHEAD, BlockerKind.DEPENDENCY})


async def discreet(controller: Controller, caller: Caller, reason: Reason | None) -> Reason | None:
    """`reason` without the names of users whose jobs the caller may not see; the jobs' numbers stay."""
    if reason is None or not reason.blockers:
        return reason
    hidden: dict[str, str] = {}
    for blocker in reason.blockers[:TOLD]:
        job = await controller.find(blocker.name) if blocker.kind in OF_JOBS else None
        if job is not None and not caller.may_see(job):
            hidden[f"job {job.label} of {job.owner}"] = f"job {job.label} of somebody else"
    blockers = [
        blocker.model_copy(update={"message": _without(blocker.message, hidden)})
        for blocker in reason.blockers[:TOLD]
    ]
    message = _without(reason.message, hidden)
    return reason.model_copy(update={"message": message, "blockers": blockers})


TOLD = 100
"""Blockers that are told."""


def _without(text: str, hidden: dict[str, str]) -> str:
    for said, instead in hidden.items():
        text = text.replace(said, instead)
    return text


class Use(BaseModel):
    """Of one resource: what was asked for, what was used, and their ratio."""

    asked: float
    used: float
    efficiency: float | None
    """None where nothing was asked for."""


class JobUsage(BaseModel):
    """How well a job used what it held (seff(1))."""

    cpu: Use
    """Core-seconds while it ran."""
    memory: Use
    """Bytes; used is the peak."""
    gpu: Use
    """Device-seconds."""
    time: Use
    """Seconds of run time, against the time limit."""


@router.get("/jobs/{job_id}/usage")
async def usage_of(request: Request, caller: Who, job_id: JobId) -> JobUsage:
    """What the latest attempt asked for and used: cores, memory, GPUs, time."""
    job = await job_of(request, caller, job_id)
    controller = controller_of(request)
    found = efficiency(await measured(controller, job), controller.clock())
    return JobUsage(
        **{
            name: Use(asked=one.asked, used=one.used, efficiency=one.efficiency)
            for name, one in found.items()
        }
    )


async def measured(controller: Controller, job: Job) -> Job:
    """`job` with what its node says that it uses now; as it is where the node does not say."""
    if not job.state.on_node or job.node is None:
        return job
    try:
        stats: Stats = await controller.fabric.call(job.node, "stats", attempt_of(job))
    except UnavailableError:
        return job
    return job.model_copy(update={"cpu_seconds": stats.cpu_seconds, "memory_peak": stats.memory_peak})
