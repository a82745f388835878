"""Which node is claimed for a job that cannot start: where it could start first."""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from perijove.model import Gpu, Job
from perijove_hub.placement.choice import Choice
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.horizon import End, Horizon, Times
from perijove_hub.placement.request import Request
from perijove_hub.placement.shortage import shortage
from perijove_hub.placement.table import Counts, Mask, NodeTable

if TYPE_CHECKING:
    from perijove_hub.placement.plan import Rules

SMALL = 256
"""Sites with fewer nodes have their future drawn anew whenever something was started in between."""
REDRAWN = 3
"""So often at most it is on larger ones; then what this pass starts is taken to run on and on."""


class Claiming:
    """The claims that one pass makes, as many as the policy says."""

    def __init__(self, table: NodeTable, claims: Claims, rules: Rules, now: float) -> None:
        self._table, self._claims, self._rules, self._now = table, claims, rules, now
        self.left = rules.policy.backfill.reservations
        self.needless = False
        """Nothing is free that could be kept: claims are counted and not made."""
        self._horizon: Horizon | None = None
        self._drawn = 0
        self._stale = False
        self._started: dict[int, list[End]] = {}
        self._batches: list[tuple[Counts, Request, float]] = []

    def started(self, row: int, request: Request, end: float, count: int, gpus: tuple[Gpu, ...]) -> None:
        """This pass starts members on a node."""
        self._stale = True
        resources = {name: units * count for name, units in request.resources}
        uuids = tuple(gpu.uuid for gpu in gpus)
        ended = End(end, request.cpu * count, request.memory * count, uuids, resources)
        self._started.setdefault(row, []).append(ended)

    def started_many(self, counts: Counts, request: Request, end: float) -> None:
        """This pass starts so many members on each node, of a request without devices."""
        self._stale = True
        self._batches.append((counts, request, end))

    def one(self, job: Job, choice: Choice) -> bool:
        """Claim a node for one member; whether that was done."""
        if not self.left or not choice.nodes.any():
            return False
        if self.needless:
            self.left -= 1
            return True
        times = self._times(choice)
        row = int(np.argmin(times))
        if times[row] == inf:
            row = self._nearest(choice)
            if row < 0:
                return False
            self._add(job, choice, row, self._now)
        else:
            self._add(job, choice, row, max(self._now, float(times[row])))
        self.left -= 1
        return True

    def together(self, job: Job, choice: Choice, members: int) -> bool:
        """Claim as many nodes as start together, for the time when the last of them is free."""
        if not self.left or np.count_nonzero(choice.nodes) < members:
            return False
        if self.needless:
            self.left -= 1
            return True
        times = self._times(choice)
        short = shortage(self._table, choice.request, self._claims)[: len(times)]
        usable = np.flatnonzero(self._open(choice)[: len(times)])
        if len(usable) < members:
            return False
        order = usable[np.lexsort((short[usable], times[usable]))][:members]
        last = float(times[order[-1]])
        at = max(self._now, last) if isfinite(last) else self._now
        for row in order.tolist():
            self._add(job, choice, row, at)
        self.left -= 1
        return True

    def soon(self, job: Job, choice: Choice, row: int) -> None:
        """Claim a node that others are about to leave for it."""
        self._add(job, choice, row, self._now)
        self.left = max(0, self.left - 1)

    # ---- inside

    def _times(self, choice: Choice) -> Times:
        """When a member could start on each node; ``inf`` where it may not be, or nobody knows."""
        times = self._draw().times(choice.request, self._claims)
        count = len(times)
        times = np.where(choice.nodes[:count], times, inf)
        if (curfew := choice.grant.curfew) is not None:
            late = np.maximum(times, self._now) + choice.grant.length > curfew[:count]
            times = np.where(late, inf, times)
        return times

    def _draw(self) -> Horizon:
        redraw = self._stale and (len(self._table) <= SMALL or self._drawn < REDRAWN)
        if self._horizon is None or redraw:
            for counts, request, end in self._batches:
                for row in np.flatnonzero(counts).tolist():
                    self.started(row, request, end, int(counts[row]), ())
            self._batches.clear()
            self._horizon = Horizon(self._table, self._rules.holdings, self._started)
            self._drawn += 1
            self._stale = False
        return self._horizon

    def _open(self, choice: Choice) -> Mask:
        """Where one more claim makes sense: a node that one job will have for itself cannot be shared."""
        nodes = choice.nodes.copy()
        for row in self._claims.rows():
            if choice.request.exclusive or self._claims.wanted(row).exclusive:
                nodes[row] = False
        return nodes

    def _nearest(self, choice: Choice) -> int:
        """The node that lacks the least; -1 when there is none left."""
        short = np.where(self._open(choice), shortage(self._table, choice.request, self._claims), inf)
        row = int(np.argmin(short))
        return row if short[row] < inf else -1

    def _add(self, job: Job, choice: Choice, row: int, at: float) -> None:
        freed = self._draw().freed(row, at)
        self._claims.add(row, job.id, job.label, choice.request, at, freed)
