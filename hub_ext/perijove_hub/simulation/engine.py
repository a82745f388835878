"""A site under a clock that only counts: the service's board, with attempts that run as the trace says.

Everything that decides is the service's own. What stands here is what nodes do: start, end, be stopped, fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf

from perijove.model import ConflictError, Job, NodeState
from perijove_hub.jobs import arrays
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.events import Event
from perijove_hub.jobs.pending import Pending
from perijove_hub.ledger import Ledger
from perijove_hub.policy.document import Policy
from perijove_hub.policy.registry import create
from perijove_hub.policy.standing import Standing
from perijove_hub.simulation.clockwork import Clockwork, Rank
from perijove_hub.simulation.entrance import enter, entrance_of
from perijove_hub.simulation.machines import Machines
from perijove_hub.simulation.moments import Moments, depends_on_time, patience
from perijove_hub.simulation.site import Present, Site, Watch
from perijove_hub.simulation.trace import Arrival, Run


class Simulation:
    """One run of `trace` at `site`. Memory grows with what waits and runs, not with what ended."""

    def __init__(self, site: Site, trace: Iterable[Arrival], watch: Sequence[Watch] = ()) -> None:
        self.site, self.now = site, site.start
        self.clockwork = Clockwork(site.start)
        self.board = _board_of(site)
        self.board.terse = True
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
        self._known: dict[int, Arrival] = {}
        self._past: dict[int, Job] = {}
        self._placing = inf
        self._delayed = inf
        self._up: tuple[float, float] = (0.0, 0.0)
        self._entrance = entrance_of(self.board)
        self.machines = Machines(site, self.board, self.clockwork, self._run_of, self._count_nodes)
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
        if self.machines.attempts or self._more or self.machines.down or self.board.delayed:
            return False
        if self._placing < inf or self.clockwork.planned:
            return False
        if not len(self.board.queue):
            return True
        return now > (active := self.machines.active) + patience(self.board.policy, active)

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
        self.machines.prepare()
        for at, policy in site.policies:
            clockwork.set(at, Rank.WISH, self._adopt, policy, planned=True)
        for at, reason in site.maintenance:
            clockwork.set(max(at, site.start), Rank.WISH, self._maintain, reason, planned=True)
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
            if job.state.on_node:
                self.machines.load(job)
        for number, known in present.known.items():
            self._note_wishes(number, known)

    def _run_of(self, job: Job) -> Run:
        top = job.array_id if job.array_id is not None else job.id
        return self._known[top].run(job.id - top - 1 if job.array_id is not None else 0, job.attempt)

    def _note_wishes(self, number: int, known: Arrival) -> None:
        for at, member, wish in known.wishes:
            self.clockwork.set(max(at, self.now), Rank.WISH, self._wish, number + member, wish, planned=True)

    def _adopt(self, _now: float, policy: Policy) -> None:
        self.board.adopt(policy, create(policy.scheduler, policy))
        self._entrance = entrance_of(self.board)

    def _expect(self) -> None:
        arrival = next(self._trace, None)
        self._more = arrival is not None
        if arrival is not None:
            self.clockwork.set(max(arrival.at, self.now), Rank.ARRIVAL, self._arrive, arrival)

    # ---- what happens

    def _arrive(self, now: float, arrival: Arrival) -> None:
        self._expect()
        members = arrays.size(arrival.spec) or 1
        if (job := enter(arrival, self.board, self._entrance, now)) is None:
            self.refused += members
            return
        self.submitted += members
        self._known[job.id] = arrival
        board = self.board
        needless = board.full and not board.placeable
        board.add([job], now, self._past)
        if needless:
            board.placeable = False
        self._note_wishes(job.id, arrival)

    def _wish(self, now: float, job: int, wish: Event) -> None:
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
            before = len(self.machines.attempts)
            board.place(now)
            self.passes += 1
            stopped = self._carry_out()
            if len(self.machines.attempts) == before and not stopped:
                board.placeable = False

    def _carry_out(self) -> bool:
        """Do what the board wants done; whether that was anything."""
        some = False
        while effects := self._tell().effects:
            some = True
            for effect in effects:
                self.machines.perform(effect)
        return some

    def _tell(self) -> Pending:
        pending = self.board.pending
        if not pending.published and not pending.effects:
            return pending
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

    def _count_nodes(self) -> None:
        nodes = self.board.ledger.nodes
        self.board.standing.capacity = sum(node.cpus for node in nodes)
        self._entrance = entrance_of(self.board)
        up = [node for node in nodes if node.state is not NodeState.DOWN]
        self._up = (sum(node.cpus for node in up), float(sum(len(node.gpus) for node in up)))


def _board_of(site: Site) -> Board:
    ledger = Ledger()
    for node in site.nodes:
        ledger.announce(node)
    return Board(ledger, Standing(site.policy, site.history), create(site.policy.scheduler, site.policy))
