"""What the nodes have, in columns: a question about ten thousand of them is a few vector operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perijove.model import Capabilities, Gpu, GpuRequest, Node

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
KEPT = 512
"""Answers remembered at most, of each sort: patterns and GPU requests are few, but users write them."""


class Capacity:
    """The nodes that have announced themselves, whether they are up or not."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.names = [node.name for node in nodes]
        self.index = {name: i for i, name in enumerate(self.names)}
        self.cpus = np.array([node.cpus for node in nodes], dtype=np.float64)
        self.memory = np.array([node.memory for node in nodes], dtype=np.int64)
        self.launchers: dict[str, Capabilities] = {}
        self.models: dict[tuple[str, int], Counts] = {}
        """(model, bytes) -> how many such devices each node has."""
        self.resources: dict[str, Counts] = {}
        self.devices: dict[str, Mask] = {}
        """Resource -> the nodes where its units are devices."""
        self._offered: dict[str, Mask] = {}
        self._called: dict[tuple[str, ...], Mask] = {}
        self._gpus: dict[tuple[str | None, int], Counts] = {}
        self._label_at: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._values: dict[str, set[str]] = defaultdict(set)
        for i, node in enumerate(nodes):
            self._add(i, node)

    def __len__(self) -> int:
        return len(self.names)

    def _add(self, i: int, node: Node) -> None:
        size = len(self.names)
        for launcher in node.launchers:
            self.launchers.setdefault(launcher.name, launcher)
            self._offered.setdefault(launcher.name, np.zeros(size, np.bool_))[i] = True
        for key, value in node.labels.items():
            self._label_at[key, value].append(i)
            self._values[key].add(value)
        for gpu in node.gpus:
            kind = (plain(gpu), gpu.memory)
            self.models.setdefault(kind, np.zeros(size, np.int64))[i] += 1
        for key, count in node.resources.items():
            self.resources.setdefault(key, np.zeros(size, np.int64))[i] = count
        for key, slots in node.slots.items():
            self.resources.setdefault(key, np.zeros(size, np.int64))[i] = max(
                len(slots), node.resources.get(key, 0)
            )
            if any(slot.devices for slot in slots):
                self.devices.setdefault(key, np.zeros(size, np.bool_))[i] = True

    def all(self) -> Mask:
        """Every node."""
        return np.ones(len(self.names), np.bool_)

    def none(self) -> Mask:
        """No node."""
        return np.zeros(len(self.names), np.bool_)

    def offering(self, launcher: str) -> Mask:
        """Nodes that offer the launcher."""
        found = self._offered.get(launcher)
        return self.none() if found is None else found

    def labelled(self, key: str, value: str) -> Mask:
        """Nodes that bear the label."""
        found = self.none()
        found[self._label_at.get((key, value), [])] = True
        return found

    def keys(self) -> list[str]:
        """Names of the labels that any node bears."""
        return sorted(self._values)

    def values(self, key: str) -> list[str]:
        """Values of a label."""
        return sorted(self._values.get(key, ()))

    def called(self, patterns: Iterable[str]) -> Mask:
        """Nodes whose name fits one of `patterns`."""
        wanted = tuple(patterns)
        if "*" in wanted:
            return self.all()
        if (known := self._called.get(wanted)) is None:
            found = self.none()
            for pattern in wanted:
                if (i := self.index.get(pattern)) is not None:
                    found[i] = True
                elif any(sign in pattern for sign in "*?["):
                    found[[i for i, name in enumerate(self.names) if fnmatchcase(name, pattern)]] = True
            known = _keep(self._called, wanted, found)
        return known

    def gpus(self, request: GpuRequest) -> Counts:
        """How many devices of the model and size asked for each node has."""
        wanted = (request.model.casefold() if request.model else None, request.memory or 0)
        if (known := self._gpus.get(wanted)) is None:
            model, memory = wanted
            found = np.zeros(len(self.names), np.int64)
            for (kind, size), counts in self.models.items():
                if (model is None or model in kind) and size >= memory:
                    found = found + counts
            known = _keep(self._gpus, wanted, found)
        return known

    def resource(self, name: str) -> Counts:
        """How many units of a countable resource each node has."""
        found = self.resources.get(name)
        return np.zeros(len(self.names), np.int64) if found is None else found

    def some(self, mask: Mask, most: int = 20) -> list[str]:
        """Names of the first nodes of `mask`."""
        return [self.names[i] for i in np.flatnonzero(mask)[:most]]


def plain(gpu: Gpu) -> str:
    """A device's model as requests name it."""
    return gpu.model.casefold().replace(" ", "-")


def _keep(answers: dict[Any, Any], question: Any, answer: Any) -> Any:
    if len(answers) >= KEPT:
        answers.clear()
    answers[question] = answer
    return answer
