"""Logs of attempts for whoever asks, running or ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

from perijove.model import Attempt
from perijove_spawners.calls import FILE, line
from perijove_spawners.launcher import Stream
from perijove_spawners.node import environment
from perijove_spawners.node.attempts import Attempts, Folder
from perijove_spawners.node.engine import Engine
from perijove_spawners.node.jobfiles import READ_LIMIT, read_display
from perijove_spawners.node.keptlogs import read_kept
from perijove_spawners.node.launching import launch_of
from perijove_spawners.node.life import Life
from perijove_spawners.node.masking import masked
from perijove_spawners.node.secrets import SecretFolders
from perijove_spawners.node.staging import JOB
from perijove_spawners.protocol import LogChunk, LogStream

_FIRST_PAUSE, _LONGEST_PAUSE = 0.03, 0.3


class LogReader:
    """Reads from the engine while an attempt is there, then from its folder."""

    def __init__(
        self,
        node: str,
        attempts: Attempts,
        lives: Mapping[Attempt, Life],
        engines: Mapping[str, Engine],
        secrets: SecretFolders,
    ) -> None:
        self._node, self._attempts, self._lives, self._engines = node, attempts, lives, engines
        self._secrets = secrets

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
        life = self._lives.get(attempt)
        ended = life is None or life.ended.is_set()
        if (life is None or stream == "engine") and not self._attempts.exists(attempt):
            return None
        if stream == "engine":
            data = self._calls(self._attempts.folder(attempt), offset, limit)
        else:
            limit, mask = min(limit, READ_LIMIT), self._secrets.mask(attempt)
            data = await masked(partial(self._raw, attempt, stream), mask, offset, limit, ended=ended)
        return LogChunk(data, offset, end=ended and not data)

    async def _raw(
        self, attempt: Attempt, stream: Stream | Literal["display"], offset: int, limit: int
    ) -> bytes:
        """As the job wrote it."""
        if life := self._lives.get(attempt):
            return await life.read_log(stream, offset, limit)
        folder = self._attempts.folder(attempt)
        if stream != "display":
            return read_kept(folder, stream, offset, limit)
        record = folder.read()
        account = record.taken.order.account if record.taken else None
        return read_display(folder.path, account, offset, limit) if account else b""

    def _calls(self, folder: Folder, offset: int, limit: int) -> bytes:
        """The engine calls made for an attempt: those noted, or the one that follows from its order."""
        if noted := read_kept(folder, "engine", offset, limit):
            return noted
        if (folder.path / FILE).exists():
            return b""
        record = folder.read()
        engine = self._engines.get(record.taken.order.launcher) if record.taken else None
        if not (record.taken and record.started and engine):
            return b""
        containers = engine.launcher.capabilities.containers
        directory = environment.job_directory(containers, str(folder.path / JOB))
        order = environment.placed(record.taken.order, containers, directory)
        call = engine.launcher.call(launch_of(order, folder.path, self._node, containers=containers))
        text = line(engine.name, replace(call, at=record.started.at)) if call else b""
        return text[offset : offset + min(limit, READ_LIMIT)]

    async def _pause(self, attempt: Attempt, seconds: float) -> None:
        if (life := self._lives.get(attempt)) is None or life.ended.is_set():
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await life.ended.wait()
        except TimeoutError:
            pass
