"""``multifactor``: the sum of weighted factors, each between 0 and 1, as Slurm's plugin of that name.

See "Multifactor Priority Plugin" of Slurm's documentation, and slurm.conf(5), ``PriorityWeight*``. A job's
priority is::

      age       * min(1, time waited / max_age)
    + fairshare * 2 ** -(effective usage / part due)   # see perijove_hub.policy.tree
    + priority  * its own / 100                        # where Slurm has the quality of service
    + user      * the user's / 100                     # Slurm's association
    + project   * the project's / 100
    + partition * the partition's / 100
    + size      * its share of the site's cores

Unlike in Slurm, what starts in a pass lowers the factors of its user and project at once.

Of each line only the first few jobs are weighed against each other, and the next when one of them is gone: as
many as make WEIGHED over all lines, and at least LEAST of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from typing import TYPE_CHECKING

from perijove_hub.policy.schedulers.portions import PATIENCE, offer
from perijove_hub.policy.tree import Tree

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.schedulers import Line
    from perijove_hub.policy.shares import Shares

WEIGHED = 4_000
LEAST = 10


class _Weighed:
    """A line with its first jobs, the one of the highest priority first."""

    __slots__ = ("common", "entries", "idle", "owner", "project", "rest")

    def __init__(self, line: Line) -> None:
        self.owner, self.project = line.owner, line.project
        self.rest = iter(line)
        self.entries: list[tuple[float, int, Entry]] = []
        self.common = 0.0
        self.idle = 0
        """How many came in this round and did not start."""


class Multifactor:
    """The highest sum runs first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def order(self, lines: Sequence[Line], shares: Shares, now: float) -> Iterator[Entry]:
        """See :class:`~perijove_hub.policy.schedulers.Scheduler`. Ties go to the older job."""
        depth = max(LEAST, WEIGHED // max(1, len(lines)))
        tree = Tree(self._policy, shares, ((line.owner, line.project) for line in lines))
        waiting = []
        for line in map(_Weighed, lines):
            line.entries = [self._weigh(entry, shares, now) for entry in islice(line.rest, depth)]
            if line.entries:
                heapify(line.entries)
                waiting.append(line)
        patience = PATIENCE
        while waiting:
            stuck: list[_Weighed] = []
            for line in waiting:
                line.idle = 0
                line.common = self._common(line, tree)
            ranked = [(*_rank(line), number, line) for number, line in enumerate(waiting)]
            heapify(ranked)
            while ranked:
                old, _, number, line = ranked[0]
                line.common = self._common(line, tree)
                if -line.common + line.entries[0][0] > old:  # it got something since it was ranked
                    heapreplace(ranked, (*_rank(line), number, line))
                    continue
                before = shares.commits
                own, job, entry = heappop(line.entries)
                left = yield from offer(entry, shares)
                if left is not None:
                    heappush(line.entries, (own, job, left))
                elif (following := next(line.rest, None)) is not None:
                    heappush(line.entries, self._weigh(following, shares, now))
                line.idle += shares.commits == before
                if line.entries and line.idle < patience:
                    heapreplace(ranked, (*_rank(line), number, line))
                    continue
                heappop(ranked)
                if line.entries:
                    stuck.append(line)
            waiting, patience = stuck, 2 * patience

    def _weigh(self, entry: Entry, shares: Shares, now: float) -> tuple[float, int, Entry]:
        """What is the job's own, negative, since a heap gives the least first."""
        job, weights = entry.job, self._policy.multifactor
        spec = job.spec
        partition = self._policy.partitions.get(job.partition) if job.partition else None
        size = min(1.0, spec.cpu * spec.nodes / shares.capacity) if shares.capacity else 0.0
        sum_ = (
            weights.age * min(1.0, max(0.0, now - job.submitted) / weights.max_age)
            + weights.priority * spec.priority / 100
            + weights.partition * (partition.priority if partition else 50) / 100
            + weights.size * size
        )
        return -sum_, job.id, entry

    def _common(self, line: _Weighed, tree: Tree) -> float:
        """What all jobs of the line have."""
        weights, policy = self._policy.multifactor, self._policy
        project = policy.projects.get(line.project) if line.project else None
        return (
            weights.fairshare * tree.factor(line.owner, line.project)
            + weights.user * policy.user(line.owner).priority / 100
            + weights.project * (project.priority if project else 50) / 100
        )


def _rank(line: _Weighed) -> tuple[float, int]:
    own, job, _ = line.entries[0]
    return -line.common + own, job
