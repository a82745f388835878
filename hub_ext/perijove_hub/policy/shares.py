"""What each account has used, as one pass of the queue sees it: what the pass starts is added to it.

Usage is in weighted hours (`fairshare.weights` of the policy). What is held counts for the time that it has
been held and, beforehand, for `fairshare.foresight` more. So an account whose jobs have just started, in this
pass or the one before, is not taken for one that has nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perijove_hub.accounting import GIB, HOUR

if TYPE_CHECKING:
    from perijove.model import Job
    from perijove_hub.policy.document import Policy

Pair = tuple[str, str | None]
"""Owner and project."""
DayUse = Mapping[int, tuple[float, float, float]]
"""Day (since 1970, UTC) -> cores, GiB and seconds of the jobs that ended on it, each summed."""


@dataclass(frozen=True, slots=True)
class Share:
    """One user within one project, and how they stand."""

    owner: str
    project: str | None
    shares: float
    usage: float
    """Weighted hours, fading."""
    target: float
    """The part of all that is due to them, 0 to 1."""
    actual: float
    """The part that they have had, 0 to 1."""
    factor: float
    """1: nothing used; 0.5: just what is due; towards 0: more."""


class Facts:
    """Where :class:`Shares` come from: functions of the standing, asked once for each account and pass."""

    __slots__ = ("capacity", "finished", "known", "member", "project")

    def __init__(
        self,
        member: Callable[[str, str | None], float],
        project: Callable[[str | None], float],
        known: Callable[[], list[Pair]],
        finished: Callable[[str, str | None], DayUse],
        capacity: float,
    ) -> None:
        self.member, self.project, self.known = member, project, known
        self.finished, self.capacity = finished, capacity


class Shares:
    """Scratch for one pass."""

    def __init__(self, policy: Policy, facts: Facts) -> None:
        self.policy = policy
        self.commits = 0
        """Grows with each :meth:`commit`: whoever keeps scores knows by it that they may be old."""
        self.taken: dict[int, int] = {}
        """Job -> how many of its members started in this pass."""
        self._facts = facts
        self._members: dict[Pair, float] = {}
        self._projects: dict[str | None, float] = {}
        weights = policy.fairshare.weights
        hours = policy.fairshare.foresight / HOUR
        self._cpu, self._memory, self._gpu = (
            weights.cpu * hours,
            weights.memory * hours / GIB,
            weights.gpu * hours,
        )

    def usage(self, owner: str, project: str | None) -> float:
        """Of one user within one project (None: in no project)."""
        key = (owner, project)
        if (found := self._members.get(key)) is None:
            found = self._members[key] = self._facts.member(owner, project)
        return found

    def project_usage(self, project: str | None) -> float:
        """Of all members of a project; None stands for all who are in no project."""
        if (found := self._projects.get(project)) is None:
            found = self._projects[project] = self._facts.project(project)
        return found

    def finished(self, owner: str, project: str | None) -> tuple[DayUse, DayUse]:
        """What ended on each day, of the user and of the project."""
        return self._facts.finished(owner, None), self._facts.finished("", project)

    def known(self) -> list[Pair]:
        """All who wait, hold something or have used something."""
        return self._facts.known()

    @property
    def capacity(self) -> float:
        """Cores of all nodes; 0 when that was not told."""
        return self._facts.capacity

    def cost(self, job: Job) -> float:
        """By how much usage grows when `job`, or one member of it, starts."""
        spec = job.spec
        return self._cpu * spec.cpu + self._memory * spec.memory + self._gpu * spec.gpus.count

    def commit(self, job: Job, count: int = 1) -> None:
        """`job`, or that many of its members, starts in this pass."""
        self.commits += 1
        self.taken[job.id] = self.taken.get(job.id, 0) + count
        spec = job.spec
        owner, project = pair = job.owner, spec.project
        # As `cost` and `usage` say, without the calls: this runs at each start.
        cost = count * (self._cpu * spec.cpu + self._memory * spec.memory + self._gpu * spec.gpus.count)
        members, projects = self._members, self._projects
        members[pair] = (members[pair] if pair in members else self.usage(owner, project)) + cost
        projects[project] = (projects[project] if project in projects else self.project_usage(project)) + cost
