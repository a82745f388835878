"""What is kept for jobs at the head of the queue that cannot start yet, so that those behind do not take it.

A claim is a node and a time: from then on what the job needs there is its own. A job behind may use it
meanwhile if its time limit ends before. Where nobody knows when there will be room, what is free there of
what the job needs is kept from now on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from perijove.model import Gpu
from perijove_hub.placement.request import CORE, Request
from perijove_hub.placement.table import Counts, NodeTable

_KEEP_ALL = 1 << 60
LEAST_CPU = CORE // 100
"""No job asks for less, in millionths of a core."""
LEAST_MEMORY = 4 << 20


@dataclass(slots=True)
class Claim:
    """One member of an entry will start on a node. The figures are what is left beside it."""

    job: int
    label: str
    at: float
    """When, at the latest. What ends before is not in its way."""
    cpu: int
    memory: int
    resources: dict[str, int]
    gpus: frozenset[str]
    """Uuids of the devices kept for it."""
    exclusive: bool = False


@dataclass(slots=True)
class Wanted:
    """What all claims of a node will take together."""

    cpu: int = 0
    memory: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    gpus: set[str] = field(default_factory=set)
    exclusive: bool = False


@dataclass(slots=True)
class Freed:
    """What running jobs of a node will have given back at some time."""

    cpu: int = 0
    memory: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)


class Claims:
    """All claims of one pass."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._claims: dict[int, list[Claim]] = {}
        self._wanted: dict[int, Wanted] = {}
        self.cpu: Counts | None = None
        """What claims of each node will take together; None without any."""
        self.memory: Counts | None = None

    def rows(self) -> list[int]:
        """The nodes with claims."""
        return list(self._claims)

    def on(self, row: int) -> list[Claim]:
        """Those of one node."""
        return self._claims.get(row, [])

    def wanted(self, row: int) -> Wanted:
        """What they will take together."""
        return self._wanted.get(row) or Wanted()

    def room(self, row: int, request: Request, end: float) -> int:
        """How many members that end at `end` the node has room for now."""
        room = self._table.room(row, request)
        claims = self._claims.get(row)
        if not room or not claims:
            return room
        for claim in claims:
            if claim.at >= end:
                continue
            if request.exclusive or claim.exclusive:
                return 0
            room = min(room, claim.cpu // request.cpu, claim.memory // request.memory)
            for name, count in request.resources:
                room = min(room, claim.resources.get(name, 0) // count)
        if request.gpus.count and (spared := self.spared(row, end)):
            fitting = [gpu for gpu in request.gpus.among(self._table.devices[row]) if gpu.uuid not in spared]
            room = min(room, len(fitting) // request.gpus.count)
        return max(0, room)

    def any_room(self) -> bool:
        """Whether any node that is up has anything left at all."""
        table = self._table
        return bool(
            (table.up & ~table.closed & (table.cpu >= LEAST_CPU) & (table.memory >= LEAST_MEMORY)).any()
        )

    def spared(self, row: int, end: float) -> frozenset[str]:
        """Devices that a job ending at `end` must leave alone."""
        none: frozenset[str] = frozenset()
        return none.union(*(claim.gpus for claim in self._claims.get(row, ()) if claim.at < end))

    def use(self, row: int, request: Request, end: float, count: int) -> None:
        """Members that end at `end` start on the node: less is left beside the claims they outlast."""
        for claim in self._claims.get(row, ()):
            if claim.at < end:
                claim.cpu -= request.cpu * count
                claim.memory -= request.memory * count
                for name, units in request.resources:
                    claim.resources[name] = claim.resources.get(name, 0) - units * count

    def add(self, row: int, job: int, label: str, request: Request, at: float, freed: Freed) -> None:
        """Keep what one member needs on the node from `at` on, when `freed` will be free as well.

        What all claims of the node take counts, whatever their times: so what is left beside the earliest is
        the least, and those made before need no second look.
        """
        table, wanted = self._table, self._wanted.setdefault(row, Wanted())
        claims = self._claims.setdefault(row, [])
        free = [gpu for gpu in table.devices[row] if gpu.uuid not in wanted.gpus]
        later = [gpu for gpu in freed.gpus if gpu.uuid not in wanted.gpus]
        # Devices that are busy until then leave those that are free to others.
        kept = frozenset(gpu.uuid for gpu in request.gpus.among([*later, *free])[: request.gpus.count])
        wanted.cpu += request.cpu
        wanted.memory += request.memory
        wanted.gpus |= kept
        wanted.exclusive |= request.exclusive
        for name, units in request.resources:
            wanted.resources[name] = wanted.resources.get(name, 0) + units
        names = {*table.resources, *wanted.resources}
        free_units = {name: int(table.free_units(name)[row]) for name in names}
        claims.append(
            Claim(
                job=job,
                label=label,
                at=at,
                cpu=max(0, int(table.cpu[row]) + freed.cpu - wanted.cpu),
                memory=max(0, int(table.memory[row]) + freed.memory - wanted.memory),
                resources={
                    name: max(0, free + freed.resources.get(name, 0) - wanted.resources.get(name, 0))
                    for name, free in free_units.items()
                },
                gpus=kept,
                exclusive=request.exclusive,
            )
        )
        self._note(row, request)

    def _note(self, row: int, request: Request) -> None:
        if self.cpu is None or self.memory is None:
            self.cpu, self.memory = self._table.cpu * 0, self._table.cpu * 0
        self.cpu[row] += _KEEP_ALL if request.exclusive else request.cpu
        self.memory[row] += request.memory
