"""Queue and nodes -> plan: which members start where, who must make room, and why the others wait.

A pass takes entries in the scheduler's order and places what fits. Those at the head that do not fit have a
node and a time claimed for them (EASY backfill, with as many claims as the policy says): small jobs go on
around a big one and never starve it. Jobs of the same shape are decided once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from perijove.model import Job, Reason, ReasonCode
from perijove_hub.placement.access import Access
from perijove_hub.placement.choice import FEW, Choice
from perijove_hub.placement.claiming import Claiming
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.entry import Entry, Placement, Preempt
from perijove_hub.placement.preemption import Preemption
from perijove_hub.placement.ranking import Rankings
from perijove_hub.placement.shortage import why
from perijove_hub.placement.table import Counts, NodeTable
from perijove_hub.policy.document import Policy

if TYPE_CHECKING:
    from perijove_hub.ledger import Holding

LOOKED_AT = 20_000
"""So many entries are looked at in one pass without starting any of their members (Slurm's
``bf_max_job_test``)."""
SHAPES = 1_000
"""So many shapes of jobs are told apart in one pass."""


class Gate(Protocol):
    """What quotas let start; it also counts what starts."""

    def room(self, job: Job) -> tuple[int, Reason | None]:
        """How many (members) of it may start now; why not, when that is none."""
        ...

    def take(self, job: Job, count: int) -> None:
        """So many of it start."""
        ...


def _no_groups(user: str) -> frozenset[str]:
    return frozenset()


def _no_holdings(node: str) -> Sequence[Holding]:
    return ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pass goes by, beside the queue and the nodes."""

    policy: Policy
    maintenance: str | None = None
    """The reason, while maintenance is on: nothing starts."""
    groups_of: Callable[[str], frozenset[str]] = _no_groups
    """System groups of a user."""
    holdings: Callable[[str], Sequence[Holding]] = _no_holdings
    """What runs on a node. The same sequence as long as nothing changed there."""


@dataclass(slots=True)
class Plan:
    """What one pass decided. Entries it did not come to are in none of these: others are before them."""

    placements: list[Placement] = field(default_factory=list)
    reasons: dict[int, Reason] = field(default_factory=dict)
    """Entry -> why it, or the rest of its members, does not start."""
    preemptions: list[Preempt] = field(default_factory=list)
    complete: bool = True
    """False: so much was placed that it is better to start it first; then there may be more."""
    full: bool = False
    """Until a node gives something back, nobody else can start either."""


def plan(
    entries: Iterable[Entry],
    table: NodeTable,
    rules: Rules,
    gate: Gate,
    now: float,
    *,
    most: int = 1000,
    terse: bool = False,
    depth: int = LOOKED_AT,
) -> Plan:
    """Place what can start now, in the order of `entries`, and no more than `most` members.

    `entries` is consumed only as far as needed. `table` is used up: pass a copy to keep it. `terse`:
    when nothing more can start, look for no more reasons; the rest is decided alike. `depth`: look at so
    many entries at most of which nothing starts.
    """
    return Pass(table, rules, gate, now, most, terse=terse, depth=depth).run(entries)


