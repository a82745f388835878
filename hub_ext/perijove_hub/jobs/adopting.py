"""Attempts that the record does not know, because it is older than what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove.model import Attempt, Gpu, Job, State
from perijove_hub.jobs.ending import OFF_NODE
from perijove_hub.jobs.events import Adopted

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board
    from perijove_spawners.protocol import Report


def displace(board: Board, job_id: int, number: int, now: float) -> Job | None:
    """A node has an attempt of a job that is later than the one on record, which is over: its place is free.

    None when the job has ended, or its attempt is as late.
    """
    job = board.find(job_id)
    if job is None or job.state.ended or number <= job.attempt:
        return None
    if job.state is State.PENDING:
        return job
    waits = job.model_copy(update={**OFF_NODE, "state": State.PENDING, "reason": None})
    board.change(job, waits, "displaced", {}, now)
    return waits


def adopt(board: Board, attempt: Attempt, report: Report, now: float) -> Job | None:
    """Take over an attempt that is later than the one on record, as its node reports it: that is the truth.

    What it holds must be free on the board: displace all that are surpassed first. None as above.
    """
    job = displace(board, attempt.job, attempt.number, now)
    if job is None:
        return None
    gpus, slots = _held(board, report)
    board.apply_to_member(job, Adopted(report.node, attempt.number, gpus, slots), now)
    return board.jobs.get(job.id)


def _held(board: Board, report: Report) -> tuple[tuple[Gpu, ...], dict[str, tuple[int, ...]]]:
    """Devices and units of the attempt, as far as its node still has them."""
    node = board.ledger.node(report.node)
    if node is None:
        return (), {}
    gpus = tuple(gpu for gpu in node.gpus if gpu.uuid in report.gpus)
    there = {name: len(units) for name, units in node.slots.items()}
    return gpus, {
        name: tuple(unit for unit in units if unit < there[name])
        for name, units in report.slots.items()
        if name in there
    }


def skip(board: Board, job_id: int, number: int, now: float) -> None:
    """The next attempt of a job gets a number above `number`, which was another job's of the same id."""
    job = board.find(job_id)
    if job is not None and not job.state.on_node and not job.state.ended and job.attempt < number:
        board.change(job, job.model_copy(update={"attempt": number}), None, {}, now)
