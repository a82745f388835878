"""The board as a database left it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from perijove.model import Job, State
from perijove_hub.jobs import arrays, depending, whole
from perijove_hub.jobs.members import Members

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board


def load(
    board: Board,
    jobs: Iterable[Job],
    now: float,
    known: Mapping[int, Job],
    states: Mapping[int, Mapping[int, State]],
) -> None:
    """See :meth:`Board.load`."""
    loaded = sorted(jobs, key=lambda job: job.id)
    board.jobs.update((job.id, job) for job in loaded)
    for job in loaded:
        if arrays.is_group(job):
            tasks = states.get(job.id, {})
            seen = {arrays.index_of(job, task) or 0: state for task, state in tasks.items()}
            board.take_group(job, Members.of(job, seen))
    for job in loaded:
        if job.array_id is not None and job.array_id in board.groups:
            board.groups[job.array_id].live.add(job.id)
        _count(board, job)
    for job in loaded:
        if not depending.begin_waiting(board, job, known, now):
            board.enqueue(board.jobs[job.id], now)
    for group in list(board.groups):
        whole.follow(board, group, now)


def _count(board: Board, job: Job) -> None:
    members = board.groups.get(job.id)
    if members is not None:
        if members.rest and not job.kill_requested:
            board.standing.waits(job, members.rest)
    elif job.state.on_node:
        board.holdings.load(job)
        board.note_resumption(job)
    elif not job.state.ended:
        board.standing.waits(job)
