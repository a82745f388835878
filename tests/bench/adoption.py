"""A node agent that comes back to 10,000 running jobs, on the in-memory launcher.

python tests/bench/adoption.py

Beside it: reading as many small files, which is the least that a record on disk costs. The service has its
own part on top, which asks `known` of each node.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import tempfile
import time
from pathlib import Path

from measure import seconds, show

from perijove.model import Account, Attempt
from perijove_spawners.launcher import LauncherContext
from perijove_spawners.memory.engine import MemoryEngine
from perijove_spawners.memory.launcher import MemoryLauncher
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.protocol import Order, Report, ReportKind
from perijove_spawners.store import Store

JOBS, BUNDLE = 10_000, 500
ACCOUNT = Account("me", os.getuid(), os.getgid(), str(Path.home()))


class Node:
    """Agents one after the other on one engine."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.engine = directory, MemoryEngine()
        self.started = 0
        self.agent: NodeAgent

    async def open(self) -> None:
        launcher = MemoryLauncher(LauncherContext("bench", self.directory / "launcher"), self.engine)
        config = NodeConfig("n1", self.directory / "node", cpus=64, memory=1 << 40)
        self.agent = NodeAgent(config, {"memory": launcher}, Store(self.directory / "store"))
        self.agent.on_report = self._heard
        self.started = 0
        await self.agent.open()

    def _heard(self, reports: list[Report]) -> None:
        self.started += sum(report.kind is ReportKind.STARTED for report in reports)

    def order(self, number: int) -> Order:
        return Order(
            attempt=Attempt(number, 1),
            incarnation=self.agent.incarnation,
            launcher="memory",
            owner="me",
            account=ACCOUNT,
            title="t",
            command=("sleep", "3600"),
            time_limit=7200.0,
            warning=("USR1", 60.0),
        )

    async def fill(self) -> None:
        firsts = range(1, JOBS + 1, BUNDLE)
        bundles = [[self.order(n) for n in range(first, first + BUNDLE)] for first in firsts]
        tasks = [asyncio.ensure_future(self.agent.start(bundle)) for bundle in bundles]
        await self.all_started()
        for task in tasks:
            task.cancel()

    async def all_started(self) -> None:
        while self.started < JOBS:
            await asyncio.sleep(0.002)


async def main() -> None:
    # As the command of a node does.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    with tempfile.TemporaryDirectory(prefix="perijove-bench-") as folder:
        node = Node(Path(folder))
        await node.open()
        await node.fill()
        await node.agent.close()
        records = list((node.directory / "node/attempts").glob("*/record"))
        floor = seconds(lambda: [record.read_bytes() for record in records])
        begun = time.perf_counter()
        await node.open()
        await node.all_started()
        adopted = time.perf_counter() - begun
        begun = time.perf_counter()
        answer = pickle.dumps(await node.agent.known())
        known = time.perf_counter() - begun
        await node.agent.close()
    rows = [
        ["reading the records", f"{floor:.2f}", "1"],
        ["all adopted and reported", f"{adopted:.2f}", f"{adopted / floor:.1f}"],
        [f"known(), {len(answer) >> 10} KiB", f"{known:.2f}", f"{known / floor:.1f}"],
    ]
    show(f"{JOBS:,} running jobs", ["", "seconds", "ratio"], rows)


if __name__ == "__main__":
    asyncio.run(main())
