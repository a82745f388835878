"""The life of one attempt on its node: laid out, started, waited for.

Every step may be the last before the agent is killed; the next agent goes on from the record
(:mod:`perijove_spawners.node.attempts`) and from what the engine says.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from perijove.model import Attempt, Outcome, ReasonCode, format_duration
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import LaunchError, Phase, Status, Stream
from perijove_spawners.node.attempts import Folder, Record, Started, Stop, Times
from perijove_spawners.node.deadlines import Deadlines
from perijove_spawners.node.engine import Engine, persist
from perijove_spawners.node.gpuuse import GpuMeter
from perijove_spawners.node.jobfiles import READ_LIMIT, read_display
from perijove_spawners.node.launching import Launching, Shared, StoppedError
from perijove_spawners.node.outcomes import Ending, outcome_of, with_taken
from perijove_spawners.node.outputs import PATIENCE, Taking, TakingStoppedError
from perijove_spawners.node.progress import ProgressReader
from perijove_spawners.node.secrets import SecretFolders
from perijove_spawners.node.staging import files_account, give_job
from perijove_spawners.protocol import Order, Report, ReportKind
from perijove_spawners.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What all attempts of a node share."""

    name: str
    store: Store
    shared: Shared
    gpus: GpuMeter
    secrets: SecretFolders
    report: Callable[[Report], None]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Run something on the side for as long as the agent lives."""


class Life:
    """One attempt, until the service has recorded its end."""

    def __init__(
        self, host: Host, engine: Engine, folder: Folder, order: Order, record: Record | None = None
    ) -> None:
        self.host, self.engine, self.folder, self.order = host, engine, folder, order
        self.attempt: Attempt = order.attempt
        self.ended = asyncio.Event()
        self.outcome: Outcome | None = None
        self.started: Started | None = None
        self._kind, self._kind_at = ReportKind.LAUNCHING, time.time()
        self._stop = record.stop if record else None
        self._gpu_before = record.gpu_seconds if record else 0.0
        self._stop_wanted, self._stop_taking = asyncio.Event(), asyncio.Event()
        self._timed_out = self._over = False
        self._deadlines = Deadlines(
            folder,
            (record.times if record else None) or Times(order.time_limit),
            order.warning[1] if order.warning else None,
            enforce=not self._engine_limits,
        )
        self._deadlines.on_warning, self._deadlines.on_limit = self._warn, self._time_is_up
        self._files = files_account(order)
        self._progress = ProgressReader(folder.base, self._files)
        if self._stop:
            self._stop_wanted.set()

    @property
    def _engine_limits(self) -> bool:
        return "time_limit" in self.engine.launcher.capabilities.features

    # from the order to the end

    async def run(self, phase: Phase = Phase.CREATED, started: Started | None = None) -> None:
        """Bring it to its end from where it stands: CREATED, RUNNING or EXITED as in ``recovery``."""
        future = self.engine.expect(self.attempt, self._phase_seen)
        try:
            if phase is Phase.CREATED:
                await self._launch()
            else:
                self._begin(started or await self._launching().started())
                self.engine.hint([self.attempt])
            outcome = self._outcome(await future)
        except StoppedError:
            outcome = Outcome(
                reason=ReasonCode.KILLED_BY_USER, message="stopped before it ran", ended=time.time()
            )
        except LaunchError as error:
            outcome = _not_launched(str(error), transient=error.transient)
        finally:
            self._over = True
            self.engine.dismiss(self.attempt)
            self._deadlines.cancel()
        if gpu_seconds := self.host.gpus.end(self.attempt):
            outcome = replace(outcome, gpu_seconds=gpu_seconds)
        await self._end(outcome)

    async def _launch(self) -> None:
        self._report(ReportKind.LAUNCHING, message="staging" if self.order.inputs else "")
        started = await self._launching().run()
        self.folder.note_started(started)
        self._begin(started)

    def _launching(self) -> Launching:
        times = self._deadlines.times
        return Launching.of(
            replace(self.order, time_limit=times.limit) if times.changed else self.order,
            self.engine,
            self.folder.path,
            node=self.host.name,
            store=self.host.store,
            shared=self.host.shared,
            secrets=self.host.secrets,
            stop_wanted=self._stop_wanted,
            say=self._say,
        )

    def _begin(self, started: Started) -> None:
        self.started = started
        self._report(ReportKind.STARTED, endpoint=started.endpoint, at=started.at)
        self.engine.began(self.attempt)
        self._deadlines.begin(started.at)
        self.host.gpus.begin(self.attempt, self.order.gpus, self._gpu_before)
        if self._deadlines.times.changed and self._engine_limits:
            # It may have begun, or an agent have ended, before the launcher knew.
            self.host.spawn(self._tell_limit())
        if self._stop:
            self._stop_now()

    def _outcome(self, status: Status) -> Outcome:
        started = self.started.at if self.started else None
        ending = Ending(
            stop=self._stop,
            timed_out=self._timed_out,
            started=started,
            ended=time.time(),
            times=self._deadlines.times,
        )
        return outcome_of(status, self.order, ending)

    async def _end(self, outcome: Outcome) -> None:
        if self.started:
            await self._give_back_files()
            outcome = await self._with_taken(outcome)
            self.look_for_progress()
        if self.order.tmp_disk is not None or self.order.ports:
            await asyncio.to_thread(self.host.shared.release, self.order)
        self.host.secrets.end(self.attempt)
        reach("node.before-outcome")
        self.folder.note_outcome(outcome)
        reach("node.outcome-kept")
        self.outcome = outcome
        self._report(ReportKind.ENDED, outcome=outcome)
        self.ended.set()

    async def _give_back_files(self) -> None:
        """What a job that was root made is its user's from now on."""
        if self._files != self.order.account:
            account, self._files = self.order.account, self.order.account
            try:
                await asyncio.to_thread(give_job, self.folder.path, account)
            except OSError as error:
                log.error("%s: its files stay root's: %s", self.attempt, error)
            self._progress = ProgressReader(self.folder.base, account)

    async def _with_taken(self, outcome: Outcome) -> Outcome:
        taking = Taking(
            folder=self.folder.path,
            order=self.order,
            engine=self.engine,
            store=self.host.store,
            mask=self.host.secrets.mask(self.attempt),
            stop=self._stop_taking,
            patience=0.0 if self._stop else PATIENCE,
        )
        try:
            return with_taken(outcome, await taking.run())
        except TakingStoppedError:
            said = "stopped while its outputs were being kept"
            return replace(outcome, reason=ReasonCode.KILLED_BY_USER, message=said)

    # what may be asked of it meanwhile

    def stop(self, grace: float | None) -> None:
        """Have it stopped, now or as soon as it runs."""
        if self.ended.is_set():
            return
        self._stop = Stop(self._stop.at if self._stop else time.time(), grace)
        self.folder.note_stop(self._stop)
        self._stop_wanted.set()
        if self._over:
            self._stop_taking.set()
        elif self.started:
            self._stop_now()

    @property
    def runs(self) -> bool:
        """It has begun and not ended."""
        return self.started is not None and not self.ended.is_set()

    async def signal(self, number: int) -> None:
        """Send it a signal."""
        await self.engine.launcher.signal(self.attempt, number)

    async def update(self, time_limit: float | None) -> None:
        """Give it another time limit, now or as soon as it runs."""
        if self._over:
            raise LaunchError(f"{self.attempt} has ended")
        self._deadlines.change(time_limit)
        if self.runs and self._engine_limits:
            await self.engine.launcher.limit(self.attempt, time_limit)

    async def _tell_limit(self) -> None:
        await self._persist(
            lambda: self.engine.launcher.limit(self.attempt, self._deadlines.times.limit), "time limit"
        )

    def _warn(self) -> None:
        self.host.spawn(self._send_warning())

    async def _send_warning(self) -> None:
        assert self.order.warning
        name, left = self.order.warning[0], (self._deadlines.times.limit or 0.0) - self._deadlines.ran()
        if "signal" in self.engine.launcher.capabilities.features:
            number = signal_number(name)
            await self._persist(lambda: self.engine.launcher.signal(self.attempt, number), "warning")
        message = f"sent {name}: {format_duration(max(0.0, left))} left of its time"
        log.info("%s: %s", self.attempt, message)
        self.host.report(
            Report(self.host.name, self.attempt, ReportKind.WARNED, time.time(), message=message)
        )

    async def suspend(self) -> None:
        self._check_runs("suspended")
        await self.engine.launcher.suspend(self.attempt)
        self._phase_seen(Phase.SUSPENDED)

    async def resume(self) -> None:
        self._check_runs("resumed")
        await self.engine.launcher.resume(self.attempt)
        self._phase_seen(Phase.RUNNING)

    async def read_log(self, stream: Stream | Literal["display"], offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a log from `offset`."""
        if stream == "display":
            return read_display(self.folder.path, self._files, offset, limit)
        if not self.started:
            return b""
        return await self.engine.launcher.logs(
            self.attempt, stream, offset=offset, limit=min(limit, READ_LIMIT)
        )

    def latest(self) -> Report:
        """Where it stands."""
        if self.outcome:
            return Report(self.host.name, self.attempt, self._kind, self._kind_at, outcome=self.outcome)
        return Report(
            self.host.name,
            self.attempt,
            self._kind,
            self._kind_at,
            endpoint=self.started.endpoint if self.started else None,
            gpus=tuple(gpu.uuid for gpu in self.order.gpus),
            slots=self.order.slots,
        )

    def look_for_progress(self) -> None:
        """Report what the job says of its progress, if that is new."""
        if news := self._progress.read():
            fraction, text = news
            self.host.report(
                Report(
                    self.host.name,
                    self.attempt,
                    ReportKind.PROGRESS,
                    time.time(),
                    message=self.host.secrets.mask(self.attempt).hidden(text),
                    progress=fraction,
                )
            )

    def _check_runs(self, verb: str) -> None:
        if not self.started or self.ended.is_set():
            raise LaunchError(f"{self.attempt} does not run and cannot be {verb}")

    def _stop_now(self) -> None:
        assert self._stop
        grace = self.order.grace if self._stop.grace is None else self._stop.grace
        self.host.spawn(self._stop_on_engine(grace))

    def _time_is_up(self) -> None:
        self._timed_out = True
        log.info("%s: time limit", self.attempt)
        self.host.spawn(self._stop_on_engine(self.order.grace))

    async def _stop_on_engine(self, grace: float) -> None:
        await self._persist(lambda: self.engine.launcher.stop(self.attempt, grace=grace), "stop")
        self.engine.hint([self.attempt])

    async def _persist(self, act: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            await persist(act, f"{self.attempt}: {what}", until=self.ended)
        except LaunchError as error:
            log.warning("%s: %s: %s", self.attempt, what, error)

    def _phase_seen(self, phase: Phase) -> None:
        if self._over:
            return  # it ended while the engine was at it; its record may be closed
        if phase is Phase.SUSPENDED:
            self._deadlines.pause()
        elif phase is Phase.RUNNING:
            self._deadlines.go_on()
        if phase is Phase.SUSPENDED and self._kind is ReportKind.STARTED:
            self._report(ReportKind.SUSPENDED)
        elif phase is Phase.RUNNING and self._kind is ReportKind.SUSPENDED:
            self._report(ReportKind.RESUMED)
            self._kind = ReportKind.STARTED

    def _say(self, message: str) -> None:
        self.host.report(
            Report(self.host.name, self.attempt, ReportKind.LAUNCHING, time.time(), message=message)
        )

    def _report(self, kind: ReportKind, *, at: float | None = None, message: str = "", **news: Any) -> None:
        self._kind, self._kind_at = kind, at or time.time()
        outcome: Outcome | None = news.get("outcome")
        level = logging.DEBUG if kind is ReportKind.LAUNCHING else logging.INFO
        log.log(level, "%s: %s%s", self.attempt, kind, f" {outcome.state}" if outcome else "")
        self.host.report(Report(self.host.name, self.attempt, kind, self._kind_at, message=message, **news))


def signal_number(name: str) -> int:
    """Of the signal ``USR1`` (or ``SIGUSR1``); :class:`LaunchError` for what may not be sent."""
    number = getattr(signal.Signals, f"SIG{name.removeprefix('SIG')}", None)
    if number is None or number in {signal.SIGKILL, signal.SIGSTOP}:
        raise LaunchError(f"signal {name!r}: must be the name of a signal other than KILL and STOP, as USR1")
    return int(number)


def _not_launched(message: str, *, transient: bool) -> Outcome:
    return Outcome(reason=ReasonCode.LAUNCH_FAILED, message=message, ended=time.time(), transient=transient)
