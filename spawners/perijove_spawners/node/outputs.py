"""From what a job left to outputs in the store: after each end, and again by the next agent if need be."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from perijove.model import UnavailableError
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import EngineError, Stream
from perijove_spawners.node import jobfiles
from perijove_spawners.node.engine import Engine, Pauses, persist
from perijove_spawners.node.jobfiles import READ_LIMIT, ForeignFileError
from perijove_spawners.node.masking import Mask, masked
from perijove_spawners.node.recorded import RECORDED, canonical, read_recorded
from perijove_spawners.node.staging import JOB, descriptor_file, outside
from perijove_spawners.places import Place
from perijove_spawners.protocol import Order
from perijove_spawners.store import CHUNK, Entry, Store, Stored

log = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds for which a store that cannot be reached is asked again."""
LARGEST_NOTEBOOK = 256 << 20
"""Bytes of a notebook in which secrets are looked for."""
_FILES = ThreadPoolExecutor(8, "outputs")
T = TypeVar("T")


class TakingStoppedError(Exception):
    """It was to be stopped while its outputs were being kept."""


class _MissingError(Exception):
    """It cannot be taken; the message continues a sentence."""


@dataclass(slots=True)
class Taken:
    """What a job left."""

    values: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    """Why it failed, in its own words."""
    outputs: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Output -> why it was not taken."""
    transient: bool = False
    """The store is at fault for one that is missing, and another time it may do."""


@dataclass(frozen=True, slots=True)
class Taking:
    """The outputs of one attempt on their way into the store."""

    folder: Path
    order: Order
    engine: Engine
    store: Store
    mask: Mask
    stop: asyncio.Event
    """Set when it is to be stopped meanwhile."""
    patience: float = PATIENCE

    async def run(self) -> Taken:
        """Take all of them; :class:`TakingStoppedError` when that was stopped."""
        recorded, hidden = read_recorded(self.folder, self.order.account), self.mask.hidden_in
        taken = Taken(values=hidden(recorded.values), failure=hidden(recorded.failure))
        for name, text in self.order.outputs.items():
            try:
                stored = await self._persist(name, Place.parse(text), taken)
            except (_MissingError, ForeignFileError) as error:
                taken.missing[name] = str(error)
            except asyncio.CancelledError:
                # What is under way in a thread ends at its next piece; the next agent takes it again.
                self.stop.set()
                raise
            except Exception as error:  # stores of all makes raise what they like
                if isinstance(error, TakingStoppedError):
                    raise
                taken.missing[name] = f"could not be kept: {_said(error)}"
                taken.transient |= _may_pass(error)
            else:
                taken.outputs[name], taken.sizes[name] = stored.digest, stored.size
                reach("node.output-kept")
        return taken

    async def _persist(self, name: str, place: Place, taken: Taken) -> Stored:
        pauses, give_up = Pauses(self.stop), time.monotonic() + self.patience
        while True:
            try:
                return await self._take(place, taken)
            except Exception as error:
                if not _may_pass(error) or time.monotonic() > give_up:
                    raise
                log.warning("%s: output %s: %s; trying again", self.order.attempt, name, error)
            await pauses.pause()
            if self.stop.is_set():
                raise TakingStoppedError

    async def _take(self, place: Place, taken: Taken) -> Stored:
        if place.kind == "record":
            return await self._record(place.rest, taken)
        if place.descriptor in {1, 2}:
            return await self._log("stdout" if place.descriptor == 1 else "stderr")
        return await self._in_thread(lambda: self._files(place))

    def _files(self, place: Place) -> Stored:
        """What lies at a place, into the store; in a thread."""
        base, parts = self._where(place)
        account = self.order.account
        try:
            match place.kind:
                case "fd":
                    with jobfiles.open_file(self.folder, account, descriptor_file(int(place.rest))) as file:
                        return self._put(file)
                case "file":
                    with jobfiles.open_below(base, account, *parts) as file:
                        return self._put(file, parts[-1])
                case "dir":
                    return self._tree(jobfiles.tree(base, account, *parts))
                case _:
                    fixed = parts[: len(parts) - len(place.parts) + len(place.fixed)]
                    found = jobfiles.matching(base, account, fixed, place.parts[len(place.fixed) :])
                    return self._tree(found, least=1)
        except FileNotFoundError as error:
            raise _MissingError(_never_made(place)) from error

    def _where(self, place: Place) -> tuple[Path, tuple[str, ...]]:
        if place.absolute:
            return outside(self.folder, self.order.outputs.values(), place)
        return self.folder / JOB, ("output", *place.parts)

    def _tree(self, found: Iterator[jobfiles.Found], *, least: int = 0) -> Stored:
        entries = []
        for path, file in found:
            if path.rpartition("/")[2] == RECORDED:
                continue
            mode = os.fstat(file.fileno()).st_mode
            stored = self._put(file, path)
            entries.append(Entry(path, stored.digest, stored.size, bool(mode & stat.S_IXUSR)))
        if len(entries) < least:
            raise FileNotFoundError
        return self.store.put_tree(entries)

    def _put(self, file: BinaryIO, path: str = "") -> Stored:
        if self.mask and path.endswith(".ipynb") and os.fstat(file.fileno()).st_size <= LARGEST_NOTEBOOK:
            return self.store.put([self.mask.notebook(b"".join(iter(partial(file.read, CHUNK), b"")))])

        def pieces() -> Iterator[bytes]:
            while data := file.read(CHUNK):
                yield data
                reach("node.output-piece")
                if self.stop.is_set():
                    raise TakingStoppedError

        return self.store.put(pieces())

    async def _record(self, name: str, taken: Taken) -> Stored:
        if name not in taken.values:
            raise _MissingError("was not recorded")
        text = canonical(taken.values[name])
        return await self._in_thread(lambda: self.store.put([text]))

    async def _log(self, stream: Stream) -> Stored:
        with self.store.writer() as writer:
            size = 0
            while data := await self._piece(stream, size):
                await self._in_thread(lambda data=data: writer.write(data))  # type: ignore[misc]
                size += len(data)
                if self.stop.is_set():
                    raise TakingStoppedError
            return await self._in_thread(writer.commit)

    async def _piece(self, stream: Stream, offset: int) -> bytes:
        attempt, launcher = self.order.attempt, self.engine.launcher

        async def read(start: int, limit: int) -> bytes:
            return await persist(
                lambda: launcher.logs(attempt, stream, offset=start, limit=min(limit, READ_LIMIT)),
                f"{attempt}: {stream}",
                until=self.stop,
                patience=self.patience,
            )

        return await masked(read, self.mask, offset, READ_LIMIT, ended=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(_FILES, work)


def _never_made(place: Place) -> str:
    where = place.rest if place.absolute else f"output/{place.rest}"
    match place.kind:
        case "glob":
            return f"matches nothing: there is no file {where}"
        case "dir":
            return f"was not made: there is no folder {where}"
        case "fd":
            return "cannot be found any more"
        case _:
            return f"was not written: there is no file {where}"


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, UnavailableError | ConnectionError | TimeoutError | EngineError)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
