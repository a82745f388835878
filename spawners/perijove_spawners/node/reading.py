"""Logs of attempts for whoever asks, running or ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from perijove.model import Attempt
from perijove_spawners.node.attempts import Attempts
from perijove_spawners.node.jobfiles import read_display
from perijove_spawners.node.keptlogs import read_kept
from perijove_spawners.node.life import Life
from perijove_spawners.protocol import LogChunk, LogStream

_FIRST_PAUSE, _LONGEST_PAUSE = 0.03, 0.3


class LogReader:
    """Reads from the engine while an attempt is there, then from its folder."""

    def __init__(self, attempts: Attempts, lives: Mapping[Attempt, Life]) -> None:
        self._attempts, self._lives = attempts, lives

    async def read(
        self, attempt: Attempt, stream: LogStream, offset: int, limit: int, wait: float
    ) -> LogChunk | None:
        """See :meth:`perijove_spawners.protocol.NodeCalls.logs`."""
        deadline = time.monotonic() + wait
        pause = _FIRST_PAUSE
        while True:
            chunk = await self._piece(attempt, stream, offset, limit)
            if chunk is None or chunk.data or chunk.end:
                return chunk
            left = deadline - time.monotonic()
            if left <= 0:
                return chunk
            await self._pause(attempt, min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    async def _piece(self, attempt: Attempt, stream: LogStream, offset: int, limit: int) -> LogChunk | None:
        if life := self._lives.get(attempt):
            ended = life.ended.is_set()
            data = await life.read_log(stream, offset, limit)
        else:
            ended = True
            folder = self._attempts.folder(attempt)
            if not self._attempts.exists(attempt):
                return None
            if stream == "display":
                record = folder.read()
                account = record.taken.order.account if record.taken else None
                data = read_display(folder.path, account, offset, limit) if account else b""
            else:
                data = read_kept(folder, stream, offset, limit)
        return LogChunk(data, offset, end=ended and not data)

    async def _pause(self, attempt: Attempt, seconds: float) -> None:
        if (life := self._lives.get(attempt)) is None or life.ended.is_set():
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await life.ended.wait()
        except TimeoutError:
            pass
