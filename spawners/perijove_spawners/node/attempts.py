"""The agent's record of attempts: one folder each, ``attempts/12.1/``, with a file ``record`` in it.

The file has a line for each thing that happened, a word and JSON; what it holds decides what an agent does
after it was killed. Of the same word the last line counts:

- ``order``: the order was taken, and in which boot of the machine;
- ``started``: the launcher said that it runs;
- ``stop``: it is to be stopped;
- ``times``: its limit was changed, it was suspended or warned;
- ``gpu``: so many device-seconds its GPUs were at work;
- ``outcome``: it has ended.

When the service has recorded the end the file is renamed to ``closed``; only then is the engine's own trace
removed. One file, since making files is most of what a short job costs a node, and a name rather than
one more line, so that a new agent passes over thousands of old folders without reading them.

Nothing here is flushed to disk: a killed agent leaves its writes to the kernel, and after a loss of power the
engine still has whatever the service has not recorded. A line that is torn or lost counts as absent,
which is where the agent stood before it began to write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from perijove.model import Attempt, Endpoint, Outcome
from perijove_spawners.protocol import Order

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """An order, and the boot of the machine in which it came."""

    order: Order
    boot: str


@dataclass(frozen=True, slots=True)
class Started:
    """When it was seen to run, and where its ports are."""

    at: float
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """When it was asked to stop, and the grace in seconds."""

    at: float
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """What has become of an attempt's time since its order; all in seconds."""

    limit: float | None = None
    """Of run time."""
    changed: bool = False
    """The limit is another than the order's."""
    paused: float = 0.0
    """How long it was suspended, up to `paused_at`."""
    paused_at: float | None = None
    """Since when it is, while it is."""
    warned: float | None = None
    """The limit of which it was warned."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is on record of one attempt."""

    attempt: Attempt
    taken: Taken | None = None
    started: Started | None = None
    stop: Stop | None = None
    times: Times | None = None
    gpu_seconds: float = 0.0
    outcome: Outcome | None = None
    forgotten: bool = False


T = TypeVar("T")

RECORD, CLOSED = "record", "closed"
_REMOVED = ".removed-"

_TAKEN = TypeAdapter(Taken)
_STARTED = TypeAdapter(Started)
_STOP = TypeAdapter(Stop)
_TIMES = TypeAdapter(Times)
_GPU = TypeAdapter(float)
_OUTCOME = TypeAdapter(Outcome)


