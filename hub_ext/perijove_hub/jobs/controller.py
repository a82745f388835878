"""The shell round the board: commits what it decided, then does it; feeds back what the nodes say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy.exc import OperationalError

from perijove.model import (
    Attempt,
    Job,
    JobEvent,
    Node,
    NodeState,
    Outcome,
    PerijoveError,
    ReasonCode,
    State,
    UnavailableError,
)
from perijove_hub.accounts import Identity
from perijove_hub.jobs.arrays import is_array
from perijove_hub.jobs.board import Board, Pending
from perijove_hub.jobs.lifecycle import (
    Effect,
    Ended,
    Event,
    Progressed,
    SendForget,
    SendOrder,
    SendStop,
    attempt_of,
)
from perijove_hub.jobs.orders import order_of
from perijove_hub.jobs.reconcile import compare, events_of
from perijove_hub.ledger import Ledger
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_spawners.fabric.port import Fabric
from perijove_spawners.protocol import HEARTBEAT, Order, Report, ReportKind

log = logging.getLogger(__name__)

BUNDLE = 64
"""Orders that travel in one message at most."""
TICK = 1.0
"""Seconds between two looks at what depends on the time."""
COMMIT_PATIENCE = 30.0
"""Seconds a request waits for the database before it is told that it did not answer."""

Subscriber = asyncio.Queue[tuple[JobEvent, Job] | None]
"""None: the reader was too slow, events were dropped; the database has them."""


class Controller:
    """Owns the board, the database's writer and the link to the nodes. Lives in one event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        fabric: Fabric,
        identify: Callable[[str], Identity],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.database, self.fabric = settings, database, fabric
        self.identify, self.clock = identify, clock
        self.ledger = Ledger()
        self.board = Board(self.ledger)
        self.patience = COMMIT_PATIENCE
        self.joined = asyncio.Event()
        """Set once a node is known."""
        self._wake = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._subscribers: set[Subscriber] = set()
        self._reconciling: set[str] = set()
        self._unwritten: dict[tuple[str, str], range] = {}
        """Submissions whose request may have given up waiting: owner and key -> ids."""
        self._trouble = ""
        """Why nothing can be written at the moment."""
        self.died: Callable[[], None] = _stay
        """Called when no more work will be done until the service is started anew."""
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Of submissions under way, by owner and key."""

    # ---- life

    async def open(self) -> None:
        """Take over what the database holds and begin to work."""
        last_job, last_seq = await asyncio.to_thread(self.database.last)
        self.board = Board(self.ledger, last_job=last_job, last_seq=last_seq)
        live = await asyncio.to_thread(self.database.live)
        self.board.load(live, self.clock(), await asyncio.to_thread(self._depended_on, live))
        for array in [job.id for job in live if is_array(job)]:
            self.board.members.setdefault(array, set())
            self.board.count_array(array, await asyncio.to_thread(self.database.array_counts, array))
        self.fabric.on_report = self.heard
        self.fabric.on_node = self.announced
        self.fabric.on_node_lost = self.unreachable
        self._spawn(self._vital(self._work()))
        self._spawn(self._vital(self._watch_nodes()))
        await self.fabric.open()

    async def close(self) -> None:
        """Stop working; what runs on the nodes goes on."""
        await self.fabric.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.shutdown()

    # ---- what users ask

    async def submit(
        self, jobs: Sequence[Job], known: dict[int, Job], *, submission: dict[str, Any] | None = None
    ) -> list[Job]:
        """Accept jobs, with ids of the board; returns when they are durable.

        Raises :class:`UnavailableError`, with nothing accepted, while the database cannot be written.
        """
        if self._trouble:
            raise UnavailableError(
                f"no work is accepted while the database cannot be written: {self._trouble}"
            )
        self.board.add(jobs, self.clock(), known)
        if submission is not None:
            row = {**submission, "first": jobs[0].id, "count": len(jobs)}
            self.board.pending.batch.submissions.append(row)
            self._unwritten[row["owner"], row["key"]] = range(row["first"], row["first"] + row["count"])
        await self.committed()
        return [self.board.view(self.board.find(job.id) or job) for job in jobs]

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, owner: str, key: str) -> AsyncIterator[None]:
        """Requests of `owner` with the same `key` follow each other."""
        lock = self._locks.setdefault((owner, key), asyncio.Lock())
        async with lock:
            yield

    async def submitted(self, owner: str, key: str) -> range | None:
        """Ids of an earlier submission of `owner` with that `key`; returns when they are durable."""
        if (waiting := self._unwritten.get((owner, key))) is not None:
            await self.committed()
            return waiting
        return await asyncio.to_thread(self.database.submission, owner, key)

    async def act(self, job: int, event: Event) -> Job | None:
        """Let a user's wish happen to a live job; returns when it is durable."""
        changed = self.board.apply(job, event, self.clock())
        if changed is not None:
            await self.committed()
        return changed and self.board.view(self.board.find(changed.id) or changed)

    async def committed(self) -> None:
        """Wait until all that the board holds now is durable. Raises :class:`UnavailableError`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.board.pending.waiters.append(waiter)
        self._wake.set()
        try:
            await asyncio.wait_for(waiter, self.patience)
        except TimeoutError:
            why = f"cannot be written ({self._trouble})" if self._trouble else "does not answer"
            raise UnavailableError(f"the database {why}; the request may yet be accepted") from None

    @contextlib.asynccontextmanager
    async def subscription(self) -> AsyncIterator[Subscriber]:
        """Every event from now on, after it became durable."""
        queue: Subscriber = asyncio.Queue(10_000)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)

    # ---- what nodes say

    def heard(self, reports: Iterable[Report]) -> None:
        """Reports of a node. Those of attempts that are no job's any more are answered with `forget`."""
        now = self.clock()
        for report in reports:
            job = self.board.jobs.get(report.attempt.job)
            if job is None or attempt_of(job) != report.attempt:
                if report.kind is ReportKind.ENDED:
                    self.board.pending.effects.append(SendForget(report.node, report.attempt))
                continue
            if report.kind is ReportKind.PROGRESS:
                self.board.apply(job.id, Progressed(report.progress, report.message), now)
            for event in events_of(report):
                self.board.apply(job.id, event, now)
        self._wake.set()

    def announced(self, node: Node) -> None:
        """A node is there. It takes no jobs until it has been asked what it runs."""
        before = self.ledger.node(node.name)
        same = before is not None and before.incarnation == node.incarnation
        state = before.state if before is not None and same else NodeState.DOWN
        if before is not None and before.state is NodeState.DRAIN:
            state = NodeState.DRAIN
        self.ledger.announce(node.model_copy(update={"state": state, "seen": self.clock()}))
        self.joined.set()
        if not same or state is NodeState.DOWN:
            self._spawn(self.reconcile(node.name))

    def unreachable(self, name: str) -> None:
        """A node is not there; its jobs may well go on, so nothing is said of them."""
        node = self.ledger.node(name)
        if node is not None and node.state is NodeState.UP:
            log.warning("node %s is not reachable", name)
            self.ledger.mark(name, NodeState.DOWN, "not reachable")
            self.board.placeable = True
            self._wake.set()

    async def reconcile(self, name: str) -> None:
        """Ask a node what it has and settle the differences."""
        if name in self._reconciling:
            return
        self._reconciling.add(name)
        try:
            asked = [self.board.jobs[job.id] for job in self.ledger.jobs_on(name)]
            reports = await self.fabric.call(name, "known", None)
        except UnavailableError as error:
            log.info("node %s was not asked: %s", name, error)
            return
        finally:
            self._reconciling.discard(name)
        self._settle(name, asked, {report.attempt: report for report in reports})
        if (node := self.ledger.node(name)) is not None and node.state is NodeState.DOWN:
            log.info("node %s is up: %g CPUs, %d GPUs", name, node.cpus, len(node.gpus))
            self.ledger.mark(name, NodeState.UP)
            self.board.placeable = True
            self._wake.set()

    def _settle(self, name: str, asked: Sequence[Job], seen: dict[Attempt, Report]) -> None:
        now = self.clock()
        wanted = [
            job
            for before in asked
            if (job := self.board.jobs.get(before.id)) is not None
            and job.attempt == before.attempt
            and (job.state is State.STARTING) == (before.state is State.STARTING)
        ]
        ours = {attempt_of(self.board.jobs[job.id]) for job in self.ledger.jobs_on(name)}
        found = compare(wanted, seen, name, ours)
        for job_id, event in found.events:
            self.board.apply(job_id, event, now)
        effects = self.board.pending.effects
        effects += [SendOrder(job) for job in found.resend]
        effects += [SendStop(name, attempt) for attempt in found.stop]
        effects += [SendForget(name, attempt) for attempt in found.forget]
        self._wake.set()

    # ---- loops

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.board.place(self.clock())
            pending = self.board.take()
            if not pending:
                continue
            if pending.batch:
                await self._commit(pending)
            for waiter in pending.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._publish(pending)
            self._perform(pending.effects)

    async def _commit(self, pending: Pending) -> None:
        loop, pause, write = asyncio.get_running_loop(), 0.1, self.database.commit
        while True:
            try:
                await loop.run_in_executor(self._writer, write, pending.batch)
            except (OperationalError, OSError) as error:
                # Full disk, locked or lost database: nothing is acted on until this batch is written.
                log.error("commit failed, trying again: %s", error)
                self._trouble = str(getattr(error, "orig", error))
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
            except Exception:
                # One row that no database takes must not keep all others from being written.
                log.exception("a batch cannot be written as a whole")
                write = self.database.commit_piecemeal
            else:
                break
        self._trouble = ""
        for row in pending.batch.submissions:
            self._unwritten.pop((row["owner"], row["key"]), None)

    async def _watch_nodes(self) -> None:
        next_round = time.monotonic() + self.settings.reconcile_every
        while True:
            await asyncio.sleep(TICK)
            now = self.clock()
            if self.board.end_delays(now):
                self._wake.set()
            for node in self.ledger.nodes:
                if node.state is NodeState.UP and now - node.seen > 3 * HEARTBEAT:
                    self.unreachable(node.name)
            if time.monotonic() >= next_round:
                next_round = time.monotonic() + self.settings.reconcile_every
                for node in self.ledger.nodes:
                    if node.state is not NodeState.DOWN:
                        self._spawn(self.reconcile(node.name))

    def _publish(self, pending: Pending) -> None:
        for item in pending.published:
            for queue in list(self._subscribers):
                if queue.full():
                    self._subscribers.discard(queue)
                    queue.get_nowait()
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(item)

    def _perform(self, effects: Sequence[Effect]) -> None:
        orders: dict[str, list[Order]] = defaultdict(list)
        stops: dict[str, list[Attempt]] = defaultdict(list)
        forgets: dict[str, list[Attempt]] = defaultdict(list)
        for effect in effects:
            match effect:
                case SendOrder(job_id):
                    if (order := self._order(job_id)) is not None:
                        orders[self.board.jobs[job_id].node or ""].append(order)
                case SendStop(node, attempt):
                    stops[node].append(attempt)
                case SendForget(node, attempt):
                    forgets[node].append(attempt)
        for node, some in orders.items():
            for i in range(0, len(some), BUNDLE):
                self.fabric.start(node, some[i : i + BUNDLE])
        for node, attempts in stops.items():
            self._spawn(self._tell(node, "stop", attempts))
        for node, attempts in forgets.items():
            self.fabric.release(attempts)
            self._spawn(self._tell(node, "forget", attempts))

    def _order(self, job_id: int) -> Order | None:
        """The order of a job that still starts; None when it does no more, or cannot."""
        job = self.board.jobs.get(job_id)
        node = self.ledger.node(job.node) if job is not None and job.node else None
        if job is None or node is None or job.state is not State.STARTING or job.kill_requested:
            return None
        containers = any(offered.containers for offered in node.launchers if offered.name == job.launcher)
        try:
            identity = self.identify(job.owner)
            return order_of(job, identity, self.settings, incarnation=node.incarnation, containers=containers)
        except (PerijoveError, KeyError) as error:
            outcome = Outcome(reason=ReasonCode.LAUNCH_FAILED, message=str(error))
            self.board.apply(job_id, Ended(outcome), self.clock())
            self._wake.set()
            return None

    async def _tell(self, node: str, method: str, attempts: list[Attempt]) -> None:
        try:
            await self.fabric.call(node, method, attempts)
        except UnavailableError:
            log.info(
                "node %s was not told to %s %d attempts; the reconciler will", node, method, len(attempts)
            )

    async def _vital(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.critical("the controller cannot go on", exc_info=True)
            self.died()

    def _depended_on(self, live: Sequence[Job]) -> dict[int, Job]:
        present = {job.id for job in live}
        wanted = {d.job for job in live for d in job.spec.depends_on} - present
        return {i: job for i in wanted if (job := self.database.job(i)) is not None}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a task of the controller died", exc_info=error)


def _stay() -> None:
    pass
