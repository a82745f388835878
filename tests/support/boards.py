"""What tests of the board share: a record that takes batches as the database does, and boards over nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from perijove.model import Capabilities, Gpu, Job, JobEvent, JobSpec, Node, NodeState, State
from perijove_hub.accounting import Allocation
from perijove_hub.jobs import arrays
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import Effect
from perijove_hub.ledger import Ledger
from perijove_hub.policy.document import Policy
from perijove_hub.policy.registry import create
from perijove_hub.policy.standing import Standing

MIB = 1 << 20


def node(name: str, cpus: float = 4, memory: int = 4096, gpus: int = 0, **fields: Any) -> Node:
    devices = [Gpu(index=i, uuid=f"{name}g{i}", model="H100") for i in range(gpus)]
    offered = [Capabilities(name="process", features=frozenset({"suspend"}))]
    known = {"gpus": devices, "launchers": offered, "state": NodeState.UP, **fields}
    return Node(name=name, cpus=cpus, memory=memory * MIB, **known)


def job(number: int, owner: str = "alice", **fields: Any) -> Job:
    asked = {"command": ["true"], "memory": 64 * MIB, **fields}
    spec = JobSpec.model_validate(asked)
    state = State.HELD if spec.hold else State.PENDING
    return Job(id=number, owner=owner, name="j", state=state, launcher="process", submitted=0.0, spec=spec)


@dataclass
class Record:
    """What is durable."""

    jobs: dict[int, Job] = field(default_factory=dict)
    events: list[JobEvent] = field(default_factory=list)
    allocations: dict[tuple[int, int, float], Allocation] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)

    def take(self, board: Board) -> list[Effect]:
        """Commit what gathered; the effects that may be carried out now."""
        pending = board.take()
        batch = pending.batch
        assert not batch.new.keys() & self.jobs.keys(), "inserted twice"
        self.jobs.update(batch.new)
        assert batch.changed.keys() <= self.jobs.keys(), "updated without a row"
        for number, changed in batch.changed.items():
            assert (
                number in batch.respecified or number in batch.new or changed.spec == self.jobs[number].spec
            )
        self.jobs.update(batch.respecified)
        self.jobs.update(batch.changed)
        self.events += batch.events
        for one in batch.allocations:
            self.allocations[one.job, one.attempt, one.begin] = one
        self.effects += pending.effects
        return pending.effects

    def last(self) -> tuple[int, int]:
        """The highest numbers given, reserved ids included."""
        tops = (number + arrays.size(one.spec) for number, one in self.jobs.items() if one.array_id is None)
        return max(tops, default=0), max((event.seq for event in self.events), default=0)

    def board(self, nodes: Iterable[Node], policy: Policy, now: float) -> Board:
        """The board of a service that starts from this record."""
        ledger = Ledger()
        for one in nodes:
            ledger.announce(one)
        last_job, last_seq = self.last()
        standing = Standing(policy, self.allocations.values())
        scheduler = create(policy.scheduler, policy)
        board = Board(ledger, standing, scheduler, last_job=last_job, last_seq=last_seq)
        live = [each for each in self.jobs.values() if not each.state.ended]
        states: dict[int, dict[int, State]] = {}
        for each in self.jobs.values():
            if each.array_id is not None and each.array_task is not None:
                states.setdefault(each.array_id, {})[each.array_task] = each.state
        board.load(live, now, {n: one for n, one in self.jobs.items() if one.state.ended}, states)
        return board


def board_of(*nodes: Node, **policy: Any) -> tuple[Board, Record]:
    """A board over `nodes`, with an empty record."""
    record = Record()
    return record.board(nodes, Policy.model_validate(policy), 0.0), record


def submit(board: Board, now: float = 0.0, owner: str = "alice", **fields: Any) -> int:
    """A new job's id."""
    spec = JobSpec.model_validate({"command": ["true"], **fields})
    [number] = board.new_ids([arrays.size(spec)])
    board.add([job(number, owner, **fields)], now, {})
    return number
