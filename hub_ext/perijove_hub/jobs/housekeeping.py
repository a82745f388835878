"""What ended jobs leave behind, on nodes and in the database, and how long the policy has it kept."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from perijove.model import Attempt, Job
from perijove_hub.jobs import arrays
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.disk import Disk
from perijove_hub.jobs.effects import SendPurge
from perijove_hub.jobs.leftovers import Leftovers
from perijove_hub.policy.document import Retention

log = logging.getLogger(__name__)

ROUND = 60.0
"""Seconds between two rounds."""
AT_ONCE = 500
"""Jobs that one step of a round clears away."""


class Housekeeping:
    """The board is asked nothing: what it clears away has ended."""

    def __init__(self, core: Core, committed: Callable[[], Awaitable[None]]) -> None:
        self._core, self._committed = core, committed
        self._disk, self.leftovers = Disk(core), Leftovers(core)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            await asyncio.sleep(ROUND)
            try:
                await self.round()
            except Exception:
                log.exception("what is old was not cleared away; trying again later")

    async def round(self) -> None:
        """Clear away what is older than the policy keeps it."""
        retention, now = self._core.board.policy.retention, self._core.clock()
        await self._disk.measure()
        if retention.archive_after is not None:
            await self._old(retention, now - retention.archive_after, archived=False)
        if retention.purge_after is not None:
            await self._old(retention, now - retention.purge_after, archived=True)
        await self.leftovers.clear()

    async def _old(self, retention: Retention, before: float, *, archived: bool) -> None:
        kept = 0
        while True:
            most = AT_ONCE + kept
            some = await asyncio.to_thread(self._core.database.expired, before, archived, most)
            gone = [job.id for job in some if not is_kept(job, retention)]
            kept = len(some) - len(gone)
            if gone:
                await (self.purge(gone, "retention") if archived else self.archive(gone, "retention"))
            if len(some) < most:
                return

    async def archive(self, ids: Sequence[int], by: str) -> int:
        """Remove directories and logs of these ended jobs, their members' too; how many jobs there were."""
        found = [job for job in await asyncio.to_thread(self._with_members, ids) if not job.archived]
        board, now = self._core.board, self._core.clock()
        for job in found:
            cleared = job.model_copy(update={"archived": True})
            board.pending.batch.changed[job.id] = cleared
            if job.id in board.recent:
                board.recent[job.id] = cleared
            board.record(cleared, "archived", {"by": by}, now)
            board.standing.stores(cleared, 0)
        board.pending.effects += self._purges(found)
        await self._committed()
        return len(found)

    async def purge(self, ids: Sequence[int], by: str) -> int:
        """Remove also the records of these ended jobs; what they were charged stays."""
        found = await asyncio.to_thread(self._with_members, ids)
        board = self._core.board
        tops = [job.id for job in found if job.array_id is None]
        for job in found:
            board.recent.pop(job.id, None)
            board.standing.stores(job, 0)
        board.pending.batch.removed += tops
        board.pending.effects += self._purges(job for job in found if not job.archived)
        log.info("%d jobs removed by %s", len(tops), by)
        await self._committed()
        return len(tops)

    def _with_members(self, ids: Sequence[int]) -> list[Job]:
        database, found = self._core.database, []
        for number in ids:
            job = database.job(number)
            if job is None or not job.state.ended or number in self._core.board.jobs:
                continue
            found.append(job)
            if arrays.is_group(job):
                found += database.members(number)
        return found

    def _purges(self, jobs: Iterable[Job]) -> list[SendPurge]:
        """Every attempt of them, where it may have run: all nodes but for jobs with a single attempt."""
        everywhere = [node.name for node in self._core.ledger.nodes]
        by_node: dict[str, list[Attempt]] = defaultdict(list)
        for job in jobs:
            attempts = [Attempt(job.id, number) for number in range(1, job.attempt + 1)]
            for node in everywhere if job.attempt > 1 else [job.node] if job.node else []:
                by_node[node] += attempts
        return [SendPurge(node, tuple(attempts)) for node, attempts in by_node.items()]


def is_kept(job: Job, retention: Retention) -> bool:
    """Whether it bears a label that keeps it whatever its age."""
    labels = job.spec.labels
    for wish in retention.keep:
        key, equals, value = wish.partition("=")
        if key in labels and (not equals or labels[key] == value):
            return True
    return False
