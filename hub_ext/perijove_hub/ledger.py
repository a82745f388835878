"""Who holds what of which node: the one table from which notebooks, jobs and steps all draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from perijove.model import Gpu, Job, Node, NodeState
from perijove_hub.placement.request import CORE, microcores, model_of
from perijove_hub.placement.table import NodeTable, units_of

EPSILON = 1e-6
"""Cores are fractions; what rounding leaves over is not a core."""

Keep = Literal["all", "memory", "nothing"]
"""What a suspended job goes on holding; ``memory``: all but its cores."""


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
    exclusive: bool = False
    """Held by a job that shares with none, whatever else is left."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one job holds of one node."""

    job: int
    attempt: int
    owner: str
    project: str | None
    cpu: float
    memory: int
    gpus: tuple[str, ...]
    """Their uuids."""
    slots: dict[str, tuple[int, ...]]
    exclusive: bool
    since: float
    until: float | None
    """When its time limit ends it at the latest; None: unknown, as for a suspended one."""
    preemptible: bool
    """By its own word; its partition may say so too."""
    resources: dict[str, int] = field(default_factory=dict)
    """Units of each countable resource, those in `slots` among them."""
    partition: str | None = None
    priority: int = 50
    leaving: bool = False
    """It has been asked to end, and will."""
    label: str = ""


@dataclass(slots=True)
class _Account:
    node: Node
    jobs: dict[int, Job] = field(default_factory=dict)
    holdings: dict[int, Holding] = field(default_factory=dict)
    listed: tuple[Holding, ...] | None = ()
    cpu: int = 0
    memory: int = 0
    gpus: set[str] = field(default_factory=set)
    resources: Counter[str] = field(default_factory=Counter)
    slots: dict[str, set[int]] = field(default_factory=dict)
    exclusive: int = 0
    present: int = 0
    """Jobs that hold any of it; one that gave all back when it was suspended does not."""
    most_cpu: int = 0
    """What may be held: the node's capacity, or what was held when it came back with less."""
    most_memory: int = 0


