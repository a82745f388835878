"""Jobs by what people call them, on the board or in the database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perijove.model import Job, JobSpec, State
from perijove.model.values import ArrayRange
from perijove_hub.jobs import arrays
from perijove_hub.jobs.depending import target_of
from perijove_hub.store.database import Page

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board
    from perijove_hub.store.database import Database

_REF = re.compile(r"(\d{1,18})(?:_(\d{1,12}))?", re.ASCII)


async def find(board: Board, database: Database, ref: str) -> Job | None:
    """The job that `ref` (``12`` or ``12_7``) names, also a member that is no job of its own."""
    match = _REF.fullmatch(ref)
    if match is None:
        return None
    number, task = int(match[1]), match[2]
    if task is None:
        return board.find(number) or await asyncio.to_thread(stored, database, number)
    group = board.find(number) or await asyncio.to_thread(database.job, number)
    index = arrays.index_of(group, int(task)) if group is not None and arrays.is_group(group) else None
    if group is None or index is None:
        return None
    member = number + 1 + index
    return board.find(member) or await asyncio.to_thread(stored, database, member)


def stored(database: Database, number: int) -> Job | None:
    """The job of that id as the database has it, or as its group says."""
    job = database.job(number)
    if job is not None:
        return job
    below = database.jobs(Page(limit=1, before=number))
    if not below or not arrays.is_group(below[0]):
        return None
    index = number - below[0].id - 1
    return arrays.member(below[0], index) if index < arrays.size(below[0].spec) else None


def submitted(board: Board, database: Database, ids: range) -> list[Job]:
    """The jobs and groups among `ids`, which one submission was given."""
    found: list[Job] = []
    number = ids.start
    while number in ids:
        job = board.jobs.get(number) or board.recent.get(number) or database.job(number)
        if job is not None and job.array_id is None:
            found.append(job)
            number += arrays.size(job.spec)
        number += 1
    return found


def surroundings(
    database: Database, live: Sequence[Job]
) -> tuple[dict[int, Job], dict[int, dict[int, State]]]:
    """What loading the board needs beside the live jobs: ended ones they depend on, and of each group the
    members that have rows.
    """
    present = {job.id: job for job in live}
    known: dict[int, Job] = {}

    def look(number: int) -> Job | None:
        job = present.get(number) or known.get(number) or database.job(number)
        if job is not None and number not in present:
            known[number] = job
        return job

    for job in live:
        if job.array_id is not None:
            continue
        for dependency in job.spec.depends_on:
            on = look(dependency.job)
            target = target_of(dependency, on) if on is not None else None
            if target is not None and dependency.task is not None:
                look(target)
    states = {job.id: database.group_tasks(job.id) for job in live if arrays.is_group(job)}
    return known, states


def recently_ended(database: Database) -> list[Job]:
    """Some, the oldest first: what forecasts learn from."""
    ended = tuple(state for state in State if state.ended)
    return [job for job in reversed(database.jobs(Page(ended, limit=1000))) if not arrays.is_group(job)]


def spec_to_rerun(job: Job) -> JobSpec:
    """Of the new job: not held, after no other; a member of an array becomes an array of that one task."""
    changes: dict[str, object] = {"depends_on": [], "hold": False}
    if job.array_id is not None and job.array_task is not None and job.spec.array is not None:
        changes["array"] = ArrayRange(start=job.array_task, end=job.array_task, step=job.spec.array.step)
    return job.spec.model_copy(update=changes)
