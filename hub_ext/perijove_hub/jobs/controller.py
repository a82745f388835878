"""The shell round the board: commits what it decided, then does it; feeds back what the nodes say.

This module is its life and what users ask of it; beside it stand the writer (commits), the dispatch
(effects), the nodes (reports), the operations (policy, drains) and the housekeeping (retention).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from perijove.model import ConflictError, Job, NotFoundError, State, UnavailableError
from perijove_hub.accounts import Identity, groups_of
from perijove_hub.garbage import Keeper
from perijove_hub.jobs import arrays, lookup
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.dispatch import Dispatch
from perijove_hub.jobs.events import Change, Event, Resume, Suspend
from perijove_hub.jobs.housekeeping import Housekeeping
from perijove_hub.jobs.lifecycle import HELD, attempt_of
from perijove_hub.jobs.nodes import Nodes
from perijove_hub.jobs.operations import Operations, standing_of
from perijove_hub.jobs.situation import why
from perijove_hub.jobs.writer import Subscriber, Writer
from perijove_hub.ledger import Ledger
from perijove_hub.policy.document import Policy
from perijove_hub.policy.guests import TermsOf, nobody
from perijove_hub.policy.registry import create
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_spawners.fabric.port import Fabric
from perijove_spawners.store import Store

if TYPE_CHECKING:
    from perijove_hub.placement.hints import Why

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two looks at what depends on the time."""
PASS_EVERY = 10.0
"""Seconds after which the queue is looked at again though nothing happened: dates come, budgets grow."""
FREEZE_PATIENCE = 10.0
"""Seconds that a request to suspend or resume waits for the node's answer."""


