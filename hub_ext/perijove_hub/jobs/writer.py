"""The loop that places, commits and only then acts: one transaction for all that gathered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from perijove.model import Job, JobEvent, UnavailableError
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.effects import Effect
from perijove_hub.jobs.pending import Pending
from perijove_hub.store.database import TRANSIENT, StaleLeaderError
from perijove_spawners.failpoints import reach

log = logging.getLogger(__name__)

COMMIT_PATIENCE = 30.0
"""Seconds a request waits for the database before it is told that it did not answer."""

GATHER = 0.004
"""Seconds between the begins of two rounds at least: under load one pass and one commit do for what arrives
meanwhile."""

Subscriber = asyncio.Queue[tuple[JobEvent, Job] | None]
"""None: the reader was too slow, events were dropped; the database has them."""


class Writer:
    """`perform` is given the effects of what has been committed, and of nothing else."""

    def __init__(self, core: Core, perform: Callable[[Sequence[Effect]], None]) -> None:
        self._core, self._perform = core, perform
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._subscribers: set[Subscriber] = set()
        self.listeners: list[Callable[[Sequence[tuple[JobEvent, Job]]], None]] = []
        """Told of all events once they are durable, at once and without a limit."""
        self.patience = COMMIT_PATIENCE
        self.unwritten: dict[tuple[str, str], range] = {}
        """Submissions whose request may have given up waiting: owner and key -> ids."""
        self.trouble = ""
        """Why nothing can be written at the moment."""

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown()

    async def run(self) -> None:
        """Work for ever. Raises when another service leads."""
        core, begun = self._core, 0.0
        while True:
            await core.wake.wait()
            if (early := begun + GATHER - time.monotonic()) > 0:
                await asyncio.sleep(early)
            begun = time.monotonic()
            core.wake.clear()
            board = core.board
            board.place(core.clock())
            if board.placeable:  # cut short: the rest after this commit
                core.wake.set()
            pending = board.take()
            if not pending:
                continue
            core.committing = pending
            if pending.batch:
                reach("serve.before-commit")
                await self._commit(pending)
                reach("serve.after-commit")
            for waiter in pending.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._publish(pending)
            core.committing = None
            self._perform(pending.effects)

    async def committed(self) -> None:
        """Wait until all that the board holds now is durable. Raises :class:`UnavailableError`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._core.board.pending.waiters.append(waiter)
        self._core.wake.set()
        try:
            await asyncio.wait_for(waiter, self.patience)
        except TimeoutError:
            why = f"cannot be written ({self.trouble})" if self.trouble else "does not answer"
            raise UnavailableError(f"the database {why}; the request may yet be accepted") from None

    @contextlib.asynccontextmanager
    async def subscription(self) -> AsyncIterator[Subscriber]:
        """Every event from now on, after it became durable."""
        queue: Subscriber = asyncio.Queue(10_000)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)

    async def _commit(self, pending: Pending) -> None:
        loop, pause, write = asyncio.get_running_loop(), 0.1, self._core.database.commit
        while True:
            try:
                await loop.run_in_executor(self._thread, write, pending.batch)
            except StaleLeaderError:
                raise
            except TRANSIENT as error:
                # Full disk, locked or lost database: nothing is acted on until this batch is written.
                log.error("commit failed, trying again: %s", error)
                self.trouble = str(getattr(error, "orig", error))
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
            except Exception:
                # One row that no database takes must not keep all others from being written.
                log.exception("a batch cannot be written as a whole")
                write = self._core.database.commit_piecemeal
            else:
                break
        self.trouble = ""
        for row in pending.batch.submissions:
            self.unwritten.pop((row["owner"], row["key"]), None)

    def _publish(self, pending: Pending) -> None:
        for listener in self.listeners:
            listener(pending.published)
        if not self._subscribers:
            return
        for item in pending.published:
            for queue in list(self._subscribers):
                if queue.full():
                    self._subscribers.discard(queue)
                    queue.get_nowait()
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(item)
