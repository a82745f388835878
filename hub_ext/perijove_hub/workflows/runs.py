"""The runs of workflows that live: taken up, moved on, looked at, ended. The shell round the pure parts.

Whatever is decided is written with the jobs it concerns in one transaction, by the controller's writer, and
reacted to only once it is durable. So a service that was killed goes on where the database says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any

from perijove.model import (
    ConflictError,
    Job,
    JobEvent,
    NotFoundError,
    Run,
    State,
    StepRun,
    StepState,
    UnavailableError,
    Workflow,
)
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Change, Event, Hold, Release
from perijove_hub.store.database import TRANSIENT
from perijove_hub.workflows.advancing import LOOK, Advancing
from perijove_hub.workflows.ended import Ended
from perijove_hub.workflows.live import PLACES, Live, step_run
from perijove_hub.workflows.reading import Reading
from perijove_hub.workflows.retaining import Retaining
from perijove_hub.workflows.sharing import Sharing
from perijove_hub.workflows.submitting import priority_of
from perijove_hub.workflows.telling import Telling
from perijove_spawners.store import Store

log = logging.getLogger(__name__)

NODES_RETURN = 60.0
"""Seconds after a restart in which a step that no node could run is not given up."""


class Runs:
    """Lives in the controller's event loop, after :meth:`open`."""

    def __init__(self, controller: Controller, store: Store) -> None:
        self.controller, self.store = controller, store
        self.live: dict[int, Live] = {}
        self.reading = Reading(store, controller.database)
        self.telling = Telling(controller)
        self.sharing = Sharing(controller, self.telling)
        self._advancing = Advancing(controller, self.reading, self.telling, self.sharing)
        self._advancing.over = self._forget
        self.retaining = Retaining(controller)
        self.ended = Ended(controller.database.workflows)
        controller.writer.listeners.append(self._heard)

    # ---- life

    async def open(self) -> None:
        """Take up what lives, and begin to move it on."""
        self.live.clear()
        self.telling.safe = self.controller.board.last_seq
        self.sharing.open()
        database = self.controller.database.workflows
        for run in await asyncio.to_thread(database.live):
            document = await asyncio.to_thread(database.document, run.id)
            lines = await asyncio.to_thread(database.steps, run.id)
            workflow = Workflow.model_validate_json(document or "")
            live = Live(run, workflow, {(line.step, line.item): line for line in lines})
            await self._recall(live)
            live.nodes_until = self.controller.core.steady() + NODES_RETURN
            self.live[run.id] = live
            if run.state is State.HELD:
                self.sharing.pool.hold(run.id)
            self.telling.wake(live)
        self.controller.core.spawn_vital(self._run())
        self.controller.core.spawn(self.retaining.run())

    async def _recall(self, live: Live) -> None:
        if live.run.resumed_from is not None:
            lines = await asyncio.to_thread(self.controller.database.workflows.steps, live.run.resumed_from)
            good = (line for line in lines if StepState(line.state).good and line.key is not None)
            live.earlier = {step_run(line).label: line for line in good}

    async def _run(self) -> None:
        telling = self.telling
        while True:
            if not telling.dirty:
                telling.awake.clear()
                try:
                    await asyncio.wait_for(telling.awake.wait(), LOOK)
                except TimeoutError:
                    telling.dirty.update((i, live) for i, live in self.live.items() if live.ready)
            dirty, telling.dirty = telling.dirty, {}
            for number, live in dirty.items():
                if self.live.get(number) is live and await self._turn(live):
                    telling.wake(live)
                await asyncio.sleep(0)

    async def _turn(self, live: Live) -> bool:
        try:
            return await self._advancing.turn(live)
        except (UnavailableError, *TRANSIENT) as error:
            log.warning("run %d goes on later: %s", live.run.id, error)
            asyncio.get_running_loop().call_later(LOOK, self.telling.wake, live)
            return False
        except Exception as error:
            log.exception("run %d cannot go on", live.run.id)
            return self._advancing.break_off(live, f"{type(error).__name__}: {error}")

    def _heard(self, published: Sequence[tuple[JobEvent, Job]]) -> None:
        """Jobs have changed, durably."""
        for _, job in published:
            if job.run is None or (live := self.live.get(job.run)) is None:
                continue
            if (unit := live.by_job.get(job.id)) is None:
                continue
            if job.state.ended:
                live.ended.append((unit, job))
                self.telling.wake(live)
            else:
                live.follow(unit, job)
                self.telling.tell(live, unit)

    def _forget(self, live: Live) -> None:
        self.live.pop(live.run.id, None)

    # ---- begin

    async def start(
        self, run: Run, workflow: Workflow, document: str, *, submission: dict[str, Any] | None = None
    ) -> Run:
        """Begin a run, with an id of the board; returns when it is durable."""
        controller = self.controller
        live = await asyncio.to_thread(Live, run, workflow, {})
        await self._recall(live)  # before it can be moved on
        if controller.writer.trouble:
            raise UnavailableError(
                f"no work is accepted while the database cannot be written: {controller.writer.trouble}"
            )
        batch = controller.board.pending.batch
        batch.flows.new[run.id] = (live.record(), document)
        if submission is not None:
            batch.submissions.append({**submission, "first": run.id, "count": 1})
            controller.writer.unwritten[submission["owner"], submission["key"]] = range(run.id, run.id + 1)
        self.live[run.id] = live
        self.telling.then(lambda: self.telling.wake(live))
        await controller.committed()
        return self.record(live)

    # ---- look

    def record(self, live: Live) -> Run:
        """The run with its document."""
        return live.record().model_copy(update={"workflow": live.workflow})

    async def find(self, number: int) -> Run | None:
        """The run of that id, with its document."""
        if (live := self.live.get(number)) is not None:
            return self.record(live)
        database = self.controller.database.workflows
        run = await asyncio.to_thread(database.run, number)
        if run is None:
            return None
        document = await asyncio.to_thread(database.document, number)
        return run.model_copy(update={"workflow": Workflow.model_validate_json(document or "")})

    async def bare(self, number: int) -> Run | None:
        """The run of that id, without its document."""
        if (live := self.live.get(number)) is not None:
            return live.record()
        return await asyncio.to_thread(self.controller.database.workflows.run, number)

    async def steps(self, number: int) -> list[StepRun]:
        """All steps of a run, in the order of the document."""
        if (live := self.live.get(number)) is not None:
            return [live.view(unit) for unit in live.all_units()]
        run = await self.find(number)
        lines = await asyncio.to_thread(self.controller.database.workflows.steps, number)
        order = {name: i for i, name in enumerate(run.workflow.steps)} if run and run.workflow else {}
        lines.sort(key=lambda line: (order.get(line.step, 0), line.item))
        return [step_run(line) for line in lines]

    async def page(
        self,
        number: int,
        states: Collection[StepState] = (),
        step: str | None = None,
        after: int = 0,
        *,
        limit: int,
    ) -> tuple[list[StepRun], int | None]:
        """Steps in the order of the document past the place `after`, those in `states` (all, when there are
        none) and of the step named `step`; and the place to go on from, None at the end.
        """
        if (live := self.live.get(number)) is None:
            return await asyncio.to_thread(self.ended.page, number, states, step, after, limit)
        if step is not None:
            if step not in live.graph.number:
                return [], None
            after = max(after, live.graph.number[step] * PLACES)
        found: list[StepRun] = []
        last = after
        for here, unit in live.part(after):
            if step is not None and live.graph.names[unit.step] != step:
                break
            if states and unit.state not in states:
                continue
            if len(found) == limit:
                return found, last
            found.append(live.view(unit))
            last = here
        return found, None

    async def changed(self, number: int, after: int) -> list[StepRun]:
        """Steps of a run that have changed since event `after`, or may have: those that have a job."""
        if (live := self.live.get(number)) is not None:
            units = (unit for unit in live.all_units() if unit.seq > after or unit.job in live.by_job)
            return [live.view(unit) for unit in units]
        lines = await asyncio.to_thread(self.controller.database.workflows.steps, number)
        return [step_run(line) for line in lines if line.seq > after]

    async def step(self, number: int, label: str) -> StepRun:
        """One step of a run. :class:`NotFoundError` when there is none of that label."""
        if (live := self.live.get(number)) is not None:
            unit = next((unit for unit in live.all_units() if live.label(unit) == label), None)
            if unit is not None:
                return live.view(unit)
        else:
            for one in await self.steps(number):
                if one.label == label:
                    return one
        raise NotFoundError(f"run {number} has no step {label[:200]}")

    # ---- act

    async def kill(self, number: int) -> Run:
        """End it: what runs is stopped, what waits never begins."""
        live = self._must_live(number)
        self._advancing.write_run(live, live.run.model_copy(update={"kill_requested": True}))
        return await self._durable(live)

    async def hold(self, number: int, by: str) -> Run:
        """Begin nothing any more until it is released; what runs goes on."""
        live = self._must_live(number)
        self._advancing.write_run(live, live.run.model_copy(update={"state": State.HELD}))
        self._to_jobs(live, Hold(by), StepState.PENDING)
        self.sharing.pool.hold(number)
        return await self._durable(live)

    async def release(self, number: int, by: str) -> Run:
        """Go on."""
        live = self._must_live(number)
        if live.run.state is not State.HELD:
            raise ConflictError(f"run {number} is {live.run.state}, not held")
        self._advancing.write_run(live, live.run.model_copy(update={"state": State.RUNNING}))
        self._to_jobs(live, Release(by), StepState.HELD)
        self.sharing.pool.release(number)
        return await self._durable(live)

    async def prioritise(self, number: int, priority: int, by: str) -> Run:
        """Give all its steps that have not started another priority."""
        live = self._must_live(number)
        self._advancing.write_run(live, live.run.model_copy(update={"priority": priority}))
        for job, unit in list(live.by_job.items()):
            if unit.state in {StepState.PENDING, StepState.HELD}:
                new = priority_of(live.step_of(unit).priority, priority)
                self.controller.board.apply(job, Change({"priority": new}, by), self.controller.clock())
        return await self._durable(live)

    async def pin(self, number: int, *, pinned: bool) -> Run:
        """Keep its results whatever else is collected, or no longer."""
        if (live := self.live.get(number)) is not None:
            self._advancing.write_run(live, live.run.model_copy(update={"pinned": pinned}))
            return await self._durable(live)
        run = await self.find(number)
        if run is None:
            raise NotFoundError(f"there is no run {number}")
        changed = run.model_copy(update={"pinned": pinned})
        self.controller.board.pending.batch.flows.changed[number] = changed
        await self.controller.committed()
        return changed

    def _must_live(self, number: int) -> Live:
        live = self.live.get(number)
        if live is None or live.run.state.ended:
            raise ConflictError(f"run {number} has ended already")
        return live

    def _to_jobs(self, live: Live, event: Event, state: StepState) -> None:
        for job, unit in list(live.by_job.items()):
            if unit.state is state:
                self.controller.board.apply(job, event, self.controller.clock())

    async def _durable(self, live: Live) -> Run:
        self.telling.wake(live)
        await self.controller.committed()
        return self.record(live)
