"""What happens to a group as a whole: to its members that are jobs, to the rest at once, and to itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perijove.model import ConflictError, Job, Reason, ReasonCode, State
from perijove_hub.jobs import arrays, depending, gangs
from perijove_hub.jobs.changes import changed
from perijove_hub.jobs.events import Change, Eligible, Event, GangFell, Hold, Kill, Reject, Release
from perijove_hub.jobs.lifecycle import HELD
from perijove_hub.jobs.members import meant, refusal

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board

_AFTER: Mapping[type, State] = {
    Kill: State.KILLED,
    Reject: State.REJECTED,
    Hold: State.HELD,
    Release: State.PENDING,
}


def happen(board: Board, group: Job, event: Event, now: float) -> Job | None:
    """Let `event` happen to all members of `group` that it concerns; the group afterwards.

    Raises :class:`ConflictError` when it concerns none.
    """
    members = board.groups[group.id]
    if (why := refusal(event, group, members)) is not None:
        raise ConflictError(why)
    rest = arrays.state_of_rest(group)
    for_rest = meant(event, rest) if members.rest and not rest.ended else None
    _to_itself(board, group, event, for_rest, now)
    if isinstance(event, Kill):
        members.fell = GangFell(group.label, requeue=False)
    for member in sorted(members.live):
        job = board.jobs.get(member)
        if job is None or (its := meant(event, job.state)) is None:
            continue
        if isinstance(its, Change) and job.state.on_node and not set(its.changes) <= {"time_limit", "name"}:
            continue
        with contextlib.suppress(ConflictError):
            board.apply_to_member(job, its, now)
    if group.id in board.groups:
        follow(board, group.id, now)
    return board.find(group.id)


def _to_itself(board: Board, group: Job, event: Event, for_rest: Event | None, now: float) -> None:
    """The group's own record, which is that of all members that are no jobs yet."""
    members, rest = board.groups[group.id], arrays.state_of_rest(group)
    changes, name, detail = _changes(group, event, for_rest)
    if isinstance(event, Change):
        decision = changed(group.model_copy(update={"state": rest, "node": None}), event, now)
        changes, name, detail = {"spec": decision.job.spec}, decision.event, decision.detail
        changes |= {"name": decision.job.name, "partition": decision.job.partition}
    if not changes and name is None:
        return
    new = group.model_copy(update=changes)
    after = _AFTER.get(type(for_rest), rest) if for_rest is not None else rest
    if after is not rest:
        members.moved(rest, after, members.rest)
        board.touch(group.id)
        if after.ended:
            board.standing.leaves(group, members.rest)
        if after is not State.PENDING:
            board.queue.discard(group.id)
    board.change(group, new, name, detail, now)
    board.enqueue(new, now)
    if after.ended and not rest.ended:
        depending.tell_of_rest(board, new, now)


def _changes(
    group: Job, event: Event, for_rest: Event | None
) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    match event:
        case Kill(by):
            detail = {"by": by}
            return {"kill_requested": True}, None if group.kill_requested else "kill", detail
        case Reject(reason):
            return {"reason": reason}, None, {}
        case Eligible() if for_rest is not None:
            return {"reason": None}, "eligible", {}
    match for_rest:
        case Hold():
            return {"reason": HELD}, "held", {}
        case Release():
            return {"reason": None}, "released", {}
    return {}, None, {}


def member_moved(board: Board, old: Job, new: Job, now: float) -> None:
    """A member changed its state: the group's numbers, and maybe its state, follow."""
    group = new.array_id or 0
    members = board.groups[group]
    members.moved(old.state, new.state)
    board.touch(group)
    if members.rest == 0 and not arrays.is_gang(new):
        board.queue.discard(group)
    if members.limit < members.size and old.state.on_node != new.state.on_node:
        board.placeable = True
    if arrays.is_gang(new):
        gangs.member_moved(board, old, new, now)
    if group in board.groups:
        follow(board, group, now)


def follow(board: Board, group: int, now: float) -> None:
    """The group's state follows its members'."""
    members, job = board.groups[group], board.jobs[group]
    state = arrays.state_of(members.counts)
    begins = job.started is None and members.counts[State.RUNNING] > 0
    if (state is job.state and not begins) or (state.ended and members.live):
        return
    changes: dict[str, Any] = {"state": state, "tasks": members.tasks()}
    if state.ended:
        changes["ended"] = now
        changes["exit_code"] = 0 if state is State.SUCCEEDED else job.exit_code
        changes["reason"] = _reason(job, state, members.counts)
    elif state is State.HELD and job.reason is None:
        changes["reason"] = HELD
    if begins:
        changes["started"] = now
    new = job.model_copy(update=changes)
    board.change(job, new, "array", {str(s): n for s, n in changes["tasks"].items()}, now)
    if state is State.HELD:
        board.queue.discard(
            group
        )  # a gang that ran before: no member is left that would be told by its group
    if job.state is State.HELD and group in board.groups:
        # Released after some of its members had ended: it was not pending in between.
        board.enqueue(new, now)


def _reason(job: Job, state: State, counts: Mapping[State, int]) -> Reason | None:
    if failed := counts[State.FAILED] + counts[State.LOST]:
        text = f"{failed} of {arrays.size(job.spec)} members failed"
        return Reason(code=ReasonCode.NON_ZERO_EXIT, message=text)
    if state is State.KILLED:
        return Reason(code=ReasonCode.KILLED_BY_USER, message="its members were killed")
    return job.reason if state is State.REJECTED else None
