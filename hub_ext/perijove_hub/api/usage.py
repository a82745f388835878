"""Who used how much, who uses much now, and how that compares with what is due to them."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from perijove.model import Job, NotFoundError, Stats, UserError, parse_duration
from perijove.model.errors import PerijoveError
from perijove_hub.accounting import AXES, DAY, Axis, Spent
from perijove_hub.api.desk import policy_of
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.policy.account import Account
from perijove_hub.policy.document import Limits

router = APIRouter()
WATCHED = 100
"""Running jobs that are asked at once what they use: those that hold most."""
DAYS = 1100
"""Days that can be told apart in one answer."""
PATIENCE = 3.0
"""Seconds within which nodes say what jobs use."""
GIB_HOUR = 3600.0 * (1 << 30)


class Usage(BaseModel):
    """Sums of what jobs held, in one group. Fields that were not asked for by name are left out."""

    owner: str | None = None
    project: str | None = None
    day: str | None = None
    """In UTC, ``2026-07-31``."""
    image: str | None = None
    node: str | None = None
    partition: str | None = None
    kind: str | None = None
    jobs: int
    cpu_hours: float
    memory_hours: float
    """GiB times hours."""
    gpu_hours: float


@router.get("/usage", response_model=list[Usage], response_model_exclude_unset=True)
async def usage(
    request: Request,
    caller: Who,
    by: Annotated[str, Query(max_length=200, description="owner,project,day,image,node,partition")] = "owner",
    since: Annotated[str | None, Query(max_length=40)] = None,
    until: Annotated[str | None, Query(max_length=40)] = None,
    owner: str | None = None,
    project: str | None = None,
) -> list[Usage]:
    """What was held, from ``since`` to ``until``, by owner, project, day, image, node or partition.

    Times are dates (``2026-07-31``, with or without a time), epoch seconds, or so long ago (``30d``, the
    default). One's own; a project's for its leads, all for administrators.
    """
    axes = axes_of(by)
    now = controller_of(request).clock()
    begin, end = instant("since", since or "30d", now), instant("until", until, now)
    if "day" in axes and end - begin > DAYS * DAY:
        raise UserError(f"since: at most {DAYS} days can be told apart; leave out day, or begin later")
    whose = usage_seen(caller, owner, project)
    return await usage_rows(controller_of(request), axes, begin, end, whose, project)


async def usage_rows(
    controller: Controller, axes: list[Axis], begin: float, end: float, owner: str | None, project: str | None
) -> list[Usage]:
    """The sums, in the order of `axes`."""
    found = await asyncio.to_thread(controller.database.usage, axes, begin, end, owner=owner, project=project)
    return [_row(axes, key, spent) for key, spent in sorted(found.items(), key=_in_order)]


def _in_order(item: tuple[tuple[str | None, ...], Spent]) -> tuple[str, ...]:
    return tuple(value or "" for value in item[0])


def _row(axes: list[Axis], key: tuple[str | None, ...], spent: Spent) -> Usage:
    sums = {
        "jobs": spent.jobs,
        "cpu_hours": round(spent.cpu_hours, 6),
        "memory_hours": round(spent.memory_hours, 6),
        "gpu_hours": round(spent.gpu_hours, 6),
    }
    return Usage.model_validate({**dict(zip(axes, key, strict=True)), **sums})


def axes_of(by: str) -> list[Axis]:
    """The names in `by`, each once. :class:`UserError` for others."""
    given = (part.strip() for part in by.split(","))
    names = list(dict.fromkeys("owner" if name == "user" else name for name in given if name))
    unknown = [name for name in names if name not in AXES]
    if unknown or not names:
        raise UserError(f"by: must be some of {', '.join(AXES)}, not {', '.join(unknown)[:80] or 'none'}")
    return [axis for name in names for axis in AXES if axis == name]


def instant(field: str, text: str | None, now: float) -> float:
    """Epoch seconds of a date, a number of them, or so long before `now`. `now` when there is none."""
    if text is None:
        return now
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if 1e6 <= number < 1e11:
        return number
    try:
        return now - parse_duration(text)
    except ValueError:
        wanted = "a date such as 2026-07-31, epoch seconds, or a time ago such as 30d"
        raise UserError(f"{field}: must be {wanted}, not {text[:40]!r}") from None


def usage_seen(caller: Caller, owner: str | None, project: str | None) -> str | None:
    """Whose use the caller sees: None for everybody's. Raises :class:`NotFoundError` for others'."""
    if caller.admin or (project is not None and project in caller.leads):
        return owner
    if owner is not None and owner != caller.name:
        raise NotFoundError(f"there is no usage of {owner[:80]} for you to see")
    return caller.name


# ---- now


class Busy(BaseModel):
    """A running job and what it uses now."""

    job: Job
    stats: Stats


@router.get("/top")
async def top(
    request: Request, caller: Who, limit: Annotated[int, Query(ge=1, le=WATCHED)] = 50
) -> list[Busy]:
    """Running jobs, those that use most first; of very many, those that hold most are looked at."""
    controller = controller_of(request)
    mine = [job for job in running(controller) if caller.may_see(job)]
    largest = heapq.nlargest(limit, mine, key=_weight)
    found = await asyncio.gather(*(_stats(controller, job) for job in largest))
    pairs = sorted(zip(largest, found, strict=True), key=lambda pair: (-pair[1].cpu, -pair[1].memory))
    return [Busy(job=caller.view(job), stats=stats) for job, stats in pairs]


def running(controller: Controller) -> list[Job]:
    """All that hold something of a node."""
    ledger, board = controller.ledger, controller.board
    ids = [held.job for node in ledger.nodes for held in ledger.holdings(node.name)]
    return [job for i in ids if (job := board.find(i)) is not None]


def _weight(job: Job) -> float:
    return job.spec.cpu + job.spec.memory / (4 << 30) + 10 * job.spec.gpus.count


async def _stats(controller: Controller, job: Job) -> Stats:
    try:
        async with asyncio.timeout(PATIENCE):
            found: Stats = await controller.fabric.call(job.node or "", "stats", attempt_of(job))
    except (PerijoveError, TimeoutError):
        return Stats()
    return found


# ---- what is due


class ShareView(BaseModel):
    """How one user within one project stands."""

    owner: str
    project: str | None
    shares: float
    usage: float
    """Weighted hours, fading with the policy's half-life."""
    target: float
    """The part of all that is due to them, 0 to 1."""
    actual: float
    """The part that they have had."""
    factor: float
    """1: nothing used; 0.5: what is due; towards 0: more."""


