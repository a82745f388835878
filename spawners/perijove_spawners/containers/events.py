"""The engine's event stream as a hint of which attempts to look at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from perijove.model import Attempt
from perijove_spawners.containers.connection import Connection, tell
from perijove_spawners.containers.container import ATTEMPT, INSTALLATION
from perijove_spawners.launcher import EngineError

EVENTS = ["die", "died", "pause", "unpause"]
"""What changes a phase. Podman says ``die`` and wants to be asked for ``died``."""


class EventStream:
    """One stream of an engine's events about the containers of an installation, read by a thread."""

    def __init__(self, connection: Connection, installation: str) -> None:
        self._connection = connection
        self._label = f"{INSTALLATION}={installation}"
        self._queue: asyncio.Queue[Attempt | EngineError] = asyncio.Queue()
        self._stream: Any = None
        self._closed = False

    async def changes(self, since: float) -> AsyncIterator[Collection[Attempt]]:
        """Attempts with an event since the time `since`, as batches; ends with :class:`EngineError`.

        Engines keep some past events, so that nothing is lost between a look at the state and this call.
        """
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop, int(since)), name="events", daemon=True).start()
        try:
            while True:
                batch = {await self._next()}
                while not self._queue.empty():
                    batch.add(await self._next())
                yield batch
        finally:
            self.close()

    async def _next(self) -> Attempt:
        event = await self._queue.get()
        if isinstance(event, EngineError):
            # left there for a reader that has taken a batch before it
            self._queue.put_nowait(event)
            raise event
        return event

    def close(self) -> None:
        """Hang up; the thread ends."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def _read(self, loop: asyncio.AbstractEventLoop, since: int) -> None:
        end = EngineError(f"the events of {self._connection.engine} at {self._connection.url} ended")
        try:
            filters = {"type": "container", "label": self._label, "event": EVENTS}
            self._stream = self._connection.api.events(since=since, filters=filters, decode=True)
            if self._closed:
                self._stream.close()
            for attempt in _attempts(self._stream):
                if not tell(loop, self._queue.put_nowait, attempt):
                    return
        except Exception as error:
            end.__cause__ = error
        tell(loop, self._queue.put_nowait, end)


def _attempts(events: Iterator[Mapping[str, Any]]) -> Iterator[Attempt]:
    for event in events:
        labels = (event.get("Actor") or {}).get("Attributes") or {}
        if text := labels.get(ATTEMPT):
            yield Attempt.parse(text)
