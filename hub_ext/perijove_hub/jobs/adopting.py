"""Attempts that the record does not know, because it is older than what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove.model import Job, State
from perijove_hub.jobs.ending import OFF_NODE
from perijove_hub.jobs.events import Adopted

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board


def adopt(board: Board, job_id: int, node: str, number: int, now: float) -> Job | None:
    """A node has an attempt of a job that is later than the one on record: that is the truth.

    None when the job has ended, or its attempt is as late.
    """
    job = board.find(job_id)
    if job is None or job.state.ended or number <= job.attempt:
        return None
    if job.state is not State.PENDING:
        waits = job.model_copy(update={**OFF_NODE, "state": State.PENDING, "reason": None})
        board.change(job, waits, "displaced", {}, now)
        job = waits
    board.apply_to_member(job, Adopted(node, number), now)
    return board.jobs.get(job_id)


def skip(board: Board, job_id: int, number: int, now: float) -> None:
    """The next attempt of a job gets a number above `number`, which was another job's of the same id."""
    job = board.find(job_id)
    if job is not None and not job.state.on_node and not job.state.ended and job.attempt < number:
        board.change(job, job.model_copy(update={"attempt": number}), None, {}, now)
