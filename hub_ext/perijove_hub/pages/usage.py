"""What was used, as plots: by day, by user, by project; and how well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from perijove.model import Job, State
from perijove_hub.accounting import DAY, Axis, day_of, efficiency
from perijove_hub.api.finding import controller_of
from perijove_hub.api.usage import Usage, shares_seen, usage_rows
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.pages.plots import bars, columns, figure, fractions, targets
from perijove_hub.pages.queue import number
from perijove_hub.pages.render import render, visit
from perijove_hub.store.database import Page

router = APIRouter(include_in_schema=False)
NAMES = 20
"""Bars of a plot."""
MEASURED = 100
ROWS = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its table."""

    title: str
    of: str
    plot: Markup
    rows: list[tuple[str, list[str]]]
    heads: tuple[str, ...] = ("Jobs", "CPU hours", "GiB hours of memory", "GPU hours")


@router.get("/usage")
async def page(request: Request, days: str = "30") -> Response:
    """The page."""
    span = min(365, max(1, number(days) or 30))

    async def show(caller: Caller) -> Response:
        controller = controller_of(request)
        figures = await _figures(controller, caller, span)
        measured, plot = await _efficiency(controller, caller)
        return render(
            request,
            caller,
            "usage",
            title="Usage",
            here="usage",
            days=span,
            figures=figures,
            efficiency=plot,
            measured=measured,
        )

    return await visit(request, show)


async def _figures(controller: Controller, caller: Caller, days: int) -> list[Figure]:
    now = controller.clock()
    since = (now // DAY - days + 1) * DAY
    daily = await _rows(controller, caller, ["day"], since, now)
    if not daily:
        return []
    found = [_by_day(daily, since, now, "cpu")]
    if any(row.gpu_hours for row in daily):
        found.append(_by_day(daily, since, now, "gpu"))
    axes: tuple[tuple[Axis, str], ...] = (("project", "project"), ("image", "image"))
    if caller.admin or caller.leads:
        axes = (("owner", "user"), *axes)
    for axis, of in axes:
        rows = await _rows(controller, caller, [axis], since, now)
        if len(rows) > 1 or (axis == "owner" and rows):
            found.append(_by_name(rows, axis, of))
    return found


async def _rows(
    controller: Controller, caller: Caller, axes: list[Axis], since: float, until: float
) -> list[Usage]:
    """Of everybody for administrators; else one's own, and of others in projects that one leads."""
    if caller.admin:
        return await usage_rows(controller, axes, since, until, None, None)
    whole = [*axes, *[a for a in _TOLD if a not in axes]]
    mine = await usage_rows(controller, whole, since, until, caller.name, None)
    for project in sorted(caller.leads):
        led = await usage_rows(controller, whole, since, until, None, project)
        mine += [row for row in led if row.owner != caller.name]
    return _summed(mine, axes)


_TOLD: tuple[Axis, ...] = ("owner", "project")


def _summed(rows: list[Usage], axes: list[Axis]) -> list[Usage]:
    sums: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        total = sums.setdefault(tuple(getattr(row, axis) for axis in axes), [0, 0.0, 0.0, 0.0])
        for i, value in enumerate((row.jobs, row.cpu_hours, row.memory_hours, row.gpu_hours)):
            total[i] += value
    return [
        Usage.model_validate(
            {
                **dict(zip(axes, key, strict=True)),
                "jobs": int(total[0]),
                "cpu_hours": total[1],
                "memory_hours": total[2],
                "gpu_hours": total[3],
            }
        )
        for key, total in sorted(sums.items(), key=lambda item: tuple(map(str, item[0])))
    ]


def _by_day(rows: list[Usage], since: float, now: float, what: Literal["cpu", "gpu"]) -> Figure:
    by_day = {row.day: row for row in rows}
    names = [day_of(since + i * DAY) for i in range(int((now - since) // DAY) + 1)]
    values = [(name, float(getattr(by_day.get(name), f"{what}_hours", 0.0))) for name in names]
    unit = "CPU hours" if what == "cpu" else "GPU hours"
    return Figure(f"{unit} by day", "Day", columns(values, unit), [_line(row.day, row) for row in rows])


def _by_name(rows: list[Usage], axis: Axis, of: str) -> Figure:
    largest = sorted(rows, key=lambda row: -(row.cpu_hours + 10 * row.gpu_hours))
    shown = [(_name(getattr(row, axis)), row.cpu_hours) for row in largest[:NAMES]]
    lines = [_line(getattr(row, axis), row) for row in largest[:ROWS]]
    return Figure(f"CPU hours by {of}", of.capitalize(), bars(shown, "CPU hours"), lines)


def _name(value: str | None) -> str:
    return value or "(none)"


def _line(name: str | None, row: Usage) -> tuple[str, list[str]]:
    hours = (row.cpu_hours, row.memory_hours, row.gpu_hours)
    return _name(name), [str(row.jobs), *map(figure, hours)]


async def _efficiency(controller: Controller, caller: Caller) -> tuple[int, Markup | None]:
    ended = (State.SUCCEEDED, State.FAILED)
    page = Page(ended, None if caller.admin else caller.name, limit=MEASURED, members=True, run="any")
    rows = await asyncio.to_thread(controller.database.jobs, page)
    jobs = [job for job in rows if job.started is not None]
    if not jobs:
        return 0, None
    return len(jobs), fractions(together(jobs, controller.clock()))


def together(jobs: list[Job], now: float) -> list[tuple[str, float | None, str]]:
    """What all of them used of what they held."""
    found: list[tuple[str, float | None, str]] = []
    each = [efficiency(job, now) for job in jobs]
    names: tuple[tuple[Literal["cpu", "memory", "gpu"], str], ...] = (
        ("cpu", "CPUs"),
        ("memory", "memory (peak)"),
        ("gpu", "GPUs"),
    )
    for name, words in names:
        asked = sum(one[name].asked for one in each)
        if asked:
            part = sum(one[name].used for one in each) / asked
            found.append((words, part, f"{100 * part:.0f} %"))
    return found


@router.get("/share")
async def share(request: Request) -> Response:
    """What is due to each, and what they have had."""

    async def show(caller: Caller) -> Response:
        rows = shares_seen(controller_of(request), caller)
        rows.sort(key=lambda row: -row.factor)
        named = [(f"{row.owner} ({row.project})" if row.project else row.owner, row) for row in rows]
        plot = targets([(name, row.target, row.actual) for name, row in named[:NAMES]])
        more = max(0, len(rows) - ROWS)
        return render(
            request, caller, "share", title="Fair share", here="share", rows=rows[:ROWS], plot=plot, more=more
        )

    return await visit(request, show)
