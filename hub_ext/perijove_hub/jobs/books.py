"""What is written down: numbers that are given once, the history, and what ended lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from perijove.model import Job, JobEvent
from perijove_hub.accounting import Allocation
from perijove_hub.jobs.pending import Pending
from perijove_hub.placement.runtimes import Runtimes

RECENT = 10_000
"""Ended jobs kept in memory for questions about them."""
UNWRITTEN = frozenset({"progress", "launching", "tasks"})
"""Events that are told and not kept."""


class Books:
    """`last_job` and `last_seq` are the highest numbers ever given."""

    def __init__(self, last_job: int, last_seq: int) -> None:
        self.pending = Pending()
        self.recent: OrderedDict[int, Job] = OrderedDict()
        self.runtimes = Runtimes()
        """How long jobs like these ran."""
        self._last_job, self._last_seq = last_job, last_seq

    def new_ids(self, sizes: Sequence[int]) -> list[int]:
        """Ids for new jobs, with those reserved for so many members of each; none is given again."""
        found = []
        for size in sizes:
            found.append(self._last_job + 1)
            self._last_job += 1 + size
        return found

    def raise_ids(self, highest: int) -> None:
        """Give no id up to `highest`: it has been seen on a node."""
        self._last_job = max(self._last_job, highest)

    def take(self) -> Pending:
        """What has gathered since the last time, for the commit."""
        taken, self.pending = self.pending, Pending()
        return taken

    def record(self, job: Job, event: str, detail: dict[str, Any], now: float) -> None:
        """Put it into the history, and tell those who listen."""
        written = event not in UNWRITTEN
        self._last_seq += written
        line = JobEvent(self._last_seq, job.id, job.owner, now, event, job.state, job.attempt, detail)
        if written:
            self.pending.batch.events.append(line)
        self.pending.published.append((line, job))

    @property
    def last_seq(self) -> int:
        """The highest number given."""
        return self._last_seq

    def next_seq(self) -> int:
        """A number of the history for something that is no event of a job."""
        self._last_seq += 1
        return self._last_seq

    def charge(self, allocation: Allocation) -> None:
        """Write an allocation down: when it begins, and again when it ends."""
        self.pending.batch.allocations.append(allocation)

    def remember(self, job: Job) -> None:
        """It has ended lately."""
        self.recent[job.id] = job
        self.runtimes.note(job)
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)
