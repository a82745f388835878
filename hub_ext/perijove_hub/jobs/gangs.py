"""Gangs: members that start together on nodes of their own, and of which none goes on without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove.model import Job, State
from perijove_hub.jobs.events import (
    Change,
    Ended,
    Event,
    GangFell,
    Hold,
    Kill,
    Preempt,
    Release,
    Reschedule,
    Resume,
    Suspend,
)

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board


def concerns_all(event: Event) -> bool:
    """Whether what happens to one member happens to all."""
    return isinstance(event, Kill | Hold | Release | Suspend | Resume | Reschedule | Preempt | Change)


def may_start(board: Board, gang: Job) -> bool:
    """Whether every member waits: only then all can be placed together."""
    members = board.groups[gang.id]
    return members.counts[State.PENDING] == members.size


def waits_for_others(board: Board, member: Job, event: Ended) -> bool:
    """Whether a success is kept until the others have ended: until then they may all have to run again.

    The node says it again and again until it is told that it is recorded, so a restart does not lose it.
    Meanwhile the member goes on holding its node, as those of a job of Slurm's do.
    """
    members = board.groups.get(member.array_id or 0)
    if members is None or event.outcome.state is not State.SUCCEEDED:
        return False
    if member.kill_requested or member.requeue_requested or not member.state.on_node:
        return False
    members.finished[member.id] = event
    return len(members.finished) < len(members.live)


def member_moved(board: Board, old: Job, new: Job, now: float) -> None:
    """Where one goes, all go."""
    gang = new.array_id or 0
    members = board.groups[gang]
    if new.state is State.SUCCEEDED:
        _end_finished(board, new, now)
        return
    requeued = new.state is State.PENDING and old.state.on_node
    if new.state is State.PENDING and may_start(board, board.jobs[gang]):
        members.fell = None
        _ask_for_alike(board, gang, now)
        board.enqueue(board.jobs[gang], now)
    elif (requeued or new.state.ended) and (members.fell is None or members.fell.requeue > requeued):
        members.fell = GangFell(new.label, requeued, new.failures)
        _tell_others(board, new, members.fell, now)


def _tell_others(board: Board, new: Job, fell: GangFell, now: float) -> None:
    members = board.groups[new.array_id or 0]
    for other in sorted(members.live - {new.id}):
        job = board.jobs.get(other)
        if job is not None and (job.state.on_node or not fell.requeue):
            board.apply_to_member(job, fell, now)
            if (kept := members.finished.pop(other, None)) is not None:
                board.apply(other, kept, now)


def _ask_for_alike(board: Board, gang: int, now: float) -> None:
    """One that ran out of memory asks for more: so do all."""
    most = max(board.jobs[member].spec.memory for member in board.groups[gang].live)
    if most > board.jobs[gang].spec.memory:
        board.apply(gang, Change({"memory": most}, "site"), now)


def _end_finished(board: Board, new: Job, now: float) -> None:
    """The last has succeeded: now it is true of all."""
    members = board.groups[new.array_id or 0]
    finished, members.finished = members.finished, {}
    for other, kept in sorted(finished.items()):
        if other != new.id and (job := board.jobs.get(other)) is not None:
            board.apply_to_member(job, kept, now)