class Pass:
    """One pass: the plan so far, and what it leaves."""

    def __init__(
        self,
        table: NodeTable,
        rules: Rules,
        gate: Gate,
        now: float,
        most: int,
        *,
        terse: bool = False,
        depth: int = LOOKED_AT,
    ) -> None:
        self.plan, self._terse, self._depth = Plan(), terse, depth
        self.table, self.claims = table, Claims(table)
        self.access = Access(rules.policy, rules.groups_of, table, now)
        self._rankings = Rankings(table, rules.policy.spread)
        self.claiming = Claiming(table, self.claims, rules, now)
        self.preemption = Preemption(rules.policy, table, self.claims, rules.holdings, now)
        self._rules, self._gate, self._now, self._left = rules, gate, now, most
        self._choices: dict[tuple[object, ...], Choice] = {}
        self._looked_at = 0
        self._full = False
        self._noted: list[tuple[Job, Choice]] = []
        """Members that are to have claims, made only when somebody comes whom these would keep from starting:
        in a queue of equal jobs nobody does."""

    def run(self, entries: Iterable[Entry]) -> Plan:
        """The plan for `entries`."""
        if self._rules.maintenance is not None:
            return self._keep_all(entries, self._rules.maintenance)
        for entry in entries:
            self._consider(entry)
            if self._left <= 0:
                self.plan.complete = False
                break
            if self._done():
                break
        self.plan.full = self._full and not self.preemption.possible
        return self.plan

    def _keep_all(self, entries: Iterable[Entry], reason: str) -> Plan:
        why = Reason(
            code=ReasonCode.MAINTENANCE, message=f"maintenance: {reason}" if reason else "maintenance"
        )
        for number, entry in enumerate(entries):
            self.plan.reasons[entry.job.id] = why
            if number >= LOOKED_AT:
                break
        return self.plan

    def _done(self) -> bool:
        """Whether it is of no use to look at more."""
        if self._looked_at >= self._depth or len(self._choices) >= SHAPES:
            return True
        return self._full and not self.preemption.possible and (self._terse or not self._claims_left)

    def _consider(self, entry: Entry) -> None:
        job = entry.job
        choice = self._choice(job)
        if choice.reason is not None and not self._may_claim(job, choice):
            self._wait(job, choice.reason)
            return
        room, over = self._gate.room(job)
        count = min(entry.count, room)
        if count < (entry.count if entry.together else 1):
            self._wait(job, over or _limited(job))
            return
        wanted = count if entry.together else min(count, self._left)
        placed = 0
        if choice.reason is None:
            self._make_claims()
            place = self._place_together if entry.together else self._place
            placed = place(job, choice, wanted)
        if placed:
            self._left -= placed
        if placed == wanted:
            if wanted < entry.count and self._left > 0 and room < entry.count:
                self._wait(job, self._gate.room(job)[1] or _limited(job))
            return
        if choice.reason is None:
            members = job.spec.nodes
            choice.reason = why(choice, members, self.table, self.claims, self.access)
            self._full = self._full or not self.claims.any_room()
            if self._full and not self.preemption.possible:
                self.claiming.needless = True
        self._wait(job, choice.reason)
        self._claim(entry, choice, wanted - placed)

    def _wait(self, job: Job, reason: Reason) -> None:
        self.plan.reasons[job.id] = reason
        self._looked_at += 1

    def _may_claim(self, job: Job, choice: Choice) -> bool:
        if self.preemption.possible and self.preemption.entitled(job, choice.grant.partition):
            return True
        return self._claims_left > 0

    def _choice(self, job: Job) -> Choice:
        key = shape_of(job, self.access)
        if (choice := self._choices.get(key)) is None:
            spread = self._rules.policy.spread
            choice = Choice(job, self.table, self.claims, self.access, self._now, spread, self._rankings)
            self._choices[key] = choice
        return choice

    # ---- placing

    def _place(self, job: Job, choice: Choice, wanted: int) -> int:
        placed = 0
        if wanted > FEW:
            placed = self._start_many(job, choice, choice.some(wanted))
        else:
            while placed < wanted and (one := choice.one()) is not None:
                self._start(job, choice, one, 1)
                placed += 1
        if placed:
            self._gate.take(job, placed)
        return placed

    def _place_together(self, job: Job, choice: Choice, wanted: int) -> int:
        rows = choice.apart(wanted)
        if rows is None:
            return 0
        for row in rows:
            self._start(job, choice, row, 1)
        self._gate.take(job, wanted)
        return wanted

    def _start(self, job: Job, choice: Choice, row: int, count: int) -> None:
        request, end = choice.request, choice.end
        spared = self.claims.spared(row, end) if request.gpus.count else frozenset()
        gpus, slots = self.table.take(row, request, count, spared)
        self.claims.use(row, request, end, count)
        self._rankings.touch(row)
        self.claiming.started(row, request, end, count, gpus)
        name = self.table.names[row]
        more = (gpus, slots) if gpus or slots else ()
        self.plan.placements.append(Placement(job.id, name, count, *more))

    def _start_many(self, job: Job, choice: Choice, counts: Counts) -> int:
        request, end = choice.request, choice.end
        rows = np.flatnonzero(counts).tolist()
        if not rows:
            return 0
        if request.gpus.count or any(name in self.table.slots for name, _ in request.resources):
            for row in rows:
                self._start(job, choice, row, int(counts[row]))
            return int(counts.sum())
        self.table.take_from_many(request, counts)
        for row in self.claims.rows():
            if counts[row]:
                self.claims.use(row, request, end, int(counts[row]))
        self._rankings.redraw()
        self.claiming.started_many(counts, request, end)
        names = self.table.names
        placed = zip(rows, counts[rows].tolist(), strict=True)
        self.plan.placements += [Placement(job.id, names[row], count) for row, count in placed]
        return int(counts.sum())

    # ---- those that wait

    def _claim(self, entry: Entry, choice: Choice, count: int) -> None:
        job = entry.job
        entitled = self.preemption.possible and self.preemption.entitled(job, choice.grant.partition)
        if not entry.together and not entitled:
            self._noted += [(job, choice)] * min(count, self._claims_left)
            return
        self._make_claims()
        if entry.together:
            self.claiming.together(job, choice, entry.count)
            return
        while count > 0:
            found = self.preemption.make_room(choice)
            if found is not None:
                row, victims = found
                self.plan.preemptions += [Preempt(victim, job.id) for victim in victims]
                self.claiming.soon(job, choice, row)
            elif not self.claiming.one(job, choice):
                break
            count -= 1

    @property
    def _claims_left(self) -> int:
        return self.claiming.left - len(self._noted)

    def _make_claims(self) -> None:
        for job, choice in self._noted:
            self.claiming.one(job, choice)
        self._noted.clear()


def shape_of(job: Job, access: Access) -> tuple[object, ...]:
    """All that matters to where and when a member of `job` can start."""
    spec = job.spec
    gpus, key = spec.gpus, (job.launcher, spec.cpu, spec.memory, spec.time_limit, spec.nodes, spec.exclusive)
    more: tuple[object, ...] = ()
    if gpus.count:
        more = (gpus.count, gpus.model, gpus.memory)
    if spec.resources or spec.tmp_disk or spec.constraints or spec.os or spec.node:
        more += (
            tuple(sorted(spec.units.items())),
            tuple(sorted(spec.constraints.items())),
            spec.os,
            spec.node,
        )
    if job.partition or spec.partition or spec.reservation or job.failed_nodes or spec.preemptible:
        more += (access.partition_of(job), spec.reservation, tuple(job.failed_nodes), spec.preemptible)
        more += (job.owner, spec.project) if access.trivial else ()
    return (*key, more, access.class_of(job))


def _limited(job: Job) -> Reason:
    """None of its members may start, though nobody said why: its own limit."""
    limit = job.spec.array.limit if job.spec.array else None
    text = f"at most {limit} of its members run at once" if limit else "none of its members may start now"
    return Reason(code=ReasonCode.ARRAY_LIMIT, message=text)