@router.get("/share")
async def share(request: Request, caller: Who) -> list[ShareView]:
    """The fair share: what is due to each and what they had. Oneself, and the projects that one leads."""
    return shares_seen(controller_of(request), caller)


def shares_seen(controller: Controller, caller: Caller) -> list[ShareView]:
    """The rows that the caller may see."""
    return [
        ShareView.model_validate(one, from_attributes=True)
        for one in controller.board.standing.report(controller.clock())
        if caller.admin or one.owner == caller.name or (one.project or "") in caller.leads
    ]


class Amounts(BaseModel):
    """Of one account: held now, and used over the policy's window."""

    pending: int
    running: int
    cpus: float
    memory: int
    gpus: int
    disk: int
    cpu_hours: float
    memory_hours: float
    gpu_hours: float


class ProjectView(BaseModel):
    """A project of the caller's, with what it may use and has used."""

    name: str
    description: str
    leads: list[str]
    lead: bool
    """Whether the caller leads it."""
    default: bool
    """Whether it is that of the caller's jobs that name none."""
    volumes: list[str]
    max_time: float | None
    limits: dict[str, Any]
    """Of all of it; what is not in here is not limited."""
    used: Amounts
    member_limits: dict[str, Any]
    """Of each member."""
    mine: Amounts
    """Of the caller within it."""


@router.get("/projects")
async def projects(request: Request, caller: Who) -> list[ProjectView]:
    """The caller's projects; all of them for administrators."""
    controller = controller_of(request)
    policy, groups = policy_of(controller), controller.core.groups_of(caller.name)
    mine = {*policy.projects_of(caller.name, groups), *caller.leads}
    usual = policy.project_of(caller.name, groups)
    standing, now = controller.board.standing, controller.clock()

    def used(kind: str, owner: str, name: str) -> Amounts:
        return _amounts(standing.account(kind, owner, name), now, policy.window)

    return [
        ProjectView(
            name=name,
            description=project.description,
            leads=project.leads,
            lead=name in caller.leads,
            default=name == usual,
            volumes=project.volumes,
            max_time=project.max_time,
            limits=_given(project.limits),
            used=used("project", "", name),
            member_limits=_given(project.limits_for(caller.name)),
            mine=used("member", caller.name, name),
        )
        for name, project in sorted(policy.projects.items())
        if caller.admin or name in mine
    ]


def _given(limits: Limits) -> dict[str, Any]:
    return limits.model_dump(exclude_none=True)


def _amounts(account: Account, now: float, window: float) -> Amounts:
    spent = account.within(now, window)
    return Amounts(
        pending=account.pending,
        running=account.running,
        cpus=account.cpu,
        memory=account.memory,
        gpus=account.gpus,
        disk=account.disk,
        cpu_hours=round(spent.cpu / 3600, 6),
        memory_hours=round(spent.memory / GIB_HOUR, 6),
        gpu_hours=round(spent.gpu / 3600, 6),
    )