class Controller:
    """Owns the board, the database's writer and the link to the nodes. Lives in one event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        fabric: Fabric,
        identify: Callable[[str], Identity],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        *,
        groups_of: Callable[[str], frozenset[str]] = groups_of,
        terms_of: TermsOf = nobody,
    ) -> None:
        self.settings, self.database, self.fabric = settings, database, fabric
        self.identify, self.clock = identify, clock
        self.core = Core(settings, database, fabric, identify, clock, steady)
        self.core.groups_of, self.core.terms_of = groups_of, terms_of
        self.dispatch = Dispatch(self.core)
        self.writer = Writer(self.core, self.dispatch.perform)
        self.nodes = Nodes(self.core)
        self.operations = Operations(self.core, self.nodes)
        self.housekeeping = Housekeeping(self.core, self.committed)
        store = Store(settings.store, **settings.store_options)
        self.keeper = Keeper(settings, database, store, lambda: self.board.policy, lambda: self.clock())
        self.keeper.terms_of = terms_of
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Of submissions under way, by owner and key."""

    @property
    def board(self) -> Board:
        """The hot state."""
        return self.core.board

    @property
    def ledger(self) -> Ledger:
        """Who holds what."""
        return self.core.ledger

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.core.board.policy

    @property
    def joined(self) -> asyncio.Event:
        """Set once a node is known."""
        return self.core.joined

    @property
    def died(self) -> Callable[[], None]:
        """Called when no more work will be done until the service is started anew."""
        return self.core.died

    @died.setter
    def died(self, act: Callable[[], None]) -> None:
        self.core.died = act

    # ---- life

    async def open(self) -> None:
        """Take over what the database holds and begin to work."""
        core, database = self.core, self.database
        await asyncio.to_thread(core.secrets.open)
        last_job, last_seq = await asyncio.to_thread(database.last)
        policy = await self.operations.policy()
        standing = await standing_of(core, policy)
        scheduler = create(policy.scheduler, policy)
        core.board = Board(
            self.ledger, standing, scheduler, last_job=last_job, last_seq=last_seq, groups_of=core.groups_of
        )
        await self.operations.recall()
        live = await asyncio.to_thread(database.live)
        known, states = await asyncio.to_thread(lookup.surroundings, database, live)
        core.board.load(live, self.clock(), known, states)
        for job in await asyncio.to_thread(lookup.recently_ended, database):
            core.board.runtimes.note(job)
        self.fabric.on_report = self.nodes.heard
        self.fabric.on_node = self.nodes.announced
        self.fabric.on_node_lost = self.nodes.unreachable
        core.spawn_vital(self.writer.run())
        core.spawn_vital(self._watch())
        core.spawn_vital(self.housekeeping.run())
        core.spawn(self.keeper.run())
        core.inventory.began(self.clock())
        core.spawn(core.inventory.run())
        await self.fabric.open()

    async def close(self) -> None:
        """Stop working; what runs on the nodes goes on."""
        await self.fabric.close()
        await self.core.end()
        self.writer.close()

    async def _watch(self) -> None:
        next_pass = time.monotonic() + PASS_EVERY
        while True:
            await asyncio.sleep(TICK)
            board = self.board
            if board.end_delays(self.clock()) or board.resuming:
                self.core.wake.set()
            if time.monotonic() >= next_pass:
                next_pass = time.monotonic() + PASS_EVERY
                if len(board.queue):
                    board.placeable = True
                    self.core.wake.set()
            self.nodes.look_around()

    # ---- what users ask

    async def submit(
        self, jobs: Sequence[Job], known: Mapping[int, Job], *, submission: dict[str, Any] | None = None
    ) -> list[Job]:
        """Accept jobs, with ids of the board; returns when they are durable.

        `known`: the jobs, groups and members they depend on, by id. `submission`: its owner and key.
        Raises :class:`UnavailableError`, with nothing accepted, while the database cannot be written.
        """
        if self.writer.trouble:
            raise UnavailableError(
                f"no work is accepted while the database cannot be written: {self.writer.trouble}"
            )
        self.board.add(jobs, self.clock(), known)
        if submission is not None:
            first, last = jobs[0].id, jobs[-1].id + arrays.size(jobs[-1].spec)
            row = {**submission, "first": first, "count": last + 1 - first}
            self.board.pending.batch.submissions.append(row)
            self.writer.unwritten[row["owner"], row["key"]] = range(first, last + 1)
        await self.committed()
        return [self.board.view(self.board.find(job.id) or job) for job in jobs]

    @contextlib.asynccontextmanager
    async def one_at_a_time(self, owner: str, key: str) -> AsyncIterator[None]:
        """Requests of `owner` with the same `key` follow each other."""
        lock = self._locks.setdefault((owner, key), asyncio.Lock())
        async with lock:
            yield

    async def submitted(self, owner: str, key: str) -> list[Job] | None:
        """The jobs of an earlier submission of `owner` with that `key`; returns when they are durable."""
        if (waiting := self.writer.unwritten.get((owner, key))) is not None:
            await self.committed()
        given = waiting or await asyncio.to_thread(self.database.submission, owner, key)
        if given is None:
            return None
        found = await asyncio.to_thread(lookup.submitted, self.board, self.database, given)
        return [self.board.view(self.board.find(job.id) or job) for job in found]

    async def find(self, ref: str) -> Job | None:
        """The job that `ref` names: ``12``, or ``12_7`` for a member of a group, started or not."""
        return await lookup.find(self.board, self.database, ref)

    async def act(self, job: int, event: Event) -> Job | None:
        """Let a user's wish happen to a live job; returns when it is durable.

        A suspension or resumption also waits for its node to have done it; :class:`ConflictError` says why
        it could not.
        """
        changed = self.board.apply(job, event, self.clock())
        if changed is None:
            return None
        await self.committed()
        if isinstance(event, Suspend | Resume):
            await self._frozen(changed)
        return self.board.view(self.board.find(changed.id) or changed)

    async def change(self, job: int, changes: Mapping[str, Any], by: str) -> Job:
        """Give a live job other values for fields of its spec, which have been checked."""
        changed = await self.act(job, Change(dict(changes), by))
        if changed is None:
            raise ConflictError(f"job {job} has ended already")
        return changed

    async def rerun(self, job: Job, by: str) -> Job:
        """Submit `job`, which has ended, once more, as a new job. A member is run again by itself."""
        if not job.state.ended:
            raise ConflictError(f"job {job.label} is {job.state}; `reschedule` lets it start anew")
        if job.array_id is not None and arrays.is_gang(job):
            raise ConflictError(
                f"job {job.label} is one of a gang; only all of job {job.array_id} can be run again"
            )
        spec = lookup.spec_to_rerun(job)
        [number] = self.board.new_ids([arrays.size(spec)])
        again = Job(
            id=number,
            owner=job.owner,
            name=job.name,
            state=State.HELD if spec.hold else State.PENDING,
            reason=HELD if spec.hold else None,
            launcher=job.launcher,
            partition=job.partition,
            submitted=self.clock(),
            rerun_of=job.id,
            spec=spec,
        )
        [made] = await self.submit([again], {})
        return made

    async def why(self, job: Job) -> Why:
        """Why a job waits, when it may start, and what would let it start now."""
        return why(self.board, job, self.clock())

    async def committed(self) -> None:
        """Wait until all that the board holds now is durable. Raises :class:`UnavailableError`."""
        await self.writer.committed()

    def subscription(self) -> AbstractAsyncContextManager[Subscriber]:
        """Every event from now on, after it became durable."""
        return self.writer.subscription()

    async def _frozen(self, job: Job) -> None:
        """Wait until the nodes have suspended or resumed what was asked for."""
        members = self.board.groups.get(job.id)
        ids = sorted(members.live) if members is not None else [job.id]
        some = [self.board.jobs[one] for one in ids if one in self.board.jobs]
        tasks = [task for one in some if (task := self.dispatch.freezing.get(attempt_of(one))) is not None]
        if not tasks:
            return
        done, _ = await asyncio.wait(tasks, timeout=FREEZE_PATIENCE)
        refusals = [task.result() for task in done if not task.cancelled() and task.exception() is None]
        if refusals and all(refusals):
            raise ConflictError(f"job {job.label}: {refusals[0]}")
        await self.committed()

    # ---- what administrators ask

    async def set_policy(self, text: str, by: str) -> Policy:
        """Apply another policy, from the next pass on."""
        return await self.operations.set_policy(text, by)

    async def maintenance(self, reason: str | None, by: str) -> None:
        """Start nothing any more, for `reason`; None: start again."""
        await self.operations.maintenance(reason, by)

    async def drain(self, name: str, reason: str, by: str) -> None:
        """Have a node take no more jobs."""
        await self.operations.drain(name, reason, by)

    async def undrain(self, name: str, by: str) -> None:
        """Have a drained node take jobs again."""
        await self.operations.undrain(name, by)

    async def reconcile(self, name: str) -> None:
        """Ask a node what it has and settle the differences."""
        await self.nodes.reconcile(name)

    async def archive(self, jobs: Sequence[int], by: str) -> int:
        """Remove directories and logs of these ended jobs, their members' too; how many there were."""
        return await self.housekeeping.archive(jobs, by)

    async def purge(self, jobs: Sequence[int], by: str) -> int:
        """Remove also the records of these ended jobs; what they were charged stays."""
        return await self.housekeeping.purge(jobs, by)

    async def must_find(self, ref: str) -> Job:
        """As :meth:`find`; :class:`NotFoundError` when there is none."""
        job = await self.find(ref)
        if job is None:
            raise NotFoundError(f"there is no job {ref}")
        return job
