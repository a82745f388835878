"""Steps that share warm jobs: from an instance to a call of the pool, and from its end to the step's row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perijove.model import Output, Reason, ReasonCode, Step, StepState, UnavailableError
from perijove.model.spec import JobSpec
from perijove_hub.jobs.controller import Controller
from perijove_hub.workflows.calls import Call, Done
from perijove_hub.workflows.filling import Filled, base_of, call_of, spec_of
from perijove_hub.workflows.live import Live, Unit
from perijove_hub.workflows.pool import Pool
from perijove_hub.workflows.submitting import Draft
from perijove_hub.workflows.telling import Telling
from perijove_spawners.store import is_tree


def fits(step: Step, made: Filled) -> bool:
    """Whether an instance can be a call: a function that takes and gives no more than arguments, files and
    a result. Otherwise it is a job of its own.
    """
    return (
        step.isolation == "shared"
        and step.what == "function"
        and not step.outputs
        and not made.texts
        and not made.folders
        and made.image == step.image
        and not any(map(is_tree, made.inputs.values()))
    )


def no_job(_live: Live, _unit: Unit, _state: StepState) -> None:
    """What is done with an end while nobody listens."""


@dataclass(slots=True)
class _Under:
    """A call under way."""

    live: Live
    unit: Unit


class Sharing:
    """The pool's notes, as rows of steps. Lives in the controller's event loop."""

    def __init__(self, controller: Controller, telling: Telling) -> None:
        self._controller, self._telling = controller, telling
        self.ended: Callable[[Live, Unit, StepState], None] = no_job
        """Called of each instance whose last try has ended, with what it made; writes its row."""
        self.write: Callable[[Live, Unit], None] = lambda _live, _unit: None
        """Puts an instance's row into the next commit."""
        self.pool = Pool(controller, notes=self)
        self._under: dict[tuple[int, str], _Under] = {}

    def open(self) -> None:
        """Begin to work, with nothing under way."""
        self.pool = Pool(self._controller, notes=self)
        self._under.clear()
        self._controller.core.spawn_vital(self.pool.run())

    # to the pool

    def submit(self, live: Live, some: Iterable[Draft]) -> None:
        """Have calls made."""
        calls, now = [], self._controller.clock()
        for one in some:
            one.unit.submitted, one.unit.number = now, 1
            live.move(one.unit, StepState.PENDING)
            calls.append(self._call(live, one))
        self.pool.submit(calls)

    def resume(self, live: Live, some: Iterable[Draft]) -> None:
        """After a restart: those that had been sent to warm jobs."""
        self.pool.resume([(self._call(live, one), one.unit.job or 0) for one in some])

    def _call(self, live: Live, one: Draft) -> Call:
        unit, step = one.unit, live.step_of(one.unit)
        if (spec := live.shared.get(unit.step)) is None:
            spec = live.shared[unit.step] = self._spec(live, one)
        call = Call(
            run=live.run.id,
            label=live.label(unit),
            number=max(1, unit.number),
            owner=live.run.owner,
            spec=spec,
            function=step.function or "",
            call=call_of(one.made),
            inputs=one.made.inputs,
            time_limit=step.time_limit,
            retries=step.retries,
        )
        self._under[call.run, call.label] = _Under(live, unit)
        return call

    def _spec(self, live: Live, one: Draft) -> JobSpec:
        step = live.step_of(one.unit)
        more = {"project": live.run.project} if live.run.project is not None else {}
        base = live.bases.setdefault(one.unit.step, base_of(step))
        return spec_of(step, base, Filled(image=one.made.image), **more)

    # from the pool

    async def sent(self, calls: Sequence[tuple[Call, int]]) -> None:
        """See :class:`perijove_hub.workflows.serving.Notes`."""
        for call, job in calls:
            if (under := self._under.get((call.run, call.label))) is not None:
                under.unit.job, under.unit.number = job, call.number
                under.live.move(under.unit, StepState.STARTING)
                self.write(under.live, under.unit)
        await self._durable()

    def began(self, calls: Sequence[tuple[Call, float]]) -> None:
        """See :class:`perijove_hub.workflows.serving.Notes`."""
        for call, at in calls:
            if (under := self._under.get((call.run, call.label))) is not None:
                under.unit.started = at
                under.live.move(under.unit, StepState.RUNNING)
                self._telling.tell(under.live, under.unit)

    async def done(self, ended: Sequence[Done]) -> None:
        """See :class:`perijove_hub.workflows.serving.Notes`."""
        lives: dict[int, Live] = {}
        for one in ended:
            under = self._under.pop((one.call.run, one.call.label), None)
            if under is not None and not under.unit.state.ended:
                self.ended(under.live, under.unit, finish(under.unit, one))
                lives[under.live.run.id] = under.live
        for live in lives.values():
            self._telling.wake(live)
        if lives:
            await self._durable()

    async def _durable(self) -> None:
        while True:
            try:
                return await self._controller.committed()
            except UnavailableError:
                await asyncio.sleep(1.0)  # the writer goes on trying


def finish(unit: Unit, done: Done) -> StepState:
    """Its last try has ended; the state that it is in then."""
    outcome = done.outcome
    unit.job, unit.number = done.job or unit.job, done.call.number
    unit.started, unit.ended = outcome.started, outcome.ended
    unit.reason = reason_of(outcome.reason, outcome.message)
    unit.outputs = {"result": done.output or Output()} if outcome.reason is None else {}
    return StepState(outcome.state.value)


def reason_of(code: ReasonCode | None, message: str) -> Reason | None:
    """Why it ended as it did; None for success."""
    return Reason(code=code, message=message) if code is not None else None