class Ledger:
    """What each node has and which jobs hold it; changes in constant time per job."""

    def __init__(self) -> None:
        self.table = NodeTable()
        """What is free, in columns. A pass uses up a copy."""
        self._accounts: dict[str, _Account] = {}
        self._homes: dict[int, str] = {}
        self._homeless: dict[str, dict[int, tuple[Job, Keep, float]]] = {}

    # ---- nodes

    @property
    def nodes(self) -> list[Node]:
        """All nodes that have announced themselves, by name."""
        return [self._accounts[name].node for name in sorted(self._accounts)]

    def node(self, name: str) -> Node | None:
        """The node of that name, if it ever announced itself."""
        account = self._accounts.get(name)
        return account.node if account else None

    def announce(self, node: Node) -> None:
        """A node said what it has, for the first time or anew; what is held of it stays held.

        It may have less than is held: then nothing starts there until enough has been given back.
        """
        account = self._accounts.get(node.name) or _Account(node)
        self._accounts[node.name], account.node = account, node
        account.most_cpu = max(microcores(node.cpus), account.cpu)
        account.most_memory = max(node.memory, account.memory)
        _fill(self.table, account)
        for job, keep, now in self._homeless.pop(node.name, {}).values():
            self._take_hold(account, job, keep, now)
            # The node may have shrunk while nobody looked.
            account.most_cpu = max(account.most_cpu, account.cpu)
            account.most_memory = max(account.most_memory, account.memory)

    def mark(self, name: str, state: NodeState, reason: str = "") -> None:
        """Record that a node is up, down or draining."""
        account = self._accounts[name]
        account.node = account.node.model_copy(update={"state": state, "reason": reason})
        self.table.mark(account.node)

    def forget(self, name: str) -> None:
        """A node is none any more. Nothing may be held of it."""
        assert not self._accounts.pop(name).jobs, f"{name} is held"
        self.table = NodeTable()
        for account in self._accounts.values():
            _fill(self.table, account)

    # ---- jobs

    def hold(self, job: Job, *, now: float = 0.0) -> None:
        """`job` holds its resources of its node from now on; a suspended one what it kept. Twice is once.

        An exclusive one holds all of the node's cores and memory. `now` counts as its beginning unless the
        job says when it was.
        """
        assert job.node is not None
        account = self._accounts.get(job.node)
        if account is None:
            # Found in the database before its node has announced itself again.
            self._homeless.setdefault(job.node, {})[job.id] = (job, job.kept, now)
        elif job.id not in account.jobs:
            self._take_hold(account, job, job.kept, now)

    def change(self, job: Job, keep: Keep = "all") -> None:
        """Another version of a job that holds something: started, suspended, with a new time limit, leaving.

        Changes nothing for a job that holds nothing. Before a suspended job takes back what it gave away, ask
        :meth:`fits_back`.
        """
        node = job.node or ""
        if (found := self._homeless.get(node, {}).get(job.id)) is not None:
            self._homeless[node][job.id] = (job, keep, found[2])
        account = self._accounts.get(node)
        if account is not None and (old := account.holdings.get(job.id)) is not None:
            self._let_go(account, job.id)
            self._take_hold(account, job, keep, old.since)

    def fits_back(self, job: Job) -> bool:
        """Whether what a suspended job gave away is free, so that it may hold all of it again."""
        account = self._accounts.get(job.node or "")
        if account is None or (now := account.holdings.get(job.id)) is None:
            return False
        spec = job.spec
        whole = _holding(job, account.node, "all", now.since)
        gpus = {gpu.uuid for gpu in job.gpus} - set(now.gpus)
        units = units_of(account.node)
        return (
            account.cpu - microcores(now.cpu) + microcores(whole.cpu) <= account.most_cpu
            and account.memory - now.memory + whole.memory <= account.most_memory
            and not gpus & account.gpus
            and all(
                account.resources[name] - now.resources.get(name, 0) + count <= units.get(name, 0)
                for name, count in spec.units.items()
            )
            and not any(
                (set(numbers) - set(now.slots.get(name, ()))) & account.slots.get(name, set())
                for name, numbers in job.slots.items()
            )
            and (account.present <= (now.memory > 0) if spec.exclusive else not account.exclusive)
        )

    def release(self, node: str, job: int) -> None:
        """`job` holds nothing of `node` any more; it may never have."""
        self._homeless.get(node, {}).pop(job, None)
        account = self._accounts.get(node)
        if account is None or job not in account.jobs:
            return
        self._let_go(account, job)
        account.most_cpu = max(microcores(account.node.cpus), account.cpu)
        account.most_memory = max(account.node.memory, account.memory)

    # ---- questions

    def jobs_on(self, node: str) -> list[Job]:
        """The jobs that hold something of it, as they were when they took hold or changed."""
        account = self._accounts.get(node)
        return list(account.jobs.values()) if account else []

    def holdings(self, node: str) -> Sequence[Holding]:
        """What each job holds of it: the same tuple until something changes."""
        account = self._accounts.get(node)
        if account is None:
            return ()
        if account.listed is None:
            account.listed = tuple(account.holdings.values())
        return account.listed

    def holding(self, job: int) -> Holding | None:
        """What the job holds of the node that it is on."""
        account = self._accounts.get(self._homes.get(job, ""))
        return account.holdings.get(job) if account else None

    def free(self, name: str) -> Free:
        """What is left of one node."""
        account = self._accounts[name]
        node = account.node
        return Free(
            node=name,
            up=node.state is NodeState.UP,
            launchers=frozenset(launcher.name for launcher in node.launchers),
            labels=node.labels,
            cpu=(microcores(node.cpus) - account.cpu) / CORE,
            memory=node.memory - account.memory,
            gpus=[gpu for gpu in node.gpus if gpu.uuid not in account.gpus],
            resources={key: total - account.resources[key] for key, total in units_of(node).items()},
            exclusive=account.exclusive > 0,
        )

    def all_free(self) -> list[Free]:
        """What is left of every node."""
        return [self.free(name) for name in sorted(self._accounts)]

    def check(self) -> None:
        """Raise ``AssertionError`` unless nothing is held twice, no node is too full, and all sums agree.

        A node that came back with less than is held is over its capacity until enough has been given
        back; more than that is never held.
        """
        homes = Counter(job for account in self._accounts.values() for job in account.jobs)
        assert set(homes) == set(self._homes)
        assert not homes or max(homes.values()) == 1, f"a job holds two nodes: {homes.most_common(1)}"
        fresh = NodeTable()
        for name in self.table.names:
            account = self._accounts[name]
            _check(name, account)
            _fill(fresh, account)
        _compare(self.table, fresh)

    # ---- inside

    def _take_hold(self, account: _Account, job: Job, keep: Keep, now: float) -> None:
        holding = _holding(job, account.node, keep, now)
        account.jobs[job.id], account.holdings[job.id] = job, holding
        self._homes[job.id] = account.node.name
        self._count(account, holding, 1)

    def _let_go(self, account: _Account, job: int) -> None:
        del account.jobs[job], self._homes[job]
        self._count(account, account.holdings.pop(job), -1)

    def _count(self, account: _Account, holding: Holding, sign: int) -> None:
        account.listed = None
        account.cpu += sign * microcores(holding.cpu)
        account.memory += sign * holding.memory
        account.exclusive += sign * holding.exclusive
        account.present += sign * (holding.memory > 0)
        if holding.gpus:
            (account.gpus.update if sign > 0 else account.gpus.difference_update)(holding.gpus)
        for name, count in holding.resources.items():
            account.resources[name] += sign * count
        for name, numbers in holding.slots.items():
            held = account.slots.setdefault(name, set())
            (held.update if sign > 0 else held.difference_update)(numbers)
        table = self.table
        row = table.index[account.node.name]
        _lend(table, row, holding, sign)
        if holding.gpus or holding.resources or holding.slots:
            _fill_devices(table, row, account)
        _fill_sums(table, row, account)


