"""Child processes that are started again when they die, and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from perijove.model import OperatorError
from perijove_hub.private_files import write_private
from perijove_hub.up.leash import PARENT, leashed

log = logging.getLogger(__name__)

LOG_BYTES = 10 << 20
"""A larger log is put aside as NAME.log.1 at the next start."""
SETTLED_SECONDS = 20.0
"""A child that ran this long is taken to be well; its next death is the first again."""
NEEDS_SECONDS = 20.0
HOPELESS = 5
"""Deaths in a row, before it ever was well, after which a child is not tried again."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to keep running. `grace` is how long it may take to end after SIGTERM, in seconds."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    grace: float = 15.0
    needs: Path | None = None
    """A file that another program makes, without which this one cannot start."""
    umask: int = 0o077
    """What it writes, tokens among it, is nobody else's to read."""


def backoff(deaths: int) -> float:
    """Seconds to wait before the next start after so many deaths in a row."""
    return float(min(30.0, 0.25 * 2**deaths))


class Child:
    """One program: started, its output in ``log/NAME.log``, started again when it dies."""

    def __init__(self, program: Program, state: Path) -> None:
        self.program = program
        self.log = state / "log" / f"{program.name}.log"
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with an :class:`OperatorError` when the program cannot be kept running."""
        self._pidfile = state / "run" / f"{program.name}.json"
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start it; from now on it is kept running."""
        if self.program.needs is not None:
            await asyncio.to_thread(wait_for_file, self.program.needs, NEEDS_SECONDS)
        self._process = await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """SIGTERM, after the grace SIGKILL; returns when it has ended."""
        self._stopping = True
        if self._keeper and not (self._process and self._process.returncode is None):
            self._keeper.cancel()
        if (process := self._process) and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self.program.grace)
            except TimeoutError:
                log.warning("%s does not end by itself; killing it", self.program.name)
            # What is left of its process group, whether it ended or not.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._keeper:
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._pidfile.unlink(missing_ok=True)

    def tail(self, size: int = 2000) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace").strip()
        return ""

    async def _keep(self) -> None:
        deaths, ever_well = 0, False
        while (process := self._process) is not None:
            started = time.monotonic()
            code = await process.wait()
            if self._stopping:
                return
            well = time.monotonic() - started >= SETTLED_SECONDS
            ever_well |= well
            deaths = 1 if well else deaths + 1
            if deaths >= HOPELESS and not ever_well:
                words = f"{self.program.name} ended {deaths} times in a row (exit status {code})"
                self.failed.set_exception(OperatorError(f"{words}; end of {self.log}:\n{self.tail()}"))
                return
            log.warning("%s ended with status %s; starting it again", self.program.name, code)
            await asyncio.sleep(backoff(deaths - 1))
            self._process = await self._spawn()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *leashed(*self.program.command),
                env={**self.program.env, PARENT: str(os.getpid())},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=self.program.umask,
            )
        record_process(self._pidfile, process.pid)
        return process


def wait_for_file(path: Path, seconds: float) -> None:
    """Return once `path` exists, or after `seconds`: then the program itself says what is wrong."""
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def record_process(pidfile: Path, pid: int) -> None:
    """Note which process this is, in a way that a later one of the same pid does not match."""
    with contextlib.suppress(psutil.NoSuchProcess):
        write_private(pidfile, json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}))


def end_leftovers(directory: Path, grace: float = 20.0) -> list[int]:
    """Wait for the recorded processes of an `up` that was killed, and kill what stays; their pids.

    On their leash they got SIGTERM when it died; this makes sure of it.
    """
    left = [process for path in directory.glob("*.json") if (process := _recorded(path))]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=grace)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace)
    for path in directory.glob("*.json"):
        path.unlink(missing_ok=True)
    return [process.pid for process in left]


def _recorded(pidfile: Path) -> psutil.Process | None:
    try:
        record = json.loads(pidfile.read_text())
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["created"])) < 0.02
    except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return None
    return process if same else None
