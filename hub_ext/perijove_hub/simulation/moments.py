"""When the queue is looked at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

from perijove_hub.policy.document import Policy

NEAR = 1.0
"""Seconds within which a recorded pass is taken to be the one that follows a change."""
TICK = 60.0
"""Seconds between two looks at the queue, where something may start though nothing changed."""


class Moments:
    """After a change comes a pass: `every` seconds after the one before at least.

    Of a recorded service: when it made its own, since what came in while it was busy was looked at together.
    """

    tick = TICK

    def __init__(self, recorded: Sequence[float] = (), every: float = 0.0) -> None:
        self._recorded, self._every = recorded, every
        self._last = -inf

    def after(self, now: float) -> float:
        """When the pass is made that follows a change at `now`."""
        at = max(now, self._last + self._every)
        if self._recorded:
            i = bisect_left(self._recorded, at)
            if i < len(self._recorded) and self._recorded[i] <= at + NEAR:
                at = self._recorded[i]
        self._last = at
        return at


def depends_on_time(policy: Policy) -> bool:
    """Whether a job may become able to start by nothing but the time that passes."""
    return bool(policy.reservations) or _budgeted(policy) or policy.preemption.exempt > 0


def patience(policy: Policy, now: float) -> float:
    """Seconds after which nothing starts any more, when nothing runs and nothing comes."""
    if not depends_on_time(policy):
        return 0.0
    ends = [kept.end.timestamp() - now for kept in policy.reservations.values()]
    return max([policy.window if _budgeted(policy) else 0.0, policy.preemption.exempt, *ends]) + 2 * TICK


def _budgeted(policy: Policy) -> bool:
    if policy.over_budget != "wait":
        return False
    users = [policy.default_user, *policy.users.values()]
    limits = [policy.site, policy.guests, *(user.limits for user in users)]
    limits += [
        limit
        for project in policy.projects.values()
        for limit in (project.limits, project.member_limits, *project.limits_of.values())
    ]
    return any(limit.budgeted for limit in limits)
