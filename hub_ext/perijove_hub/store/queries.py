"""What is asked of the database: statements and how their rows are read. No connection is opened here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal, select, union_all

from perijove.model import State
from perijove_hub.accounting import DAY, Axis, Spent
from perijove_hub.store.batch import Page
from perijove_hub.store.tables import LONG, active, allocation, job, label


def page_queries(page: Page) -> list[Select[Any]]:
    """Statements each of which gives the newest rows of a part; the newest of all are the page.

    One for each state: an index gives the newest of one state without looking at the others.
    """
    query = select(job).limit(page.limit)
    labels = list(page.labels)
    key: ColumnElement[int] = job.c.id
    if labels and page.array is None and not page.members:
        # The label's index leads, in order: going through the jobs, a rare one would seldom be met.
        query = query.join(label, and_(label.c.job == job.c.id, _bears(page, *labels.pop(0))))
        key = label.c.job
    query = query.order_by(key.desc())
    if page.before is not None:
        query = query.where(key < page.before)
    if page.array is not None:
        query = query.where(job.c.array_id == page.array)
    elif not page.members:
        query = query.where(job.c.array_id.is_(None))
    if page.run == "none":
        query = query.where(job.c.run.is_(None))
    elif page.run != "any":
        query = query.where(job.c.run == page.run)
    for column, value in (
        (job.c.owner, page.owner),
        (job.c.name, page.name),
        (job.c.project, page.project),
    ):
        if value is not None:
            query = query.where(column == value)
    for name, value in labels:
        query = query.where(_labelled(page, name, value))
    if not page.states:
        return [query]
    ended = [state.value for state in dict.fromkeys(page.states) if state.ended]
    queries = [query.where(job.c.final == state) for state in ended]
    if State.PENDING in page.states:
        queries.append(query.where(job.c.final.is_(None), job.c.state == State.PENDING.value))
    if elsewhere := [state.value for state in page.states if not state.ended and state is not State.PENDING]:
        underway = query.join(active, active.c.job == job.c.id)
        queries.append(underway.where(job.c.state.in_(elsewhere)))
    return queries


def _labelled(page: Page, name: str, value: str) -> ColumnElement[bool]:
    bearer: ColumnElement[Any] = job.c.array_id if page.array is not None else job.c.id
    if page.members and page.array is None:
        bearer = func.coalesce(job.c.array_id, job.c.id)
    other = label.alias()
    same = (other.c.job == bearer, other.c.key == name, other.c.value == value)
    return exists().where(*same)


def _bears(page: Page, name: str, value: str) -> ColumnElement[bool]:
    same = and_(label.c.key == name, label.c.value == value)
    return and_(same, label.c.owner == page.owner) if page.owner is not None else same


def overlapping(since: float, until: float) -> list[ColumnElement[bool]]:
    """Conditions, of which each allocation that was held between the two meets exactly one.

    Those of at most :data:`LONG` seconds began at most so long before; the few long ones and those still
    held have an index of their own.
    """
    held, began, ended = allocation, allocation.c.began, allocation.c.ended
    lasted = held.c.ended - held.c.began
    # Literal, so that the planner sees that the partial index's condition is met.
    long = literal(LONG, literal_execute=True)
    return [
        and_(ended.is_(None), began < until),
        and_(began >= since - LONG, began < until, ended >= since, lasted <= long),
        and_(ended >= since, began < until, lasted > long),
    ]


def usage_query(
    by: Sequence[Axis], since: float, until: float, *, owner: str | None, project: str | None
) -> Select[Any]:
    """Sums of what was held between the two, by columns of the table (not by day)."""
    axes = [allocation.c[axis] for axis in by]
    parts = []
    for condition in overlapping(since, until):
        query = select(
            *axes,
            allocation.c.job,
            allocation.c.cpu,
            allocation.c.memory,
            allocation.c.gpus,
            _seconds(since, until).label("seconds"),
        ).where(condition)
        if owner is not None:
            query = query.where(allocation.c.owner == owner)
        if project is not None:
            query = query.where(allocation.c.project == project)
        parts.append(query)
    held = union_all(*parts).subquery()
    groups = [held.c[axis] for axis in by]
    return (
        select(
            *groups,
            func.sum(held.c.cpu * held.c.seconds),
            func.sum(held.c.memory * held.c.seconds),
            func.sum(held.c.gpus * held.c.seconds),
            func.count(held.c.job.distinct()),
        )
        .group_by(*groups)
        .having(func.count() > 0)
    )


def _seconds(since: float, until: float) -> ColumnElement[float]:
    began, ended = allocation.c.began, allocation.c.ended
    begin = case((began < since, since), else_=began)
    end = case((ended.is_(None), until), (ended > until, until), else_=ended)
    return end - begin


def spent_of(row: Sequence[Any]) -> Spent:
    """The last four columns of a row of :func:`usage_query`."""
    cpu, memory, gpus, jobs = row[-4:]
    return Spent(float(cpu or 0), float(memory or 0), float(gpus or 0), int(jobs))


def days(since: float, until: float) -> list[tuple[float, float]]:
    """The days (of UTC) between the two, the first and the last cut short."""
    found = []
    while since < until:
        midnight = min(until, (since // DAY + 1) * DAY)
        found.append((since, midnight))
        since = midnight
    return found
