"""How long jobs run, from those that ended: what forecasts go by until something better is known.

Kept for each owner and name of job, since people run the same things again; else for the whole site, as parts
of the time limit. Only the last :data:`KEPT` of each are remembered.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from perijove.model import Job

KEPT = 30
NAMES = 10_000
FEW = 3
"""With fewer of its own kind, a job is taken to be like all others of the site."""


@dataclass(frozen=True, slots=True)
class Range:
    """Seconds: one in ten is shorter than `short`, one in ten longer than `long`. ``inf``: nobody knows."""

    short: float
    middle: float
    long: float


class Runtimes:
    """Learns from each job that ended by itself."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._parts: deque[float] = deque(maxlen=1000)
        self._all: deque[float] = deque(maxlen=1000)
        self._summed: dict[object, Range] = {}
        """Quantiles, until the next end: a forecast asks for those of every waiting job."""

    def note(self, job: Job) -> None:
        """`job` ended."""
        if job.started is None or job.ended is None:
            return
        self._summed.clear()
        took = max(0.0, job.ended - job.started - job.suspended_seconds)
        key = (job.owner, job.name)
        self._names.setdefault(key, deque(maxlen=KEPT)).append(took)
        self._names.move_to_end(key)
        if len(self._names) > NAMES:
            self._names.popitem(last=False)
        self._all.append(took)
        if job.spec.time_limit:
            self._parts.append(min(1.0, took / job.spec.time_limit))

    def expected(self, job: Job) -> Range:
        """How long `job` will run in all."""
        limit = job.spec.time_limit or inf
        own = self._names.get((job.owner, job.name), ())
        if len(own) >= FEW:
            return _within(self._quantiles((job.owner, job.name), own), limit)
        if limit < inf:
            parts = self._quantiles("parts", self._parts) if len(self._parts) >= FEW else Range(0.1, 0.5, 1.0)
            return Range(parts.short * limit, parts.middle * limit, limit)
        if len(self._all) >= FEW:
            return self._quantiles("all", self._all)
        return Range(0.0, inf, inf)

    def _quantiles(self, key: object, values: Sequence[float]) -> Range:
        if (found := self._summed.get(key)) is None:
            found = self._summed[key] = _quantiles(values)
        return found


def _quantiles(values: Sequence[float]) -> Range:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Range(ordered[last // 10], ordered[last // 2], ordered[-(last // 10) - 1])


def _within(found: Range, limit: float) -> Range:
    return Range(min(found.short, limit), min(found.middle, limit), min(found.long, limit))
