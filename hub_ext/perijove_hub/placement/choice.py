"""One decision per shape: jobs that ask for the same in the same circumstances share a :class:`Choice`.

Within a pass what is free only shrinks. So a shape that fits nowhere once fits nowhere for the rest of it,
and nodes lined up by preference stay lined up but for those that were used since, which are looked at
again when their turn comes.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from math import inf

import numpy as np

from perijove.model import Job, Reason
from perijove_hub.placement.access import Access, Grant
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.request import Request
from perijove_hub.placement.spreading import fill, level
from perijove_hub.placement.table import Counts, Mask, NodeTable

GPU = 1 << 41
"""One GPU outweighs all cores of a node when nodes are ranked."""
FEW = 32
"""So many members are placed one after the other; more of them in vectors."""


class Choice:
    """Where members of one shape may go, and what became of it in this pass."""

    def __init__(
        self, job: Job, table: NodeTable, claims: Claims, access: Access, now: float, spread: bool
    ) -> None:
        spec = job.spec
        self.request = Request.of(spec)
        self.end = inf if spec.time_limit is None else now + spec.time_limit
        """When it will have ended, if it starts now."""
        self.reason: Reason | None = None
        """Why no more of it start in this pass."""
        self.grant: Grant = access.grant(job)
        self.suited: Mask
        """Nodes of its kind, up or not."""
        self.able: Mask
        """Of these, the ones that are up and large enough, and not those where it failed, while there are
        others."""
        self.nodes: Mask
        """Of these, the ones not kept for others by date."""
        self._table, self._claims, self._spread = table, claims, spread
        self._queue: list[tuple[int, int]] | None = None
        self._asked = False
        self._era = -1
        self._narrow(job)

    def _narrow(self, job: Job) -> None:
        spec, table, grant = job.spec, self._table, self.grant
        labels = tuple(sorted(spec.constraints.items()))
        self.suited = table.kind(job.launcher, spec.node, spec.os, labels)
        if grant.nodes is not None:
            self.suited = self.suited & grant.nodes
        self.able = self.suited & table.up & table.able(self.request)
        if job.failed_nodes:
            others = self.able & ~table.called(tuple(job.failed_nodes))
            if np.count_nonzero(others) >= spec.nodes:
                self.able = others
        self.nodes = self.able if grant.reserved is None else self.able & ~grant.reserved
        if grant.reason is not None:
            self.nodes = np.zeros_like(self.nodes)

    # ---- where some may go

    def some(self, count: int) -> list[tuple[int, int]]:
        """Up to `count` members: (row, how many there)."""
        share = level if self._spread else fill
        counts = share(self._score(), self._step(), self.rooms(), count)
        return [(row, int(counts[row])) for row in np.flatnonzero(counts).tolist()]

    def one(self) -> int | None:
        """The row for one member."""
        if not self.request.gpus.count and self._era != self._table.era:
            # Nodes that others took GPUs from are better than they were.
            self._queue, self._asked, self._era = None, False, self._table.era
        if self._queue is None:
            if not self._asked:
                self._asked = True
                return self._best()
            self._queue = self._line_up()
        queue, room = self._queue, self.room
        while queue:
            key, row = queue[0]
            if room(row) < 1:
                heappop(queue)
            elif self._spread and (fresh := self._key(row)) != key:
                heapreplace(queue, (fresh, row))
            else:
                return row
        return None

    def apart(self, count: int) -> list[int] | None:
        """That many different rows, for members that start together; None when there are not enough."""
        rooms = self.rooms()
        rows = np.flatnonzero(rooms)
        if len(rows) < count:
            return None
        score = self._score()[rows]
        order = np.argsort(-score if self._spread else score, kind="stable")
        return [int(row) for row in rows[order[:count]]]

    def room(self, row: int) -> int:
        """How many members may start on the node, for all that is claimed there."""
        return self._claims.room(row, self.request, self.end)

    def rooms(self) -> Counts:
        """Likewise, of all nodes."""
        rooms = self._table.rooms(self.request)
        rooms[~self.nodes] = 0
        for row in self._claims.rows():
            if rooms[row]:
                rooms[row] = self.room(row)
        return rooms

    # ---- inside

    def _fitting(self) -> Mask:
        fitting = self._table.fits(self.request) & self.nodes
        for row in self._claims.rows():
            if fitting[row] and self.room(row) < 1:
                fitting[row] = False
        return fitting

    def _best(self) -> int | None:
        fitting = self._fitting()
        score = self._score()
        if self._spread:
            row = int(np.argmax(np.where(fitting, score, -(1 << 62))))
        else:
            row = int(np.argmin(np.where(fitting, score, 1 << 62)))
        return row if fitting[row] else None

    def _line_up(self) -> list[tuple[int, int]]:
        rows = np.flatnonzero(self._fitting())
        score = self._score()[rows]
        queue = list(zip((-score if self._spread else score).tolist(), rows.tolist(), strict=True))
        heapify(queue)
        return queue

    def _score(self) -> Counts:
        """How empty each node is, as far as this shape is concerned.

        A job without GPUs prefers the nodes with the fewest free ones, whatever the policy.
        """
        table, need = self._table, self.request.gpus
        if need.count:
            return table.free_gpus(need) * GPU + table.cpu
        gpus = sum(table.gpus.values(), np.zeros_like(table.cpu)) * GPU
        return table.cpu - gpus if self._spread else table.cpu + gpus

    def _step(self) -> int:
        """By how much one member lowers the score."""
        return self.request.gpus.count * GPU + self.request.cpu

    def _key(self, row: int) -> int:
        table, need = self._table, self.request.gpus
        cpu = int(table.cpu[row])
        if need.count:
            return -(len(need.among(table.devices[row])) * GPU + cpu)
        return len(table.devices[row]) * GPU - cpu
