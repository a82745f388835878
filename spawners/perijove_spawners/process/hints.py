"""Hints that an attempt may have changed, from a named pipe to whoever waits in this event loop.

A hint is never the truth: it may be lost, and it may come for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

from perijove.model import Attempt


class Hints:
    """The reading end of the pipe at `path`; a newer reader takes the place of an older one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._events: defaultdict[Attempt, set[asyncio.Event]] = defaultdict(set)
        self._watchers: set[asyncio.Queue[Attempt | None]] = set()

    def open(self) -> None:
        """Make the pipe and listen. What another reader still holds open stays as it is and falls silent."""
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        os.mkfifo(fresh, 0o600)
        # For writing too, so that the pipe never is at its end.
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fresh.rename(self._path)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop listening and end all watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        for watcher in self._watchers:
            watcher.put_nowait(None)

    def _read(self) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(BlockingIOError):
            for name in os.read(self._descriptor, 65536).decode(errors="replace").split():
                with contextlib.suppress(ValueError):
                    self.give(Attempt.parse(name))

    def give(self, attempt: Attempt) -> None:
        """Have all who wait for `attempt`, and all watchers, look at it."""
        for event in self._events.get(attempt, ()):
            event.set()
        for watcher in self._watchers:
            watcher.put_nowait(attempt)

    @contextlib.contextmanager
    def expect(self, attempt: Attempt) -> Iterator[asyncio.Event]:
        """An event that is set by hints for `attempt` given from now on."""
        event = asyncio.Event()
        self._events[attempt].add(event)
        try:
            yield event
        finally:
            self._events[attempt].discard(event)
            if not self._events[attempt]:
                del self._events[attempt]

    async def watch(self) -> AsyncIterator[Collection[Attempt]]:
        """Attempts hinted at since the last, until :meth:`close`."""
        queue: asyncio.Queue[Attempt | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while True:
                batch = {await queue.get()}
                while not queue.empty():
                    batch.add(queue.get_nowait())
                if None in batch:
                    return
                yield {attempt for attempt in batch if attempt is not None}
        finally:
            self._watchers.discard(queue)


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until `event` is set, for so long at most; then clear it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    event.clear()
