"""The nodes of a simulated site, and how they fail."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from perijove.model import Capabilities, Gpu, Node, NodeState, OperatorError, parse_size
from perijove_hub.simulation.trace import LAUNCHER

SIZE = re.compile(
    r"(?:(?P<name>[A-Za-z][\w.-]*)=)?(?P<count>\d{1,6})x(?P<cpus>\d{1,6})(?P<more>(?::[^:,\s]+)*)"
)
ACCEPTED = "NUMBERxCORES[:MEMORY][:NUMBERgpu[=MODEL]], several with commas between, such as 100x64:256G:4gpu"
GPU = re.compile(r"(?P<count>\d{1,4})gpus?(?:=(?P<model>\w[\w -]*))?")
PER_CORE = 4 << 30
"""Bytes of memory for each core of a node whose memory is not given."""
GPU_MEMORY = 80 << 30


def nodes_of(text: str) -> list[Node]:
    """Nodes of the sizes in `text`: ``100x64:256G:4gpu`` are 100 of 64 cores, 256 GiB and 4 GPUs each.

    Raises :class:`~perijove.model.OperatorError` that says what would be accepted.
    """
    found: list[Node] = []
    for i, part in enumerate(text.split(",")):
        match = SIZE.fullmatch(part.strip())
        if match is None:
            raise OperatorError(f"nodes: {part.strip()!r} is no such size; give {ACCEPTED}")
        memory, gpus, model = _rest(match)
        letters = match["name"] or ("n" if not i else f"n{i}-")
        numbers = range(1, int(match["count"]) + 1)
        found += [node(f"{letters}{number}", int(match["cpus"]), memory, gpus, model) for number in numbers]
    if not found or min(one.cpus for one in found) <= 0:
        raise OperatorError(f"nodes: {text!r} gives a site without cores; give {ACCEPTED}")
    return found


def nodes_for(text: str, launchers: Iterable[str]) -> list[Node]:
    """The same, where jobs of these launchers run."""
    known = [
        Capabilities(name=name, features=frozenset({"suspend", "devices"})) for name in sorted({*launchers})
    ]
    return [one.model_copy(update={"launchers": known}) for one in nodes_of(text)]


def _rest(match: re.Match[str]) -> tuple[int, int, str]:
    memory, gpus, model = int(match["cpus"]) * PER_CORE, 0, "GPU"
    for one in match["more"].split(":")[1:]:
        if (gpu := GPU.fullmatch(one)) is not None:
            gpus, model = int(gpu["count"]), gpu["model"] or model
            continue
        try:
            memory = parse_size(one)
        except ValueError as error:
            raise OperatorError(f"nodes: {one!r}: {error}; give {ACCEPTED}") from None
    return memory, gpus, model


def node(name: str, cpus: float, memory: int, gpus: int = 0, model: str = "GPU") -> Node:
    """One that runs whatever the simulation starts on it."""
    devices = [Gpu(index=i, uuid=f"{name}-gpu{i}", model=model, memory=GPU_MEMORY) for i in range(gpus)]
    launchers = [Capabilities(name=LAUNCHER, features=frozenset({"suspend"}))]
    return Node(name=name, cpus=cpus, memory=memory, gpus=devices, launchers=launchers, state=NodeState.UP)


@dataclass(frozen=True, slots=True)
class Failures:
    """Each node fails at random: exponential times between failures and for the repair, as is usual."""

    between: float
    """Mean seconds from a node's repair to its next failure."""
    repair: float = 3600.0
    """Mean seconds of a repair."""
    seed: int = 0

    def of(self, node: str) -> Iterator[tuple[float, float]]:
        """When `node` goes down and comes back, in seconds from the beginning; without end."""
        chance = random.Random(f"{self.seed}/{node}")  # noqa: S311 - a simulation, no secret
        at = 0.0
        while True:
            at += chance.expovariate(1 / self.between)
            back = at + chance.expovariate(1 / self.repair)
            yield at, back
            at = back


@dataclass(frozen=True, slots=True)
class NodeChange:
    """From that time on a node was like this."""

    at: float
    node: Node


def first_of(changes: Sequence[NodeChange], at: float) -> dict[str, Node]:
    """The nodes as they were at `at`, by name."""
    return {change.node.name: change.node for change in changes if change.at <= at}
