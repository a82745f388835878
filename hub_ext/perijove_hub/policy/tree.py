"""The tree of shares: site, projects, members; what is due to each, and what each has had.

Slurm's classic algorithm (https://slurm.schedmd.com/classic_fair_share.html): F = 2 ** -(U / S), where S is
the part due and U the effective usage: a member's own part of all usage, and, for what their siblings did,
their share of the difference between the project's part and their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove_hub.accounting import HOUR
from perijove_hub.policy.shares import Share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.shares import Pair, Shares


SMALL = 100.0
"""Cores of a site that has not said how many it has."""


class Tree:
    """Who shares with whom: all that are known to the standing, and `also` these.

    Usage is read anew at each question, so that what a pass starts counts; the total stays as it was when the
    pass began. It is at least what the whole site uses in the policy's `foresight`: on a site that was idle,
    little use is little, and not all there is.
    """

    def __init__(self, policy: Policy, shares: Shares, also: Iterable[Pair] = ()) -> None:
        self._policy, self._shares = policy, shares
        self._within: dict[str | None, float] = {}
        """Project -> the shares of its known members together."""
        pairs = {*shares.known(), *also}
        for owner, project in sorted(
            pairs, key=lambda pair: (pair[1] or "", pair[0])
        ):  # sums alike each time
            self._within[project] = self._within.get(project, 0.0) + policy.user(owner).shares
        self._between = sum(policy.shares_of(project) for project in self._within)
        self.total = sum(shares.project_usage(project) for project in self._within)
        fairshare = policy.fairshare
        self._least = fairshare.weights.cpu * fairshare.foresight / HOUR * (shares.capacity or SMALL)

    def due(self, owner: str, project: str | None) -> float:
        """The part of all that is due to one, 0 to 1."""
        of_project = _part(self._policy.shares_of(project), self._between)
        return of_project * self._of_siblings(owner, project)

    def factor(self, owner: str, project: str | None) -> float:
        """1: nothing used; 0.5: just what was due; towards 0: more."""
        if not (due := self.due(owner, project)):
            return 0.0
        whole = max(self.total, self._least)
        had = _part(self._shares.usage(owner, project), whole)
        parent = _part(self._shares.project_usage(project), whole)
        effective = had + max(0.0, parent - had) * self._of_siblings(owner, project)
        return float(2.0 ** -(effective / due))

    def place(self, owner: str, project: str | None) -> Share:
        """How one stands."""
        usage = self._shares.usage(owner, project)
        return Share(
            owner=owner,
            project=project,
            shares=self._policy.user(owner).shares,
            usage=usage,
            target=self.due(owner, project),
            actual=_part(usage, self.total),
            factor=self.factor(owner, project),
        )

    def _of_siblings(self, owner: str, project: str | None) -> float:
        return _part(self._policy.user(owner).shares, self._within.get(project, 0.0))


def stand(policy: Policy, shares: Shares) -> list[Share]:
    """All who are known, by project and name."""
    tree = Tree(policy, shares)
    return [tree.place(*pair) for pair in sorted(shares.known(), key=lambda pair: (pair[1] or "", pair[0]))]


def _part(of: float, whole: float) -> float:
    return of / whole if whole > 0 else 0.0
