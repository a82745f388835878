"""Telling those who listen to a run what has become durable, and waking whoever moves runs on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from perijove.model import Run, StepRun
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.pending import Pending
from perijove_hub.workflows.live import Live, Unit

Told = tuple[int, Literal["step", "run"], StepRun | Run]
"""``safe`` of that moment, and what has changed."""
Listener = asyncio.Queue[Told | None]
"""None: the reader was too slow, and has to ask anew."""
LISTENER_HOLDS = 10_000


@dataclass(slots=True)
class _Gathered:
    """What waits for one commit."""

    units: dict[tuple[Live, Unit], None] = field(default_factory=dict)
    runs: dict[Live, None] = field(default_factory=dict)
    then: list[Callable[[], None]] = field(default_factory=list)


class Telling:
    """Lives in one event loop."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._listeners: dict[int, set[Listener]] = defaultdict(set)
        self._bound: Pending | None = None
        self._gathered = _Gathered()
        self.safe = 0
        """All changes of steps up to this number have been told."""
        self.dirty: dict[int, Live] = {}
        self.awake = asyncio.Event()

    def wake(self, live: Live) -> None:
        """There is something to do for this run."""
        self.dirty[live.run.id] = live
        self.awake.set()

    def after_commit(self, live: Live, unit: Unit | None = None) -> None:
        """Tell of it once it is durable."""
        gathered = self._gather()
        gathered.runs[live] = None
        if unit is not None:
            gathered.units[live, unit] = None

    def then(self, act: Callable[[], None]) -> None:
        """Do this once all that is on the board now is durable."""
        self._gather().then.append(act)

    def tell(self, live: Live, unit: Unit) -> None:
        """An instance is as it is now, durably."""
        if live.run.id in self._listeners:
            self._give(live, (self.safe, "step", live.view(unit)))

    @contextlib.asynccontextmanager
    async def subscription(self, run: int) -> AsyncIterator[Listener]:
        """What happens to a run from now on."""
        listener: Listener = asyncio.Queue(LISTENER_HOLDS)
        self._listeners[run].add(listener)
        try:
            yield listener
        finally:
            self._listeners[run].discard(listener)
            if not self._listeners[run]:
                del self._listeners[run]

    def _gather(self) -> _Gathered:
        """What the next commit makes durable."""
        pending = self._controller.board.pending
        if self._bound is not pending:
            self._bound, self._gathered = pending, _Gathered()
            gathered = self._gathered
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(lambda done: None if done.cancelled() else self._durable(gathered))
            pending.waiters.append(waiter)
        self._controller.core.wake.set()
        return self._gathered

    def _durable(self, gathered: _Gathered) -> None:
        for live, unit in gathered.units:
            self.tell(live, unit)
        self.safe = max([self.safe, *(unit.seq for _, unit in gathered.units)])
        for live in gathered.runs:
            if live.run.id in self._listeners:
                self._give(live, (self.safe, "run", live.record()))
        for act in gathered.then:
            act()

    def _give(self, live: Live, told: Told) -> None:
        for listener in list(self._listeners[live.run.id]):
            if listener.full():
                self._listeners[live.run.id].discard(listener)
                listener.get_nowait()
                listener.put_nowait(None)
            else:
                listener.put_nowait(told)
