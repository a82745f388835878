"""The events of a simulation, in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum
from math import inf
from typing import Any


class Rank(IntEnum):
    """What comes first of what happens at the same time: who leaves, then who comes, then the look round."""

    END = 0
    NODE = 1
    START = 2
    WISH = 3
    ARRIVAL = 4
    TICK = 5


class Clockwork:
    """What is to happen; things of the same time and rank happen in the order in which they were set."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self._heap: list[tuple[float, int, int, bool, Callable[..., None], tuple[Any, ...]]] = []
        self._set = 0
        self.done = 0
        """How many things have happened."""
        self.planned = 0
        """How many of those to come do not depend on what happens before."""

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float:
        """When the next thing happens; ``inf``: nothing does."""
        return self._heap[0][0] if self._heap else inf

    def set(
        self, at: float, rank: Rank, act: Callable[..., None], *arguments: Any, planned: bool = False
    ) -> None:
        """Have `act` called with `at` and the arguments."""
        self._set += 1
        self.planned += planned
        heapq.heappush(self._heap, (at, rank, self._set, planned, act, arguments))

    def happen(self, until: float) -> None:
        """Do all that is due until then, also what comes of it."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, _, planned, act, arguments = heapq.heappop(heap)
            self.done += 1
            self.planned -= planned
            act(self.now, *arguments)
