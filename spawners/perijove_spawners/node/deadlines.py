"""The time of one attempt: its limit, which may be changed, and the warning before it.

Only run time counts: what an attempt was suspended is added to all it has to do with. The agent warns every
attempt, and stops those whose launcher keeps no time limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from perijove_spawners.node.attempts import Folder, Times


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done when so much run time has passed."""

    warning: float | None
    limit: float | None


def due(times: Times, before: float | None, *, enforce: bool) -> Due:
    """Run times in seconds: of the warning, `before` seconds before the limit, and of the stop.

    There is one warning for each limit: one that was moved away after the warning has another.
    """
    if times.limit is None:
        return Due(None, None)
    warned = before is None or times.warned == times.limit
    return Due(
        None if warned or before is None else max(0.0, times.limit - before), times.limit if enforce else None
    )


class Deadlines:
    """Keeps the times of an attempt on record, and calls when one has come."""

    def __init__(self, folder: Folder, times: Times, before: float | None, *, enforce: bool) -> None:
        self.times = times
        self.on_warning: Callable[[], None] = _nothing
        self.on_limit: Callable[[], None] = _nothing
        self._folder, self._before, self._enforce = folder, before, enforce
        self._origin: float | None = None
        """When, by the monotonic clock, it would have begun had it never been suspended."""
        self._paused_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, started: float) -> None:
        """It has run since `started`, epoch seconds; from here on the wall clock is not asked again."""
        now, wall = time.monotonic(), time.time()
        self._origin = now - max(0.0, wall - started) + self.times.paused
        if self.times.paused_at is not None:
            self._paused_at = now - max(0.0, wall - self.times.paused_at)
        self._arm()

    def ran(self) -> float:
        """Seconds of run time so far."""
        if self._origin is None:
            return 0.0
        return max(0.0, (self._paused_at or time.monotonic()) - self._origin)

    def change(self, limit: float | None) -> None:
        """Another limit from now on."""
        self._note(replace(self.times, limit=limit, changed=True))
        self._arm()

    def pause(self) -> None:
        """It is suspended."""
        if self._origin is not None and self._paused_at is None:
            self._paused_at = time.monotonic()
            self._note(replace(self.times, paused_at=time.time()))
            self.cancel()

    def go_on(self) -> None:
        """It is not suspended any more."""
        if self._origin is not None and self._paused_at is not None:
            pause = time.monotonic() - self._paused_at
            self._paused_at = None
            self._origin += pause
            self._note(replace(self.times, paused=self.times.paused + pause, paused_at=None))
            self._arm()

    def cancel(self) -> None:
        """Call no more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.cancel()
        if self._origin is None or self._paused_at is not None:
            return
        coming = due(self.times, self._before, enforce=self._enforce)
        moments = [at for at in (coming.warning, coming.limit) if at is not None]
        if moments:
            wait = self._origin + min(moments) - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wait), self._fire)

    def _fire(self) -> None:
        self._timer = None
        coming, ran = due(self.times, self._before, enforce=self._enforce), self.ran()
        if coming.limit is not None and ran >= coming.limit:
            self.on_limit()
            return
        if coming.warning is not None and ran >= coming.warning:
            # On record before it is sent: better none than two, which many programs take for "end now".
            self._note(replace(self.times, warned=self.times.limit))
            self.on_warning()
        self._arm()

    def _note(self, times: Times) -> None:
        self.times = times
        self._folder.note_times(times)


def _nothing() -> None:
    pass
