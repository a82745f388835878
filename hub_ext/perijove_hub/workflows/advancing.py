"""One run a bit further: what has ended is taken in, what is due is opened, what is ready becomes jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from perijove.model import Job, PerijoveError, Run, State, StepState, UnavailableError
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Kill
from perijove_hub.store.workflow_rows import ResultLine
from perijove_hub.workflows.keys import for_all
from perijove_hub.workflows.live import Live, Unit, brief
from perijove_hub.workflows.opening import open_due, take_settled
from perijove_hub.workflows.reading import Reading
from perijove_hub.workflows.results import Results
from perijove_hub.workflows.sharing import Sharing, fits
from perijove_hub.workflows.submitting import (
    Draft,
    admitted,
    draft,
    key_of,
    put,
    ran_in,
    refused,
    room,
    specify,
)
from perijove_hub.workflows.telling import Telling
from perijove_spawners.failpoints import reach

log = logging.getLogger(__name__)

CHUNK = 200
"""Instances that become jobs at once; between two such bundles other work gets its turn."""
LARGEST = 1000
"""Likewise, when all of the bundle before were taken from the cache, which costs a tenth of a job."""
LOOK = 1.0
"""Seconds after which what could not be done, and runs that wait for room, are looked at again."""
_BAD = (StepState.FAILED, StepState.LOST, StepState.KILLED)


def _stay(_live: Live) -> None:
    pass


class Advancing:
    """Moves runs on. Called by one task only; whatever it awaits, users' wishes may come in between."""

    def __init__(self, controller: Controller, reading: Reading, telling: Telling, sharing: Sharing) -> None:
        self._controller, self._reading, self._telling = controller, reading, telling
        self._sharing = sharing
        sharing.ended, sharing.write = self._call_ended, self.write
        self._results = Results(controller)
        self.over: Callable[[Live], None] = _stay
        """Told of each run that has ended, durably."""

    async def turn(self, live: Live) -> bool:
        """Do what can be done now, at most a bundle; whether more can be done at once."""
        await self._take_ends(live)
        unread = open_due(live, lambda unit: self.write(live, unit))
        if live.replaying and not unread:
            await self._take_over(live)
        self._halt(live)
        self._settle(live)
        some = self._bundle(live)
        drafts = draft(live, some)
        live.ready.extend(drafts.later)
        if unread := unread | drafts.unread:
            await self._reading.contents(live, unread)
        try:
            await self._launch(live, drafts.some)
        except Exception:
            self._put_back(live, drafts.some)
            raise
        self._settle(live)
        if live.progress.finished and not live.ended:
            self._end(live)
            return False
        ready = bool(live.ready) and self._goes_on(live) and room(self._controller, live) > 0
        return ready or bool(live.progress.due or live.ended)

    # ---- what ended

    async def _take_ends(self, live: Live) -> None:
        while live.ended:
            unit, job = live.ended.popleft()
            await self._take_end(live, unit, job)

    async def _take_end(self, live: Live, unit: Unit, job: Job) -> None:
        if unit.state.ended:
            return
        state = live.finish(unit, job)
        if state.good:
            await self._note_result(live, unit, job)
        self.ended(live, unit, state)

    def ended(self, live: Live, unit: Unit, state: StepState) -> None:
        """An instance has come to its end."""
        live.move(unit, state)
        if unit.ended is None:
            unit.ended = self._controller.clock()
        live.progress.end(unit.step, state)
        self.write(live, unit)
        self._release(live, unit)

    def _release(self, live: Live, unit: Unit) -> None:
        """Those that waited for it look again, once what it made is durable."""
        if waiting := self._results.landed(live, unit):
            self._telling.then(lambda: self._again(waiting))

    def _again(self, waiting: list[tuple[Live, Unit]]) -> None:
        for live, unit in waiting:
            live.ready.append(unit)
            self._telling.wake(live)

    async def _note_result(self, live: Live, unit: Unit, job: Job) -> None:
        """Keep what a good instance made, for later runs."""
        if unit.key is None or unit.ingredients is None:
            step = live.step_of(unit)
            drafts = draft(live, [unit])
            if not drafts.some or drafts.some[0].wrong:
                return
            code = await self._reading.code(step)
            key_of(self._controller, live, drafts.some[0], code, job.image_digest)
        ran_in(unit, job)
        self._keep_result(live, unit)

    def _call_ended(self, live: Live, unit: Unit, state: StepState) -> None:
        """A call in a warm job has ended, with what it made."""
        if state.good:
            self._keep_result(live, unit)
        self.ended(live, unit, state)

    def _keep_result(self, live: Live, unit: Unit) -> None:
        if unit.key is None or unit.ingredients is None or live.run.cache == "off":
            return
        line = ResultLine(
            key=unit.key,
            owner=live.run.owner,
            sealed=for_all(live.step_of(unit)),
            workflow=live.run.name,
            step=live.label(unit),
            run=live.run.id,
            job=unit.job,
            at=self._controller.clock(),
            outputs={name: brief(one) for name, one in unit.outputs.items()},
            ingredients=unit.ingredients,
        )
        unit.ingredients = None
        self._flows.results[line.key, line.owner] = line
        reach("serve.result-noted")

    # ---- what the database knew

    async def _take_over(self, live: Live) -> None:
        """After a restart: instances that have rows are as those say."""
        waiting, calls = list(live.ready), list[Unit]()
        live.ready.clear()
        board, database = self._controller.board, self._controller.database
        for unit in waiting:
            line = live.lines.pop((live.graph.names[unit.step], unit.item), None)
            if line is None:
                live.unknown.append(unit)
                continue
            live.restore(unit, line)
            state = StepState(line.state)
            if state.ended:
                live.move(unit, state)
                live.progress.end(unit.step, state)
                continue
            if unit.number:
                calls.append(unit)
                continue
            job = board.find(line.job or 0) or await asyncio.to_thread(database.job, line.job or 0)
            if job is None:
                unit.reason = refused(f"nothing is known of its job {line.job} any more")
                self.ended(live, unit, StepState.LOST)
                continue
            live.attach(unit, job)
            if job.state.ended:
                live.ended.append((unit, job))
            else:
                live.follow(unit, job)
                self._results.fly(live, unit)
        if calls:
            await self._take_over_calls(live, calls)
        if not live.progress.due:
            live.replayed()

    async def _take_over_calls(self, live: Live, units: Sequence[Unit]) -> None:
        """Instances that had been sent to warm jobs."""
        drafts = draft(live, units)
        while drafts.unread:
            await self._reading.contents(live, drafts.unread)
            more = draft(live, drafts.later)
            drafts.some, drafts.unread, drafts.later = [*drafts.some, *more.some], more.unread, more.later
        for one in drafts.some:
            if one.wrong:
                one.unit.reason = refused(one.wrong)
                self.ended(live, one.unit, StepState.LOST)
                continue
            key_of(self._controller, live, one, await self._reading.code(live.step_of(one.unit)))
            live.move(one.unit, StepState.STARTING)
            self._results.fly(live, one.unit)
        self._sharing.resume(live, [one for one in drafts.some if not one.wrong])

    # ---- what will not begin

    def _goes_on(self, live: Live) -> bool:
        stands = live.replaying or live.progress.stopped or live.run.state is State.HELD
        return not stands and self._controller.joined.is_set()

    def _halt(self, live: Live) -> None:
        """Stop when that was asked for, or something failed and that is enough."""
        if live.replaying:
            return
        if not live.progress.stopped:
            if live.run.kill_requested or live.broken:
                live.progress.stop()
            elif live.run.fail_fast and any(live.counts[state] for state in _BAD):
                failed = next(unit for unit in live.all_units() if unit.state in _BAD)
                live.progress.stop(failed.step)
            else:
                return
            self._sharing.pool.cancel(live.run.id)
            for job in list(live.by_job):
                self._controller.board.apply(job, Kill("the run"), self._controller.clock())
            self._controller.core.wake.set()
        live.ready.extend(self._results.leave(live))
        while live.ready:
            unit = live.ready.popleft()
            unit.reason = unit.reason or refused("the run was stopped before it began")
            self.ended(live, unit, StepState.KILLED)

    def break_off(self, live: Live, message: str) -> bool:
        """It cannot go on, by a fault of ours: end it as well as may be; whether to try that at once."""
        text = f"the service could not go on with this run ({message}); its log says more"
        again = not live.broken
        live.broken = True
        live.replayed()
        live.run = live.run.model_copy(update={"reason": refused(text)})
        if not again:
            changes = {"state": State.FAILED, "ended": self._controller.clock()}
            self.write_run(live, live.run.model_copy(update=changes))
            self._telling.then(lambda: self.over(live))
        return again

    def _settle(self, live: Live) -> None:
        for unit in take_settled(live, self._controller.clock()):
            self.write(live, unit)

    # ---- what begins

    def _bundle(self, live: Live) -> list[Unit]:
        if not self._goes_on(live):
            return []
        count = min(live.bundle or CHUNK, len(live.ready), room(self._controller, live))
        return [live.ready.popleft() for _ in range(count)]

    async def _launch(self, live: Live, some: Sequence[Draft]) -> None:
        await self._reading.check_claims(live, some)
        for one in some:
            if not one.wrong:
                try:
                    code = await self._reading.code(live.step_of(one.unit))
                    key_of(self._controller, live, one, code)
                except UnavailableError:
                    raise
                except PerijoveError as error:
                    one.wrong = str(error)
        good = [one for one in some if not one.wrong]
        rest = await self._results.take(live, good, lambda unit: self.ended(live, unit, StepState.CACHED))
        live.bundle = CHUNK if rest else LARGEST
        for one in rest:
            if not fits(live.step_of(one.unit), one.made):
                specify(live, one)
        try:
            await put(self._reading.store, rest)
        except UnavailableError:
            raise
        except PerijoveError as error:
            for one in rest:
                one.wrong = str(error)
        fit = [one for one in rest if not one.wrong]
        if self._goes_on(live):
            self._submit(live, fit)
        else:  # a wish came in between
            self._put_back(live, fit)
        if wrong := [one for one in some if one.wrong]:
            self._refuse(live, wrong)
        await asyncio.sleep(0)

    def _refuse(self, live: Live, some: Sequence[Draft]) -> None:
        """They cannot be jobs; soon after a restart they are tried again, for not all nodes may be back."""
        if live.nodes_until > self._controller.core.steady():
            log.warning("run %d: not all nodes may be back: %s", live.run.id, some[0].wrong)
            for one in some:
                self._release(live, one.unit)
            waiting = [(live, one.unit) for one in some]
            asyncio.get_running_loop().call_later(LOOK, self._again, waiting)
            return
        for one in some:
            one.unit.reason = refused(one.wrong)
            self.ended(live, one.unit, StepState.FAILED)

    def _put_back(self, live: Live, some: Sequence[Draft]) -> None:
        """Those of them that neither run nor have ended, nor wait for an equal one, are ready again."""
        for one in some:
            unit = one.unit
            if unit.state is StepState.WAITING and not self._results.follows(live, unit):
                live.ready.append(unit)
                self._release(live, unit)

    def _submit(self, live: Live, some: Sequence[Draft]) -> None:
        """Jobs and the rows that say whose they are, in one transaction: none is ever submitted twice."""
        controller = self._controller
        if calls := [one for one in some if one.spec is None]:
            for one in calls:
                self._results.fly(live, one.unit)
            self._sharing.submit(live, calls)
        jobs = admitted(controller, live, some)
        if not jobs:
            return
        controller.board.add(jobs, controller.clock(), {})
        for one in some:
            if one.spec is not None and not one.wrong:
                self._results.fly(live, one.unit)
                self.write(live, one.unit)
        reach("serve.steps-submitted")
        controller.core.wake.set()

    # ---- what is written

    @property
    def _flows(self) -> Any:
        return self._controller.board.pending.batch.flows

    def write(self, live: Live, unit: Unit) -> None:
        """Put an instance's row into the next commit, and tell those who listen after it."""
        unit.seq = self._controller.board.next_seq()
        line = live.line(unit)
        self._flows.steps[line.run, line.step, line.item] = line
        self._telling.after_commit(live, unit)

    def write_run(self, live: Live, run: Run) -> None:
        """The run is this one from now on."""
        live.run = run
        self._flows.changed[run.id] = live.record()
        self._telling.after_commit(live)

    def _end(self, live: Live) -> None:
        counts = live.counts
        bad = any(counts[state] for state in (*_BAD, StepState.REJECTED))
        killed = live.run.kill_requested and counts[StepState.KILLED]
        state = State.KILLED if killed else State.FAILED if bad or live.broken else State.SUCCEEDED
        changes: dict[str, Any] = {"state": state, "ended": self._controller.clock()}
        self.write_run(live, live.run.model_copy(update=changes))
        reach("serve.run-ended")
        self._telling.then(lambda: self.over(live))
