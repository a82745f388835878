"""What the service itself does in a second: jobs accepted, placed, started and ended, each step durable.

python tests/bench/dispatch.py [URL of a database]

The nodes are in the same process and their jobs end at once, so that the figures are the service's alone. The
floor beside them is the database's: the same number of rows written in the same number of transactions.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import show, spread

from perijove.model import Account, Attempt, Capabilities, Job, JobSpec, Node, Outcome, State
from perijove_hub.accounts import Identity
from perijove_hub.jobs import arrays
from perijove_hub.jobs.controller import Controller
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.protocol import Order, Report, ReportKind

ROUNDS = 3


class InstantNode:
    """Each job ends as soon as it starts; with `stays`, none does."""

    def __init__(self, name: str, cpus: float, stays: bool = False) -> None:
        self.name, self.cpus, self.stays = name, cpus, stays
        self.attempts: dict[Attempt, float] = {}
        self.on_report: Any = None

    def meet(self, fence: int) -> None:
        pass

    async def describe(self) -> Node:
        offered = [Capabilities(name="memory")]
        return Node(name=self.name, incarnation="1", cpus=self.cpus, memory=1 << 42, launchers=offered)

    async def start(self, orders: Sequence[Order]) -> None:
        now, reports = time.time(), []
        for order in orders:
            self.attempts[order.attempt] = now
            reports.append(Report(self.name, order.attempt, ReportKind.STARTED, now))
        self.on_report(reports)
        if not self.stays:
            done = Outcome(exit_code=0, started=now, ended=now)
            ended = [Report(self.name, o.attempt, ReportKind.ENDED, now, outcome=done) for o in orders]
            asyncio.get_running_loop().call_soon(self.on_report, ended)

    async def known(self, attempts: Sequence[Attempt] | None = None) -> list[Report]:
        return [Report(self.name, attempt, ReportKind.STARTED, at) for attempt, at in self.attempts.items()]

    async def forget(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self.attempts.pop(attempt, None)

    def __getattr__(self, verb: str) -> Any:
        async def nothing(*_: Any) -> None:
            pass

        return nothing


def identify(owner: str) -> Identity:
    return Identity(Account(owner, 1000, 1000, "/home/x"), "/home/x", managed=False)


async def service(state: Path, url: str, nodes: list[InstantNode]) -> Controller:
    settings = Settings(state=state, mode="single")
    database = Database(url)
    database.migrate()
    controller = Controller(settings, database, DirectFabric(nodes), identify)
    await controller.open()
    while any(node.state != "up" for node in controller.ledger.nodes):
        await asyncio.sleep(0.01)
    return controller


def new_jobs(controller: Controller, specs: list[JobSpec]) -> list[Job]:
    ids = controller.board.new_ids([arrays.size(spec) for spec in specs])
    return [
        Job(
            id=i,
            owner=f"u{i % 10}",
            name="j",
            state=State.PENDING,
            launcher="memory",
            submitted=0.0,
            spec=spec,
        )
        for i, spec in zip(ids, specs, strict=True)
    ]


async def run(state: Path, url: str, specs: list[JobSpec]) -> tuple[float, float]:
    """Jobs (or members) a second from submission to the last end, and seconds until they were accepted."""
    nodes = [InstantNode(f"n{i}", 64.0) for i in range(4)]
    controller = await service(state, url, nodes)
    count = sum(arrays.size(spec) or 1 for spec in specs)
    begun = time.perf_counter()
    await controller.submit(new_jobs(controller, specs), {})
    accepted = time.perf_counter() - begun
    while controller.board.jobs:
        await asyncio.sleep(0.005)
    await controller.committed()
    took = time.perf_counter() - begun
    await controller.close()
    controller.database.close()
    return count / took, accepted


async def readopt(state: Path, url: str, count: int) -> float:
    """Seconds from a restart until `count` running jobs are compared with their nodes."""
    nodes = [InstantNode(f"n{i}", float(count), stays=True) for i in range(10)]
    controller = await service(state, url, nodes)
    await controller.submit(new_jobs(controller, [JobSpec(command=["true"])] * count), {})
    while sum(job.state is State.RUNNING for job in controller.board.jobs.values()) < count:
        await asyncio.sleep(0.05)
    await controller.committed()
    await controller.close()
    begun = time.perf_counter()
    controller = await service(state, url, nodes)
    took = time.perf_counter() - begun
    assert sum(job.state is State.RUNNING for job in controller.board.jobs.values()) == count
    await controller.close()
    controller.database.close()
    return took


def main() -> None:
    rates, arrays_of, accepted, adopted = [], [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="perijove-bench-") as folder:
            state = Path(folder)
            urls = iter(sys.argv[1:2] * 4 or [f"sqlite:///{state}/{i}.db" for i in range(4)])
            single = [JobSpec(command=["true"])]
            rates.append(asyncio.run(run(state, next(urls), single * 5_000))[0])
            whole = [JobSpec.model_validate({"command": ["true"], "array": "1:5000"})]
            arrays_of.append(asyncio.run(run(state, next(urls), whole))[0])
            adopted.append(asyncio.run(readopt(state, next(urls), 10_000)))
            accepted.append(asyncio.run(accept(state, next(urls))))
    rows = [
        ["5,000 jobs, from submission to end, jobs/s", spread(rates, 0)],
        ["an array of 5,000, members/s", spread(arrays_of, 0)],
        ["10,000 running jobs re-adopted, s", spread(adopted, 2)],
        ["an array of 100,000 accepted, s", spread(accepted, 4)],
    ]
    show("The service alone, durable", ["what", "figure"], rows)


async def accept(state: Path, url: str) -> float:
    """Seconds until an array of 100,000 is durable."""
    controller = await service(state, url, [])
    spec = JobSpec.model_validate({"command": ["true"], "array": "1:100000"})
    begun = time.perf_counter()
    await controller.submit(new_jobs(controller, [spec]), {})
    took = time.perf_counter() - begun
    await controller.close()
    controller.database.close()
    return took


if __name__ == "__main__":
    main()
