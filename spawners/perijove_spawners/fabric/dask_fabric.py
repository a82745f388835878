"""The service's side of the Dask links: orders as tasks, calls to workers, reports from event topics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from distributed.client import Client, Future
from distributed.security import Security
from pydantic import ValidationError

from perijove.model import Attempt, Node, UnavailableError
from perijove_spawners.fabric.dask_settings import configure_dask
from perijove_spawners.fabric.port import ignore
from perijove_spawners.fabric.worker import (
    EXPIRING,
    OPERATION,
    REFUSE,
    RENEWED,
    RETRY,
    resource,
    run_orders,
    scheduler_address,
)
from perijove_spawners.protocol import NODES_TOPIC, REPORTS_TOPIC, Order, Report

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that a node has to answer a call, on top of what the call itself is told to wait."""
_LOOK = 0.25
_CLOSE_PATIENCE = 10.0
_WORKERS_TOPIC = "all"
"""The scheduler's own events; among them the loss of a worker."""


@dataclass(slots=True)
class _Bundle:
    """A task, and the attempts whose orders it carried."""

    future: Future[Any]
    attempts: set[Attempt]


class DaskFabric:
    """Nodes that are workers of a Dask scheduler; see :class:`perijove_spawners.fabric.port.Fabric`.

    `scheduler` is an address or the file that holds it. The connection is made anew when it is lost.
    """

    def __init__(self, scheduler: str, security: Security, *, patience: float = 30.0) -> None:
        self.on_report: Callable[[list[Report]], None] = ignore
        self.on_node: Callable[[Node], None] = ignore
        self.on_node_lost: Callable[[str], None] = ignore
        self.fence = 0
        self.refused = b""
        """What nodes are told when they are met, see :meth:`refuse`."""
        self.renew: Callable[[bytes], Awaitable[bytes]] | None = None
        """Makes a node's certificate anew, see :mod:`.renewing`."""
        self._telling: set[asyncio.Task[None]] = set()
        self._scheduler, self._security, self._patience = scheduler, security, patience
        self._client: Client | None = None
        self._addresses: dict[str, str] = {}
        """Node -> the worker's address."""
        self._bundles: dict[Attempt, _Bundle] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        configure_dask()
        deadline = time.monotonic() + self._patience
        while True:
            try:
                await self._connect()
                break
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"the Dask scheduler {self._scheduler} does not answer: {error}"
                    ) from error
            await asyncio.sleep(_LOOK)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        self._closing = True
        if self._keeper:
            self._keeper.cancel()
            # Dask may swallow the cancellation while it closes a lost connection of its own.
            await asyncio.wait([self._keeper], timeout=_CLOSE_PATIENCE)
        self._addresses.clear()
        await self._disconnect()

    async def nodes(self) -> list[Node]:
        found = await self._scheduler_rpc().identity(n_workers=-1)
        answers = await asyncio.gather(
            *(self._ask(address, "describe") for address in found["workers"]), return_exceptions=True
        )
        return [node for node in answers if isinstance(node, Node)]

    def start(self, node: str, orders: Sequence[Order]) -> None:
        if self._client is None or not orders:
            log.warning("orders for %s not sent: no connection to the scheduler", node)
            return
        first = orders[0].attempt
        key = f"{first}+{len(orders) - 1}" if len(orders) > 1 else str(first)
        future = self._client.submit(
            run_orders, tuple(orders), key=key, resources={resource(node): 1}, pure=False, retries=0
        )
        bundle = _Bundle(future, {order.attempt for order in orders})
        self._bundles.update(dict.fromkeys(bundle.attempts, bundle))

    async def call(self, node: str, method: str, *args: Any, **kwargs: Any) -> Any:
        if (address := self._addresses.get(node)) is None:
            raise UnavailableError(f"node {node} is not there")
        return await self._ask(address, method, *args, **kwargs)

    def release(self, attempts: Collection[Attempt]) -> None:
        for attempt in attempts:
            if bundle := self._bundles.pop(attempt, None):
                bundle.attempts.discard(attempt)
                if not bundle.attempts:
                    bundle.future.release()

    async def _ask(self, address: str, method: str, *args: Any, **kwargs: Any) -> Any:
        message = {
            "op": OPERATION,
            "method": method,
            "payload": pickle.dumps((args, kwargs)),
            "fence": self.fence,
        }
        try:
            async with asyncio.timeout(TIMEOUT + float(kwargs.get("wait", 0.0))):
                answers = await self._scheduler_rpc().broadcast(msg=message, workers=[address])
        except Exception as error:  # Dask passes on whatever went wrong between
            said = str(error) or type(error).__name__
            raise UnavailableError(f"the node at {address} does not answer: {said}") from error
        answer = answers[address]
        if "result" in answer:
            return pickle.loads(answer["result"])  # noqa: S301
        raise pickle.loads(answer["error"])  # noqa: S301

    def _scheduler_rpc(self) -> Any:
        if self._client is None or self._client.scheduler is None:
            raise UnavailableError("there is no connection to the Dask scheduler")
        return self._client.scheduler

    # the connection

    async def _connect(self) -> None:
        client = Client(
            scheduler_address(self._scheduler),
            security=self._security,
            asynchronous=True,
            set_as_default=False,
            name="perijove",
            timeout=5,
            heartbeat_interval="10s",
        )
        try:
            await client
        except BaseException:
            await _close(client)
            raise
        self._client = client
        topics = {
            REPORTS_TOPIC: self._reports_came,
            NODES_TOPIC: self._node_came,
            _WORKERS_TOPIC: self._worker_event,
        }
        for topic, handler in topics.items():
            client.subscribe_topic(topic, handler)
        for node in await self.nodes():
            self._met(node)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._bundles.clear()
        lost, self._addresses = list(self._addresses), {}
        for node in lost:
            self.on_node_lost(node)
        if client:
            await _close(client)

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        link = self._client and self._client.scheduler_comm
        while not self._closing:
            await asyncio.sleep(_LOOK)
            client = self._client
            # A client that has mended its connection by itself has lost its subscriptions.
            if client and client.status == "running" and client.scheduler_comm is link:
                continue
            if client:
                log.warning("the connection to the Dask scheduler is lost")
                await self._disconnect()
            try:
                await self._connect()
            except (OSError, TimeoutError, UnavailableError) as error:
                log.info("no Dask scheduler yet: %s", error)
                await self._disconnect()
                await asyncio.sleep(RETRY - _LOOK)
            else:
                link = self._client and self._client.scheduler_comm
                log.info("connected to the Dask scheduler again")

    # what comes

    def _reports_came(self, event: tuple[float, list[dict[str, Any]]]) -> None:
        try:
            reports = [Report.from_wire(wire) for wire in event[1]]
        except (ValueError, KeyError, TypeError) as error:
            log.error("reports that cannot be read: %s", error)
            return
        self.on_report(reports)

    def _node_came(self, event: tuple[float, dict[str, Any]]) -> None:
        try:
            self._met(Node.model_validate(event[1]))
        except ValidationError as error:
            log.error("an announcement that cannot be read: %s", error)

    async def refuse(self, told: bytes) -> None:
        self.refused = told
        await asyncio.gather(*(self._tell_refused(address) for address in list(self._addresses.values())))

    async def _tell_refused(self, address: str) -> None:
        try:
            await self._ask(address, REFUSE, self.refused)
        except Exception as error:
            log.warning("the node at %s was not told which certificates are refused: %s", address, error)

    async def _greet(self, address: str) -> None:
        """What is to be said to a node that was not there a moment ago."""
        if self.refused:
            await self._tell_refused(address)
        if self.renew is None:
            return
        try:
            old: bytes | None = await self._ask(address, EXPIRING)
            if old is not None:
                await self._ask(address, RENEWED, await self.renew(old))
        except Exception as error:
            log.warning("the certificate of the node at %s was not made anew: %s", address, error)

    def _met(self, node: Node) -> None:
        if self._addresses.get(node.name) != node.address:
            task = asyncio.ensure_future(self._greet(node.address))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        self._addresses[node.name] = node.address
        self.on_node(node)

    def _worker_event(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if not isinstance(message, dict) or message.get("action") != "remove-worker":
            return
        gone = [name for name, address in self._addresses.items() if address == message.get("worker")]
        for name in gone:
            del self._addresses[name]
            self.on_node_lost(name)


async def _close(client: Client) -> None:
    with contextlib.suppress(Exception):
        if client.status == "running":
            # Else the scheduler tells the leaving client that it left, and complains that it cannot.
            for topic in list(client._event_handlers):
                client.unsubscribe_topic(topic)
        async with asyncio.timeout(5):
            await client._close(fast=True)
