"""Nodes from the emptiest to the fullest, as jobs with and without GPUs see it.

All shapes that ask for the same GPUs share one ranking, so that it follows what is placed whoever placed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from sortedcontainers import SortedList

from perijove_hub.placement.request import GpuNeed, Request
from perijove_hub.placement.table import Counts, NodeTable

GPU = 1 << 41
"""One GPU outweighs all cores of a node."""


class Ranking:
    """For one sort of GPUs, or for none."""

    def __init__(self, table: NodeTable, need: GpuNeed, spread: bool) -> None:
        self._table, self._need, self._spread = table, need, spread
        self._order: SortedList[tuple[int, int]] = SortedList()
        self._keys: list[int] = []
        self._stale: set[int] = set()
        self._drawn = False

    def score(self) -> Counts:
        """How empty each node is. To jobs without GPUs, nodes that have any free come last."""
        table = self._table
        if self._need.count:
            return table.free_gpus(self._need) * GPU + table.cpu
        gpus = sum(table.gpus.values(), np.zeros_like(table.cpu)) * GPU
        return table.cpu - gpus if self._spread else table.cpu + gpus

    def step(self, request: Request) -> int:
        """By how much one member lowers the score."""
        return request.gpus.count * GPU + request.cpu

    def touch(self, row: int) -> None:
        """Something was taken from the node."""
        if self._drawn:
            self._stale.add(row)

    def redraw(self) -> None:
        """Something was taken from many nodes."""
        self._drawn = False

    def first(self, count: int) -> Iterator[int]:
        """The emptiest nodes; of equals the first."""
        if not self._drawn or len(self._stale) * 8 > len(self._keys):
            self._keys = (-self.score()).tolist()
            self._order = SortedList(zip(self._keys, range(len(self._keys)), strict=True))
            self._drawn = True
        else:
            for row in self._stale:
                self._order.remove((self._keys[row], row))
                self._keys[row] = key = self._key(row)
                self._order.add((key, row))
        self._stale.clear()
        return (row for _, row in islice(self._order, count))

    def _key(self, row: int) -> int:
        table, need = self._table, self._need
        cpu = int(table.cpu[row])
        if need.count:
            return -(len(need.among(table.devices[row])) * GPU + cpu)
        return len(table.devices[row]) * GPU - cpu


class Rankings:
    """All that a pass needs."""

    def __init__(self, table: NodeTable, spread: bool) -> None:
        self._table, self._spread = table, spread
        self._known: dict[tuple[str | None, int, bool], Ranking] = {}

    def of(self, need: GpuNeed) -> Ranking:
        """The one for jobs that ask for such GPUs."""
        key = (need.model, need.memory, need.count > 0)
        if (known := self._known.get(key)) is None:
            known = self._known[key] = Ranking(self._table, need, self._spread)
        return known

    def touch(self, row: int) -> None:
        """Something was taken from the node."""
        for ranking in self._known.values():
            ranking.touch(row)

    def redraw(self) -> None:
        """Something was taken from many nodes."""
        for ranking in self._known.values():
            ranking.redraw()
