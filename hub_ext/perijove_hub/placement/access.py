"""Which nodes partitions, reservations and their dates leave to a job.

A reservation is of those whom the policy lets enter it; for all others its nodes are closed from its start to
its end, and so early before that a job could still run at its start. How long a job may run is its time
limit; of one without any it is the longest time that the partition, the project or the site allow, and
:data:`ASSUMED` where they allow any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

import numpy as np
from numpy.typing import NDArray

from perijove.model import Job, Reason, ReasonCode, format_duration
from perijove_hub.placement.table import Mask, NodeTable
from perijove_hub.policy.document import Policy, Reservation

ASSUMED = 86400.0
"""Seconds that a job without any limit is taken to run, where reservations are concerned."""

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grant:
    """Where one sort of job may be, as far as the policy goes."""

    partition: str | None = None
    nodes: Mask | None = None
    """None: all."""
    reserved: Mask | None = None
    """Of these, the ones kept for others now, or before it would end. None: none."""
    keepers: tuple[str, ...] = ()
    """The reservations that do so."""
    curfew: Times | None = None
    """When the job must have ended on each node, for those who come after; None: never."""
    length: float = inf
    """Seconds that the job is taken to run."""
    reason: Reason | None = None
    """Why it may be nowhere for now."""


class Access:
    """The policy's word on nodes, for one pass."""

    def __init__(
        self, policy: Policy, groups_of: Callable[[str], frozenset[str]], table: NodeTable, now: float
    ) -> None:
        self._policy, self._groups_of, self._table, self._now = policy, groups_of, table, now
        self._live = {name: kept for name, kept in policy.reservations.items() if instant(kept.end) > now}
        self.trivial = not policy.partitions and not self._live
        """Whether all jobs may go everywhere, but for those that name a partition or a reservation."""
        self._open: dict[tuple[str, str | None], frozenset[str]] = {}

    def class_of(self, job: Job) -> tuple[str | None, ...]:
        """Jobs of the same class that are otherwise alike are treated alike."""
        if self.trivial:
            return ()
        name = self.partition_of(job)
        rules = self._policy.partitions.get(name) if name else None
        if rules is not None and ("*" not in rules.users or "*" not in rules.projects):
            return (job.owner, job.spec.project, name)
        if self._live:
            return (*sorted(self._entered(job)), job.spec.project, name)
        return (job.spec.project, name)

    def partition_of(self, job: Job) -> str | None:
        """The partition it is in."""
        return job.partition or job.spec.partition or self._policy.default_partition

    def grant(self, job: Job) -> Grant:
        """Where `job` may be."""
        name = self.partition_of(job)
        if (reason := self._barred(job, name) or self._not_inside(job)) is not None:
            return Grant(name, reason=reason)
        nodes = self._table.called(tuple(self._policy.partitions[name].nodes)) if name else None
        length = self._length(job, name)
        curfew: Times | None = None
        if job.spec.reservation is not None:
            inside = self._live[job.spec.reservation]
            own = self._table.called(tuple(inside.nodes))
            nodes = own if nodes is None else nodes & own
            if job.spec.time_limit is not None:
                curfew = np.full(len(self._table.up), instant(inside.end))
        reserved: Mask | None = None
        keepers = []
        for other, kept in self._foreign(job).items():
            there = self._table.called(tuple(kept.nodes))
            begin = instant(kept.start)
            if curfew is None:
                curfew = np.full(len(self._table.up), inf)
            curfew[there] = np.minimum(curfew[there], begin)
            if begin < self._now + length:
                reserved = there if reserved is None else reserved | there
                keepers.append(other)
        return Grant(name, nodes, reserved, tuple(keepers), curfew, length)

    def kept(self, name: str) -> str:
        """A reservation in words."""
        reservation = self._live[name]
        return f"{name} ({moment(instant(reservation.start))} to {moment(instant(reservation.end))})"

    # ---- inside

    def _entered(self, job: Job) -> frozenset[str]:
        who = (job.owner, job.spec.project)
        if (known := self._open.get(who)) is None:
            groups = self._groups_of(job.owner)
            known = self._open[who] = frozenset(
                name for name in self._live if self._policy.may_enter(name, *who, groups)
            )
        return known

    def _foreign(self, job: Job) -> dict[str, Reservation]:
        mine = self._entered(job) if self._live else frozenset()
        return {name: kept for name, kept in self._live.items() if name not in mine}

    def _barred(self, job: Job, partition: str | None) -> Reason | None:
        if partition is None:
            return None
        if partition not in self._policy.partitions:
            return Reason(code=ReasonCode.NODE_DOWN, message=f"there is no partition {partition} any more")
        groups = self._groups_of(job.owner)
        if self._policy.may_use(partition, job.owner, job.spec.project, groups):
            return None
        within = f" in project {job.spec.project}" if job.spec.project else ""
        text = f"partition {partition} is not open to {job.owner}{within}"
        return Reason(code=ReasonCode.NODE_DOWN, message=text)

    def _not_inside(self, job: Job) -> Reason | None:
        """Why the reservation that it names does not take it now."""
        name = job.spec.reservation
        if name is None:
            return None
        kept = self._live.get(name)
        text = ""
        if kept is None:
            text = f"reservation {name} is over, or was removed"
        elif name not in self._entered(job):
            text = f"reservation {name} is not open to {job.owner}"
        elif (begin := instant(kept.start)) > self._now:
            text = f"reservation {name} begins at {moment(begin)}"
        else:
            limit, end = job.spec.time_limit, instant(kept.end)
            if limit is not None and self._now + limit > end:
                text = f"reservation {name} ends at {moment(end)}; its time limit is {format_duration(limit)}"
        return Reason(code=ReasonCode.RESERVATION, message=text) if text else None

    def _length(self, job: Job, partition: str | None) -> float:
        if job.spec.time_limit is not None:
            return job.spec.time_limit
        rules = self._policy.partitions[partition] if partition else None
        project = self._policy.projects.get(job.spec.project or "")
        longest = (
            rules.max_time if rules else None,
            project.max_time if project else None,
            self._policy.max_time,
        )
        return min((limit for limit in longest if limit is not None), default=ASSUMED)


def instant(when: datetime) -> float:
    """Seconds since 1970; without a time zone it is UTC."""
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def moment(at: float) -> str:
    """A point in time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