class Folder:
    """One attempt's folder; see the module."""

    __slots__ = ("attempt", "base")

    def __init__(self, base: str, attempt: Attempt) -> None:
        self.base, self.attempt = base, attempt

    @property
    def path(self) -> Path:
        return Path(self.base)

    def take(self, taken: Taken) -> None:
        """Record the order; ``OSError`` when that cannot be done, and then nothing is on record."""
        try:
            self.make()
            self._append("order", _TAKEN.dump_json(taken))
        except OSError:
            shutil.rmtree(self.base, ignore_errors=True)
            raise

    def make(self) -> None:
        """The folder itself; 0711: the job's account passes through to its own and lists nothing."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.base, 0o711)  # noqa: PTH102 -- pathlib takes longer than the kernel

    # What follows is a note of what the engine or the service knows too: a full disk must not get in the way.

    def note_started(self, started: Started) -> None:
        self._note("started", _STARTED.dump_json(started))

    def note_stop(self, stop: Stop) -> None:
        self._note("stop", _STOP.dump_json(stop))

    def note_times(self, times: Times) -> None:
        self._note("times", _TIMES.dump_json(times))

    def note_gpu(self, seconds: float) -> None:
        self._note("gpu", _GPU.dump_json(seconds))

    def note_outcome(self, outcome: Outcome) -> None:
        self._note("outcome", _OUTCOME.dump_json(outcome))

    def note_forgotten(self) -> None:
        try:
            os.rename(f"{self.base}/{RECORD}", f"{self.base}/{CLOSED}")  # noqa: PTH104
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("%s: its record cannot be closed: %s", self.attempt, error)

    @property
    def forgotten(self) -> bool:
        return os.access(f"{self.base}/{CLOSED}", os.F_OK)

    def outcome(self) -> Outcome | None:
        return self.read().outcome

    def read(self) -> Record:
        """All of it, of an open record or a closed one; empty when there is none."""
        if (text := _read(f"{self.base}/{RECORD}")) is not None:
            return _parse(self.attempt, text, forgotten=False)
        return _parse(self.attempt, _read(f"{self.base}/{CLOSED}") or b"", forgotten=True)

    def read_open(self) -> Record | None:
        """The same; None of an attempt that is forgotten."""
        if (text := _read(f"{self.base}/{RECORD}")) is None and self.forgotten:
            return None
        return _parse(self.attempt, text or b"", forgotten=False)

    def _note(self, word: str, data: bytes) -> None:
        try:
            self._append(word, data)
        except OSError as error:
            log.error("%s: %s cannot be written: %s", self.attempt, word, error)

    def _append(self, word: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(f"{self.base}/{RECORD}", flags, 0o600)
        try:
            # A line end first as well: the line before may be torn.
            line = b"\n%s %s\n" % (word.encode(), data)
            while line:
                line = line[os.write(descriptor, line) :]
        finally:
            os.close(descriptor)


class Attempts:
    """The folders of a node."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._base = directory, str(directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        # Whatever the umask was: jobs of other accounts reach their directories through here.
        directory.chmod(0o711)

    def folder(self, attempt: Attempt) -> Folder:
        return Folder(f"{self._base}/{attempt}", attempt)

    def exists(self, attempt: Attempt) -> bool:
        return os.access(f"{self._base}/{attempt}", os.F_OK)

    def kept(self, after: Attempt | None, limit: int) -> list[Attempt]:
        """At most `limit` of those that have a folder, past `after`, by job and number."""
        return nsmallest(limit, (one for one in self._all() if after is None or one > after))

    def active(self) -> Iterator[Record]:
        """The records of all attempts that the service has not told to forget."""
        for attempt in self._all():
            if record := self.folder(attempt).read_open():
                yield record

    def _all(self) -> list[Attempt]:
        with os.scandir(self.directory) as entries:
            names = [entry.name for entry in entries]
        found = []
        for name in names:
            with contextlib.suppress(ValueError):
                found.append(Attempt.parse(name))
        return found

    def remove_all(self, attempts: Iterable[Attempt]) -> None:
        """Remove folders with all that is in them; what lies there is the users' and may be odd.

        Each is gone at once under its name; the rest is done by :meth:`sweep` if this process ends before.
        """
        for attempt in attempts:
            gone = f"{self._base}/{_REMOVED}{attempt}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self._base}/{attempt}", gone)  # noqa: PTH104
            shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an earlier agent was removing."""
        for left in self.directory.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)


def boot_id() -> str:
    """Differs after each boot of the machine (random(4))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = b""
        while piece := os.read(descriptor, os.fstat(descriptor).st_size - len(data) + 1):
            data += piece
        return data
    finally:
        os.close(descriptor)


def _parse(attempt: Attempt, text: bytes, *, forgotten: bool) -> Record:
    lines: dict[bytes, list[bytes]] = {}
    for line in text.split(b"\n"):
        word, blank, value = line.partition(b" ")
        if blank:
            lines.setdefault(word, []).append(value)

    def last(word: bytes, adapter: TypeAdapter[T]) -> T | None:
        for value in reversed(lines.get(word, ())):
            with contextlib.suppress(ValidationError):
                return adapter.validate_json(value)
        return None

    return Record(
        attempt,
        taken=last(b"order", _TAKEN),
        started=last(b"started", _STARTED),
        stop=last(b"stop", _STOP),
        times=last(b"times", _TIMES),
        gpu_seconds=last(b"gpu", _GPU) or 0.0,
        outcome=last(b"outcome", _OUTCOME),
        forgotten=forgotten,
    )
