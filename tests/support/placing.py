"""What the tests of placement share: nodes, jobs, and a gate that lets everything through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perijove.model import Capabilities, Gpu, Job, JobSpec, Node, Reason, ReasonCode, State
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry, Placement
from perijove_hub.placement.plan import Plan, Rules, plan
from perijove_hub.policy.document import Policy

MIB = 1 << 20


class Open:
    """A gate without quotas, that counts."""

    def __init__(self, rooms: dict[int, int] | None = None) -> None:
        self.rooms = rooms or {}
        self.taken: dict[int, int] = {}

    def room(self, job: Job) -> tuple[int, Reason | None]:
        left = self.rooms.get(job.id, 1 << 30) - self.taken.get(job.id, 0)
        return max(0, left), None if left > 0 else Reason(code=ReasonCode.QUOTA, message="over quota")

    def take(self, job: Job, count: int) -> None:
        self.taken[job.id] = self.taken.get(job.id, 0) + count


def spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"command": ["true"], "memory": 64 * MIB, **fields})


def job(number: int, wanted: JobSpec | None = None, **fields: Any) -> Job:
    known = {"owner": "alice", "name": "j", "state": State.PENDING, "submitted": 0.0, "launcher": "process"}
    return Job.model_validate({"id": number, "spec": wanted or spec(), **known, **fields})


def node(name: str, cpus: float = 4, memory: int = 8192, gpus: int = 0, **fields: Any) -> Node:
    devices = [Gpu(index=i, uuid=f"{name}g{i}", model="H100") for i in range(gpus)]
    known = {"gpus": devices, "launchers": [Capabilities(name="process")], **fields}
    return Node(name=name, cpus=cpus, memory=memory * MIB, **known)


def ledger_of(*some: Node) -> Ledger:
    ledger = Ledger()
    for one in some:
        ledger.announce(one)
    return ledger


def placed(one: Job, placement: Placement, now: float = 0.0, **fields: Any) -> Job:
    """The job as it is once it has started."""
    update = {
        "state": State.RUNNING,
        "node": placement.node,
        "gpus": list(placement.gpus),
        "slots": {name: list(numbers) for name, numbers in placement.slots.items()},
        "allocated": now,
        "started": now,
        **fields,
    }
    return one.model_copy(update=update)


def decide(
    ledger: Ledger,
    entries: Sequence[Entry | Job],
    now: float = 0.0,
    *,
    gate: Open | None = None,
    most: int = 100_000,
    maintenance: str | None = None,
    policy: Policy | None = None,
    **fields: Any,
) -> Plan:
    """A plan for `entries` under the policy whose `fields` are given."""
    queue = [one if isinstance(one, Entry) else Entry(one) for one in entries]
    rules = Rules(policy or Policy.model_validate(fields), maintenance, holdings=ledger.holdings)
    return plan(queue, ledger.table.copy(), rules, gate or Open(), now, most=most)


def where(decided: Plan) -> dict[int, str]:
    """Job -> node, for jobs that were placed."""
    return {one.job: one.node for one in decided.placements}
