"""What a container wrote, copied from its engine into files that outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from docker.types import CancellableStream

from perijove_spawners.containers.connection import Connection, in_thread
from perijove_spawners.containers.log_records import LogRecords
from perijove_spawners.launcher import EngineError, LaunchError, Stream

logger = logging.getLogger(__name__)

STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
"""Stream types of the API's frames (``POST /containers/{id}/attach``, "Stream format")."""
PIECE = 1 << 16
_START: Mapping[Stream, int] = {"stdout": 0, "stderr": 0}
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
PATIENCE = 5.0
"""Seconds that a follower may lag behind the end of its container."""


class ContainerLog:
    """The files ``stdout`` and ``stderr`` in an attempt's directory, appended to from the engine's log.

    An engine gives its log from the beginning each time, and always the same bytes: what the files hold
    already is skipped. So a copy can be cut short anywhere and go on later, and a file never gets shorter.

    With `records` the engine's own file is read instead, each time from where the last reading ended.
    """

    def __init__(
        self, connection: Connection, container: str, directory: Path, records: LogRecords | None = None
    ) -> None:
        self._connection = connection
        self._container = container
        self.directory = directory
        self._records = records
        self._copying = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None
        self._response: Any = None
        self._looked = False
        self.ended = False
        """The container has ended: nothing will be added to what the engine has."""
        self.complete = False
        """The files hold all of it."""

    async def read(self, stream: Stream, offset: int, limit: int) -> bytes:
        """A piece of the log, from all that was written before this call when asked for the first time.

        Later calls while the container runs lag some milliseconds behind.
        """
        if self.ended or self._records or not self._looked:
            await self.catch_up()
        else:
            self._follow()
        return await asyncio.to_thread(_read, self.directory / stream, offset, limit)

    async def catch_up(self) -> None:
        """Copy what the engine has now; all of it, once the container has ended."""
        if self.complete:
            return
        if self._follower is not None:
            await asyncio.wait([self._follower], timeout=PATIENCE if self.ended else 0)
        if self._follower is None or self._follower.done() or self.ended:
            self._hang_up()
            await self._copy(follow=False)
        self._looked = True

    async def close(self) -> None:
        """Let go of the engine."""
        self._hang_up()
        if self._follower is not None:
            await asyncio.wait([self._follower], timeout=1)

    def _hang_up(self) -> None:
        if self._response is not None:
            # only the SDK knows how to wake a thread that reads from its socket
            with contextlib.suppress(OSError, AttributeError):
                CancellableStream(iter(()), self._response).close()

    def _follow(self) -> None:
        if self.complete or (self._follower is not None and not self._follower.done()):
            return
        self._follower = asyncio.create_task(self._follow_to_end())

    async def _follow_to_end(self) -> None:
        # A follower that breaks off loses nothing: the next reader starts another.
        with contextlib.suppress(LaunchError):
            await self._copy(follow=True)

    async def _copy(self, *, follow: bool) -> None:
        async with self._copying:
            if self.complete:
                return
            ended = self.ended
            try:
                # a thread of its own: a long log must not hold up the calls that start and stop jobs
                await in_thread(lambda: self._transfer(follow), f"log {self._container}")
            except Exception as error:
                raise self._connection.translate(error) from error
            self.complete = ended

    def _transfer(self, follow: bool) -> None:
        if self._records is None:
            self._transfer_stream(follow)
            return
        try:
            append(self._records.new(), self.directory, begin=self._records.offsets)
        except (OSError, ValueError) as error:
            logger.warning("the log file of %s cannot be read, asking its engine: %s", self._container, error)
            self._records = None
            self._transfer_stream(follow)

    def _transfer_stream(self, follow: bool) -> None:
        api = self._connection.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self._container}/logs"
        params = {"stdout": 1, "stderr": 1, "follow": int(follow)}
        response = api.get(url, params=params, stream=True, timeout=None if follow else api.timeout)
        try:
            api._raise_for_status(response)
            if follow:
                self._response = response
            append(frames(response.raw.read), self.directory)
        finally:
            self._response = None
            response.close()


def frames(read: Callable[[int], bytes]) -> Iterator[tuple[Stream, bytes]]:
    """The pieces of a multiplexed stream; `read` gives as many bytes as asked for, fewer at the end only."""
    while len(header := read(8)) == 8:
        stream = STREAMS.get(header[0], "stdout")
        left = int.from_bytes(header[4:], "big")
        while left:
            piece = read(min(left, PIECE))
            if not piece:
                return
            left -= len(piece)
            yield stream, piece


def append(
    pieces: Iterator[tuple[Stream, bytes]], directory: Path, *, begin: Mapping[Stream, int] = _START
) -> None:
    """Add to the files in `directory` what they lack of `pieces`, which begin at the offsets `begin`."""
    with contextlib.ExitStack() as stack:
        files = {
            stream: stack.enter_context(_LogFile(directory / stream, begin[stream]))
            for stream in STREAMS.values()
        }
        for stream, piece in pieces:
            files[stream].add(piece)


class _LogFile:
    """One stream's file, to which only the bytes it does not hold are added."""

    def __init__(self, path: Path, begin: int) -> None:
        self._path = path
        self._begin = begin
        self._file = -1
        self._held = 0

    def __enter__(self) -> Self:
        with self._named():
            self._file = os.open(self._path, _FLAGS, 0o600)
            self._held = os.fstat(self._file).st_size - self._begin
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the whole stream."""
        held = min(self._held, len(piece))
        self._held -= held
        left = memoryview(piece)[held:]
        with self._named():
            while left:
                left = left[os.write(self._file, left) :]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EngineError(f"cannot keep the log {self._path}: {error}") from error


def _read(path: Path, offset: int, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""
