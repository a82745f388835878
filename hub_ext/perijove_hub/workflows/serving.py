"""One warm job at work: calls are brought to it, and what became of them is taken in.

Which calls it is sent is durable before they are sent; what its journal says of them is durable before the
journal counts as read so far. Calls have names, so telling it twice is telling it once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from perijove.model import Job, ReasonCode, State, UnavailableError
from perijove_hub.jobs.controller import Controller
from perijove_hub.workflows.calls import Call, Done, Line, Warm, done_of, failed
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import LaunchError, StaleFenceError
from perijove_spawners.protocol import Answers

log = logging.getLogger(__name__)

LISTEN = 10.0
"""Seconds that a warm job is asked to wait for news at once."""
PATIENCE = 120.0
"""Seconds after which a warm job's journal is given up whose node does not answer."""
CONTENTS_PATIENCE = 300.0
"""Seconds for files to be brought to a warm job."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Notes(Protocol):
    """Where it is written down. `sent` and `done` return when it is durable."""

    async def sent(self, calls: Sequence[tuple[Call, int]]) -> None:
        """These are about to be sent to warm jobs of these ids."""

    def began(self, calls: Sequence[tuple[Call, float]]) -> None:
        """These have begun, when, and take a while; not durable."""

    async def done(self, ended: Sequence[Done]) -> None:
        """These have ended, and will not be tried again."""


class Serving:
    """The work with one warm job, from when it runs. `settle` takes the calls that ended."""

    def __init__(
        self,
        controller: Controller,
        notes: Notes,
        line: Line,
        warm: Warm,
        settle: Callable[[Line, list[Done]], Awaitable[None]],
    ) -> None:
        self._controller, self._notes = controller, notes
        self.line, self.warm, self._settle = line, warm, settle
        self._wake, self._busy = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    def begin(self) -> None:
        """Tell it of calls, and hear of them, until it is over."""
        self._tasks = [self._controller.core.spawn_vital(work) for work in (self._send(), self._listen())]
        self.nudge()

    def nudge(self) -> None:
        """There may be something to tell it, or it is over."""
        self._wake.set()
        self._busy.set()

    async def finished(self) -> None:
        """Wait until nothing is under way with it any more, which is over."""
        self.nudge()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # to it

    async def _send(self) -> None:
        warm, killed = self.warm, self.line.killed
        while not warm.over:
            await self._wake.wait()
            self._wake.clear()
            while not warm.over:
                if warm.untold:
                    untold, warm.untold = warm.untold, {}
                    await self._tell(untold)
                    self._busy.set()
                calls = self.line.take(warm) if warm.takes(self._controller.clock()) else []
                if not calls and not warm.cancels:
                    break
                warm.sent.update((call.id, call) for call in calls)
                if calls:
                    await self._notes.sent([(call, warm.job) for call in calls])
                    reach("serve.calls-noted")
                    # Those of a run that was killed meanwhile are sent and cancelled, as any others.
                    warm.cancels.update(call.run for call in calls if call.run in killed)
                await self._tell({call.id: call for call in calls})
                reach("serve.calls-sent")
                self._busy.set()

    async def _tell(self, given: dict[str, Call]) -> None:
        """Bring it calls, again and again until it has them or is over; and which runs are killed."""
        warm, pause, calls = self.warm, _FIRST_PAUSE, dict(given)
        while (calls or warm.cancels) and not warm.over:
            cancels = set(warm.cancels)
            needed = dict.fromkeys(digest for call in calls.values() for digest in call.digests)
            fresh = [digest for digest in needed if digest not in warm.contents]
            request = {
                "calls": [call.message() for call in calls.values()],
                "cancel": [f"{run}/" for run in sorted(cancels)],
                "taken": warm.offset,
            }
            try:
                wait = CONTENTS_PATIENCE if fresh else LISTEN
                answers = await self.compute(json.dumps(request).encode(), fresh, None, wait)
            except (LaunchError, UnavailableError) as error:
                log.info("job %d was not told of %d calls: %s", warm.job, len(calls), error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if answers.unstaged:
                await self._unstaged(calls, answers)
                continue
            warm.contents.update(needed)
            warm.contents.difference_update(answers.missing)
            if not answers.missing:
                warm.cancels -= cancels
                return

    async def _unstaged(self, calls: dict[str, Call], answers: Answers) -> None:
        """Files could not be brought: the calls that need them fail."""
        now, ended = self._controller.clock(), []
        for name, call in list(calls.items()):
            if why := next((answers.unstaged[one] for one in call.digests if one in answers.unstaged), ""):
                del calls[name], self.warm.sent[name]
                ended.append(failed(call, self.warm.job, ReasonCode.LAUNCH_FAILED, why, now))
        await self._settle(self.line, ended)

    # from it

    async def _listen(self) -> None:
        warm, pause = self.warm, _FIRST_PAUSE
        while not warm.over:
            if not warm.sent:
                self._busy.clear()
                await self._busy.wait()
                continue
            request = json.dumps({"offset": warm.offset, "wait": LISTEN}).encode()
            try:
                answers = await self.compute(request, [], warm.offset, LISTEN)
            except (LaunchError, UnavailableError) as error:
                log.info("job %d does not answer: %s", warm.job, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            await self._heard(answers)
            self._wake.set()

    async def read_out(self, job: Job) -> bool:
        """Read the rest of its journal, now that it has ended; whether that was possible."""
        warm, pause = self.warm, _FIRST_PAUSE
        deadline = self._controller.core.steady() + PATIENCE
        while warm.sent:
            try:
                answers = await self.compute(b"", [], warm.offset)
            except (LaunchError, UnavailableError) as error:
                if job.state is State.LOST or self._controller.core.steady() > deadline:
                    log.warning("job %d: what it did cannot be read: %s", job.id, error)
                    return False
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            await self._heard(answers)
            if answers.end:
                break
        return True

    async def _heard(self, answers: Answers) -> None:
        warm, ended, began = self.warm, [], []
        for said in answers.lines:
            call = warm.sent.get(said["call"])
            if call is None:
                continue
            if "begun" in said:
                warm.begun.setdefault(call.id, _time(said["begun"]))
                began.append(call)
                continue
            del warm.sent[call.id]
            begun = warm.begun.pop(call.id, None)
            done = done_of(call, warm.job, said, begun)
            if begun is not None and done.outcome.ended is not None:
                self.line.took(call.function, max(0.0, done.outcome.ended - begun))
            ended.append(done)
        warm.ended += len(ended)
        if some := [(call, warm.begun[call.id]) for call in began if call.id in warm.begun]:
            self._notes.began(some)
        await self._settle(self.line, ended)
        warm.offset, warm.reread = 0 if warm.reread else answers.offset, False

    async def compute(
        self, message: bytes, contents: list[str], offset: int | None, wait: float = 0.0
    ) -> Answers:
        """See :meth:`perijove_spawners.protocol.NodeCalls.compute`."""
        try:
            answers: Answers = await self._controller.fabric.call(
                self.warm.node, "compute", self.warm.attempt, message, contents, offset, wait=wait
            )
        except StaleFenceError as error:
            log.critical("another service leads: %s", error)
            self._controller.died()
            raise
        return answers


def _time(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
