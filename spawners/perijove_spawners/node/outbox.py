"""What an agent has to say: gathered for a moment, ends repeated until they are forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from perijove.model import Attempt
from perijove_spawners.protocol import Report, ReportKind

GATHER = 0.005
"""Seconds that a report waits for others to go with."""
REPEAT = 5.0
"""Seconds after which an end that is not forgotten is said again."""
REPEATED_AT_ONCE = 1000


class Outbox:
    """Reports on their way to the service."""

    def __init__(self, send: Callable[[list[Report]], None], *, repeat: float = REPEAT) -> None:
        self.repeat = repeat
        self._send = send
        self._waiting: list[Report] = []
        self._ends: dict[Attempt, tuple[float, Report]] = {}
        """Attempt -> when its end was said last, and the report; the one said longest ago first."""

    def add(self, report: Report) -> None:
        if report.kind is ReportKind.ENDED:
            self._ends.pop(report.attempt, None)
            self._ends[report.attempt] = (time.monotonic(), report)
        if not self._waiting:
            asyncio.get_running_loop().call_later(GATHER, self._flush)
        self._waiting.append(report)

    def forget(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self._ends.pop(attempt, None)

    async def run(self) -> None:
        """Repeat until cancelled."""
        while True:
            await asyncio.sleep(self.repeat / 5)
            for report in self._due(time.monotonic() - self.repeat):
                self.add(report)

    def _due(self, before: float) -> list[Report]:
        due: list[Report] = []
        for at, report in self._ends.values():
            if at > before or len(due) == REPEATED_AT_ONCE:
                break
            due.append(report)
        return due

    def _flush(self) -> None:
        reports, self._waiting = self._waiting, []
        self._send(reports)