def _holding(job: Job, node: Node, keep: Keep, now: float) -> Holding:
    """What `job` holds of the node while `keep` of its resources are kept."""
    spec = job.spec
    cpu, memory = (node.cpus, node.memory) if spec.exclusive else (spec.cpu, spec.memory)
    since = job.allocated if job.allocated is not None else job.started if job.started is not None else now
    until = None
    if spec.time_limit is not None and job.suspended_at is None:
        begun = job.started if job.started is not None else since
        until = begun + spec.time_limit + job.suspended_seconds
    rest = keep != "nothing"
    return Holding(
        job=job.id,
        attempt=job.attempt,
        owner=job.owner,
        project=spec.project,
        cpu=cpu if keep == "all" else 0.0,
        memory=memory if rest else 0,
        gpus=tuple(gpu.uuid for gpu in job.gpus) if rest else (),
        slots={name: tuple(numbers) for name, numbers in job.slots.items()} if rest else {},
        exclusive=spec.exclusive and rest,
        since=since,
        until=until,
        preemptible=spec.preemptible,
        resources=dict(spec.units) if rest else {},
        partition=job.partition,
        priority=spec.priority,
        leaving=job.kill_requested or job.requeue_requested,
        label=job.label,
    )


def _lend(table: NodeTable, row: int, holding: Holding, sign: int) -> None:
    if holding.preemptible:
        table.lend(None, row, sign)
    elif holding.partition is not None:
        table.lend(holding.partition, row, sign)


def _fill(table: NodeTable, account: _Account) -> None:
    """The node's row of a table, from its account."""
    for column in table.lent.values():
        if (known := table.index.get(account.node.name)) is not None:
            column[known] = 0
    row = table.put(account.node)
    for holding in account.holdings.values():
        _lend(table, row, holding, 1)
    _fill_sums(table, row, account)
    _fill_devices(table, row, account)


def _fill_sums(table: NodeTable, row: int, account: _Account) -> None:
    table.cpu[row] = table.cpu_all[row] - account.cpu
    table.memory[row] = table.memory_all[row] - account.memory
    table.jobs[row] = account.present
    table.closed[row] = account.exclusive > 0


def _fill_devices(table: NodeTable, row: int, account: _Account) -> None:
    free = tuple(gpu for gpu in account.node.gpus if gpu.uuid not in account.gpus)
    if free != table.devices[row]:
        table.devices[row] = free
        for model in {model_of(gpu) for gpu in account.node.gpus}:
            table.gpus[model][row] = sum(model_of(gpu) == model for gpu in free)
    for name, total in units_of(account.node).items():
        table.resources[name][row] = total - account.resources[name]
        if name in account.node.slots:
            held = account.slots.get(name, set())
            table.slots[name][row] = tuple(number for number in range(total) if number not in held)


def _check(name: str, account: _Account) -> None:
    held = account.holdings.values()
    devices = Counter(uuid for one in held for uuid in one.gpus)
    assert not devices or max(devices.values()) == 1, f"{name}: a GPU is held twice: {devices}"
    assert set(devices) == account.gpus, name
    slots = Counter((key, number) for one in held for key, some in one.slots.items() for number in some)
    assert not slots or max(slots.values()) == 1, f"{name}: a unit is held twice: {slots.most_common(1)}"
    assert set(slots) == {(key, number) for key, some in account.slots.items() for number in some}, name
    assert sum(microcores(one.cpu) for one in held) == account.cpu, name
    assert sum(one.memory for one in held) == account.memory, name
    assert account.cpu <= account.most_cpu, f"{name}: over its cores: {account.cpu / CORE:g}"
    assert account.memory <= account.most_memory, f"{name}: over its memory: {account.memory}"
    resources: Counter[str] = Counter()
    for one in held:
        resources.update(one.resources)
    assert resources == +account.resources, f"{name}: {resources} != {account.resources}"
    exclusive = sum(one.exclusive for one in held)
    assert exclusive == account.exclusive, name
    sharing = sum(one.memory > 0 for one in held)
    assert sharing == account.present, name
    assert not exclusive or sharing == 1, (
        f"{name}: a job that has it for itself shares it: {list(account.jobs)}"
    )


def _compare(table: NodeTable, fresh: NodeTable) -> None:
    """Raise ``AssertionError`` where a table that was kept differs from one made anew."""
    count = len(fresh)
    assert table.names == fresh.names
    assert table.devices == fresh.devices
    for name in ("up", "closed", "jobs", "cpu", "memory", "cpu_all", "memory_all"):
        assert np.array_equal(getattr(table, name)[:count], getattr(fresh, name)[:count]), name
    for what in ("gpus", "gpus_all", "resources", "resources_all", "lent"):
        kept, made = getattr(table, what), getattr(fresh, what)
        for key in {*kept, *made}:
            one, other = (columns.get(key, np.zeros(count))[:count] for columns in (kept, made))
            assert np.array_equal(one, other), f"{what} {key}: {one} != {other}"
    for name in {*table.slots, *fresh.slots}:
        assert table.slots.get(name, {}) == fresh.slots.get(name, {}), name
