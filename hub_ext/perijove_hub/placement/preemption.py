"""Who must leave so that a job can start: the fewest preemptible jobs of one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from perijove.model import Gpu, Job
from perijove_hub.placement.choice import Choice
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.request import Request, microcores
from perijove_hub.placement.table import NodeTable

if TYPE_CHECKING:
    from perijove_hub.ledger import Holding
    from perijove_hub.policy.document import Policy

LOOKED_AT = 64
"""So many nodes are compared for one job, those with the most free first."""
EXACT = 32
"""Among so many preemptible jobs of a node every pair is tried; the fewest of more are approached."""

Order = tuple[int, tuple[tuple[int, float], ...], int]


class _Room:
    """What a node will have when all have left that must, and those have started for whom they do."""

    def __init__(self, table: NodeTable, row: int) -> None:
        self.cpu, self.memory = int(table.cpu[row]), int(table.memory[row])
        self.resources = {name: int(column[row]) for name, column in table.resources.items()}
        self.gpus: dict[str, Gpu] = {gpu.uuid: gpu for gpu in table.devices[row]}
        self.known = {gpu.uuid: gpu for gpu in table.nodes[row].gpus}
        self.jobs = int(table.jobs[row])

    def copy(self) -> _Room:
        other = _Room.__new__(_Room)
        other.cpu, other.memory, other.jobs = self.cpu, self.memory, self.jobs
        other.resources, other.gpus, other.known = dict(self.resources), dict(self.gpus), self.known
        return other

    def free(self, one: Holding, cores_only: bool) -> None:
        """`one` has left, or has been suspended."""
        self.cpu += microcores(one.cpu)
        if cores_only:
            return
        self.memory += one.memory
        self.jobs -= one.memory > 0
        for name, count in one.resources.items():
            self.resources[name] = self.resources.get(name, 0) + count
        self.gpus.update((uuid, self.known[uuid]) for uuid in one.gpus if uuid in self.known)

    def fits(self, request: Request) -> bool:
        return (
            self.cpu >= request.cpu
            and self.memory >= request.memory
            and (not request.gpus.count or len(request.gpus.among(self.gpus.values())) >= request.gpus.count)
            and all(self.resources.get(name, 0) >= count for name, count in request.resources)
            and (not request.exclusive or not self.jobs)
        )

    def take(self, request: Request) -> None:
        self.cpu -= request.cpu
        self.memory -= request.memory
        self.jobs += 1
        for name, count in request.resources:
            self.resources[name] -= count
        for gpu in request.gpus.among(list(self.gpus.values()))[: request.gpus.count]:
            del self.gpus[gpu.uuid]


class Preemption:
    """The victims of one pass."""

    def __init__(
        self,
        policy: Policy,
        table: NodeTable,
        claims: Claims,
        holdings: Callable[[str], Sequence[Holding]],
        now: float,
    ) -> None:
        self._policy, self._table, self._claims = policy, table, claims
        self._holdings, self._now = holdings, now
        rules = policy.preemption
        self._cores_only = rules.mode == "suspend" and policy.suspended_keep != "nothing"
        self._partitions = {name for name, one in policy.partitions.items() if one.preemptible}
        self._lent = self._table.up & False
        if rules.mode != "off":
            for key in (None, *self._partitions):
                if (column := table.lent.get(key)) is not None:
                    self._lent |= column > 0
        self.possible = bool(self._lent.any())
        """Whether anybody could be asked to leave."""
        self._rooms: dict[int, _Room] = {}
        self._victims: set[int] = set()
        self._hopeless: set[int] = set()

    def entitled(self, job: Job, partition: str | None) -> bool:
        """Whether others must make room for `job`."""
        return not job.spec.preemptible and partition not in self._partitions

    def make_room(self, choice: Choice) -> tuple[int, list[int]] | None:
        """A node on which a member of the shape can start soon, and who has to leave it; None: there is none.

        Nobody has to leave a node where enough are leaving already.
        """
        if id(choice) in self._hopeless:
            return None
        best: tuple[Order, int, list[Holding]] | None = None
        for row in self._candidates(choice):
            found = self._victims_on(row, choice.request)
            if found is None:
                continue
            order = (len(found), tuple(sorted(map(_rank, found))), row)
            if best is None or order < best[0]:
                best = (order, row, found)
            if not found:
                break
        if best is None:
            self._hopeless.add(id(choice))
            return None
        _, row, victims = best
        room = self._room(row)
        for victim in victims:
            room.free(victim, self._cores_only)
        room.take(choice.request)
        self._victims.update(victim.job for victim in victims)
        return row, [victim.job for victim in victims]

    # ---- inside

    def _candidates(self, choice: Choice) -> list[int]:
        """Where somebody could leave, those first that lack the least."""
        mask = choice.nodes & self._lent
        rows = [
            row for row in np.flatnonzero(mask).tolist() if row in self._rooms or not self._claims.on(row)
        ]
        cpu = self._table.cpu
        return sorted(rows, key=lambda row: -int(cpu[row]))[:LOOKED_AT]

    def _room(self, row: int) -> _Room:
        """As it will be when those have left who have been asked to."""
        if (room := self._rooms.get(row)) is None:
            room = self._rooms[row] = _Room(self._table, row)
            for one in self._holdings(self._table.names[row]):
                if one.leaving:
                    room.free(one, self._cores_only)
        return room

    def _victims_on(self, row: int, request: Request) -> list[Holding] | None:
        """The fewest who must leave; of lower priority rather than of higher, younger rather than older."""
        room = self._rooms.get(row) or self._room(row).copy()
        if room.fits(request):
            return []
        fixed = {one.job for one in self._holdings(self._table.names[row]) if not self._may_go(one)}
        able = [one for one in self._holdings(self._table.names[row]) if one.job not in fixed]
        able.sort(key=_rank)
        everything = room.copy()
        for one in able:
            everything.free(one, self._cores_only)
        if not everything.fits(request):
            return None
        if len(able) <= EXACT:
            for count in (1, 2):
                for some in combinations(able, count):
                    if self._suffice(some, room, request):
                        return list(some)
        return self._approach(able, room, request)

    def _approach(self, able: list[Holding], room: _Room, request: Request) -> list[Holding]:
        """The largest leave until it is enough; then those stay who need not."""
        lacking = (max(1, request.cpu - room.cpu), max(1, request.memory - room.memory))

        def size(one: Holding) -> float:
            gpus = len(one.gpus) / max(1, request.gpus.count) if request.gpus.count else 0.0
            return min(1.0, microcores(one.cpu) / lacking[0]) + min(1.0, one.memory / lacking[1]) + gpus

        chosen: list[Holding] = []
        for one in sorted(able, key=size, reverse=True):
            chosen.append(one)
            if self._suffice(chosen, room, request):
                break
        for one in sorted(chosen, key=_rank, reverse=True):
            rest = [other for other in chosen if other is not one]
            if self._suffice(rest, room, request):
                chosen = rest
        return chosen

    def _suffice(self, some: Sequence[Holding], room: _Room, request: Request) -> bool:
        left = room.copy()
        for one in some:
            left.free(one, self._cores_only)
        return left.fits(request)

    def _may_go(self, one: Holding) -> bool:
        lent = one.preemptible or one.partition in self._partitions
        old_enough = one.since + self._policy.preemption.exempt <= self._now
        suspended = one.cpu == 0 and self._cores_only
        return lent and old_enough and not one.leaving and not suspended and one.job not in self._victims


def _rank(one: Holding) -> tuple[int, float]:
    """The first to leave has the lowest priority; of equals the youngest."""
    return one.priority, -one.since if one.since > -inf else inf
