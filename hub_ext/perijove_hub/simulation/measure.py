"""What a simulation showed: gathered as it goes, summed up at its end."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from perijove.model import Job, JobEvent, State
from perijove_hub.accounting import GIB, HOUR, Allocation
from perijove_hub.jobs import arrays
from perijove_hub.policy.tree import Tree

if TYPE_CHECKING:
    from perijove_hub.jobs.pending import Pending
    from perijove_hub.simulation.engine import Simulation

LONGEST = 10
"""So many of those that waited longest are named."""
BOUND = 10.0
"""Seconds: shorter jobs count as so long in the bounded slowdown (Feitelson et al., 1997)."""
Who = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Of so many starts, the time between submission and first start, in seconds.

    A job with dependencies waits from the moment at which they are met.
    """

    starts: int
    median: float
    p95: float
    mean: float
    longest: float


@dataclass(frozen=True, slots=True)
class Line:
    """One user (within one project), or one project."""

    user: str | None
    project: str | None
    waiting: Waiting
    cpu_hours: float
    gpu_hours: float
    target: float
    """The part due to them, 0 to 1."""
    realised: float
    """The part they had, 0 to 1, in weighted hours."""


@dataclass(frozen=True, slots=True)
class Late:
    """One that waited very long."""

    job: str
    user: str
    waited: float
    started: bool
    cpu: float
    memory: int
    gpus: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a simulation showed; times in seconds."""

    submitted: int
    refused: int
    ended: dict[str, int]
    """Final state -> jobs and members."""
    unfinished: int
    attempts: int
    span: float
    """Simulated time."""
    makespan: float
    """From the first submission to the last end."""
    waiting: Waiting
    slowdown: float
    """Mean bounded slowdown: (waiting + run time) / run time."""
    cpu_use: float
    """Core-hours held, of those that nodes offered, 0 to 1."""
    gpu_use: float
    cpu_hours: float
    gpu_hours: float
    users: list[Line]
    projects: list[Line]
    unfairness: float
    """The largest difference between a target and a realised share."""
    starved: int
    """Started later than the patience that was asked for, or not at all."""
    longest: list[Late]
    histogram: list[tuple[float, int]]
    """Upper bound of the waiting time -> starts; the last bound is the longest waiting time."""
    events: int
    passes: int

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)


@dataclass(slots=True)
class _Account:
    waits: array[float] = field(default_factory=lambda: array("d"))
    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0


class Measure:
    """Watches a simulation."""

    def __init__(self, starved_after: float = inf) -> None:
        self.starved_after = starved_after
        self.ended: Counter[State] = Counter()
        self.attempts = 0
        self.slowdown = 0.0
        self.runs = 0
        self.first, self.last = inf, 0.0
        self.starved = 0
        self._accounts: dict[Who, _Account] = {}
        self._eligible: dict[int, float] = {}
        self._longest: list[tuple[float, int, Late]] = []

    def __call__(self, _now: float, pending: Pending) -> None:
        """Note what gathered."""
        for line, job in pending.published:
            if (act := _ACTS.get(line.event)) is not None:
                act(self, line, job)
        for allocation in pending.batch.allocations:
            if allocation.end is not None:
                self._charge(allocation, allocation.end)

    def settle(self, open_: Iterable[Allocation], waiting: Iterable[Job], now: float) -> None:
        """At the end: what is held still, and who waits still."""
        for allocation in open_:
            self._charge(allocation, now)
        for job in waiting:
            self._late(job, now - job.submitted, started=False)
            self.starved += 1

    def account(self, owner: str, project: str | None) -> _Account:
        """Of one user within one project."""
        return self._accounts.setdefault((owner, project), _Account())

    # ---- inside

    def _submitted(self, line: JobEvent, _job: Job) -> None:
        self.first = min(self.first, line.at)

    def _became_eligible(self, line: JobEvent, job: Job) -> None:
        if job.array_id is None and job.spec.depends_on:
            self._eligible[job.id] = line.at

    def _placed(self, line: JobEvent, job: Job) -> None:
        self.attempts += 1
        if job.attempt > 1:
            return
        top = job.id if job.array_id is None else job.array_id
        waited = max(0.0, line.at - self._eligible.get(top, job.submitted))
        self.account(job.owner, job.spec.project).waits.append(waited)
        self._late(job, waited, started=True)
        self.starved += waited > self.starved_after

    def _over(self, line: JobEvent, job: Job) -> None:
        if arrays.is_group(job):
            # Members that never were jobs of their own end with their group, without a word.
            if job.state.ended:
                self._eligible.pop(job.id, None)
                self.ended.update(job.tasks)
            return
        if job.array_id is None:
            self.ended[job.state] += 1
        self.last = max(self.last, line.at)
        if job.array_id is None:
            self._eligible.pop(job.id, None)
        if job.started is not None:
            ran = max(0.0, line.at - job.started)
            self.slowdown += max(1.0, (line.at - job.submitted) / max(ran, BOUND))
            self.runs += 1

    def _late(self, job: Job, waited: float, *, started: bool) -> None:
        if len(self._longest) >= LONGEST and waited <= self._longest[0][0]:
            return
        spec = job.spec
        late = Late(job.label, job.owner, waited, started, spec.cpu, spec.memory, spec.gpus.count, spec.nodes)
        push = heapq.heappush if len(self._longest) < LONGEST else heapq.heappushpop
        push(self._longest, (waited, -job.id, late))

    def _charge(self, one: Allocation, end: float) -> None:
        account, seconds = self.account(one.owner, one.project), end - one.begin
        account.cpu += one.cpu * seconds
        account.memory += one.memory * seconds
        account.gpu += one.gpus * seconds

    # ---- the end

    def report(self, simulation: Simulation) -> Report:
        """Of a simulation that has come to its end."""
        board, now = simulation.board, simulation.now
        left = [job for job in board.jobs.values() if job.array_id is None and not job.state.on_node]
        for group in board.groups.values():
            self.ended.update({state: n for state, n in group.tasks().items() if state.ended})
        self.settle(board.allocations, (job for job in left if job.id in board.queue), now)
        accounts = self._accounts
        weights = board.policy.fairshare.weights

        def weigh(one: _Account) -> float:
            return weights.cpu * one.cpu + weights.memory * one.memory / GIB + weights.gpu * one.gpu

        tree = Tree(board.policy, board.standing.shares(now), accounts)
        total = sum(weigh(one) for one in accounts.values()) or 1.0
        users = [
            _line(owner, project, [one], tree.due(owner, project), weigh(one) / total)
            for (owner, project), one in sorted(
                accounts.items(), key=lambda item: (item[0][1] or "", item[0][0])
            )
        ]
        projects = _projects(users, accounts, lambda one: weigh(one) / total)
        every = sorted(wait for one in accounts.values() for wait in one.waits)
        cpu, gpu = (sum(getattr(one, kind) for one in accounts.values()) for kind in ("cpu", "gpu"))
        members = sum(self.ended.values())
        return Report(
            submitted=simulation.submitted,
            refused=simulation.refused,
            ended={state.value: count for state, count in sorted(self.ended.items()) if count},
            unfinished=simulation.submitted - members,
            attempts=self.attempts,
            span=now - simulation.site.start,
            makespan=max(0.0, self.last - self.first),
            waiting=waiting_of(every),
            slowdown=self.slowdown / self.runs if self.runs else 0.0,
            cpu_use=cpu / simulation.capacity if simulation.capacity else 0.0,
            gpu_use=gpu / simulation.gpu_capacity if simulation.gpu_capacity else 0.0,
            cpu_hours=cpu / HOUR,
            gpu_hours=gpu / HOUR,
            users=users,
            projects=projects,
            unfairness=max((abs(line.target - line.realised) for line in users), default=0.0),
            starved=self.starved,
            longest=[late for _, _, late in sorted(self._longest, reverse=True)],
            histogram=histogram(every),
            events=simulation.clockwork.done,
            passes=simulation.passes,
        )


_ACTS = {
    "submitted": Measure._submitted,
    "eligible": Measure._became_eligible,
    "placed": Measure._placed,
    "ended": Measure._over,
    "array": Measure._over,
    "rejected": Measure._over,
}


def waiting_of(ordered: Sequence[float]) -> Waiting:
    """Of waiting times in their order."""
    count = len(ordered)
    if not count:
        return Waiting(0, 0.0, 0.0, 0.0, 0.0)
    return Waiting(count, quantile(ordered, 0.5), quantile(ordered, 0.95), sum(ordered) / count, ordered[-1])


def quantile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` of all do not exceed."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)] if ordered else 0.0


def histogram(ordered: Sequence[float]) -> list[tuple[float, int]]:
    """Waiting times in steps that people think in: upper bound -> how many."""
    bounds = [1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, inf]
    counts = [0] * len(bounds)
    step = 0
    for wait in ordered:
        while wait > bounds[step]:
            step += 1
        counts[step] += 1
    found = list(zip(bounds, counts, strict=True))
    while len(found) > 1 and not found[-1][1]:
        found.pop()
    longest = ordered[-1] if ordered else 0.0
    return [(min(bound, max(longest, 1.0)) if bound == inf else bound, count) for bound, count in found]


def _line(
    user: str | None, project: str | None, some: Sequence[_Account], target: float, realised: float
) -> Line:
    waits = sorted(wait for one in some for wait in one.waits)
    cpu, gpu = sum(one.cpu for one in some), sum(one.gpu for one in some)
    return Line(user, project, waiting_of(waits), cpu / HOUR, gpu / HOUR, target, realised)


def _projects(
    users: Sequence[Line], accounts: Mapping[Who, _Account], part: Callable[[_Account], float]
) -> list[Line]:
    found = []
    for name in sorted({project for _, project in accounts if project is not None}):
        some = [one for (_, project), one in accounts.items() if project == name]
        due = sum(line.target for line in users if line.project == name)
        found.append(_line(None, name, some, due, sum(map(part, some))))
    return found
