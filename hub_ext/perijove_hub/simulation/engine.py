"""A site under a clock that only counts: the service's board, with attempts that run as the trace says.

Everything that decides is the service's own. What stands here is what nodes do: start, end, be stopped, fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

from perijove.model import ConflictError, Job, Node, NodeState, Outcome, ReasonCode, State
from perijove_hub.accounting import Allocation
from perijove_hub.jobs import arrays
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import Effect, SendOrder, SendResume, SendStop, SendSuspend, SendUpdate
from perijove_hub.jobs.events import Ended, Event, Resumed, Started, Suspended
from perijove_hub.jobs.pending import Pending
from perijove_hub.ledger import Ledger
from perijove_hub.policy.document import Policy
from perijove_hub.policy.registry import create
from perijove_hub.policy.standing import Standing
from perijove_hub.simulation.clockwork import Clockwork, Rank
from perijove_hub.simulation.entrance import enter
from perijove_hub.simulation.fleet import Failures, NodeChange
from perijove_hub.simulation.moments import Moments, depends_on_time, patience
from perijove_hub.simulation.trace import Arrival, Run

ANCHOR = 1.0
"""Seconds by which a start may miss the recorded one and its end still be the recorded one: a service is
slower than a simulation, and what it lost in milliseconds must not add up."""


@dataclass(frozen=True)
class Present:
    """What is there at the start."""

    jobs: Sequence[Job] = ()
    """Live ones."""
    states: Mapping[int, Mapping[int, State]] = field(default_factory=dict)
    """Of the members of groups: group -> task -> state."""
    known: Mapping[int, Arrival] = field(default_factory=dict)
    """What each job, or all of its group, does."""
    past: Mapping[int, Job] = field(default_factory=dict)
    """Ended jobs that others depend on."""
    awaited: frozenset[int] = frozenset()
    """All that others depend on, by id."""


Watch = Callable[[float, Pending], None]
"""Is shown what gathered, as the database would be."""


@dataclass(frozen=True)
class Site:
    """Where the trace is played."""

    nodes: Sequence[Node]
    policy: Policy = field(default_factory=Policy)
    failures: Failures | None = None
    changes: Iterable[NodeChange] = ()
    """How the nodes changed, as recorded."""
    every: float = 0.0
    """Seconds between two passes at least. 0: a pass at each moment at which something changed."""
    moments: Sequence[float] = ()
    """When a service that was recorded made its passes, in order."""
    stopping: float = 1.0
    """Seconds that an attempt takes to end when it is told to."""
    start: float = 0.0
    history: Sequence[Allocation] = ()
    """What was held before, for the fair share."""
    maintenance: Sequence[tuple[float, str | None]] = ()
    """When nothing was to start any more, and why; None: from then on again."""
    policies: Sequence[tuple[float, Policy]] = ()
    """Those applied later, and when."""
    present: Present = field(default_factory=Present)


@dataclass(slots=True)
class _Attempt:
    number: int
    node: str
    run: Run
    begun: float
    """When it was placed."""
    ran: float = 0.0
    """Run time up to `since`."""
    since: float | None = None
    """Since when it runs; None: not yet, or it is suspended."""
    ends: float = inf
    reason: ReasonCode | None = None


class Simulation:
    """One run of `trace` at `site`. Memory grows with what waits and runs, not with what ended."""

    def __init__(self, site: Site, trace: Iterable[Arrival], watch: Sequence[Watch] = ()) -> None:
        self.site, self.now = site, site.start
        self.clockwork = Clockwork()
        self.board = _board_of(site)
        self.submitted = 0
        """Jobs and members that have come."""
        self.refused = 0
        self.capacity = 0.0
        """Core-seconds of all nodes while they were up."""
        self.gpu_capacity = 0.0
        self.passes = 0
        self._watch = watch
        self._trace: Iterator[Arrival] = iter(trace)
        self._more = True
        self._moments = Moments(site.moments, site.every)
        self._attempts: dict[int, _Attempt] = {}
        self._known: dict[int, Arrival] = {}
        self._past: dict[int, Job] = {}
        self._placing = inf
        self._delayed = inf
        self._wishes = 0
        self._down: set[str] = set()
        self._up: tuple[float, float] = (0.0, 0.0)
        self._active = site.start
        self._prepare()

    # ---- running

    def run(self) -> None:
        """Until everything has ended, or nothing more can happen."""
        while self.step():
            pass

    def step(self) -> bool:
        """Go on to the next moment at which something happens; False when nothing does any more."""
        now = self.clockwork.next
        if now == inf or self._nothing_goes_on(now):
            self._tell()
            return False
        self._pass_time(now)
        self.clockwork.happen(now)
        self._carry_out()
        if self.board.placeable and self._placing == inf:
            self._placing = self._moments.after(now)
            if self._placing <= now:
                self._place(now)
            else:
                self.clockwork.set(self._placing, Rank.TICK, self._place)
        self._watch_delays()
        return True

    def _nothing_goes_on(self, now: float) -> bool:
        if self._attempts or self._more or self._wishes or self._down or self.board.delayed:
            return False
        if self._placing < inf:
            return False
        if not len(self.board.queue):
            return True
        return now > self._active + patience(self.board.policy, self._active)

    def _pass_time(self, now: float) -> None:
        cpus, gpus = self._up
        self.capacity += cpus * (now - self.now)
        self.gpu_capacity += gpus * (now - self.now)
        self.now = now

    # ---- the beginning

    def _prepare(self) -> None:
        site, clockwork = self.site, self.clockwork
        self._count_nodes()
        self._load(site.present)
        for change in site.changes:
            if change.at > site.start:
                clockwork.set(change.at, Rank.NODE, self._node_changes, change)
        for at, policy in site.policies:
            clockwork.set(at, Rank.WISH, self._adopt, policy)
        for at, reason in site.maintenance:
            clockwork.set(max(at, site.start), Rank.WISH, self._maintain, reason)
        if site.failures is not None:
            for one in site.nodes:
                self._fail_next(one.name, site.failures.of(one.name))
        if depends_on_time(site.policy):
            clockwork.set(site.start, Rank.TICK, self._tick)
        self._expect()

    def _load(self, present: Present) -> None:
        board, now = self.board, self.site.start
        board.raise_ids(max((job.id + arrays.size(job.spec) for job in present.jobs), default=0))
        self._known.update(present.known)
        self._past.update(present.past)
        board.load(present.jobs, now, self._past, present.states)
        for job in present.jobs:
            self.submitted += not arrays.is_group(job) or board.groups[job.id].rest
            if job.state.on_node and job.node is not None:
                begun = job.allocated if job.allocated is not None else now
                going = _Attempt(job.attempt, job.node, self._run_of(job), begun, since=job.started or begun)
                self._attempts[job.id] = going
                self._schedule(job, going)
        for number, known in present.known.items():
            self._note_wishes(number, known)

    def _run_of(self, job: Job) -> Run:
        top = job.array_id if job.array_id is not None else job.id
        return self._known[top].run(job.id - top - 1 if job.array_id is not None else 0, job.attempt)

    def _note_wishes(self, number: int, known: Arrival) -> None:
        for at, member, wish in known.wishes:
            self._wishes += 1
            self.clockwork.set(max(at, self.now), Rank.WISH, self._wish, number + member, wish)

    def _adopt(self, _now: float, policy: Policy) -> None:
        self.board.adopt(policy, create(policy.scheduler, policy))

    def _expect(self) -> None:
        arrival = next(self._trace, None)
        self._more = arrival is not None
        if arrival is not None:
            self.clockwork.set(max(arrival.at, self.now), Rank.ARRIVAL, self._arrive, arrival)

    # ---- what happens

    def _arrive(self, now: float, arrival: Arrival) -> None:
        self._expect()
        members = arrays.size(arrival.spec) or 1
        if (job := enter(arrival, self.board, now)) is None:
            self.refused += members
            return
        self.submitted += members
        self._known[job.id] = arrival
        self.board.add([job], now, self._past)
        self._note_wishes(job.id, arrival)

    def _wish(self, now: float, job: int, wish: Event) -> None:
        self._wishes -= 1
        with suppress(ConflictError):
            self.board.apply(job, wish, now)

    def _maintain(self, _now: float, reason: str | None) -> None:
        self.board.maintenance, self.board.placeable = reason, True

    def _tick(self, now: float) -> None:
        self.board.placeable = True
        self.clockwork.set(now + self._moments.tick, Rank.TICK, self._tick)

    def _end_delays(self, now: float) -> None:
        self._delayed = inf
        if self.board.end_delays(now):
            self.board.placeable = True

    def _watch_delays(self) -> None:
        if self.board.delayed and (first := min(self.board.delayed.values())) < self._delayed:
            self._delayed = first
            self.clockwork.set(max(first, self.now), Rank.WISH, self._end_delays)

    def _place(self, now: float) -> None:
        """As the writer of the service does: pass after pass, while there is more to place."""
        self._placing = inf
        board = self.board
        while board.placeable:
            before = len(self._attempts)
            board.place(now)
            self.passes += 1
            stopped = self._carry_out()
            if len(self._attempts) == before and not stopped:
                board.placeable = False

    # ---- what nodes do

    def _carry_out(self) -> bool:
        """Do what the board wants done; whether that was anything."""
        some = False
        while effects := self._tell().effects:
            some = True
            for effect in effects:
                self._perform(effect)
        return some

    def _tell(self) -> Pending:
        taken = self.board.take()
        for watch in self._watch:
            watch(self.now, taken)
        awaited = self.site.present.awaited
        for _, job in taken.published:
            if job.state.ended:
                self._known.pop(job.id, None)
                if job.id in awaited:
                    self._past[job.id] = job
        return taken

    def _perform(self, effect: Effect) -> None:
        now, board = self.now, self.board
        match effect:
            case SendOrder(number):
                if (job := board.jobs.get(number)) is not None and job.node is not None:
                    self._start(job, job.node)
            case SendStop(_, attempt, _):
                going = self._attempts.get(attempt.job)
                if (
                    going is not None
                    and going.number == attempt.number
                    and going.ends > now + self.site.stopping
                ):
                    going.reason = ReasonCode.KILLED_BY_USER
                    self._set_end(attempt.job, going, now + self.site.stopping)
            case SendSuspend(_, attempt):
                going = self._attempts.get(attempt.job)
                if going is not None and going.since is not None:
                    going.ran, going.since, going.ends = going.ran + now - going.since, None, inf
                    board.apply(attempt.job, Suspended(), now)
            case SendResume(_, attempt):
                going = self._attempts.get(attempt.job)
                if going is not None and going.since is None:
                    going.since = now
                    self._schedule(board.jobs[attempt.job], going)
                    board.apply(attempt.job, Resumed(), now)
            case SendUpdate(_, attempt, _):
                going = self._attempts.get(attempt.job)
                if (
                    going is not None
                    and going.since is not None
                    and going.reason is not ReasonCode.KILLED_BY_USER
                ):
                    self._schedule(board.jobs[attempt.job], going)

    def _start(self, job: Job, node: str) -> None:
        run = self._run_of(job)
        going = self._attempts[job.id] = _Attempt(job.attempt, node, run, self.now)
        self._active = self.now
        if run.launch > 0:
            self.clockwork.set(self.now + run.launch, Rank.START, self._started, job.id, going)
        else:
            self._started(self.now, job.id, going)

    def _started(self, now: float, number: int, going: _Attempt) -> None:
        if self._attempts.get(number) is not going or going.node in self._down:
            return
        going.since = now
        job = self.board.apply(number, Started(now), now)
        if job is not None and job.state.on_node and going.reason is not ReasonCode.KILLED_BY_USER:
            self._schedule(job, going)

    def _schedule(self, job: Job, going: _Attempt) -> None:
        """Its end, as far as is known now."""
        run, limit = going.run, job.spec.time_limit
        assert going.since is not None
        if run.placed is not None and run.ended is not None and abs(run.placed - going.begun) <= ANCHOR:
            going.reason = run.reason
            self._set_end(job.id, going, max(run.ended, self.now))
            return
        seconds, going.reason = run.seconds, run.reason
        if run.placed is None and limit is not None and limit < seconds:
            seconds, going.reason = limit, ReasonCode.TIME_LIMIT
        self._set_end(job.id, going, max(self.now, going.since + seconds - going.ran))

    def _set_end(self, number: int, going: _Attempt, at: float) -> None:
        going.ends = at
        self.clockwork.set(at, Rank.END, self._end, number, going)

    def _end(self, now: float, number: int, going: _Attempt) -> None:
        if self._attempts.get(number) is not going or going.ends != now:
            return
        del self._attempts[number]
        reason, code = going.reason, going.run.exit_code
        if reason is None:
            code = 0
        elif reason is ReasonCode.NON_ZERO_EXIT and not code:
            code = 1
        elif reason is not going.run.reason:
            code = None
        outcome = Outcome(exit_code=code, reason=reason, started=self._since(number), ended=now)
        self._active = now
        self.board.apply(number, Ended(outcome), now)

    def _since(self, number: int) -> float | None:
        job = self.board.jobs.get(number)
        return job.started if job is not None else None

    # ---- nodes that come and go

    def _fail_next(self, name: str, failures: Iterator[tuple[float, float]]) -> None:
        down, back = next(failures)
        self.clockwork.set(self.site.start + down, Rank.NODE, self._node_fails, name, back, failures)

    def _node_fails(
        self, _now: float, name: str, back: float, failures: Iterator[tuple[float, float]]
    ) -> None:
        self._lose_touch(name)
        for going in self._attempts.values():
            if going.node == name:
                going.ends = inf
        self.clockwork.set(self.site.start + back, Rank.NODE, self._node_returns, name, failures)

    def _node_returns(self, now: float, name: str, failures: Iterator[tuple[float, float]]) -> None:
        """Only now is known that what ran there is lost: until then it might have gone on."""
        self._down.discard(name)
        for job in self.board.ledger.jobs_on(name):
            if (going := self._attempts.pop(job.id, None)) is not None:
                lost = Outcome(
                    reason=ReasonCode.NODE_LOST, message=f"{name} failed", started=going.since, ended=now
                )
                self.board.apply(job.id, Ended(lost), now)
        self.board.ledger.mark(name, NodeState.UP)
        self._count_nodes()
        self.board.placeable = True
        self._fail_next(name, failures)

    def _lose_touch(self, name: str) -> None:
        self._down.add(name)
        self.board.ledger.mark(name, NodeState.DOWN, "not reachable")
        self._count_nodes()
        self.board.placeable = True

    def _node_changes(self, _now: float, change: NodeChange) -> None:
        self.board.ledger.announce(change.node)
        self.board.ledger.mark(change.node.name, change.node.state, change.node.reason)
        self._count_nodes()
        self.board.placeable = True

    def _count_nodes(self) -> None:
        nodes = self.board.ledger.nodes
        self.board.standing.capacity = sum(node.cpus for node in nodes)
        up = [node for node in nodes if node.state is not NodeState.DOWN]
        self._up = (sum(node.cpus for node in up), float(sum(len(node.gpus) for node in up)))


def _board_of(site: Site) -> Board:
    ledger = Ledger()
    for node in site.nodes:
        ledger.announce(node)
    return Board(ledger, Standing(site.policy, site.history), create(site.policy.scheduler, site.policy))
