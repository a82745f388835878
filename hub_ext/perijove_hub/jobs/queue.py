"""The queue: one line for each owner within each project, in the order of priority and age."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sortedcontainers import SortedList

from perijove.model import Job

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry

Key = tuple[str, str | None]


class Line:
    """What one owner waits for within one project; entries are made as they are asked for."""

    __slots__ = ("_entry", "order", "owner", "project")

    def __init__(self, owner: str, project: str | None, entry: Callable[[int], Entry | None]) -> None:
        self.owner, self.project = owner, project
        self.order: SortedList[tuple[int, int]] = SortedList()
        """(minus the priority, id) of each job."""
        self._entry = entry

    def __iter__(self) -> Iterator[Entry]:
        for _, job in self.order:
            if (entry := self._entry(job)) is not None:
                yield entry


class Queue:
    """All lines. `entry` makes the entry of a job id; None when nothing of it may start now."""

    def __init__(self, entry: Callable[[int], Entry | None]) -> None:
        self._entry = entry
        self._lines: dict[Key, Line] = {}
        self._places: dict[int, tuple[int, Line]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job: int) -> bool:
        return job in self._places

    def lines(self) -> Sequence[Line]:
        """The lines in which somebody waits."""
        return list(self._lines.values())

    def entries(self) -> Iterator[Entry]:
        """Every entry, line by line."""
        for line in self.lines():
            yield from line

    def add(self, job: Job) -> None:
        """Into its line, by its priority; adding twice is adding once."""
        if job.id in self._places:
            return
        key = (job.owner, job.spec.project)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(*key, self._entry)
        rank = -job.spec.priority
        self._places[job.id] = (rank, line)
        line.order.add((rank, job.id))

    def discard(self, job: int) -> None:
        """Out of its line; it may be in none."""
        place = self._places.pop(job, None)
        if place is None:
            return
        rank, line = place
        line.order.remove((rank, job))
        if not line.order:
            del self._lines[line.owner, line.project]

    def position(self, job: int) -> int:
        """Its place in its own line, from 1: how the lines follow each other changes from pass to pass."""
        rank, line = self._places[job]
        return int(line.order.bisect_left((rank, job))) + 1
