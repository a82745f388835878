"""How much disk job directories take, for the limits that the policy sets on it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable

from perijove.model import Attempt, Job, PerijoveError, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.core import Core
from perijove_hub.policy.document import Policy
from perijove_hub.store.database import Page
from perijove_spawners.launcher import LaunchError

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Directories that a node is asked about in one call."""


class Disk:
    """Asks the nodes, and only while somebody's disk is limited."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._begun = False
        self._measured: set[int] = set()
        """Ended jobs whose directories change no more."""

    async def measure(self) -> None:
        """Tell the standing what the directories of jobs take now."""
        if not is_limited(self._core.board.policy):
            return
        board = self._core.board
        running = [job for job in board.jobs.values() if job.state.on_node and not arrays.is_group(job)]
        await self._ask(running)
        await self._ask(job for job in list(board.recent.values()) if self._counts(job))
        if not self._begun:
            await self._ask_about_the_past()
            self._begun = True

    def _counts(self, job: Job) -> bool:
        return not job.archived and job.attempt > 0 and job.id not in self._measured

    async def _ask_about_the_past(self) -> None:
        ended, before = tuple(state for state in State if state.ended), None
        while True:
            page = Page(ended, limit=1000, before=before, members=True, run="any")
            some = await asyncio.to_thread(self._core.database.jobs, page)
            await self._ask(job for job in some if self._counts(job))
            if len(some) < 1000:
                return
            before = some[-1].id

    async def _ask(self, jobs: Iterable[Job]) -> None:
        by_node: dict[str, dict[Attempt, Job]] = defaultdict(dict)
        for job in jobs:
            if job.node is not None:
                by_node[job.node][Attempt(job.id, job.attempt)] = job
        for node, asked in by_node.items():
            attempts = list(asked)
            for i in range(0, len(attempts), AT_ONCE):
                some = attempts[i : i + AT_ONCE]
                try:
                    sizes: dict[Attempt, int] = await self._core.fabric.call(node, "disk", some)
                except (PerijoveError, LaunchError) as error:
                    log.info("node %s did not say what its directories take: %s", node, error)
                    break
                for attempt in some:
                    self._note(asked[attempt], sizes.get(attempt, 0))

    def _note(self, job: Job, size: int) -> None:
        self._core.board.standing.stores(job, size)
        if job.state.ended:
            self._measured.add(job.id)


def is_limited(policy: Policy) -> bool:
    """Whether anybody's disk is."""
    limits = [policy.default_user.limits, policy.guests, policy.site]
    limits += [user.limits for user in policy.users.values()]
    for project in policy.projects.values():
        limits += [project.limits, project.member_limits, *project.limits_of.values()]
    return any(limit.disk is not None for limit in limits)
