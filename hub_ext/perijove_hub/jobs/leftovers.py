"""Directories of jobs that were cleared away while their node was not there, or did not hear of it.

The database alone says which those are: nothing is noted of a purge that failed. So each node is asked now
and then what it keeps.
"""

from __future__ import annotations

import asyncio
import logging

from perijove.model import Attempt, NodeState, PerijoveError
from perijove_hub.jobs.core import Core
from perijove_spawners.launcher import LaunchError

log = logging.getLogger(__name__)

EVERY = 3600.0
"""Seconds between two looks at the same node, unless it was down meanwhile."""


class Leftovers:
    """What the nodes keep is compared with what they are to keep."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.at_once = 5000
        """Attempts that a node names in one answer."""
        self._looked: dict[tuple[str, str], float] = {}
        """When, by the steady clock, each node was looked at; by its incarnation, which is another after a
        restart. One that is down is in it no more."""

    async def clear(self) -> None:
        """Have the nodes whose turn it is remove what should be gone."""
        now, nodes = self._core.steady(), self._core.ledger.nodes
        there = {(node.name, node.incarnation) for node in nodes if node.state is not NodeState.DOWN}
        self._looked = {key: at for key, at in self._looked.items() if key in there}
        for key in sorted(there):
            if key in self._looked and now - self._looked[key] < EVERY:
                continue
            try:
                await self._clear(key[0])
            except (PerijoveError, LaunchError) as error:
                log.info("node %s was not asked what it keeps: %s", key[0], error)
            else:
                self._looked[key] = now

    async def _clear(self, node: str) -> None:
        after: Attempt | None = None
        while True:
            kept: list[Attempt] = await self._core.fabric.call(node, "kept", after, self.at_once)
            jobs = sorted({attempt.job for attempt in kept} - self._core.board.jobs.keys())
            cleared = await asyncio.to_thread(self._core.database.cleared, jobs)
            if gone := [attempt for attempt in kept if attempt.job in cleared]:
                log.info("node %s removes what %d attempts left behind", node, len(gone))
                await self._core.fabric.call(node, "purge", gone)
            if len(kept) < self.at_once:
                return
            after = kept[-1]
