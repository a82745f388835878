"""The node agent: takes orders, runs them on its launchers, says what becomes of them.

Plain asyncio; how it is reached is the business of :mod:`perijove_spawners.fabric.worker` (Dask) and of
:class:`perijove_spawners.fabric.port.DirectFabric`. See :class:`perijove_spawners.protocol.NodeCalls` for the
contract of its calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from perijove.model import Attempt, Node, Outcome, ReasonCode, Stats
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import Launcher, LaunchError, Phase, Status
from perijove_spawners.node import secrets_left
from perijove_spawners.node.announcing import Announcement
from perijove_spawners.node.attempts import Attempts, Folder, Record, Stop, Taken, boot_id
from perijove_spawners.node.config import NodeConfig
from perijove_spawners.node.disk import disk_use
from perijove_spawners.node.engine import BATCH, Engine, persist
from perijove_spawners.node.fencing import FenceKeeper
from perijove_spawners.node.gpuuse import GpuDriver, GpuMeter, NvmlDriver
from perijove_spawners.node.homes import Homes
from perijove_spawners.node.keptlogs import keep_logs
from perijove_spawners.node.launching import Shared
from perijove_spawners.node.life import Host, Life, signal_number
from perijove_spawners.node.locking import lock
from perijove_spawners.node.outbox import Outbox
from perijove_spawners.node.outcomes import recovery
from perijove_spawners.node.pool import Pools
from perijove_spawners.node.reading import LogReader
from perijove_spawners.node.secrets import SecretFolders, without_secrets
from perijove_spawners.protocol import LogChunk, LogStream, Order, Report, ReportKind
from perijove_spawners.store import Store

__all__ = ["NodeAgent", "NodeConfig"]

log = logging.getLogger(__name__)

_PURGED = 100_000
_LOOK_FOR_PROGRESS = 1.0
_ORPHAN_GRACE = 10.0


def _ignore(_: list[Report]) -> None:
    pass


class NodeAgent:
    """The agent of one node; holds the lock of its directory from :meth:`open` to :meth:`close`."""

    def __init__(
        self,
        config: NodeConfig,
        launchers: Mapping[str, Launcher],
        store: Store,
        *,
        gpu_driver: GpuDriver | None = None,
    ) -> None:
        self.config, self.name = config, config.name
        self._boot = boot_id()
        self.incarnation = f"{self._boot}/{secrets.token_hex(8)}"
        self.on_report: Callable[[list[Report]], None] = _ignore
        self._attempts = Attempts(config.directory / "attempts")
        self._engines = {name: Engine(name, launcher, config.poll) for name, launcher in launchers.items()}
        self._outbox = Outbox(lambda reports: self.on_report(reports), repeat=config.repeat)
        self._gpus = GpuMeter(gpu_driver or NvmlDriver(), config.gpu_rhythm)
        self._secrets = SecretFolders(config.directory)
        self._shared = Shared.of(config, lambda: self._announcement.host)
        self._host = Host(
            config.name, store, self._shared, self._gpus, self._secrets, self._outbox.add, self._spawn
        )
        self._lives: dict[Attempt, Life] = {}
        """Attempts that have not ended, and what ended under this agent until it was cleaned up."""
        self._ended: dict[Attempt, Outcome] = {}
        """Those ended that the service has not told to forget."""
        self._reader = LogReader(config.name, self._attempts, self._lives, self._engines, self._secrets)
        self.compute = Pools(self._attempts, self._lives, store, self._secrets).compute
        homes = Homes(config.directory)
        self.measure_home, self.remove_home = homes.measure_home, homes.remove_home
        self.hand_over = homes.hand_over
        self._purged: OrderedDict[Attempt, None] = OrderedDict()
        self._recovered: dict[str, list[Record]] = {name: [] for name in launchers}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announcement = Announcement(config, self._engines, self.incarnation)
        self._fences = FenceKeeper(config.directory / "fence")
        self._lock = -1

    # its own life

    async def open(self) -> None:
        """Take up what an earlier agent left. :class:`OperatorError` while one still lives there."""
        self._lock = lock(self.config.directory)
        self._secrets.open()
        for record in self._attempts.active():
            self._take_up(record)
        await asyncio.to_thread(self._shared.open, {a: life.folder.path for a, life in self._lives.items()})
        secrets_left.clear(self._secrets, self._attempts, self._lives)
        self._spawn(asyncio.to_thread(self._attempts.sweep))
        self._spawn(self._outbox.run())
        self._spawn(self._gpus.run(lambda attempt, used: self._attempts.folder(attempt).note_gpu(used)))
        self._spawn(self._watch_progress())
        self._spawn(self._announcement.watch())
        await self._announcement.look_at_machine()
        for engine in self._engines.values():
            self._spawn(engine.run(self._recover))
        # Launchers whose engine answers at once are in the first announcement.
        waiting = [asyncio.ensure_future(engine.ready.wait()) for engine in self._engines.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=5.0)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Let go; what runs goes on, and the next agent takes it up."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine in self._engines.values():
            if engine.ready.is_set():
                await engine.launcher.close()
        self._secrets.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_up(self, record: Record) -> None:
        attempt = record.attempt
        if record.outcome:
            self._say_ended(attempt, record.outcome)
        elif record.taken and record.taken.order.launcher in self._engines:
            self._recovered[record.taken.order.launcher].append(record)
            self._make_life(record.taken.order, record)
        elif record.taken:
            name = record.taken.order.launcher
            self._refuse(attempt, ReasonCode.NODE_LOST, f"launcher {name} is no longer set up on {self.name}")
        elif record.stop:
            self._refuse(attempt, ReasonCode.KILLED_BY_USER, "stopped before it ran")
        else:
            self._attempts.remove_all([attempt])

    async def _recover(self, engine: Engine) -> None:
        """Bring together what is on record and what the engine has."""
        records = self._recovered.pop(engine.name, [])
        for start in range(0, len(records), BATCH):
            part = records[start : start + BATCH]
            keys = [record.attempt for record in part]
            statuses = await persist(lambda keys=keys: engine.launcher.status(keys), f"{engine.name}: status")  # type: ignore[misc]
            for record in part:
                phase = recovery(record, statuses.get(record.attempt, Status(Phase.UNKNOWN)), self._boot)
                log.info("%s: taken up, %s", record.attempt, phase)
                self._spawn(self._live(self._lives[record.attempt], phase, record))
        there = await persist(engine.launcher.recover, f"{engine.name}: recover")
        for attempt in there:
            if attempt not in self._lives and attempt not in self._ended:
                self._spawn(self._clean_up(engine, attempt))
        secrets_left.finish_forgotten(self._secrets, self._attempts, engine.name, there)

    async def _clean_up(self, engine: Engine, attempt: Attempt) -> None:
        """Remove what an engine has of an attempt whose end is recorded, or of which nothing is."""
        folder = self._attempts.folder(attempt)
        if folder.forgotten:
            # Not when it is purged meanwhile.
            with contextlib.suppress(FileNotFoundError):
                await keep_logs(engine, folder)
        elif attempt not in self._purged:
            log.warning("%s: nothing on record, but on engine %s; removing it", attempt, engine.name)
            await persist(
                lambda: engine.launcher.stop(attempt, grace=_ORPHAN_GRACE), f"{attempt}: stop orphan"
            )
        reach("node.before-remove")
        await persist(lambda: engine.launcher.remove(attempt), f"{attempt}: remove")
        reach("node.removed")
        await asyncio.to_thread(secrets_left.finish, self._secrets, self._attempts.folder(attempt))
        self._lives.pop(attempt, None)

    @property
    def address(self) -> str:
        """Where the agent is reached, as it announces it."""
        return self._announcement.address

    @address.setter
    def address(self, address: str) -> None:
        self._announcement.address = address

    # NodeCalls

    def meet(self, fence: int) -> None:
        """A call came with this fence; :class:`StaleFenceError` when a higher one was seen."""
        self._fences.meet(fence)

    async def describe(self) -> Node:
        return self._announcement.node()

    async def start(self, orders: Sequence[Order]) -> None:
        for fence in {order.fence for order in orders}:
            self.meet(fence)
        lives = [life for order in orders if (life := self._lives.get(order.attempt) or self._take(order))]
        for life in lives:
            await life.ended.wait()

    async def known(self, attempts: Sequence[Attempt] | None = None) -> list[Report]:
        if attempts is None:
            attempts = [*self._ended, *(a for a in self._lives if a not in self._ended)]
        found = (self._latest(attempt) for attempt in attempts)
        return [report for report in found if report]

    async def stop(self, attempts: Sequence[Attempt], grace: float | None = None) -> None:
        for attempt in attempts:
            if life := self._lives.get(attempt):
                life.stop(grace)
            elif not self._attempts.exists(attempt) and attempt not in self._purged:
                # A tombstone: the order, should it still come, finds it and starts nothing.
                folder = self._attempts.folder(attempt)
                folder.make()
                folder.note_stop(Stop(time.time(), grace))
                self._refuse(attempt, ReasonCode.KILLED_BY_USER, "stopped before it ran")

    async def signal(self, attempts: Sequence[Attempt], name: str) -> None:
        number = signal_number(name)
        running = [life for a in attempts if (life := self._lives.get(a)) and life.runs]
        results = await asyncio.gather(*(life.signal(number) for life in running), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                raise error

    async def update(self, attempt: Attempt, time_limit: float | None) -> None:
        life = self._lives.get(attempt)
        if life is None or life.ended.is_set():
            raise LaunchError(f"{attempt} does not run on {self.name}")
        await life.update(time_limit)

    async def suspend(self, attempt: Attempt) -> None:
        await self._life(attempt).suspend()

    async def resume(self, attempt: Attempt) -> None:
        await self._life(attempt).resume()

    async def logs(
        self, attempt: Attempt, stream: LogStream, offset: int, limit: int, wait: float = 0.0
    ) -> LogChunk | None:
        return await self._reader.read(attempt, stream, offset, limit, wait)

    async def stats(self, attempt: Attempt) -> Stats:
        life = self._lives.get(attempt)
        if life is None or life.started is None or life.ended.is_set():
            return Stats()
        return self._gpus.add_to(await life.engine.launcher.stats(attempt), attempt)

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        code, output = await self._life(attempt).engine.launcher.exec(attempt, command)
        return code, self._secrets.mask(attempt).stars(output)

    async def forget(self, attempts: Sequence[Attempt]) -> None:
        self._outbox.forget(attempts)
        for attempt in attempts:
            if self._ended.pop(attempt, None) and self._attempts.exists(attempt):
                folder = self._attempts.folder(attempt)
                folder.note_forgotten()
                if engine := self._engine_of(folder):
                    self._spawn(self._clean_up(engine, attempt))

    async def purge(self, attempts: Sequence[Attempt]) -> None:
        await self.forget(attempts)
        ended = [a for a in attempts if a not in self._lives or self._lives[a].ended.is_set()]
        self._purged.update(dict.fromkeys(ended))
        while len(self._purged) > _PURGED:
            self._purged.popitem(last=False)
        await asyncio.to_thread(self._attempts.remove_all, ended)
        for attempt in ended:
            self._secrets.drop(attempt)

    async def kept(self, after: Attempt | None, limit: int) -> list[Attempt]:
        return await asyncio.to_thread(self._attempts.kept, after, limit)

    async def disk(self, attempts: Sequence[Attempt]) -> dict[Attempt, int]:
        def measure() -> dict[Attempt, int]:
            sizes = ((a, disk_use(self._attempts.folder(a).path)) for a in attempts)
            return {attempt: size for attempt, size in sizes if size is not None}

        return await asyncio.to_thread(measure)

    # parts of the above

    def _take(self, order: Order) -> Life | None:
        attempt = order.attempt
        if attempt in self._purged or self._attempts.exists(attempt):
            return None
        if order.incarnation != self.incarnation:
            # The agent records an order before it acts on it. What a power failure took away is not known;
            # without one, no record means that nothing ran, and the job may queue again.
            same_boot = bool(self._boot) and order.incarnation.startswith(f"{self._boot}/")
            said = f"node {self.name} was restarted"
            self._say_ended(attempt, _not_run(ReasonCode.NODE_LOST, said, transient=same_boot))
            return None
        folder, refused = self._attempts.folder(attempt), ""
        try:
            order = self._secrets.keep(order)
        except LaunchError as error:
            order, refused = without_secrets(order), str(error)
        try:
            folder.take(Taken(order, self._boot))
            reach("node.order-taken")
        except OSError as error:
            said = f"the order cannot be recorded on {self.name}: {error.strerror}"
            self._say_ended(attempt, _not_run(ReasonCode.LAUNCH_FAILED, said, transient=True))
            return None
        engine = self._engines.get(order.launcher)
        if refused:
            self._refuse(attempt, ReasonCode.LAUNCH_FAILED, refused)
            return None
        if engine is None or not engine.ready.is_set():
            said = f"launcher {order.launcher} is not ready on {self.name}"
            self._refuse(attempt, ReasonCode.LAUNCH_FAILED, said, transient=True)
            return None
        life = self._make_life(order)
        self._spawn(self._live(life, Phase.CREATED))
        return life

    def _make_life(self, order: Order, record: Record | None = None) -> Life:
        engine, folder = self._engines[order.launcher], self._attempts.folder(order.attempt)
        life = self._lives[order.attempt] = Life(self._host, engine, folder, order, record)
        return life

    async def _live(self, life: Life, phase: Phase, record: Record | None = None) -> None:
        await life.run(phase, record.started if record else None)
        assert life.outcome
        self._ended[life.attempt] = life.outcome

    def _engine_of(self, folder: Folder) -> Engine | None:
        if life := self._lives.get(folder.attempt):
            return life.engine
        taken = folder.read().taken
        engine = self._engines.get(taken.order.launcher) if taken else None
        return engine if engine and engine.ready.is_set() else None

    def _refuse(self, attempt: Attempt, reason: ReasonCode, message: str, *, transient: bool = False) -> None:
        outcome = _not_run(reason, message, transient=transient)
        self._secrets.drop(attempt)
        self._attempts.folder(attempt).note_outcome(outcome)
        self._say_ended(attempt, outcome)

    def _say_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        self._ended[attempt] = outcome
        self._outbox.add(self._end_report(attempt, outcome))

    def _end_report(self, attempt: Attempt, outcome: Outcome) -> Report:
        return Report(self.name, attempt, ReportKind.ENDED, outcome.ended or time.time(), outcome=outcome)

    def _latest(self, attempt: Attempt) -> Report | None:
        if life := self._lives.get(attempt):
            return life.latest()
        outcome = self._ended.get(attempt) or self._attempts.folder(attempt).outcome()
        return self._end_report(attempt, outcome) if outcome else None

    def _life(self, attempt: Attempt) -> Life:
        if (life := self._lives.get(attempt)) and life.started and not life.ended.is_set():
            return life
        raise LaunchError(f"{attempt} does not run on {self.name}")

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_FOR_PROGRESS)
            for life in list(self._lives.values()):
                if life.started and not life.ended.is_set():
                    life.look_for_progress()

    async def look_for_images(self) -> None:
        """Bring the announced list of images up to date."""
        await self._announcement.look_for_images()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the agent failed", exc_info=error)


def _not_run(reason: ReasonCode, message: str, *, transient: bool = False) -> Outcome:
    return Outcome(reason=reason, message=message, ended=time.time(), transient=transient)
