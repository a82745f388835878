"""What was held, by whom, for how long; sums of it; and how well a job used what it asked for.

Pure: times are epoch seconds, days are those of UTC. What is charged is what was held, used or not, as
Slurm's accounting does (sacct(1), ``AllocCPUS`` and ``CPUTimeRAW``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from perijove.model import Job, State

DAY = 86400.0
HOUR = 3600.0
GIB = float(1 << 30)

Axis = Literal["owner", "project", "day", "image", "node", "partition", "kind"]
AXES: tuple[Axis, ...] = ("owner", "project", "day", "image", "node", "partition", "kind")
"""By what usage can be told apart."""

Keep = Literal["all", "memory", "nothing"]


@dataclass(frozen=True, slots=True)
class Held:
    """Resources that a job keeps from others: cores, bytes, devices."""

    cpu: float
    memory: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one attempt of a job held of one node, from `begin` to `end`.

    An attempt whose holdings changed (suspended, resumed) has several, one after the other.
    """

    job: int
    attempt: int
    owner: str
    project: str | None
    kind: str
    image: str | None
    partition: str | None
    node: str
    cpu: float
    memory: int
    gpus: int
    begin: float
    end: float | None
    """None: held still."""
    label: str
    """The job's id as people write it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over allocations."""

    cpu_seconds: float = 0.0
    memory_byte_seconds: float = 0.0
    gpu_seconds: float = 0.0
    jobs: int = 0
    """Different jobs among them."""

    def __add__(self, other: Spent) -> Spent:
        """Both together, none of whose jobs is the other's."""
        return Spent(
            self.cpu_seconds + other.cpu_seconds,
            self.memory_byte_seconds + other.memory_byte_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.jobs + other.jobs,
        )

    @property
    def cpu_hours(self) -> float:
        """Cores times hours."""
        return self.cpu_seconds / HOUR

    @property
    def memory_hours(self) -> float:
        """GiB times hours."""
        return self.memory_byte_seconds / GIB / HOUR

    @property
    def gpu_hours(self) -> float:
        """Devices times hours."""
        return self.gpu_seconds / HOUR


def held_by(job: Job, keep: Keep = "all") -> Held:
    """What `job` holds of its node in its present state; `keep` is the policy's `suspended_keep`."""
    spec = job.spec
    if job.state is State.SUSPENDED and keep != "all":
        return Held(0.0, 0, 0) if keep == "nothing" else Held(0.0, spec.memory, spec.gpus.count)
    return Held(spec.cpu, spec.memory, spec.gpus.count)


def opened(job: Job, begin: float, held: Held | None = None) -> Allocation:
    """The allocation that begins when `job` takes hold of `held` (all it asked for, when not given)."""
    what = held or held_by(job)
    assert job.node is not None
    return Allocation(
        job=job.id,
        attempt=job.attempt,
        owner=job.owner,
        project=job.spec.project,
        kind=job.spec.kind.value,
        image=job.spec.image,
        partition=job.partition,
        node=job.node,
        cpu=what.cpu,
        memory=what.memory,
        gpus=what.gpus,
        begin=begin,
        end=None,
        label=job.label,
    )


def usage(
    allocations: Iterable[Allocation],
    by: Sequence[Axis],
    *,
    now: float,
    since: float = 0.0,
    until: float | None = None,
) -> dict[tuple[str | None, ...], Spent]:
    """Sums between `since` and `until` (`now` when not given), by the values of `by` in this order.

    A day is written ``2026-07-31``. A job counts once in each group in which it held something, however
    short the time; so the `jobs` of days may add up to more than there are.
    """
    end = now if until is None else min(until, now)
    sums: dict[tuple[str | None, ...], list[float]] = {}
    jobs: dict[tuple[str | None, ...], set[int]] = {}
    for allocation in allocations:
        for begin, finish in _pieces(allocation, since, end, daily="day" in by):
            key = tuple(_value(allocation, axis, begin) for axis in by)
            sum_ = sums.setdefault(key, [0.0, 0.0, 0.0])
            seconds = finish - begin
            sum_[0] += allocation.cpu * seconds
            sum_[1] += allocation.memory * seconds
            sum_[2] += allocation.gpus * seconds
            jobs.setdefault(key, set()).add(allocation.job)
    return {key: Spent(sum_[0], sum_[1], sum_[2], len(jobs[key])) for key, sum_ in sums.items()}


def total(allocations: Iterable[Allocation], *, now: float) -> Spent:
    """All of it together."""
    return usage(allocations, (), now=now).get((), Spent())


def day_of(at: float) -> str:
    """The day in UTC, as ``2026-07-31``."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _pieces(
    allocation: Allocation, since: float, until: float, *, daily: bool
) -> Iterator[tuple[float, float]]:
    begin = max(allocation.begin, since)
    end = until if allocation.end is None else min(allocation.end, until)
    if end < begin or (end == begin and allocation.end != allocation.begin):
        return
    while daily and (midnight := (begin // DAY + 1) * DAY) < end:
        yield begin, midnight
        begin = midnight
    yield begin, end


def _value(allocation: Allocation, axis: Axis, at: float) -> str | None:
    if axis == "day":
        return day_of(at)
    value: str | None = getattr(allocation, axis)
    return value


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Asked for and used, of one resource; `efficiency` is their ratio, None when nothing was asked for."""

    asked: float
    used: float

    @property
    def efficiency(self) -> float | None:
        """0 to 1, above 1 when it took more than it asked for."""
        return self.used / self.asked if self.asked > 0 else None


def efficiency(job: Job, now: float) -> dict[Literal["cpu", "memory", "gpu", "time"], Efficiency]:
    """How well one attempt used what it held, as seff(1) does.

    ``cpu`` and ``gpu``: core- and device-seconds at work against those held while it ran; ``memory``: the
    peak in bytes against what was asked for; ``time``: run time in seconds against the time limit.
    Suspended time is no run time.
    """
    ran = run_time(job, now)
    spec = job.spec
    return {
        "cpu": Efficiency(spec.cpu * ran, job.cpu_seconds),
        "memory": Efficiency(float(spec.memory), float(job.memory_peak)),
        "gpu": Efficiency(spec.gpus.count * ran, job.gpu_seconds),
        "time": Efficiency(spec.time_limit or 0.0, ran),
    }


def run_time(job: Job, now: float) -> float:
    """Seconds that the attempt has run, suspended time left out."""
    if job.started is None:
        return 0.0
    until = now if job.ended is None else job.ended
    if job.suspended_at is not None:
        until = min(until, job.suspended_at)
    return max(0.0, until - job.started - job.suspended_seconds)
