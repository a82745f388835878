"""How things stand for one entry, and how they would stand without some of what is in its way.

The same pass that places jobs answers both questions, so an answer cannot differ from what will happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import islice

from perijove.model import Blocker, BlockerKind, Job, JobSpec, Reason
from perijove_hub.ledger import Holding
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.plan import Gate, Plan, Rules, plan
from perijove_hub.placement.request import microcores, model_of
from perijove_hub.placement.table import NodeTable

KNOWN = 32
"""So many entries before the one asked about are told apart; of more it is said how many they are."""
PLENTY = 1 << 40


@dataclass(frozen=True, slots=True)
class Situation:
    """The queue and the nodes at one moment."""

    entries: Callable[[], Iterator[Entry]]
    """The queue in the scheduler's order, from its head, each time it is called."""
    table: NodeTable
    rules: Rules
    gate: Callable[[], Gate]
    now: float

    def ahead(self, entry: Entry) -> tuple[list[Entry], bool]:
        """The entries before `entry`, and whether these are all: at most :data:`KNOWN` are given."""
        found: list[Entry] = []
        for other in islice(self.entries(), KNOWN + 1):
            if other.job.id == entry.job.id:
                return found, True
            found.append(other)
        return found[:KNOWN], False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A blocker, and what it stands for."""

    blocker: Blocker
    node: str = ""
    holding: Holding | None = None
    entry: int | None = None


class Lenient:
    """A gate without some of its limits."""

    def __init__(self, gate: Gate, lifted: AbstractSet[str]) -> None:
        self._gate, self._lifted = gate, lifted

    def room(self, job: Job) -> tuple[int, Reason | None]:
        """See :class:`~perijove_hub.placement.plan.Gate`."""
        count, reason = self._gate.room(job)
        if reason is not None and all(blocker.name in self._lifted for blocker in reason.blockers):
            return PLENTY, None
        return count, reason

    def take(self, job: Job, count: int) -> None:
        """See :class:`~perijove_hub.placement.plan.Gate`."""
        self._gate.take(job, count)


def one_of(entry: Entry) -> Entry:
    """The entry as far as one start goes: a single member of an array, all of a gang."""
    return entry if entry.together else replace(entry, count=1)


def decide(
    entry: Entry, before: Sequence[Entry], situation: Situation, without: Sequence[Obstacle] = ()
) -> Plan:
    """What a pass would decide over `before` and then `entry`, were it not for `without`."""
    kinds = {obstacle.blocker.kind for obstacle in without}
    table, rules = situation.table.copy(), situation.rules
    gone = {obstacle.entry for obstacle in without if obstacle.entry is not None}
    held: dict[str, set[int]] = {}
    for obstacle in without:
        if obstacle.blocker.kind is BlockerKind.NODE:
            table.up[table.index[obstacle.node]] = True
        elif obstacle.holding is not None:
            give_back(table, table.index[obstacle.node], obstacle.holding)
            held.setdefault(obstacle.node, set()).add(obstacle.holding.job)
    if held:
        rules = replace(rules, holdings=_without(rules.holdings, held))
    if BlockerKind.MAINTENANCE in kinds:
        rules = replace(rules, maintenance=None)
    if BlockerKind.RESERVATION in kinds:
        names = {o.blocker.name for o in without if o.blocker.kind is BlockerKind.RESERVATION}
        left = {name: kept for name, kept in rules.policy.reservations.items() if name not in names}
        rules = replace(rules, policy=rules.policy.model_copy(update={"reservations": left}))
    lifted = {o.blocker.name for o in without if o.blocker.kind is BlockerKind.QUOTA}
    gate = Lenient(situation.gate(), lifted) if lifted else situation.gate()
    queue = [*(one for one in before if one.job.id not in gone), one_of(entry)]
    return plan(queue, table, rules, gate, situation.now, most=PLENTY)


def starts(
    entry: Entry, before: Sequence[Entry], situation: Situation, without: Sequence[Obstacle] = ()
) -> bool:
    """Whether it would start in that pass."""
    decided = decide(entry, before, situation, without)
    placed = sum(each.count for each in decided.placements if each.job == entry.job.id)
    return placed >= one_of(entry).count


def _without(
    holdings: Callable[[str], Sequence[Holding]], gone: dict[str, set[int]]
) -> Callable[[str], Sequence[Holding]]:
    kept = {node: tuple(one for one in holdings(node) if one.job not in jobs) for node, jobs in gone.items()}
    return lambda node: kept[node] if node in kept else holdings(node)


def give_back(table: NodeTable, row: int, holding: Holding) -> None:
    """The node has back what `holding` held of it."""
    table.cpu[row] += microcores(holding.cpu)
    table.memory[row] += holding.memory
    table.jobs[row] -= 1
    if holding.exclusive:
        table.closed[row] = False
    if holding.gpus:
        node, back = table.nodes[row], set(holding.gpus)
        free = {gpu.uuid for gpu in table.devices[row]} | back
        for gpu in node.gpus:
            if gpu.uuid in back:
                table.gpus[model_of(gpu)][row] += 1
        table.devices[row] = tuple(gpu for gpu in node.gpus if gpu.uuid in free)
    for name, count in holding.resources.items():
        if name in table.resources:
            table.resources[name][row] += count
        if name in holding.slots and row in table.slots.get(name, {}):
            table.slots[name][row] = tuple(sorted((*table.slots[name][row], *holding.slots[name])))


def respecified(entry: Entry, changes: dict[str, object]) -> Entry:
    """The entry with another spec; the changes have the spec's own types."""
    spec: JobSpec = entry.job.spec.model_copy(update=changes)
    return replace(entry, job=entry.job.model_copy(update={"spec": spec}))
