"""One launcher as the agent uses it: finds out about ends by hints, and by asking now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from perijove.model import Attempt
from perijove_spawners.launcher import EngineError, Launcher, Phase, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

STARTS = 32
"""Starts under way at once."""
POLL = 5.0
"""Seconds between two looks at everything that runs, whatever the engine hints."""
BATCH = 500
"""Attempts asked for at once."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


@dataclass(slots=True)
class _Watched:
    future: asyncio.Future[Status]
    on_phase: Callable[[Phase], None]
    running: bool = False
    hinted: bool = False
    """There was a hint before it was seen to run."""
    missing: int = 0


@dataclass(slots=True)
class Engine:
    """A launcher with the attempts that the agent waits for."""

    name: str
    launcher: Launcher
    poll: float = POLL
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the launcher was opened."""
    troubled: bool = False
    """It did not answer when it was last asked."""
    starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS))
    _watched: dict[Attempt, _Watched] = field(default_factory=dict)
    _hinted: set[Attempt] = field(default_factory=set)
    _hint: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, on_open: Callable[[Engine], Awaitable[None]]) -> None:
        """Open the launcher, however long its engine is away; then watch until cancelled."""
        await persist(self.launcher.open, f"{self.name}: open")
        await on_open(self)
        self.ready.set()
        log.info("launcher %s is ready", self.name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._ask())
            tasks.create_task(self._poll())

    def expect(self, attempt: Attempt, on_phase: Callable[[Phase], None]) -> asyncio.Future[Status]:
        """The status of `attempt` once it has ended.

        An engine that does not have it counts only after :meth:`began`.
        """
        future: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._watched[attempt] = _Watched(future, on_phase)
        return future

    def began(self, attempt: Attempt) -> None:
        """It runs: from now on the engine must have it."""
        if watched := self._watched.get(attempt):
            watched.running = True
            if watched.hinted:
                self.hint([attempt])

    def dismiss(self, attempt: Attempt) -> None:
        """Nobody waits for it any longer."""
        self._watched.pop(attempt, None)

    def hint(self, attempts: Iterable[Attempt]) -> None:
        """Ask soon what has become of `attempts`."""
        for attempt in attempts:
            if (watched := self._watched.get(attempt)) is None:
                continue
            if watched.running:
                self._hinted.add(attempt)
            else:
                # Whoever starts it looks by itself.
                watched.hinted = True
        if self._hinted:
            self._hint.set()

    async def _listen(self) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                async for attempts in self.launcher.watch():
                    wait = _FIRST_WAIT
                    self.hint(attempts)
            except EngineError as error:
                log.warning("%s: %s", self.name, error)
            except Exception:
                # Hints are a help; without them the ends are found by asking.
                log.exception("%s: watch failed", self.name)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            # What happened meanwhile was not hinted at.
            self.hint(list(self._watched))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.poll)
            self.hint(list(self._watched))

    async def _ask(self) -> None:
        wait = _FIRST_WAIT
        while True:
            await self._hint.wait()
            batch = [self._hinted.pop() for _ in range(min(BATCH, len(self._hinted)))]
            if not self._hinted:
                self._hint.clear()
            try:
                statuses = await self.launcher.status(batch)
            except Exception as error:
                log.warning("%s: status: %s", self.name, error, exc_info=not isinstance(error, EngineError))
                self.troubled = True
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                self.hint(batch)
            else:
                self.troubled = False
                wait = _FIRST_WAIT
                self._tell(batch, statuses)

    def _tell(self, batch: Collection[Attempt], statuses: dict[Attempt, Status]) -> None:
        for attempt in batch:
            if (watched := self._watched.get(attempt)) is None:
                continue
            status = statuses.get(attempt, Status(Phase.UNKNOWN))
            if status.phase is Phase.UNKNOWN and watched.running:
                watched.missing += 1
                if watched.missing < 2:
                    # Engines have been seen to forget for a moment.
                    asyncio.get_running_loop().call_later(1.0, self.hint, [attempt])
                    continue
            elif status.phase is not Phase.EXITED:
                watched.missing = 0
                if watched.running:
                    watched.on_phase(status.phase)
                continue
            del self._watched[attempt]
            if not watched.future.done():
                watched.future.set_result(status)


class Pauses:
    """Growing pauses between attempts to reach an engine."""

    def __init__(self, until: asyncio.Event | None = None) -> None:
        self._until, self._next = until, _FIRST_WAIT

    async def pause(self) -> None:
        """Wait; less when `until` is set meanwhile."""
        wait, self._next = self._next, min(2 * self._next, _LONGEST_WAIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await (self._until.wait() if self._until else asyncio.sleep(wait))


async def persist(
    act: Callable[[], Awaitable[T]],
    what: str,
    *,
    until: asyncio.Event | None = None,
    patience: float = math.inf,
) -> T:
    """Do `act` again while its engine does not answer, with growing pauses, and answer what it answers.

    Stops trying, by raising what was raised, once `until` is set or `patience` seconds have passed.
    """
    pauses = Pauses(until)
    give_up = time.monotonic() + patience
    while True:
        try:
            return await act()
        except EngineError as error:
            if (until and until.is_set()) or time.monotonic() > give_up:
                raise
            log.warning("%s: %s; trying again", what, error)
        await pauses.pause()
