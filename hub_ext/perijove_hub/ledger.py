"""Who holds what of which node: the one table from which notebooks, jobs and steps all draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from perijove.model import Gpu, Job, Node, NodeState

EPSILON = 1e-6
"""Cores are fractions; what rounding leaves over is not a core."""


@dataclass(slots=True)
class Free:
    """What is left of a node. `gpus` in the node's order."""

    node: str
    up: bool
    launchers: frozenset[str]
    labels: dict[str, str]
    cpu: float
    memory: int
    gpus: list[Gpu]
    resources: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Free:
        """A copy that placement may use up."""
        return Free(
            self.node,
            self.up,
            self.launchers,
            self.labels,
            self.cpu,
            self.memory,
            list(self.gpus),
            dict(self.resources),
        )


@dataclass(slots=True)
class _Account:
    node: Node
    jobs: dict[int, Job] = field(default_factory=dict)
    cpu: float = 0.0
    memory: int = 0
    gpus: set[str] = field(default_factory=set)
    resources: Counter[str] = field(default_factory=Counter)


class Ledger:
    """What each node has and which jobs hold it; changes in constant time per job."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._homeless: dict[str, dict[int, Job]] = {}

    @property
    def nodes(self) -> list[Node]:
        """All nodes that have announced themselves, by name."""
        return [self._accounts[name].node for name in sorted(self._accounts)]

    def node(self, name: str) -> Node | None:
        """The node of that name, if it ever announced itself."""
        account = self._accounts.get(name)
        return account.node if account else None

    def announce(self, node: Node) -> None:
        """A node said what it has, for the first time or anew; what is held of it stays held."""
        if account := self._accounts.get(node.name):
            account.node = node
            return
        self._accounts[node.name] = _Account(node)
        for job in self._homeless.pop(node.name, {}).values():
            self.hold(job)

    def mark(self, name: str, state: NodeState, reason: str = "") -> None:
        """Record that a node is up, down or draining."""
        account = self._accounts[name]
        account.node = account.node.model_copy(update={"state": state, "reason": reason})

    def hold(self, job: Job) -> None:
        """`job` holds its resources of its node from now on. Holding twice is holding once."""
        assert job.node is not None
        account = self._accounts.get(job.node)
        if account is None:
            # Found in the database before its node has announced itself again.
            self._homeless.setdefault(job.node, {})[job.id] = job
            return
        if job.id in account.jobs:
            return
        account.jobs[job.id] = job
        account.cpu += job.spec.cpu
        account.memory += job.spec.memory
        account.gpus.update(gpu.uuid for gpu in job.gpus)
        account.resources.update(job.spec.resources)

    def release(self, node: str, job: int) -> None:
        """`job` holds nothing of `node` any more; it may never have."""
        self._homeless.get(node, {}).pop(job, None)
        account = self._accounts.get(node)
        held = account.jobs.pop(job, None) if account else None
        if account is None or held is None:
            return
        account.cpu = account.cpu - held.spec.cpu if account.jobs else 0.0
        account.memory -= held.spec.memory
        account.gpus.difference_update(gpu.uuid for gpu in held.gpus)
        account.resources.subtract(held.spec.resources)

    def jobs_on(self, node: str) -> list[Job]:
        """The jobs that hold something of it, as they were when they took hold."""
        account = self._accounts.get(node)
        return list(account.jobs.values()) if account else []

    def free(self, name: str) -> Free:
        """What is left of one node."""
        account = self._accounts[name]
        node = account.node
        return Free(
            node=name,
            up=node.state is NodeState.UP,
            launchers=frozenset(launcher.name for launcher in node.launchers),
            labels=node.labels,
            cpu=node.cpus - account.cpu,
            memory=node.memory - account.memory,
            gpus=[gpu for gpu in node.gpus if gpu.uuid not in account.gpus],
            resources={key: total - account.resources[key] for key, total in node.resources.items()},
        )

    def all_free(self) -> list[Free]:
        """What is left of every node."""
        return [self.free(name) for name in sorted(self._accounts)]

    def check(self) -> None:
        """Raise ``AssertionError`` unless no device is held twice and no node is over its capacity."""
        for name, account in self._accounts.items():
            devices = Counter(gpu.uuid for job in account.jobs.values() for gpu in job.gpus)
            assert not devices or max(devices.values()) == 1, f"{name}: a GPU is held twice: {devices}"
            assert set(devices) == account.gpus, name
            assert _sum(job.spec.cpu for job in account.jobs.values()) <= account.node.cpus + EPSILON, name
            assert sum(job.spec.memory for job in account.jobs.values()) == account.memory, name
            assert account.memory <= account.node.memory, name


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))
