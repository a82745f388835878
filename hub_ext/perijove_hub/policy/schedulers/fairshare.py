"""``fairshare``: who has had the least of what is due to them is next.

Projects first, then the members of the project that is next, then the jobs of that member by their
priority. What is started on the way counts at once, so one pass over a free cluster divides it by shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from math import inf
from typing import TYPE_CHECKING

from perijove_hub.policy.schedulers.portions import PATIENCE, offer

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.schedulers import Line
    from perijove_hub.policy.shares import Shares

    _Ranked = tuple[float, int, int, "_Member"]


class _Member:
    """One line, with the entry at its head."""

    __slots__ = ("head", "idle", "owner", "project", "rest", "weight")

    def __init__(self, line: Line, head: Entry, rest: Iterator[Entry], weight: float) -> None:
        self.owner, self.project, self.weight = line.owner, line.project, weight
        self.head, self.rest = head, rest
        self.idle = 0
        """How many came in this round and did not start."""


class _Project:
    """Its members, the one to serve first first."""

    __slots__ = ("name", "ranked", "weight")

    def __init__(self, name: str | None, weight: float, ranked: list[_Ranked]) -> None:
        self.name, self.weight, self.ranked = name, weight, ranked
        heapify(ranked)


class FairShare:
    """Usage that fades, weighed against shares, within projects and between them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def order(self, lines: Sequence[Line], shares: Shares, now: float) -> Iterator[Entry]:
        """See :class:`~perijove_hub.policy.schedulers.Scheduler`. Ties go to the older job."""
        members = []
        for line in lines:
            rest = iter(line)
            if (head := next(rest, None)) is not None:
                weight = self._policy.user(line.owner).shares
                members.append(_Member(line, head, rest, weight))
        patience = PATIENCE
        while members:
            stuck: list[_Member] = []
            yield from _serve(self._rank(members, shares), shares, patience, stuck)
            members, patience = stuck, 2 * patience

    def _rank(self, members: list[_Member], shares: Shares) -> list[tuple[float, int, int, _Project]]:
        """A heap of the projects, each with a heap of its members."""
        by_project: dict[str | None, list[_Ranked]] = {}
        for number, member in enumerate(members):
            score = _score(shares.usage(member.owner, member.project), member.weight)
            by_project.setdefault(member.project, []).append((score, member.head.job.id, number, member))
        projects = []
        for number, (name, ranked) in enumerate(by_project.items()):
            project = _Project(name, self._policy.shares_of(name), ranked)
            score = _score(shares.project_usage(name), project.weight)
            projects.append((score, project.ranked[0][1], number, project))
        heapify(projects)
        return projects


def _serve(
    projects: list[tuple[float, int, int, _Project]], shares: Shares, patience: int, stuck: list[_Member]
) -> Iterator[Entry]:
    """Entries until each line is at its end, or `stuck`: that many of it came and did not start."""
    usage, project_usage = shares.usage, shares.project_usage
    while projects:
        old, _, number, project = projects[0]
        score = _score(project_usage(project.name), project.weight)
        ranked = project.ranked
        if score > old:  # it got something since it was ranked
            heapreplace(projects, (score, ranked[0][1], number, project))
            continue
        old, _, place, member = ranked[0]
        score = _score(usage(member.owner, member.project), member.weight)
        if score > old:
            heapreplace(ranked, (score, member.head.job.id, place, member))
            continue
        before = shares.commits
        entry: Entry | None = member.head
        while entry is not None and shares.commits == before and member.idle < patience:
            member.idle += 1
            if entry.count == 1:
                yield entry
                left = None
            else:
                left = yield from offer(entry, shares)
            entry = left or next(member.rest, None)
        if entry is None:
            heappop(ranked)
        elif shares.commits == before:
            member.head, member.idle = entry, 0
            stuck.append(member)
            heappop(ranked)
        else:  # something of theirs started: is it still their turn?
            member.head = entry
            member.idle -= 1
            score = _score(usage(member.owner, member.project), member.weight)
            heapreplace(ranked, (score, entry.job.id, place, member))
        if ranked:
            score = _score(project_usage(project.name), project.weight)
            heapreplace(projects, (score, ranked[0][1], number, project))
        else:
            heappop(projects)


def _score(usage: float, weight: float) -> float:
    return usage / weight if weight > 0 else inf
