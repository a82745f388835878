"""When a job will start: a range, from how long what runs and waits before it is expected to take.

The queue is played forward with the pass that really places jobs, three times: with all short, middling and
long. What is more than a few jobs away is estimated from the work before it and what the nodes get done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf, isfinite
from operator import attrgetter

from perijove.model import Job
from perijove_hub.ledger import Holding
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.plan import plan
from perijove_hub.placement.request import CORE, Request
from perijove_hub.placement.runtimes import Range
from perijove_hub.placement.situation import PLENTY, Situation, give_back, one_of

STEPS = 64
"""So many ends of jobs are played through; then it is estimated."""
SAMPLE = 500
"""So many entries before it are looked at to estimate the work of all of them."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds since 1970; None: nobody can know."""

    earliest: float | None
    likely: float | None
    latest: float | None


Expected = Callable[[Job], Range]
"""How long a job runs in all."""


def forecast(
    entry: Entry,
    situation: Situation,
    expected: Expected,
    running: Callable[[int], Job | None],
    *,
    waiting: int = 0,
) -> Forecast:
    """When `entry` will start.

    `running` gives the job of a holding; `waiting` is how many entries there are in the whole queue, for jobs
    far behind its head.
    """
    ahead, all_known = situation.ahead(entry)
    starts: list[float | None] = [None, None, None]
    if all_known:
        picks: tuple[Pick, ...] = (attrgetter("short"), attrgetter("middle"), attrgetter("long"))
        starts = [_Play(situation, expected, running, pick).start_of(entry, ahead) for pick in picks]
    if None in starts:
        guesses = _estimates(entry, situation, expected, running, waiting)
        starts = [guess if at is None else at for at, guess in zip(starts, guesses, strict=True)]
    earliest, likely, latest = (inf if at is None else at for at in starts)
    likely = max(earliest, likely)
    latest = max(likely, latest)
    return Forecast(*(at if isfinite(at) else None for at in (earliest, likely, latest)))


Pick = Callable[[Range], float]


class _Play:
    """The queue played forward under one assumption of how long jobs run."""

    def __init__(
        self, situation: Situation, expected: Expected, running: Callable[[int], Job | None], pick: Pick
    ) -> None:
        self._table = situation.table.copy()
        self._rules, self._gate, self._now = situation.rules, situation.gate, situation.now
        self._expected, self._pick = expected, pick
        self._held: dict[str, dict[int, Holding]] = {}
        self._ends: list[tuple[float, int, str]] = []
        for name in situation.table.names:
            holdings = {one.job: one for one in situation.rules.holdings(name)}
            self._held[name] = holdings
            for one in holdings.values():
                at = end_of(one, running(one.job), expected, pick, self._now)
                if isfinite(at):
                    self._ends.append((at, one.job, name))
        heapify(self._ends)

    def start_of(self, entry: Entry, ahead: Sequence[Entry]) -> float | None:
        """When it starts; ``inf`` when it never would; None when that is too far away to be played."""
        queue, at = [*ahead, one_of(entry)], self._now
        for _ in range(STEPS):
            if self._place(queue, entry.job.id, at):
                return at
            if not self._ends:
                return inf
            at = max(at, self._ends[0][0])
            while self._ends and self._ends[0][0] <= at:
                _, job, node = heappop(self._ends)
                if (one := self._held[node].pop(job, None)) is not None:
                    give_back(self._table, self._table.index[node], one)
        return None

    def _place(self, queue: list[Entry], wanted: int, at: float) -> bool:
        rules = replace(self._rules, holdings=lambda node: tuple(self._held[node].values()))
        decided = plan(queue, self._table.copy(), rules, self._gate(), at, most=PLENTY)
        entries = {entry.job.id: entry for entry in queue}
        counts = dict.fromkeys(entries, 0)
        for number, placement in enumerate(decided.placements):
            if placement.job == wanted:
                return True
            counts[placement.job] += placement.count
            job = entries[placement.job].job
            row = self._table.index[placement.node]
            request = Request.of(job.spec)
            gpus, slots = self._table.take(row, request, placement.count)
            end = at + max(1.0, self._pick(self._expected(job)))
            key = -(job.id * 4096 + number)
            self._held[placement.node][key] = Holding(
                job=key,
                attempt=1,
                owner=job.owner,
                project=job.spec.project,
                cpu=job.spec.cpu * placement.count,
                memory=job.spec.memory * placement.count,
                gpus=tuple(gpu.uuid for gpu in gpus),
                slots=slots,
                exclusive=job.spec.exclusive,
                since=at,
                until=end if isfinite(end) else None,
                preemptible=False,
                resources={name: units * placement.count for name, units in request.resources},
            )
            # Several members in one holding are given back as one.
            self._table.jobs[row] -= placement.count - 1
            if isfinite(end):
                heappush(self._ends, (end, key, placement.node))
        queue[:] = [
            replace(entry, count=entry.count - counts[entry.job.id]) if counts[entry.job.id] else entry
            for entry in queue
            if counts[entry.job.id] < entry.count
        ]
        return False


def end_of(one: Holding, job: Job | None, expected: Expected, pick: Pick, now: float) -> float:
    """When what runs will have ended."""
    if job is None:
        return one.until if one.until is not None else inf
    return _end(one, pick(expected(job)), now)


def _end(one: Holding, took: float, now: float) -> float:
    at = one.since + took
    if one.until is not None:
        at = min(at, one.until)
    return max(at, now + 1.0)


def _estimates(
    entry: Entry,
    situation: Situation,
    expected: Expected,
    running: Callable[[int], Job | None],
    waiting: int,
) -> tuple[float, ...]:
    """From core-seconds, for short, middling and long jobs: what runs and what is before it."""
    table, now = situation.table, situation.now
    cores = float(table.cpu_all[table.up].sum()) / CORE
    if not cores:
        return inf, inf, inf
    work = [0.0, 0.0, 0.0]
    for name in table.names:
        for one in situation.rules.holdings(name):
            if (job := running(one.job)) is None:
                ends = [one.until if one.until is not None else inf] * 3
            else:
                ends = [_end(one, took, now) for took in _times(expected(job))]
            for number, end in enumerate(ends):
                work[number] += one.cpu * (end - now) if isfinite(end) else 0.0
    seen, before = 0, [0.0, 0.0, 0.0]
    for other in islice(situation.entries(), SAMPLE):
        if other.job.id == entry.job.id:
            waiting = seen
            break
        seen += 1
        cpu = other.job.spec.cpu * other.count
        for number, took in enumerate(_times(expected(other.job))):
            before[number] += cpu * took
    if seen:
        work = [done + one / seen * max(seen, waiting) for done, one in zip(work, before, strict=True)]
    return tuple(now + done / cores if isfinite(done) else inf for done in work)


def _times(found: Range) -> tuple[float, float, float]:
    return found.short, found.middle, found.long
