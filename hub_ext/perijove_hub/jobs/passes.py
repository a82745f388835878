"""One pass over the queue: what can go on goes on, what can start starts, and who must make room is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from perijove.model import Job, Machine, ReasonCode, State
from perijove_hub.accounting import Keep
from perijove_hub.jobs import arrays
from perijove_hub.jobs.events import Granted, Placed, Preempt
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.plan import LOOKED_AT, Rules, plan

if TYPE_CHECKING:
    from perijove_hub.jobs.board import Board
    from perijove_hub.placement.entry import Placement
    from perijove_hub.placement.entry import Preempt as Victim
    from perijove_hub.policy.shares import Shares

T = TypeVar("T")

LONG = 1_000
"""With more entries waiting, most passes look no further than this many of which nothing starts,"""
THOROUGH = 1.0
"""but one in so many seconds looks as far as a pass does: for what fits further back, and for the reasons."""


def place(board: Board, now: float) -> None:
    """Start what can start; note for the others why not.

    `board.placeable` is set again when the pass was cut short. Jobs that users told to go on come before the
    queue; those suspended for another job after it, as the room was made for that one.
    """
    _go_on(board, now, preempted=False)
    if len(board.queue) and len(board.ledger.table):
        shares = board.standing.shares(now)
        gate = board.standing.gate(now, shares)
        entries = in_order(board, shares, now)
        table = board.ledger.table.copy()
        brief = len(board.queue) > LONG and 0 <= now - board.thorough < THOROUGH and not board.terse
        decided = plan(
            entries,
            table,
            rules_of(board),
            gate,
            now,
            terse=board.terse or brief,
            depth=LONG if brief else LOOKED_AT,
        )
        _start(board, decided.placements, now)
        board.full, board.brief = decided.full, brief
        if brief:
            board.reasons.update(decided.reasons)
        else:
            board.reasons, board.thorough = decided.reasons, now
        _make_room(board, decided.preemptions, now)
        if not decided.complete:
            board.placeable = True
    else:
        board.reasons, board.full, board.brief = {}, False, False
    _go_on(board, now, preempted=True)


def in_order(board: Board, shares: Shares, now: float) -> Iterator[Entry]:
    """The queue in the order of its scheduler, but those first for whom room is being made.

    Else who had to leave, and waits again in the old place, would take that room.
    """
    first: dict[int, int] = {}
    for by, victims in board.room_for.items():
        if by in board.queue and (entry := board.entry(by)) is not None:
            first[by] = entry.count if entry.together else min(entry.count, len(victims))
            yield Entry(entry.job, first[by])
    for entry in board.scheduler.order(board.queue.lines(), shares, now):
        served = min(entry.count, first.get(entry.job.id, 0))
        if not served:
            yield entry
            continue
        first[entry.job.id] -= served
        if served < entry.count:
            yield Entry(entry.job, entry.count - served)


def rules_of(board: Board) -> Rules:
    """What a pass goes by."""
    return Rules(board.policy, board.maintenance, board.groups_of, board.ledger.holdings)


def _start(board: Board, placements: Iterable[Placement], now: float) -> None:
    gangs: dict[int, list[Placement]] = {}
    for placement in placements:
        job = board.jobs.get(placement.job)
        if job is None or job.id not in board.queue:
            continue
        if job.id not in board.groups:
            _place(board, job, Placed(placement.node, placement.gpus, placement.slots), now)
        elif arrays.is_gang(job):
            gangs.setdefault(job.id, []).append(placement)
        else:
            _start_members(board, job, placement, now)
    for gang, parts in gangs.items():
        ranks = [(part, i) for part in parts for i in range(part.count)]
        if len(ranks) != board.groups[gang].size:
            continue
        board.queue.discard(gang)
        for rank, (part, i) in enumerate(ranks):
            member = board.jobs.get(gang + 1 + rank) or arrays.member(board.jobs[gang], rank)
            _place(board, member, share(part, i), now)


def _start_members(board: Board, group: Job, placement: Placement, now: float) -> None:
    members = board.groups[group.id]
    for i in range(placement.count):
        if not members.rest or members.room <= 0:
            board.placeable = True
            return
        member = arrays.member(board.jobs[group.id], members.next())
        _place(board, member, share(placement, i), now)


def _place(board: Board, job: Job, placed: Placed, now: float) -> None:
    if job.array_id is not None and board.groups[job.array_id].room <= 0:
        board.placeable = True
        return
    board.apply_to_member(job, placed, now)


def share(placement: Placement, index: int) -> Placed:
    """Of what is placed together, the part of one member."""
    if placement.count == 1:
        return Placed(placement.node, placement.gpus, placement.slots)
    slots = {name: _part(units, placement.count, index) for name, units in placement.slots.items()}
    return Placed(placement.node, _part(placement.gpus, placement.count, index), slots)


def _part(units: tuple[T, ...], count: int, index: int) -> tuple[T, ...]:
    each = len(units) // count
    return units[index * each : (index + 1) * each]


# ---- suspended jobs


def has_room(board: Board, job: Job) -> bool:
    """Whether what a suspended job gave back is free for it."""
    return job.kept == "all" or board.ledger.fits_back(job)


def keeps(board: Board, job: Job) -> Keep:
    """What it goes on holding when it is suspended now. One suspended for another job makes room."""
    keep = board.policy.suspended_keep
    by_site = job.reason is not None and job.reason.code is ReasonCode.SUSPENDED_BY_SITE
    return "memory" if by_site and keep == "all" else keep


def _go_on(board: Board, now: float, *, preempted: bool) -> None:
    waiting = [board.jobs[job] for job in board.resuming]
    for job in sorted(waiting, key=lambda job: (-job.spec.priority, job.id)):
        blockers = job.reason.blockers if job.reason is not None else []
        if bool(blockers) is not preempted or any(int(b.name) in board.queue for b in blockers):
            continue
        if has_room(board, job):
            board.apply_to_member(job, Granted(), now)
            board.resuming.discard(job.id)


# ---- preemption


def _make_room(board: Board, preemptions: Iterable[Victim], now: float) -> None:
    for by, victims in list(board.room_for.items()):
        left = {victim for victim in victims if by in board.queue and _leaving(board, victim)}
        if left:
            board.room_for[by] = left
        else:
            del board.room_for[by]
    under_way = set(board.room_for)
    for preemption in preemptions:
        if preemption.by in under_way:
            continue
        victim = board.jobs.get(preemption.job)
        mode = board.policy.preemption.mode
        if victim is None or mode == "off":
            continue
        if mode == "suspend" and not can_suspend(board, victim):
            mode = "requeue"
        board.room_for.setdefault(preemption.by, set()).add(victim.id)
        board.apply(victim.id, Preempt(preemption.by, mode, board.policy.preemption.notice), now)


def _leaving(board: Board, victim: int) -> bool:
    job = board.jobs.get(victim)
    if job is None or not job.state.on_node:
        return False
    by_site = job.reason is not None and job.reason.code is ReasonCode.SUSPENDED_BY_SITE
    return job.kill_requested or job.requeue_requested or (by_site and job.state is State.RUNNING)


def can_suspend(board: Board, job: Job) -> bool:
    """Whether its launcher can."""
    node = board.ledger.node(job.node) if job.node else None
    offered = node.launchers if node is not None else []
    return any(one.name == job.launcher and "suspend" in one.features for one in offered)


def machine(board: Board, job: Job) -> Machine | None:
    """Facts of the host that it runs on."""
    node = board.ledger.node(job.node) if job.node else None
    return node.machine if node is not None else None


def largest_memory(board: Board, job: Job) -> int:
    """Bytes of the largest node of the kind that it asks for; 0 where it asks for no more memory."""
    spec = job.spec
    if spec.oom_retry is None:
        return 0
    return max(
        (
            node.memory
            for node in board.ledger.nodes
            if any(one.name == job.launcher for one in node.launchers)
            and spec.node in {None, node.name}
            and all(node.labels.get(key) == value for key, value in spec.constraints.items())
        ),
        default=0,
    )
