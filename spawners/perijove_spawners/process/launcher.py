"""Jobs as plain processes of this machine, under a supervisor that outlives the agent.

What is running, and how it ended, stands in a file for each attempt (:mod:`.attempt_journal`); this object
only caches it. How a job is started and watched over: :mod:`.supervisor` and :mod:`.supervised`.

The features ``cpu`` and ``suspend`` by freezing need cgroups; ``memory`` is bounded for the whole job by a
cgroup, else for each of its processes by RLIMIT_DATA. What this launcher cannot give it refuses.

A service manager that runs the agent must not kill the agent's children with it
(systemd: ``KillMode=process``).

Options: ``cgroup``, a delegated group of version 2 in which to make those of jobs, or ``off`` for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from perijove.model import Attempt, Capabilities, Endpoint, Stats
from perijove_spawners.cgroups import Layout
from perijove_spawners.launcher import (
    Archive,
    EngineCall,
    EngineError,
    Launch,
    LauncherContext,
    LaunchError,
    Phase,
    Status,
    Stream,
    UnsupportedError,
)
from perijove_spawners.process import attempt_process, hints, processes
from perijove_spawners.process.attempt_journal import AttemptJournal, Entries, Record
from perijove_spawners.process.attempt_process import Running
from perijove_spawners.process.possible import FEATURES, refuse_unless_possible
from perijove_spawners.process.supervised import say
from perijove_spawners.process.supervisor import living, pipe_of
from perijove_spawners.process.supervisor_process import SupervisorProcess

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
"""Seconds after which a start is given up for now (:class:`EngineError`): a directory on a dead server?"""
RESEND = 1.0
PATROL = 2.0
"""Seconds between two looks at whether each supervisor lives; hints come in between."""
STOP_SLACK = 35.0
"""Seconds beyond the grace period that a supervisor has to kill everything."""


class ProcessLauncher:
    """Runs attempts as processes; see the module."""

    def __init__(self, context: LauncherContext) -> None:
        self._directory = context.directory
        self._attempts = context.directory / "attempts"
        word = re.sub(r"[^A-Za-z0-9_.-]", "-", context.installation)
        group = f"perijove-{word}-{zlib.crc32(bytes(context.directory)):08x}"
        self._supervisor = SupervisorProcess(context.directory, group, context.options.get("cgroup"))
        self._hints = hints.Hints(context.directory / "notify")
        self._layout: Layout | None = None
        self._patrol: asyncio.Task[None] | None = None
        self._turns: weakref.WeakValueDictionary[Attempt, asyncio.Lock] = weakref.WeakValueDictionary()
        self._running: dict[Attempt, Running] = {}
        self._ended: dict[Attempt, Status] = {}
        self._samples: dict[Attempt, tuple[float, float]] = {}
        self.capabilities = Capabilities(name="process", features=FEATURES, networks=frozenset({"host"}))

    async def open(self) -> None:
        self._attempts.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clean_up()
        self._hints.open()
        abilities = await self._supervisor.open()
        features, networks = FEATURES, frozenset({"host"})
        if abilities["layout"]:
            self._layout = Layout.from_record(abilities["layout"])
            features |= self._layout.controllers & {"cpu"}
        if abilities["no_network"]:
            networks |= {"none"}
        self.capabilities = Capabilities(name="process", features=features, networks=networks)
        await self.status(await self.recover())
        self._patrol = asyncio.create_task(self._look_after_supervisors())

    def _clean_up(self) -> None:
        """Remove what an agent and supervisors left that were killed."""
        for left in self._attempts.glob(".*"):
            left.unlink(missing_ok=True)
        (self._directory / "supervisors").mkdir(exist_ok=True, mode=0o700)
        living(str(self._directory))

    def _order(self, line: str, running: Running | None = None) -> bool:
        """Say `line` to the supervisor of what is running, else to all there are; whether they take it."""
        directory = str(self._directory)
        told = [running.supervisor] if running else living(directory)
        heard = [say(pipe_of(directory, supervisor), line) for supervisor in told]
        return all(heard)

    async def close(self) -> None:
        if self._patrol:
            self._patrol.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._patrol
        self._hints.close()
        await self._supervisor.close()
        if self._layout and not living(str(self._directory)):
            self._layout.remove()

    async def _look_after_supervisors(self) -> None:
        while True:
            await asyncio.sleep(PATROL)
            for attempt, running in list(self._running.items()):
                # What cannot be looked at now (too many open files) is looked at again.
                with contextlib.suppress(OSError):
                    if not running.supervised:
                        self._hints.give(attempt)

    def _journal(self, attempt: Attempt) -> AttemptJournal:
        return AttemptJournal(f"{self._attempts}/{attempt}")

    def _launch(self, attempt: Attempt) -> Record | None:
        entries = self._journal(attempt).read()
        return entries.get("launch") if entries else None

    def _turn(self, attempt: Attempt) -> asyncio.Lock:
        """Held by whoever starts, buries or removes `attempt`."""
        return self._turns.setdefault(attempt, asyncio.Lock())

    async def prepare(self, launch: Launch, say: Callable[[str], None]) -> None:
        """Nothing is to be fetched."""

    async def load(self, archive: Archive, say: Callable[[str], None]) -> str:
        raise UnsupportedError(f"there are no images here (given: {archive.digest})")

    async def start(self, launch: Launch) -> None:
        attempt, journal = launch.attempt, self._journal(launch.attempt)
        async with self._turn(attempt):
            entries = journal.read()
            if entries is None:
                refuse_unless_possible(launch, self.capabilities.networks)
                journal.create(attempt_process.launch_record(launch))
            try:
                await self._begin(attempt, journal, entries)
            except LaunchError as error:
                if not error.transient:
                    self._remove(attempt)
                raise

    def call(self, launch: Launch) -> EngineCall | None:
        group = self._layout.cgroup(str(launch.attempt)).record() if self._layout else None
        return attempt_process.launch_call(launch, group)

    async def _begin(self, attempt: Attempt, journal: AttemptJournal, entries: Entries | None) -> None:
        """Until `attempt` runs or has ended; `entries` are those of its journal, None of one just made."""
        give_up = time.monotonic() + START_TIMEOUT
        failures = entries.failures if entries else 0
        with self._hints.expect(attempt) as changed:
            while entries is None or (await self._judge(attempt, entries)).phase is Phase.CREATED:
                await self._supervisor.send(attempt)
                await hints.wait(changed, RESEND)
                entries = journal.read()
                if entries and entries.failures > failures:
                    failed = entries.get("failed")
                    raise (EngineError if failed["transient"] else LaunchError)(failed["message"])
                if time.monotonic() > give_up:
                    raise EngineError(f"it was not ready to run within {START_TIMEOUT:.0f} s")

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        return {attempt: await self._look(attempt) for attempt in attempts}

    async def _look(self, attempt: Attempt) -> Status:
        if ended := self._ended.get(attempt):
            return ended
        entries = self._journal(attempt).read()
        return await self._judge(attempt, entries) if entries else Status(Phase.UNKNOWN)

    async def _judge(self, attempt: Attempt, entries: Entries) -> Status:
        if "ended" in entries:
            return self._note_end(attempt, entries)
        if "running" not in entries:
            launch = entries.get("launch")
            if launch and launch["boot"] == processes.boot_id():
                return Status(Phase.CREATED)
            what = "the machine was restarted" if launch else "its record was cut off"
            return self._end(attempt, f"{what} while it was being started")
        running = self._running.get(attempt)
        if running is None:
            running = self._running[attempt] = Running.from_record(entries.get("running"))
        if running.supervised:
            phase = Phase.SUSPENDED if entries.get("suspended") else Phase.RUNNING
            return Status(phase, started=running.started)
        # Again, now that nobody can write any more: it may have ended since the first look.
        if (last := self._journal(attempt).read()) and "ended" in last:
            return self._note_end(attempt, last)
        return await self._bury(attempt, running)

    def _note_end(self, attempt: Attempt, entries: Entries) -> Status:
        self._running.pop(attempt, None)
        self._samples.pop(attempt, None)
        # A torn line is one that a power failure cut.
        record = entries.get("ended") or {"message": "the machine was restarted while it ended"}
        self._ended[attempt] = Status(Phase.EXITED, **record)
        return self._ended[attempt]

    async def _bury(self, attempt: Attempt, running: Running) -> Status:
        """Kill what a killed supervisor left and write the end that it could not."""
        if running.boot != processes.boot_id():
            message = "the machine was restarted while it ran"
        else:
            message = "its supervisor was killed, and how it ended is not known"
            await running.kill()
        log.warning("attempt %s: %s", attempt, message)
        return self._end(attempt, message, running.started)

    def _end(self, attempt: Attempt, message: str, started: float | None = None) -> Status:
        journal = self._journal(attempt)
        journal.append("ended", {"message": message, "started": started, "ended": time.time()})
        entries = journal.read()
        return self._note_end(attempt, entries) if entries else Status(Phase.UNKNOWN)

    async def recover(self) -> list[Attempt]:
        found = []
        for path in self._attempts.iterdir():
            with contextlib.suppress(ValueError):
                found.append(Attempt.parse(path.name))
        return found

    async def watch(self) -> AsyncIterator[Collection[Attempt]]:
        async for attempts in self._hints.watch():
            yield attempts

    async def stop(self, attempt: Attempt, *, grace: float) -> None:
        asked, give_up = False, time.monotonic() + grace + STOP_SLACK
        with self._hints.expect(attempt) as changed:
            while True:
                phase = (await self._look(attempt)).phase
                if phase in {Phase.UNKNOWN, Phase.EXITED}:
                    return
                if time.monotonic() > give_up:
                    raise EngineError(
                        f"attempt {attempt} has not ended {STOP_SLACK:.0f} s after its grace period"
                    )
                if phase is Phase.CREATED:
                    self._cancel(attempt)
                if not asked:
                    self._order(f"stop {attempt} {grace}", self._running.get(attempt))
                    asked = phase is not Phase.CREATED
                await hints.wait(changed, 0.05 if phase is Phase.CREATED else 0.5)

    def _cancel(self, attempt: Attempt) -> None:
        """End what was never started, unless a supervisor is at it."""
        journal = self._journal(attempt)
        claim = journal.claim()
        if claim is None:
            return
        try:
            entries = journal.read()
            if entries and "running" not in entries:
                self._end(attempt, "it was stopped before it was started")
        finally:
            os.close(claim)

    async def signal(self, attempt: Attempt, number: int) -> None:
        """To all its processes, as SIGTERM is at a stop."""
        status = await self._look(attempt)
        if status.phase not in {Phase.RUNNING, Phase.SUSPENDED}:
            raise LaunchError(f"attempt {attempt} does not run")
        if not self._order(f"signal {attempt} {number}", self._running[attempt]):
            raise EngineError(f"the supervisor of attempt {attempt} does not listen")

    async def limit(self, attempt: Attempt, seconds: float | None) -> None:
        text = "none" if seconds is None else repr(float(seconds))
        await self._have(f"limit {text}", attempt, "limit", seconds)

    async def suspend(self, attempt: Attempt) -> None:
        if (await self._look(attempt)).phase is not Phase.SUSPENDED:
            await self._have("suspend", attempt, "suspended", True)

    async def resume(self, attempt: Attempt) -> None:
        if (await self._look(attempt)).phase is not Phase.RUNNING:
            await self._have("resume", attempt, "suspended", False)

    async def _have(self, order: str, attempt: Attempt, word: str, value: object) -> None:
        """Give `order` until its supervisor has noted that `word` is `value`."""
        verb, _, argument = order.partition(" ")
        asked, give_up = False, time.monotonic() + 10
        with self._hints.expect(attempt) as changed:
            while True:
                phase = (await self._look(attempt)).phase
                entries = self._journal(attempt).read()
                # It may have ended since: then this was done, if it was asked for here.
                noted = entries is not None and word in entries and entries.get(word) == value
                if noted and (asked or phase in {Phase.RUNNING, Phase.SUSPENDED}):
                    return
                if phase not in {Phase.RUNNING, Phase.SUSPENDED}:
                    raise LaunchError(f"attempt {attempt} does not run")
                if time.monotonic() > give_up:
                    raise EngineError(f"the supervisor of attempt {attempt} does not answer")
                self._order(f"{verb} {attempt} {argument}".rstrip(), self._running[attempt])
                asked = True
                await hints.wait(changed, 0.5)

    async def logs(self, attempt: Attempt, stream: Stream, *, offset: int, limit: int) -> bytes:
        launch = self._launch(attempt)
        if launch is None:
            return b""
        return await asyncio.to_thread(_read_piece, Path(launch["directory"]) / stream, offset, limit)

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        status = await self._look(attempt)
        launch = self._launch(attempt)
        if status.phase is not Phase.RUNNING or launch is None:
            raise LaunchError(f"nothing can be run beside attempt {attempt}: it is {status.phase}")
        return await attempt_process.run_beside(self._running[attempt], launch, command)

    async def stats(self, attempt: Attempt) -> Stats:
        if (await self._look(attempt)).phase not in {Phase.RUNNING, Phase.SUSPENDED}:
            return Stats()
        sample = await asyncio.to_thread(self._running[attempt].sample)
        now = time.monotonic()
        then, before = self._samples.get(attempt, (now, sample.cpu_seconds))
        self._samples[attempt] = (now, sample.cpu_seconds)
        cores = (sample.cpu_seconds - before) / (now - then) if now > then else 0.0
        return sample.model_copy(update={"cpu": max(0.0, cores)})

    async def endpoint(self, attempt: Attempt) -> Endpoint:
        launch = self._launch(attempt) or {}
        return Endpoint(ports={port: f"127.0.0.1:{port}" for port in launch.get("ports", ())})

    async def images(self) -> dict[str, str]:
        return {}

    async def remove(self, attempt: Attempt) -> None:
        async with self._turn(attempt):
            if (await self._look(attempt)).phase in {Phase.RUNNING, Phase.SUSPENDED}:
                raise LaunchError(f"attempt {attempt} still runs; stop it first")
            self._remove(attempt)

    def _remove(self, attempt: Attempt) -> None:
        ended = self._ended.get(attempt)
        # A supervisor that wrote an end removed the cgroup before, unless it had to give up.
        if self._layout and (ended is None or ended.exit_code is None or ended.message):
            self._layout.cgroup(str(attempt)).remove()
        for cache in (self._running, self._ended, self._samples):
            cache.pop(attempt, None)
        self._journal(attempt).remove()


def _read_piece(path: Path, offset: int, limit: int) -> bytes:
    # A negative offset or limit means nothing here.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, max(0, limit), max(0, offset))
    finally:
        os.close(fd)
