"""What the parts of the controller share: the board, the way to database and nodes, and their tasks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from perijove_hub.accounts import Identity, groups_of
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import SendOrder
from perijove_hub.jobs.inventory import Inventory
from perijove_hub.jobs.pending import Pending
from perijove_hub.ledger import Ledger
from perijove_hub.policy.guests import TermsOf, nobody
from perijove_hub.secrets.keeper import Secrets
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_spawners.fabric.port import Fabric

log = logging.getLogger(__name__)


def _stay() -> None:
    pass


def _never(_owner: str, _node: str) -> str:
    return ""


class Core:
    """Lives in one event loop. `wake` is set when the board has something to place or to write."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        fabric: Fabric,
        identify: Callable[[str], Identity],
        clock: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.database, self.fabric = settings, database, fabric
        self.identify, self.clock = identify, clock
        self.steady = steady
        """Seconds that are never turned back: how long ago something was. `clock` says when."""
        self.groups_of: Callable[[str], frozenset[str]] = groups_of
        """Groups of a user that the policy may name."""
        self.terms_of: TermsOf = nobody
        """What holds for a user who is a guest."""
        self.held_back: Callable[[str, str], str] = _never
        """Why no job of a user can start on a node for a while; empty when it can."""
        self.ledger = Ledger()
        self.secrets = Secrets(database, settings.secret_keys)
        self.board = Board(self.ledger)
        self.committing: Pending | None = None
        """What is being written now: nothing of it has been acted on."""
        self.inventory = Inventory(lambda: self.database)
        """Which nodes there are, for the record."""
        self.wake = asyncio.Event()
        self.joined = asyncio.Event()
        """Set once a node is known."""
        self.died: Callable[[], None] = _stay
        """Called when no more work will be done until the service is started anew."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def unsent(self) -> set[int]:
        """Jobs whose order has not been sent yet, as it waits for a commit."""
        some = [self.board.pending, *([self.committing] if self.committing is not None else [])]
        return {effect.job for one in some for effect in one.effects if isinstance(effect, SendOrder)}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have it done beside all else; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def spawn_vital(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
        """Likewise; nothing goes on without it."""
        return self.spawn(self._vital(work))

    async def end(self) -> None:
        """Cancel all that is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _vital(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.critical("the controller cannot go on", exc_info=True)
            self.died()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the controller failed", exc_info=error)
