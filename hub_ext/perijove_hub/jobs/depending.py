"""Dependencies on the board: who begins to wait, and what an end means for those who wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from perijove.model import Dependency, Job, ReasonCode, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.dependencies import Verdict, judge
from perijove_hub.jobs.events import Eligible, Reject
from perijove_hub.jobs.waits import in_vain, waiting

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board


def target_of(dependency: Dependency, on: Job) -> int | None:
    """The id of what is waited for: the job `on`, or a member of it. None: it has no such member."""
    if dependency.task is None:
        return on.id
    index = arrays.index_of(on, dependency.task) if arrays.is_group(on) else None
    return None if index is None else on.id + 1 + index


def begin_waiting(board: Board, job: Job, known: Mapping[int, Job], now: float) -> bool:
    """Note what a new or loaded job waits for; whether it has to, or was rejected as it waits in vain."""
    if not job.spec.depends_on or job.array_id is not None or job.state not in {State.PENDING, State.HELD}:
        return False
    new = job.id in board.pending.batch.new
    if job.attempt > 0:
        return False
    unmet: list[tuple[Dependency, int]] = []
    never: list[Dependency] = []
    for dependency in job.spec.depends_on:
        on = board.find(dependency.job) or known.get(dependency.job)
        target = target_of(dependency, on) if on is not None else None
        if dependency.task is not None and on is not None and target is not None:
            on = board.find(target) or known.get(target) or arrays.member(on, target - on.id - 1)
        if on is None and not new and (job.reason is None or job.reason.code is not ReasonCode.DEPENDENCY):
            continue  # it was met, and what it was met by has been removed since
        verdict = judge(dependency, on if target is not None and target < job.id else None)
        if verdict is Verdict.NEVER:
            never.append(dependency)
        elif verdict is Verdict.WAITING and target is not None:
            unmet.append((dependency, target))
    if never:
        board.apply(job.id, Reject(in_vain(never)), now)
        return True
    if not unmet:
        return False
    board.waits.add(job.id, unmet)
    if new and job.state is State.PENDING:
        told = job.model_copy(update={"reason": waiting(board.waits.unmet(job.id))})
        board.jobs[job.id] = board.pending.batch.new[job.id] = told
    return True


def tell(board: Board, on: Job, now: float) -> None:
    """`on` changed its state: look at those that wait for it, and at nobody else."""
    for dependant, dependencies in board.waits.on(on.id):
        _look(board, dependant, dependencies, on, now)


def tell_of_rest(board: Board, group: Job, now: float) -> None:
    """All members of `group` that are no jobs changed their state together."""
    members = board.groups[group.id]
    for target in board.waits.targets(range(group.id + 1, group.id + 1 + members.size)):
        index = target - group.id - 1
        if index not in members.known:
            tell(board, arrays.member(group, index), now)


def _look(board: Board, dependant: int, dependencies: list[Dependency], on: Job, now: float) -> None:
    verdicts = [(judge(dependency, on), dependency) for dependency in dependencies]
    if never := [dependency for verdict, dependency in verdicts if verdict is Verdict.NEVER]:
        board.waits.drop(dependant)
        board.apply(dependant, Reject(in_vain(never)), now)
        return
    done = False
    for verdict, dependency in verdicts:
        if verdict is Verdict.MET:
            done = board.waits.met(dependant, dependency) or done
    if done and (job := board.jobs.get(dependant)) is not None:
        board.apply(dependant, Eligible(), now)
        board.enqueue(board.jobs.get(dependant, job), now)
        members = board.groups.get(dependant)
        for member in sorted(members.live) if members is not None else ():
            board.enqueue(board.jobs[member], now)
