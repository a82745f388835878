"""``fairshare-godocker``: the formula of GoDocker 1.x (``plugins/fairshare.py``), as it was coded.

It is here so that a site that moves over keeps its order; its known faults are part of it: only ended jobs
count, all of one on the day it ended; cores and GiB are summed per job, not over time; the days are read back
from today up to the first on which nothing ended, so one quiet day wipes out a heavy month; a job's own
priority says nothing; and a big job can wait behind small ones for ever, if the placement's backfill did not
prevent it. ``fairshare`` has none of these.

Unlike the others it looks at every entry in each pass, since the longest and shortest wait are part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from perijove_hub.accounting import DAY

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.schedulers import Line
    from perijove_hub.policy.shares import DayUse, Shares

Use = tuple[float, float, float]
"""Cores, GiB, seconds."""
NOTHING: Use = (0.0, 0.0, 0.0)


class GodockerFairShare:
    """The lowest share runs first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def order(self, lines: Sequence[Line], shares: Shares, now: float) -> Iterator[Entry]:
        """See :class:`~perijove_hub.policy.schedulers.Scheduler`. Ties go to the lower id."""
        for _, _, entry in self.score(lines, shares, now):
            yield entry

    def score(self, lines: Sequence[Line], shares: Shares, now: float) -> list[tuple[float, int, Entry]]:
        """Share, job and entry of all, the one to start first first."""
        waiting = [(line, entries) for line in lines if (entries := list(line))]
        standing = self._standing([line for line, _ in waiting], shares, int(now // DAY))
        weight = self._policy.godocker.waiting_time
        waits = [now - entry.job.submitted for _, entries in waiting for entry in entries]
        of_wait = _norm(waits)
        found = []
        for line, entries in waiting:
            rest = standing[(line.owner, line.project)]
            for entry in entries:
                share = (1 - of_wait(now - entry.job.submitted)) * weight + rest
                found.append((share, entry.job.id, entry))
        found.sort(key=lambda one: one[:2])
        return found

    def _standing(
        self, lines: Sequence[Line], shares: Shares, today: int
    ) -> dict[tuple[str, str | None], float]:
        """The part of the share that all jobs of a line have in common."""
        weights, days = self._policy.godocker, self._policy.godocker.days
        users: dict[str, Use] = {}
        groups: dict[str | None, Use] = {}
        for line in lines:
            by_user, by_project = shares.finished(line.owner, line.project)
            users[line.owner] = recent(by_user, today, days)
            groups[line.project] = recent(by_project, today, days) if line.project else NOTHING
        of_user = [_norm([use[axis] for use in users.values()]) for axis in range(3)]
        of_group = [_norm([use[axis] for use in groups.values()]) for axis in range(3)]
        most = [max(use[axis] for use in groups.values()) for axis in range(3)] if groups else NOTHING
        found = {}
        for line in lines:
            user = users[line.owner]
            # Those in no project are bounded as nothing, and then scored as the most there is.
            group = groups[line.project] if line.project else most
            found[(line.owner, line.project)] = (
                of_user[2](user[2]) * weights.user_time
                + of_user[0](user[0]) * weights.user_cpu
                + of_user[1](user[1]) * weights.user_ram
                + of_group[2](group[2]) * weights.group_time
                + of_group[0](group[0]) * weights.group_cpu
                + of_group[1](group[1]) * weights.group_ram
                + (1 - self._policy.user(line.owner).priority / 100) * weights.user
                + (1 - self._priority(line.project) / 100) * weights.group
            )
        return found

    def _priority(self, project: str | None) -> int:
        found = self._policy.projects.get(project) if project else None
        return found.priority if found else 50


def recent(use: DayUse, today: int, days: int) -> Use:
    """The sum of at most `days` days back from `today`, up to the first on which nothing ended."""
    cpu = memory = seconds = 0.0
    for day in range(today, today - days, -1):
        if (of_day := use.get(day)) is None:
            break
        cpu, memory, seconds = cpu + of_day[0], memory + of_day[1], seconds + of_day[2]
    return cpu, memory, seconds


def _norm(values: Iterable[float]) -> Callable[[float], float]:
    some = list(values)
    least, most = min(some, default=0.0), max(some, default=0.0)
    if most - least < 1:
        return lambda _value: 0.5
    return lambda value: (value - least) / (most - least)
