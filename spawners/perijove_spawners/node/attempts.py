"""The agent's record of attempts: one folder each, ``attempts/12.1/``.

What a folder holds decides what an agent does after it was killed:

- ``order.json``: the order was taken, and in which boot of the machine;
- ``started.json``: the launcher said that it runs;
- ``stop.json``: it is to be stopped;
- ``times.json``: its limit was changed, it was suspended or warned;
- ``outcome.json``: it has ended;
- ``forgotten``: the service has recorded the end. Only then is the engine's own trace removed.

Nothing here is flushed to disk: a killed agent leaves its writes to the kernel, and after a loss of power the
engine still has whatever the service has not recorded. A file that is torn or lost counts as absent,
which is where the agent stood before it began to write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    outcome: Outcome | None = None
    forgotten: bool = False


T = TypeVar("T")

_TAKEN = TypeAdapter(Taken)
_STARTED = TypeAdapter(Started)
_STOP = TypeAdapter(Stop)
_TIMES = TypeAdapter(Times)
_OUTCOME = TypeAdapter(Outcome)


class Folder:
    """One attempt's folder; see the module."""

    __slots__ = ("_base", "attempt", "path")

    def __init__(self, path: Path, attempt: Attempt) -> None:
        self.path, self.attempt = path, attempt
        self._base = str(path)

    def take(self, taken: Taken) -> None:
        """Record the order; ``OSError`` when that cannot be done, and then nothing is on record."""
        try:
            self.make()
            self._write("order.json", _TAKEN.dump_json(taken))
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def make(self) -> None:
        """The folder itself; 0711: the job's account passes through to its own and lists nothing."""
        self.path.mkdir(mode=0o711, exist_ok=True)

    # What follows is a note of what the engine or the service knows too: a full disk must not get in the way.

    def note_started(self, started: Started) -> None:
        self._note("started.json", _STARTED.dump_json(started))

    def note_stop(self, stop: Stop) -> None:
        self._note("stop.json", _STOP.dump_json(stop))

    def note_times(self, times: Times) -> None:
        # Written more than once, so never torn: what stood there before counts until this does.
        self._note(".times", _TIMES.dump_json(times))
        with contextlib.suppress(OSError):
            (self.path / ".times").replace(self.path / "times.json")

    def note_outcome(self, outcome: Outcome) -> None:
        self._note("outcome.json", _OUTCOME.dump_json(outcome))

    def note_forgotten(self) -> None:
        self._note("forgotten", b"")

    @property
    def forgotten(self) -> bool:
        return (self.path / "forgotten").exists()

    def outcome(self) -> Outcome | None:
        return _read(self.path / "outcome.json", _OUTCOME)

    def read(self) -> Record:
        return Record(
            self.attempt,
            taken=_read(self.path / "order.json", _TAKEN),
            started=_read(self.path / "started.json", _STARTED),
            stop=_read(self.path / "stop.json", _STOP),
            times=_read(self.path / "times.json", _TIMES),
            outcome=self.outcome(),
            forgotten=self.forgotten,
        )

    def _note(self, name: str, data: bytes) -> None:
        try:
            self._write(name, data)
        except OSError as error:
            log.error("%s: %s cannot be written: %s", self.attempt, name, error)

    def _write(self, name: str, data: bytes) -> None:
        descriptor = os.open(
            f"{self._base}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


class Attempts:
    """The folders of a node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        # Whatever the umask was: jobs of other accounts reach their directories through here.
        directory.chmod(0o711)

    def folder(self, attempt: Attempt) -> Folder:
        return Folder(self.directory / str(attempt), attempt)

    def exists(self, attempt: Attempt) -> bool:
        return (self.directory / str(attempt)).exists()

    def active(self) -> Iterator[Record]:
        """The records of all attempts that the service has not told to forget."""
        with os.scandir(self.directory) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            try:
                attempt = Attempt.parse(name)
            except ValueError:
                continue
            folder = self.folder(attempt)
            if not folder.forgotten:
                yield folder.read()

    def remove_all(self, attempts: Iterable[Attempt]) -> None:
        """Remove folders with all that is in them; what lies there is the users' and may be odd."""
        for attempt in attempts:
            shutil.rmtree(self.directory / str(attempt), ignore_errors=True)


def boot_id() -> str:
    """Differs after each boot of the machine (random(4))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read(path: Path, adapter: TypeAdapter[T]) -> T | None:
    try:
        return adapter.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
