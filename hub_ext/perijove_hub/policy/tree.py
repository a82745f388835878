"""The tree of shares: site, projects, members; what is due to each, and what each has had.

Slurm's classic fair share (priority_multifactor, "Fairshare Factor"): F = 2 ** -(U / S), where S is the part
due and U the effective usage: a member's own part of all usage, and for what their siblings did, their share
of the difference between the project's part and their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove_hub.policy.shares import Share

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.shares import Shares


class Tree:
    """Who shares with whom: all that are known to the standing. Usage is read anew at each question."""

    def __init__(self, policy: Policy, shares: Shares) -> None:
        self._policy, self._shares = policy, shares
        self._within: dict[str | None, float] = {}
        """Project -> the shares of its known members together."""
        for owner, project in shares.known():
            self._within[project] = self._within.get(project, 0.0) + policy.user(owner).shares
        self._between = sum(policy.shares_of(project) for project in self._within)
        self.total = sum(shares.project_usage(project) for project in self._within)

    def place(self, owner: str, project: str | None) -> Share:
        """How one stands."""
        mine = self._policy.user(owner).shares
        of_project = _part(self._policy.shares_of(project), self._between)
        of_member = _part(mine, self._within.get(project, 0.0))
        due = of_project * of_member
        usage = self._shares.usage(owner, project)
        had = _part(usage, self.total)
        parent = _part(self._shares.project_usage(project), self.total)
        effective = had + (parent - had) * of_member
        factor = 2.0 ** -(effective / due) if due > 0 else 0.0
        return Share(owner, project, mine, usage, due, had, factor)


def stand(policy: Policy, shares: Shares) -> list[Share]:
    """All who are known, by project and name."""
    tree = Tree(policy, shares)
    return [tree.place(*pair) for pair in sorted(shares.known(), key=lambda pair: (pair[1] or "", pair[0]))]


def _part(of: float, whole: float) -> float:
    return of / whole if whole > 0 else 0.0
