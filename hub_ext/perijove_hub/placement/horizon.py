"""When what runs will have given back enough: the nodes' near future in columns.

Each node has a timeline: the ends of what it runs, in order, and what will have been given back by then. The
timelines of all nodes lie one after the other in one column, made to rise throughout, so that "when does each
node have so much?" is one binary search for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perijove.model import Gpu
from perijove_hub.placement.claims import Claims, Freed
from perijove_hub.placement.request import GpuNeed, Request, microcores, model_of
from perijove_hub.placement.table import Counts, NodeTable

if TYPE_CHECKING:
    from perijove_hub.ledger import Holding

Times = NDArray[np.float64]
KIB = 1024
"""Memory is counted in KiB here, so that the columns of many nodes fit into 64 bits one after the other."""


@dataclass(frozen=True, slots=True)
class End:
    """What one job gives back when it ends."""

    at: float
    """``inf``: nobody knows. ``-inf``: at any moment, as it has been asked to."""
    cpu: int
    memory: int
    gpus: tuple[str, ...] = ()
    resources: dict[str, int] = field(default_factory=dict)
    count: int = 1


class Timeline:
    """One node's ends, in order; each column begins with nothing at ``-inf``."""

    __slots__ = ("_columns", "at", "cpu", "ends", "memory")

    def __init__(self, ends: Sequence[End]) -> None:
        self.ends = sorted(ends, key=lambda end: end.at)
        self.at = np.array([-inf, *(end.at for end in self.ends)])
        self.cpu = _rising([end.cpu for end in self.ends])
        self.memory = _rising([end.memory for end in self.ends]) // KIB
        self._columns: dict[object, Counts] = {}

    def __len__(self) -> int:
        return len(self.at)

    def gpus(self, need: GpuNeed, models: dict[str, Gpu]) -> Counts:
        """How many devices of the sort will have been given back."""
        if (known := self._columns.get(need)) is None:
            counts = [
                sum(uuid in models and need.accepts(model_of(models[uuid])) for uuid in end.gpus)
                for end in self.ends
            ]
            known = self._columns[need] = _rising(counts)
        return known

    def units(self, name: str) -> Counts:
        """How many units of a resource will have been given back."""
        if (known := self._columns.get(name)) is None:
            known = self._columns[name] = _rising([end.resources.get(name, 0) for end in self.ends])
        return known


def _rising(amounts: list[int]) -> Counts:
    return np.cumsum(np.array([0, *amounts], np.int64))


Lookup = Callable[[str], Sequence["Holding"]]


class Horizon:
    """The timelines of all nodes, as they are when it is made."""

    def __init__(self, table: NodeTable, holdings: Lookup, started: dict[int, list[End]]) -> None:
        self._table = table
        self._lines = [
            _timeline(table, row, holdings(name), started.get(row)) for row, name in enumerate(table.names)
        ]
        lengths = np.array([len(line) for line in self._lines], np.int64)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._at = np.concatenate([line.at for line in self._lines]) if self._lines else np.zeros(0)
        self._columns: dict[object, tuple[Counts, int]] = {}

    def times(self, request: Request, claims: Claims) -> Times:
        """When each node will have what one member needs beside all that is claimed.

        ``inf``: unknown, or never; ``-inf``: now, or at any moment.
        """
        table, count = self._table, len(self._table)
        claimed = claims.rows()
        cpu, memory = request.cpu - table.cpu[:count], request.memory - table.memory[:count]
        if claims.cpu is not None and claims.memory is not None:
            cpu, memory = cpu + claims.cpu[:count], memory + claims.memory[:count]
        found = self._search("cpu", lambda line: line.cpu, cpu)
        np.maximum(found, self._search("memory", lambda line: line.memory, -(-memory // KIB)), out=found)
        if (need := request.gpus).count:
            lack = need.count - table.free_gpus(need)[:count]
            for row in claimed:
                devices = [gpu for gpu in table.nodes[row].gpus if gpu.uuid in claims.wanted(row).gpus]
                lack[row] += len(need.among(devices))
            np.maximum(found, self._search_gpus(need, lack), out=found)
        for name, units in request.resources:
            lack = units - table.free_units(name)[:count]
            for row in claimed:
                lack[row] += claims.wanted(row).resources.get(name, 0)
            column = self._search(name, partial(Timeline.units, name=name), lack)
            np.maximum(found, column, out=found)
        never = found >= self._ends
        if request.exclusive:
            found = self._ends - 1
            never[claimed] = True
        else:
            # Where a job has a node for itself, nothing fits before its end.
            found = np.where(table.closed[:count], self._ends - 1, found)
        times: Times = np.where(never, inf, self._at[np.minimum(found, self._ends - 1)])
        return times

    def freed(self, row: int, at: float) -> Freed:
        """What the node will have been given back by then."""
        line = self._lines[row]
        last = int(np.searchsorted(line.at, at, side="right")) - 1
        known = {gpu.uuid: gpu for gpu in self._table.nodes[row].gpus}
        resources: dict[str, int] = {}
        gpus = []
        for end in line.ends[:last] if known or self._table.resources else ():
            gpus += [known[uuid] for uuid in end.gpus if uuid in known]
            for name, units in end.resources.items():
                resources[name] = resources.get(name, 0) + units
        return Freed(int(line.cpu[last]), int(line.memory[last]) * KIB, resources, gpus)

    # ---- inside

    def _search(self, key: object, of: Callable[[Timeline], Counts], lack: Counts) -> Counts:
        """For each node the first place in the column where `lack` has been given back; its end: none."""
        if (known := self._columns.get(key)) is None:
            column = np.concatenate([of(line) for line in self._lines])
            step = int(column.max(initial=0)) + 2
            rows = np.repeat(np.arange(len(self._lines)), self._ends - self._starts)
            known = self._columns[key] = (column + rows * step, step)
        column, step = known
        wanted = np.clip(lack, 0, step - 1) + np.arange(len(lack)) * step
        return np.minimum(np.searchsorted(column, wanted), self._ends)

    def _search_gpus(self, need: GpuNeed, lack: Counts) -> Counts:
        nodes = iter(self._table.nodes)

        def of(line: Timeline) -> Counts:
            node = next(nodes)
            return line.gpus(need, {gpu.uuid: gpu for gpu in node.gpus} if node.gpus else {})

        return self._search(need, of, lack)


def _timeline(table: NodeTable, row: int, holdings: Sequence[Holding], started: list[End] | None) -> Timeline:
    """From what is held there and what this pass starts; remembered while only the former counts."""
    kept: dict[int, tuple[Sequence[Holding], Timeline]] = table.timelines
    if started is None and (known := kept.get(row)) is not None and known[0] is holdings:
        return known[1]
    ends = [
        End(
            at=-inf if one.leaving else inf if one.until is None else one.until,
            cpu=microcores(one.cpu),
            memory=one.memory,
            gpus=one.gpus,
            resources=one.resources,
        )
        for one in holdings
    ]
    line = Timeline([*ends, *(started or ())])
    if started is None:
        kept[row] = (holdings, line)
    return line
