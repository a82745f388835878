"""How the service reaches its nodes: one port, and its form within one process.

:class:`perijove_spawners.fabric.dask_fabric.DaskFabric` is the one for real nodes; :class:`DirectFabric`
has its agents in the same process (tests, simulation) and needs no Dask.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from perijove.model import Attempt, Node, UnavailableError
from perijove_spawners.protocol import HEARTBEAT, NodeCalls, Order, Report

log = logging.getLogger(__name__)


class Fabric(Protocol):
    """The nodes, as the service sees them. Used from one event loop."""

    on_report: Callable[[list[Report]], None]
    """Set by the service before :meth:`open`; called in its event loop."""
    on_node: Callable[[Node], None]
    """An announcement: when a node joins and with every heartbeat."""
    on_node_lost: Callable[[str], None]
    """The node left or cannot be reached; its jobs may well go on."""
    fence: int
    """Carried by each call from now on, see :class:`NodeCalls`; set by the service when it begins to lead."""

    async def open(self) -> None:
        """Connect. :class:`UnavailableError` when that does not succeed in time."""

    async def close(self) -> None:
        """Let go of the nodes; what runs there goes on."""

    async def nodes(self) -> list[Node]:
        """Fresh announcements of all nodes that answer."""

    def start(self, node: str, orders: Sequence[Order]) -> None:
        """Send orders and return. What becomes of them is reported, or the reconciler finds it missing."""

    async def call(self, node: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of :class:`NodeCalls` on a node.

        :class:`UnavailableError` when the node is not there or does not answer in time; what the method
        itself raises comes through.
        """

    def release(self, attempts: Collection[Attempt]) -> None:
        """Forget the messages that carried the orders of these, which have ended or were given up."""

    async def refuse(self, told: bytes) -> None:
        """Tell all nodes, also those that are met later, which certificates are refused.

        `told` is what :func:`perijove_spawners.fabric.news.news` says.
        """


class LocalAgent(NodeCalls, Protocol):
    """A node agent in this process: :class:`perijove_spawners.node.agent.NodeAgent` or a simulated one."""

    name: str
    on_report: Callable[[list[Report]], None]

    def meet(self, fence: int) -> None:
        """A call came with this fence; StaleFenceError when a higher one was seen."""


def ignore(_: Any) -> None:
    """What a fabric does with news while nobody listens."""


class DirectFabric:
    """Nodes in the same process, called without a network between."""

    def __init__(self, agents: Iterable[LocalAgent] = (), *, heartbeat: float = HEARTBEAT) -> None:
        self.on_report: Callable[[list[Report]], None] = ignore
        self.on_node: Callable[[Node], None] = ignore
        self.on_node_lost: Callable[[str], None] = ignore
        self.fence = 0
        self._agents = {agent.name: agent for agent in agents}
        self._heartbeat = heartbeat
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = False

    async def open(self) -> None:
        self._open = True
        for agent in self._agents.values():
            agent.on_report = self._reported
        await self._announce()
        self._spawn(self._beat())

    async def close(self) -> None:
        self._open = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def nodes(self) -> list[Node]:
        return [await agent.describe() for agent in list(self._agents.values())]

    def start(self, node: str, orders: Sequence[Order]) -> None:
        if (agent := self._agents.get(node)) is None:
            log.warning("orders for %s dropped: no such node", node)
            return
        self._spawn(agent.start(orders))

    async def call(self, node: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if (agent := self._agents.get(node)) is None:
            raise UnavailableError(f"node {node} is not there")
        agent.meet(self.fence)
        return await getattr(agent, method)(*args, **kwargs)

    def release(self, attempts: Collection[Attempt]) -> None:
        pass

    async def add(self, agent: LocalAgent) -> None:
        """A node joins, or one of the same name replaces it."""
        self._agents[agent.name] = agent
        agent.on_report = self._reported
        if self._open:
            self.on_node(await agent.describe())

    async def refuse(self, told: bytes) -> None:
        """There are no links."""

    def remove(self, name: str) -> None:
        """A node leaves; what it says from now on does not arrive."""
        if agent := self._agents.pop(name, None):
            agent.on_report = ignore
            self.on_node_lost(name)

    def _reported(self, reports: list[Report]) -> None:
        if self._open:
            self.on_report(reports)

    async def _announce(self) -> None:
        for node in await self.nodes():
            self.on_node(node)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            await self._announce()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            if error := task.exception():
                log.error("a node's task failed", exc_info=error)
