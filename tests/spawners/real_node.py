"""A node agent with a real launcher: orders in, outcomes out."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from waiting import becomes

from perijove.model import Account, Attempt, Outcome
from perijove_spawners import registry
from perijove_spawners.calls import notes
from perijove_spawners.launcher import LauncherContext
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.protocol import Order
from perijove_spawners.store import Store


class RealNode:
    """Agents one after the other, with one launcher, on one directory."""

    def __init__(self, directory: Path, launcher: str, account: Account, **options: str) -> None:
        # Jobs of other accounts than the agent's pass through.
        directory.chmod(0o755)
        (directory / "launcher").mkdir(mode=0o700, exist_ok=True)
        (directory / "node").mkdir(mode=0o711, exist_ok=True)
        self.directory, self.account = directory, account
        self.config: dict[str, Any] = {}
        """More of the node's configuration, for the next agent."""
        self.store = Store(directory / "store")
        self._name, self._options, self.url = launcher, options, options.get("url", "")
        self.containers = launcher != "process"
        self._number = 0
        self.agent: NodeAgent

    async def open(self) -> None:
        """An agent begins."""
        installation = f"t{zlib.crc32(bytes(self.directory)):08x}"
        note = notes(self.directory / "node" / "attempts", self._name)
        context = LauncherContext(installation, self.directory / "launcher", self._options, note)
        self.launcher = registry.create(self._name, context)
        settings: dict[str, Any] = {"cpus": 4.0, "memory": 8 << 30, "repeat": 0.2, "poll": 0.5}
        config = NodeConfig(name="n1", directory=self.directory / "node", **{**settings, **self.config})
        self.agent = NodeAgent(config, {self._name: self.launcher}, self.store)
        await self.agent.open()

        async def ready() -> bool:
            return bool((await self.agent.describe()).launchers)

        await becomes(ready, "that the engine answers the agent", 120)

    async def close(self) -> None:
        """It ends, and nothing is left on its engine."""
        attempts = [Attempt(number + 1, 1) for number in range(self._number)]
        await self.agent.stop(attempts, 0)
        await self.agent.forget(attempts)

        async def gone() -> bool:
            await self.agent.forget(attempts)
            return not await self.launcher.recover()

        await becomes(gone, "the end of all that the test left")
        await self.agent.close()

    def order(self, *command: str, **fields: Any) -> Order:
        """An order for `command`, or for the field ``script``."""
        self._number += 1
        given: dict[str, Any] = {"memory": 256 << 20, "account": self.account, **fields}
        return Order(
            attempt=Attempt(self._number, 1),
            incarnation=self.agent.incarnation,
            launcher=self._name,
            owner="me",
            title="t",
            command=command,
            **given,
        )

    async def run(self, *command: str, **fields: Any) -> Outcome:
        """How a job ends."""
        order = self.order(*command, **fields)
        await self.agent.start([order])
        return await self.outcome(order)

    async def outcome(self, order: Order) -> Outcome:
        """How a job ended."""
        [report] = await self.agent.known([order.attempt])
        assert report.outcome
        return report.outcome

    async def said(self, *command: str, **fields: Any) -> str:
        """What a job writes that succeeds."""
        outcome = await self.run(*command, **fields, outputs={"said": "fd:1"})
        assert outcome.exit_code == 0, outcome
        return self.text(outcome.outputs["said"])

    def text(self, digest: str) -> str:
        """A file of the store."""
        with self.store.open(digest) as file:
            return file.read().decode()
