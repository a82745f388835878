"""Shared isolation: small function steps go in bundles to warm jobs, which stay for the next ones.

A warm job is a job as any other: queued, placed, limited and charged; one for each owner, image, launcher and
resources, and more of them while there is work for more. Which call went to which job is durable before it
is sent, and what became of it before it is counted as read; the job's journal says which calls began. So
after the death of the service, the agent or the job each call is made once, or it is known that nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from perijove.model import InvalidSpecError, Job, PerijoveError, ReasonCode, State, UnavailableError
from perijove.model.spec import JobSpec, Kind
from perijove_hub.admission import admit
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Kill
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.workflows.calls import Call, Done, Line, Warm, failed, kind_of, unknown, warm_spec
from perijove_hub.workflows.serving import Notes, Serving

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at how many warm jobs there should be."""
_BARREN = 3


class Pool:
    """All warm jobs of the installation. Lives in the controller's event loop."""

    def __init__(self, controller: Controller, *, notes: Notes) -> None:
        self._controller, self._notes = controller, notes
        self._lines: dict[tuple[str, str], Line] = {}
        self._kinds: dict[int, tuple[JobSpec, str]] = {}
        """By the identity of a spec, as making its text takes longer than a call."""
        self._warm: dict[int, tuple[Line, Warm]] = {}
        self._killed: set[int] = set()
        """Runs of which nothing is to be made any more."""
        self._held: set[int] = set()
        self._wake = asyncio.Event()
        self._crowded_since: float | None = None
        self._serving: dict[Warm, Serving] = {}

    # what the engine of workflows asks

    def submit(self, calls: Iterable[Call]) -> None:
        """Have calls made; returns at once."""
        for call in calls:
            self._line_of(call).add([call])
        self._wake.set()

    def resume(self, calls: Iterable[tuple[Call, int]]) -> None:
        """After a restart: calls that were noted as sent to these jobs, and not as done."""
        found: dict[int, list[Call]] = {}
        for call, job in calls:
            found.setdefault(job, []).append(call)
        for job, some in found.items():
            named = {call.id: call for call in some}
            if job in self._warm:
                _, warm = self._warm[job]
                warm.sent |= named
                warm.untold |= named
                warm.reread = True
                self._nudge(warm)
                continue
            warm = Warm(job, sent=named, untold=dict(named))
            self._adopt(self._line_of(some[0]), warm)
            self._vital(self._found_again(warm))

    def hold(self, run: int) -> None:
        """Begin no more calls of `run` until :meth:`release`; those that warm jobs have are made."""
        self._held.add(run)
        for line in self._lines.values():
            line.hold(run)

    def release(self, run: int) -> None:
        """Go on with `run`."""
        self._held.discard(run)
        for line in self._lines.values():
            line.release(run)
        self._wake.set()

    def cancel(self, run: int) -> None:
        """Make no more calls of `run`, and end those that are being made; they end as killed."""
        self._killed.add(run)
        dropped = [call for line in self._lines.values() for call in line.drop(run)]
        if dropped:
            self._vital(self._notes.done([self._was_killed(call) for call in dropped]))
        for _, warm in self._warm.values():
            if any(call.run == run for call in warm.sent.values()):
                warm.cancels.add(run)
                self._nudge(warm)

    async def run(self) -> None:
        """Work for as long as the service leads."""
        self._vital(self._watch())
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            crowded = self._crowded()
            for key, line in list(self._lines.items()):
                self._look_at(line, crowded)
                if line.empty and not line.warm and not line.starting:
                    del self._lines[key]
            if not self._lines:
                self._kinds.clear()

    # how many warm jobs

    def _look_at(self, line: Line, crowded: bool) -> None:
        now = self._controller.clock()
        for warm in line.warm:
            for name, at in warm.begun.items():
                if name in warm.sent:
                    line.takes(warm.sent[name].function, now - at)
            if len(line):
                self._nudge(warm)
            elif warm.attempt is None and not warm.sent:
                self._not_needed(warm)
            elif not warm.sent and not warm.over and crowded:
                self._make_room(warm, now)
        for _ in range(line.lacking()):
            line.starting += 1
            self._vital(self._start(line))

    def _not_needed(self, warm: Warm) -> None:
        job = self._controller.board.jobs.get(warm.job)
        if job is not None and job.state in {State.PENDING, State.HELD} and not job.kill_requested:
            self._spawn(self._controller.act(warm.job, Kill(job.owner)))

    def _crowded(self) -> bool:
        """Whether jobs have waited for longer than it takes to place them."""
        now = self._controller.clock()
        if not self._controller.board.waiting:
            self._crowded_since = None
        elif self._crowded_since is None:
            self._crowded_since = now
        return self._crowded_since is not None and now - self._crowded_since >= LOOK / 2

    def _make_room(self, warm: Warm, now: float) -> None:
        """End a warm job that has nothing to do: what waits may need what it holds."""
        job = self._controller.board.jobs.get(warm.job)
        if job is not None and not job.kill_requested:
            warm.closing = now
            self._spawn(self._controller.act(warm.job, Kill(job.owner)))

    async def _start(self, line: Line) -> None:
        controller = self._controller
        try:
            job = self._new_job(line)
            warm = Warm(job.id)
            self._adopt(line, warm)
            try:
                await controller.submit([job], {})
            except UnavailableError:
                if controller.board.find(job.id) is None:
                    self._gone(line, warm)
        except InvalidSpecError as error:
            await self._refuse(line, "; ".join(f"{one.field}: {one.message}" for one in error.errors))
        except UnavailableError as error:
            log.info("no warm job for %s yet: %s", line.owner, error)
        finally:
            line.starting -= 1

    def _new_job(self, line: Line) -> Job:
        """One more warm job; :class:`InvalidSpecError` when there cannot be one."""
        controller, now = self._controller, self._controller.clock()
        spec = warm_spec(line.spec, controller.settings.shared_idle).model_copy(update={"kind": Kind.STEP})
        admitted = admit(
            spec,
            asker_of(controller, line.owner),
            controller.identify(line.owner),
            site_of(controller),
            now=now,
            known={},
        )
        if refused := controller.board.standing.refusals(line.owner, [(admitted.spec, 1)], now):
            raise InvalidSpecError(errors=refused)
        [number] = controller.board.new_ids([0])
        return Job(
            id=number,
            owner=line.owner,
            name=admitted.spec.title,
            state=State.PENDING,
            launcher=admitted.launcher,
            partition=admitted.partition,
            submitted=now,
            spec=admitted.spec,
        )

    async def _refuse(self, line: Line, why: str) -> None:
        """No call of this kind can be made."""
        now = self._controller.clock()
        ended = [failed(call, None, ReasonCode.LAUNCH_FAILED, why, now) for call in line.drop()]
        if ended:
            await self._notes.done(ended)

    # what becomes of warm jobs

    async def _watch(self) -> None:
        while True:
            async with self._controller.subscription() as events:
                for number in list(self._warm):
                    job = await self._controller.find(str(number))
                    if job is not None and number in self._warm:
                        self._seen(job)
                while (item := await events.get()) is not None:
                    if item[1].id in self._warm:
                        self._seen(item[1])

    async def _found_again(self, warm: Warm) -> None:
        job = await self._controller.find(str(warm.job))
        if job is not None:
            if warm.job in self._warm:
                self._seen(job)
            return
        line, _ = self._warm[warm.job]
        self._gone(line, warm)
        now, said = (
            self._controller.clock(),
            f"nothing is known of job {warm.job}, which was to make the call",
        )
        lost = [failed(call, warm.job, ReasonCode.NODE_LOST, said, now) for call in warm.sent.values()]
        await self._ended(line, lost)

    def _seen(self, job: Job) -> None:
        """A warm job is in this state."""
        line, warm = self._warm[job.id]
        if warm.attempt is not None and job.attempt != warm.attempt.number and not job.state.ended:
            # It was sent back to the queue: what it runs next is another warm job of the same id.
            self._end(line, warm, job)
            self._adopt(line, warm := Warm(job.id))
        if job.state.ended:
            warm.attempt = warm.attempt or (attempt_of(job) if job.attempt else None)
            warm.node = warm.node or job.node or ""
            del self._warm[job.id]
            self._end(line, warm, job)
        elif job.state is State.RUNNING and warm.attempt is None:
            warm.attempt, warm.node = attempt_of(job), job.node or ""
            if (limit := job.spec.time_limit) is not None:
                warm.closing = (job.started or self._controller.clock()) + 0.8 * limit
            self._serving_of(line, warm).begin()
            self._wake.set()

    def _end(self, line: Line, warm: Warm, job: Job) -> None:
        if not warm.over:
            warm.over = True
            self._nudge(warm)
            self._vital(self._settle(line, warm, job))

    async def _settle(self, line: Line, warm: Warm, job: Job) -> None:
        """A warm job has ended: what it did is read, what it had not begun goes to another."""
        serving = self._serving_of(line, warm)
        await serving.finished()
        known = warm.attempt is None or await serving.read_out(job)
        del self._serving[warm]
        now = self._controller.clock()
        lost, left = [], []
        for name, call in warm.sent.items():
            if known and name not in warm.begun:
                left.append(call)
            else:
                lost.append(unknown(call, job, now))
        # At once: a line with neither warm jobs nor calls is forgotten.
        self._gone(line, warm)
        line.add((call for call in left if call.run not in self._killed), first=True)
        if warm.ended or lost:
            line.barren = 0
        elif job.state in {State.FAILED, State.REJECTED} and job.submitted >= line.barren_at:
            line.barren, line.barren_at = line.barren + 1, now
        await self._ended(
            line, [*lost, *(self._was_killed(call) for call in left if call.run in self._killed)]
        )
        if line.barren >= _BARREN and len(line):
            line.barren = 0
            why = job.reason.message if job.reason and job.reason.message else f"it was {job.state}"
            await self._refuse(line, f"job {job.id}, which was to make the call, made none: {why}")
        self._wake.set()

    async def _ended(self, line: Line, ended: list[Done]) -> None:
        """Try again what is to be tried again, and write down the rest."""
        again = [
            one for one in ended if one.outcome.reason and one.call.run not in self._killed and one.retried
        ]
        if again:
            line.add(one.call.again() for one in again)
            self._wake.set()
        if finals := [one for one in ended if one not in again] if again else ended:
            await self._notes.done(finals)

    # parts of the above

    def _line_of(self, call: Call) -> Line:
        known = self._kinds.get(id(call.spec))
        if known is None or known[0] is not call.spec:
            known = self._kinds[id(call.spec)] = call.spec, kind_of(call.spec)
        key = call.owner, known[1]
        if (line := self._lines.get(key)) is None:
            line = self._lines[key] = Line(call.owner, call.spec, self._killed, self._held)
        return line

    def _serving_of(self, line: Line, warm: Warm) -> Serving:
        if warm not in self._serving:
            self._serving[warm] = Serving(self._controller, self._notes, line, warm, self._ended)
        return self._serving[warm]

    def _adopt(self, line: Line, warm: Warm) -> None:
        line.warm.add(warm)
        self._warm[warm.job] = line, warm

    def _gone(self, line: Line, warm: Warm) -> None:
        line.warm.discard(warm)
        if (known := self._warm.get(warm.job)) is not None and known[1] is warm:
            del self._warm[warm.job]

    def _was_killed(self, call: Call) -> Done:
        return failed(
            call, None, ReasonCode.KILLED_BY_USER, "killed before it began", self._controller.clock()
        )

    def _nudge(self, warm: Warm) -> None:
        if (serving := self._serving.get(warm)) is not None:
            serving.nudge()

    def _vital(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._controller.core.spawn_vital(work)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self._controller.core.spawn(_unless_refused(work))


async def _unless_refused(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except PerijoveError as error:
        log.info("%s", error)


def _time(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
