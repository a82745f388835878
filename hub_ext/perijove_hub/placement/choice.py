"""One decision per shape: jobs that ask for the same in the same circumstances share a :class:`Choice`.

Within a pass what is free only shrinks, so a shape that fits nowhere once fits nowhere for the rest of it.
"""

from __future__ import annotations

from math import inf

import numpy as np

from perijove.model import Job, Reason
from perijove_hub.placement.access import Access, Grant
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.ranking import Rankings
from perijove_hub.placement.request import Request
from perijove_hub.placement.spreading import fill, level
from perijove_hub.placement.table import Counts, Mask, NodeTable

FEW = 32
"""So many members are placed one after the other; more of them in vectors."""
TRIED = 16
"""So many of the emptiest nodes are tried one after the other; then all at once."""


class Choice:
    """Where members of one shape may go, and what became of it in this pass."""

    def __init__(
        self,
        job: Job,
        table: NodeTable,
        claims: Claims,
        access: Access,
        now: float,
        spread: bool,
        rankings: Rankings | None = None,
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
        self._ranking = (rankings or Rankings(table, spread)).of(self.request.gpus)
        self._current = -1
        """The node being filled up."""
        self._narrow(job)
        self._possible = self.nodes.copy()

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

    def some(self, count: int) -> Counts:
        """Up to `count` members: how many on each node."""
        share = level if self._spread else fill
        ranking = self._ranking
        return share(ranking.score(), ranking.step(self.request), self.rooms(), count)

    def one(self) -> int | None:
        """The row for one member."""
        if self._spread:
            for row in self._ranking.first(TRIED):
                if self.nodes[row] and self.room(row):
                    return row
            return self._best()
        if self._current < 0 or not self.room(self._current):
            best = self._best()
            self._current = -1 if best is None else best
        return self._current if self._current >= 0 else None

    def apart(self, count: int) -> list[int] | None:
        """That many different rows, for members that start together; None when there are not enough."""
        rooms = self.rooms()
        rows = np.flatnonzero(rooms)
        if len(rows) < count:
            return None
        score = self._ranking.score()[rows]
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
        """Where one member fits. A node that is out is out for the rest of the pass."""
        possible: Mask = self._possible
        np.logical_and(possible, self._table.fits(self.request), out=possible)
        for row in self._claims.rows():
            if possible[row] and not self.room(row):
                possible[row] = False
        return possible

    def _best(self) -> int | None:
        fitting = self._fitting()
        score = self._ranking.score()
        if self._spread:
            row = int(np.argmax(np.where(fitting, score, -(1 << 62))))
        else:
            row = int(np.argmin(np.where(fitting, score, 1 << 62)))
        return row if fitting[row] else None
