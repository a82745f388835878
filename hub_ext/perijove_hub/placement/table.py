"""All nodes in columns: a question about ten thousand of them is a few vector operations.

Rows are numbered in the order in which nodes announced themselves and are never taken away. Columns may be
longer than there are nodes; the rows beyond are empty and down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perijove.model import Gpu, Node, NodeState
from perijove_hub.placement.request import GpuNeed, Model, Request, microcores, model_of

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
KEPT = 4096
"""So many masks are remembered; users write labels."""


class NodeTable:
    """What is free, and what there is. The ledger keeps one; a pass uses up a copy."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.names: list[str] = []
        self.index: dict[str, int] = {}
        self.nodes: list[Node] = []
        self.up: Mask = np.zeros(0, np.bool_)
        self.closed: Mask = np.zeros(0, np.bool_)
        """Held by a job that shares with none."""
        self.jobs: Counts = np.zeros(0, np.int64)
        """How many hold something of it."""
        self.cpu: Counts = np.zeros(0, np.int64)
        """Free millionths of cores; less than nothing on a node that has shrunk."""
        self.memory: Counts = np.zeros(0, np.int64)
        self.cpu_all: Counts = np.zeros(0, np.int64)
        self.memory_all: Counts = np.zeros(0, np.int64)
        self.gpus: dict[Model, Counts] = {}
        self.gpus_all: dict[Model, Counts] = {}
        self.resources: dict[str, Counts] = {}
        self.resources_all: dict[str, Counts] = {}
        self.devices: list[tuple[Gpu, ...]] = []
        """Free, in the node's order."""
        self.slots: dict[str, dict[int, tuple[int, ...]]] = {}
        """Resource -> row -> numbers of its free units, where they are numbered."""
        self.lent: dict[str | None, Counts] = {}
        """How many preemptible jobs (None), and how many others of each partition, hold something."""
        self.timelines: dict[int, Any] = {}
        """When each node gets back what, as :mod:`~perijove_hub.placement.horizon` remembers it; shared."""
        self.masks: dict[Any, Any] = {}
        """What was asked about kinds of nodes; shared with copies, made anew when the kinds change."""
        self._grow(1)
        for node in nodes:
            self.put(node)

    def __len__(self) -> int:
        return len(self.names)

    def copy(self) -> NodeTable:
        """One that a pass may use up."""
        other = NodeTable.__new__(NodeTable)
        other.names, other.index, other.nodes = self.names, self.index, self.nodes
        other.masks, other.cpu_all, other.memory_all = self.masks, self.cpu_all, self.memory_all
        other.gpus_all, other.resources_all = self.gpus_all, self.resources_all
        other.timelines = self.timelines
        other.up, other.closed, other.jobs = self.up.copy(), self.closed.copy(), self.jobs.copy()
        other.cpu, other.memory = self.cpu.copy(), self.memory.copy()
        other.gpus = {key: column.copy() for key, column in self.gpus.items()}
        other.resources = {key: column.copy() for key, column in self.resources.items()}
        other.lent = {key: column.copy() for key, column in self.lent.items()}
        other.devices = self.devices.copy()
        other.slots = {key: rows.copy() for key, rows in self.slots.items()}
        return other

    # ---- kept by the ledger

    def put(self, node: Node) -> int:
        """A node with all that it has, nothing of it held; its row."""
        row = self.index.get(node.name)
        if row is None:
            row = len(self.names)
            self._grow(row + 1)
            self.index[node.name] = row
            self.names.append(node.name)
            self.nodes.append(node)
            self.devices.append(())
            self.masks = {}
        elif not _same_kind(self.nodes[row], node):
            self.masks = {}
        for columns in (self.gpus, self.gpus_all, self.resources, self.resources_all):
            for column in columns.values():
                column[row] = 0
        self.nodes[row] = node
        self.up[row] = node.state is NodeState.UP
        self.jobs[row], self.closed[row] = 0, False
        self.cpu[row] = self.cpu_all[row] = microcores(node.cpus)
        self.memory[row] = self.memory_all[row] = node.memory
        self.devices[row] = tuple(node.gpus)
        for gpu in node.gpus:
            for columns in (self.gpus, self.gpus_all):
                self._column(columns, model_of(gpu))[row] += 1
        for numbers in self.slots.values():
            numbers.pop(row, None)
        for name, count in units_of(node).items():
            for columns in (self.resources, self.resources_all):
                self._column(columns, name)[row] = count
            if name in node.slots:
                self.slots.setdefault(name, {})[row] = tuple(range(count))
        return row

    def mark(self, node: Node) -> None:
        """The node is up or not, and nothing else about it changed."""
        row = self.index[node.name]
        self.nodes[row] = node
        self.up[row] = node.state is NodeState.UP

    def lend(self, key: str | None, row: int, count: int) -> None:
        """So many more jobs hold something of the node that may have to leave it."""
        self._column(self.lent, key)[row] += count

    # ---- what there is

    def kind(
        self, launcher: str | None, node: str | None, os: str | None, labels: tuple[tuple[str, str], ...]
    ) -> Mask:
        """Nodes of the kind asked for, however full and whether up or not. Not to be changed."""
        key = (launcher, node, os, labels)
        known: Mask | None = self.masks.get(key)
        if known is None:
            known = self._blank(np.bool_)
            rows = (
                range(len(self.names)) if node is None else [self.index[node]] if node in self.index else []
            )
            wanted = (*labels, ("os", os)) if os is not None else labels
            for row in rows:
                has = self.nodes[row]
                known[row] = (launcher is None or any(one.name == launcher for one in has.launchers)) and all(
                    has.labels.get(name) == value for name, value in wanted
                )
            self._keep(key, known)
        return known

    def called(self, patterns: tuple[str, ...]) -> Mask:
        """Nodes whose name fits one of the patterns. Not to be changed."""
        key = ("called", patterns)
        known: Mask | None = self.masks.get(key)
        if known is None:
            known = self._blank(np.bool_)
            for pattern in patterns:
                if (row := self.index.get(pattern)) is not None:
                    known[row] = True
                elif any(sign in pattern for sign in "*?["):
                    known[[i for i, name in enumerate(self.names) if fnmatchcase(name, pattern)]] = True
            self._keep(key, known)
        return known

    def fits(self, request: Request) -> Mask:
        """Where what is free is enough for one member."""
        fitting = (self.cpu >= request.cpu) & (self.memory >= request.memory) & ~self.closed
        if request.gpus.count:
            fitting &= self.free_gpus(request.gpus) >= request.gpus.count
        for name, count in request.resources:
            fitting &= self.free_units(name) >= count
        if request.exclusive:
            fitting &= self.jobs == 0
        return fitting

    def able(self, request: Request) -> Mask:
        """Where one member fits when nothing else is there."""
        able = (self.cpu_all >= request.cpu) & (self.memory_all >= request.memory)
        if request.gpus.count:
            able &= self._matching(self.gpus_all, request.gpus) >= request.gpus.count
        for name, count in request.resources:
            able &= self._units(self.resources_all, name) >= count
        return able

    def rooms(self, request: Request) -> Counts:
        """How many members each node has room for, up or not."""
        rooms: Counts = np.minimum(self.cpu // request.cpu, self.memory // request.memory)
        if request.gpus.count:
            np.minimum(rooms, self.free_gpus(request.gpus) // request.gpus.count, out=rooms)
        for name, count in request.resources:
            np.minimum(rooms, self.free_units(name) // count, out=rooms)
        if request.exclusive:
            np.minimum(rooms, self.jobs == 0, out=rooms)
        rooms[self.closed] = 0
        return np.maximum(rooms, 0, out=rooms)

    def room(self, row: int, request: Request) -> int:
        """How many members one node has room for."""
        if self.closed[row]:
            return 0
        if request.exclusive and self.jobs[row]:
            return 0
        room = min(int(self.cpu[row]) // request.cpu, int(self.memory[row]) // request.memory)
        if request.gpus.count:
            room = min(room, len(request.gpus.among(self.devices[row])) // request.gpus.count)
        for name, count in request.resources:
            room = min(room, int(self.free_units(name)[row]) // count)
        if request.exclusive:
            room = min(room, 1)
        return max(0, room)

    def free_gpus(self, need: GpuNeed) -> Counts:
        """How many free devices of the sort each node has."""
        return self._matching(self.gpus, need)

    def free_units(self, name: str) -> Counts:
        """How many free units of a resource each node has."""
        return self._units(self.resources, name)

    # ---- used up by a pass

    def take(
        self, row: int, request: Request, count: int = 1, spared: frozenset[str] = frozenset()
    ) -> tuple[tuple[Gpu, ...], dict[str, tuple[int, ...]]]:
        """`count` members start on the node; their devices, none of those in `spared`, and units."""
        self.cpu[row] -= request.cpu * count
        self.memory[row] -= request.memory * count
        self.jobs[row] += count
        if request.exclusive:
            self.closed[row] = True
        gpus: tuple[Gpu, ...] = ()
        if request.gpus.count:
            fitting = [gpu for gpu in request.gpus.among(self.devices[row]) if gpu.uuid not in spared]
            gpus = tuple(fitting[: request.gpus.count * count])
            taken = {gpu.uuid for gpu in gpus}
            self.devices[row] = tuple(gpu for gpu in self.devices[row] if gpu.uuid not in taken)
            for gpu in gpus:
                self.gpus[model_of(gpu)][row] -= 1
        slots = {}
        for name, units in request.resources:
            self.resources[name][row] -= units * count
            if (free := self.slots.get(name, {}).get(row)) is not None:
                slots[name] = free[: units * count]
                self.slots[name][row] = free[units * count :]
        return gpus, slots

    def take_from_many(self, request: Request, counts: Counts) -> None:
        """So many members start on each node, of a request without devices and numbered units."""
        self.cpu -= request.cpu * counts
        self.memory -= request.memory * counts
        self.jobs += counts
        for name, units in request.resources:
            self.resources[name] -= units * counts
        if request.exclusive:
            self.closed |= counts > 0

    # ---- inside

    def _grow(self, rows: int) -> None:
        if rows <= len(self.up):
            return
        more = max(16, 2 * len(self.up)) - len(self.up)
        for name in ("up", "closed", "jobs", "cpu", "memory", "cpu_all", "memory_all"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))
        several: list[dict[Any, Counts]] = [
            self.gpus,
            self.gpus_all,
            self.resources,
            self.resources_all,
            self.lent,
        ]
        for columns in several:
            for key, column in columns.items():
                columns[key] = np.concatenate([column, np.zeros(more, column.dtype)])

    def _blank(self, kind: Any) -> NDArray[Any]:
        return np.zeros(len(self.up), kind)

    def _column(self, columns: dict[Any, Counts], key: Any) -> Counts:
        if (column := columns.get(key)) is None:
            column = columns[key] = self._blank(np.int64)
        return column

    def _matching(self, columns: Mapping[Model, Counts], need: GpuNeed) -> Counts:
        wanted = ("models", need.model, need.memory)
        if (models := self.masks.get(wanted)) is None:
            models = [model for model in self.gpus_all if need.accepts(model)]
            self._keep(wanted, models)
        if len(models) == 1:
            return columns[models[0]]
        return sum((columns[model] for model in models), self._blank(np.int64))

    def _units(self, columns: Mapping[str, Counts], name: str) -> Counts:
        column = columns.get(name)
        return self._blank(np.int64) if column is None else column

    def _keep(self, key: Any, answer: Any) -> None:
        if len(self.masks) >= KEPT:
            self.masks.clear()
        self.masks[key] = answer


def units_of(node: Node) -> dict[str, int]:
    """Resource -> how many units the node has; a list of slots says it more exactly than a count."""
    return {**node.resources, **{name: len(slots) for name, slots in node.slots.items()}}


def _same_kind(old: Node, new: Node) -> bool:
    return (
        old.labels == new.labels
        and [one.name for one in old.launchers] == [one.name for one in new.launchers]
        and {model_of(gpu) for gpu in old.gpus} == {model_of(gpu) for gpu in new.gpus}
    )


def some_names(names: Sequence[str], most: int = 5) -> str:
    """A list for people that does not grow with the site."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
