"""What can be said of a waiting job: why it waits, when it may start, what would let it start now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from perijove.model import Blocker, BlockerKind, Job, Reason, ReasonCode, State
from perijove_hub.jobs import arrays, passes
from perijove_hub.jobs.waits import SHOWN
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.forecast import forecast
from perijove_hub.placement.hints import Why, hints
from perijove_hub.placement.reasons import explain
from perijove_hub.placement.runtimes import Range
from perijove_hub.placement.situation import Situation

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board

_CODES = {
    BlockerKind.HOLD: ReasonCode.HELD,
    BlockerKind.DEPENDENCY: ReasonCode.DEPENDENCY,
    BlockerKind.DELAY: ReasonCode.BEGIN_TIME,
    BlockerKind.LIMIT: ReasonCode.ARRAY_LIMIT,
}


def why(board: Board, job: Job, now: float) -> Why:
    """Of `job` as it stands; of one that does not wait, only its reason.

    A group is asked about as far as its next member goes, a member that is no job yet as its group.
    """
    if job.state not in {State.PENDING, State.HELD} and not _has_rest(board, job):
        return Why(board.view(job).reason)
    asked = _asked(board, job)
    own = own_blockers(board, job, now)
    entry = Entry(asked, asked.spec.nodes if arrays.is_gang(asked) else 1)
    situation = situation_of(board, entry, now)
    found = explain(entry, situation)
    blockers = [*own, *(found.blockers if found is not None else [])]
    said = [blocker.message for blocker in own] + ([found.message] if found is not None else [])
    reason = None
    if own:
        reason = Reason(code=_CODES[own[0].kind], message="; ".join(said), blockers=blockers)
    elif found is not None:
        reason = found
    if reason is not None and asked.id in board.queue:
        reason = reason.model_copy(update={"position": board.queue.position(asked.id)})
    elif reason is None:
        reason = board.view(job).reason
    waits_for_people = any(blocker.kind in {BlockerKind.HOLD, BlockerKind.DEPENDENCY} for blocker in own)
    if waits_for_people:
        return Why(reason)
    expected = remembered(board.runtimes.expected)
    when = forecast(entry, situation, expected, board.jobs.get, waiting=len(board.queue))
    return Why(reason, when, hints(entry, situation) if not own else [])


def remembered(expected: Callable[[Job], Range]) -> Callable[[Job], Range]:
    """The same answers, worked out once for all jobs that are alike: a forecast asks for each that runs."""
    known: dict[tuple[str, str, float | None], Range] = {}

    def answer(job: Job) -> Range:
        key = (job.owner, job.name, job.spec.time_limit)
        if (found := known.get(key)) is None:
            found = known[key] = expected(job)
        return found

    return answer


def situation_of(board: Board, entry: Entry, now: float) -> Situation:
    """Queue and nodes as the next pass finds them; `entry` is last when the queue does not hold it."""

    def entries() -> Iterator[Entry]:
        held_back = entry.job.id in board.queue and board.entry(entry.job.id) is None
        if held_back:  # An array of which as many run as may: its own limit is named, not its place.
            yield entry
        yield from passes.in_order(board, board.standing.shares(now), now)
        if entry.job.id not in board.queue:
            yield entry

    return Situation(
        entries,
        board.ledger.table,
        passes.rules_of(board),
        lambda: board.standing.gate(now, board.standing.shares(now)),
        now,
    )


def own_blockers(board: Board, job: Job, now: float) -> list[Blocker]:
    """What keeps it out of the queue."""
    found: list[Blocker] = []
    group = board.jobs.get(job.array_id) if job.array_id is not None else None
    if job.state is State.HELD or (job.id in board.groups and arrays.is_held(job)):
        found.append(Blocker(kind=BlockerKind.HOLD, name=job.label, message="held; `release` lets it start"))
    for one in (job, group):
        if one is None:
            continue
        unmet = board.waits.unmet(one.id)
        for dependency in unmet[:SHOWN]:
            text = f"waits for {dependency}"
            found.append(Blocker(kind=BlockerKind.DEPENDENCY, name=dependency.label, message=text))
        if len(unmet) > SHOWN:
            more = f"and for {len(unmet) - SHOWN} more"
            found += [
                Blocker(kind=BlockerKind.DEPENDENCY, name=dependency.label, message=more)
                for dependency in unmet[SHOWN:]
            ]
        if (until := board.delayed.get(one.id)) is not None:
            text = f"is tried again in {max(0.0, until - now):.0f} s"
            found.append(Blocker(kind=BlockerKind.DELAY, name=one.label, message=text))
    array = group or job
    members = board.groups.get(array.id)
    if members is not None and not arrays.is_gang(array) and members.room <= 0:
        text = f"{members.limit} members of job {array.label} run, as many as may at once"
        found.append(Blocker(kind=BlockerKind.LIMIT, name=array.label, message=text))
    return found


def _has_rest(board: Board, job: Job) -> bool:
    members = board.groups.get(job.id)
    return members is not None and members.rest > 0 and not job.kill_requested


def _asked(board: Board, job: Job) -> Job:
    """Whose entry answers for `job`: a member that is no job yet stands in its group's place."""
    if job.array_id is not None and job.id not in board.jobs and job.array_id in board.jobs:
        return board.jobs[job.array_id]
    return job
