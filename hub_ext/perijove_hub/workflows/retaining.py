"""How long ended runs are kept: as long as the policy says of jobs; pinned ones for ever."""

from __future__ import annotations

import asyncio
import logging

from perijove.model import Run
from perijove_hub.jobs.controller import Controller
from perijove_hub.policy.document import Retention

log = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds between two rounds."""
AT_ONCE = 500
"""Runs that one step of a round looks at."""


class Retaining:
    """What it clears away has ended. Jobs of steps are kept and cleared away as other jobs are."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def run(self) -> None:
        """Work for ever."""
        while True:
            await asyncio.sleep(ROUND)
            try:
                await self.round()
            except Exception:
                log.exception("old runs were not cleared away; trying again later")

    async def round(self) -> None:
        """Of runs older than jobs are archived nobody takes results any more, and the store need not keep
        them; of those older than jobs are purged no record is left.
        """
        retention, now = self._controller.policy.retention, self._controller.clock()
        if retention.archive_after is not None:
            for run in await self._old(retention, now - retention.archive_after, archived=False):
                self._controller.board.pending.batch.flows.archived.append(run)
        if retention.purge_after is not None:
            for run in await self._old(retention, now - retention.purge_after, archived=True):
                self._controller.board.pending.batch.flows.removed.append(run)
        await self._controller.committed()

    async def _old(self, retention: Retention, before: float, *, archived: bool) -> list[int]:
        """Some, the oldest first; those whose labels keep them are passed over."""
        database, found, limit = self._controller.database.workflows, list[int](), AT_ONCE
        while True:
            some = await asyncio.to_thread(database.ended_before, before, limit, archived=archived)
            found = [run.id for run in some if not is_kept(run, retention)]
            if found or len(some) < limit:
                return found
            limit *= 2


def is_kept(run: Run, retention: Retention) -> bool:
    """Whether it bears a label that keeps it whatever its age."""
    for wish in retention.keep:
        key, equals, value = wish.partition("=")
        if key in run.labels and (not equals or run.labels[key] == value):
            return True
    return False
