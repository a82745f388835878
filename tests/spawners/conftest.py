"""A node agent on the in-memory engine, which outlives agents as a real engine does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from waiting import until

from perijove.model import Account, Attempt, Outcome
from perijove_spawners.launcher import EngineError, Launch, LauncherContext, Status
from perijove_spawners.memory.engine import MemoryEngine
from perijove_spawners.memory.launcher import MemoryLauncher
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.node.gpuuse import GpuDriver
from perijove_spawners.protocol import Order, Report, ReportKind
from perijove_spawners.store import Store

T = TypeVar("T")


class SwitchedLauncher(MemoryLauncher):
    """An in-memory launcher whose engine can be switched off, also right after it has begun a job."""

    def __init__(self, context: LauncherContext, engine: MemoryEngine) -> None:
        super().__init__(context, engine)
        self.down = False
        self.cut_after_start = False
        self.answering = asyncio.Event()
        """While it is not set, a resumption has been done and not been answered."""
        self.answering.set()

    def _check_up(self) -> None:
        if self.down:
            raise EngineError("the engine is switched off")

    async def open(self) -> None:
        self._check_up()

    async def start(self, launch: Launch) -> None:
        self._check_up()
        if "time_limit" not in self.capabilities.features:
            launch = replace(launch, time_limit=None)
        await super().start(launch)
        if self.cut_after_start:
            self.down, self.cut_after_start = True, False
            self._check_up()

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        self._check_up()
        return await super().status(attempts)

    async def resume(self, attempt: Attempt) -> None:
        await super().resume(attempt)
        await self.answering.wait()

    async def remove(self, attempt: Attempt) -> None:
        self._check_up()
        await super().remove(attempt)


class Bench:
    """Agents one after the other on one directory and one engine, and what they reported."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = MemoryEngine()
        self.store = Store(directory / "store")
        self.reports: list[Report] = []
        self.agent: NodeAgent
        self.launcher: SwitchedLauncher
        self.gpu_driver: GpuDriver | None = None
        self.lacking: set[str] = set()
        """Features that the launcher is to be without."""

    async def open(self, options: dict[str, str] | None = None, **config: Any) -> NodeAgent:
        """A new agent takes over."""
        context = LauncherContext("test", self.directory / "launcher", options or {})
        self.launcher = SwitchedLauncher(context, self.engine)
        capabilities = self.launcher.capabilities
        features = capabilities.features - self.lacking
        self.launcher.capabilities = capabilities.model_copy(update={"features": features})
        settings: dict[str, Any] = {"cpus": 4.0, "memory": 8 << 30, "poll": 0.2, "repeat": 0.2, **config}
        node = NodeConfig(name="n1", directory=self.directory / "node", **settings)
        self.agent = NodeAgent(node, {"memory": self.launcher}, self.store, gpu_driver=self.gpu_driver)
        self.agent.on_report = self.reports.extend
        await self.agent.open()
        return self.agent

    async def replace(self, **config: Any) -> NodeAgent:
        """The agent ends without a word, and another takes over."""
        await self.agent.close()
        self.reports.clear()
        return await self.open(**config)

    def order(self, number: int, *command: str, **fields: Any) -> Order:
        given: dict[str, Any] = {
            "incarnation": self.agent.incarnation,
            "launcher": "memory",
            "title": "t",
            **fields,
        }
        account = Account("me", os.getuid(), os.getgid(), str(self.directory / "home"))
        given.setdefault("account", account)
        return Order(attempt=Attempt(number, 1), owner="me", command=command, **given)

    async def run(self, *orders: Order) -> list[Outcome]:
        """Send orders and wait for their ends."""
        await self.agent.start(orders)
        return [await self.outcome(order.attempt.job) for order in orders]

    def send(self, *orders: Order) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.agent.start(orders))

    async def report(self, number: int, kind: ReportKind, seconds: float = 10) -> Report:
        """The first report of this kind of that attempt."""
        found = await until(
            lambda: [r for r in self.reports if r.attempt.job == number and r.kind is kind],
            f"that {number} is {kind}",
            seconds,
        )
        return found[0]

    async def outcome(self, number: int, seconds: float = 10) -> Outcome:
        outcome = (await self.report(number, ReportKind.ENDED, seconds)).outcome
        assert outcome
        return outcome

    def kinds(self, number: int) -> list[ReportKind]:
        return [r.kind for r in self.reports if r.attempt.job == number]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    (tmp_path / "home").mkdir()
    await made.open()
    yield made
    await made.agent.close()
