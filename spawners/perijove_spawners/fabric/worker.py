"""A node as a Dask worker: carries orders and calls to the agent, and its reports back.

The agent and its jobs outlive every connection: when the scheduler goes, a new worker is made as soon as
a scheduler answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.security import Security
from distributed.worker import Worker, get_worker

from perijove.model import OperatorError, PerijoveError
from perijove_spawners.fabric.dask_settings import HTTP_ADDRESS
from perijove_spawners.fabric.news import accept
from perijove_spawners.fabric.refused import stamp
from perijove_spawners.fabric.renewing import expiring, take
from perijove_spawners.fabric.scheduler import changed, read_address
from perijove_spawners.launcher import LaunchError
from perijove_spawners.node.agent import NodeAgent
from perijove_spawners.protocol import HEARTBEAT, NODES_TOPIC, REPORTS_TOPIC, Order, Report

log = logging.getLogger(__name__)

OPERATION = "perijove"
"""Name under which a worker takes calls of :class:`~perijove_spawners.protocol.NodeCalls`."""
CALLS = frozenset(
    {
        "compute",
        "describe",
        "disk",
        "exec",
        "forget",
        "hand_over",
        "kept",
        "known",
        "logs",
        "measure_home",
        "purge",
        "remove_home",
        "resume",
        "signal",
        "start",
        "stats",
        "stop",
        "suspend",
        "update",
    }
)
REFUSE, EXPIRING, RENEWED = "refuse", "expiring", "renewed"
LINKS: dict[str, Callable[..., Any]] = {
    REFUSE: accept,
    EXPIRING: lambda tls: expiring(tls, datetime.datetime.now(datetime.UTC)),
    RENEWED: take,
}
"""Calls about the links themselves: which certificates are refused, and the node's own made anew."""
SLOTS = 10_000
"""Bundles of orders that may be under way at once; they are coroutines and cost no thread."""
RETRY = 1.0
"""Seconds between two tries to reach a scheduler."""
_CONNECT = 15.0


def resource(node: str) -> str:
    """The Dask resource that only this node has; orders are pinned by it."""
    return f"node:{node}"


class NodePlugin(WorkerPlugin):
    """Ties an agent to a Dask worker."""

    name: ClassVar[str] = "perijove-node"

    def __init__(self, agent: NodeAgent, tls: Path) -> None:
        self.agent = agent
        self._tls = tls

    def setup(self, worker: Worker) -> None:
        worker.handlers[OPERATION] = self.answer

    async def answer(self, method: str, payload: bytes, fence: int = 0) -> dict[str, Any]:
        """A call from the service. Both ends hold the installation's key, so pickle is safe here."""
        try:
            if method not in CALLS and method not in LINKS:
                raise LaunchError(f"a node has no call {method!r}")
            self.agent.meet(fence)
            args, kwargs = pickle.loads(payload)  # noqa: S301
            if act := LINKS.get(method):
                return {"result": pickle.dumps(act(self._tls, *args))}
            return {"result": pickle.dumps(await getattr(self.agent, method)(*args, **kwargs))}
        except PerijoveError as error:
            return {"error": pickle.dumps(error)}
        except LaunchError as error:
            # Third parties' classes need not exist, or not be picklable, on the other side.
            known = error if type(error).__module__ == LaunchError.__module__ else LaunchError(str(error))
            return {"error": pickle.dumps(known)}
        except Exception as error:
            log.exception("call of %s failed", method)
            said = f"node {self.agent.name} failed at {method}: {type(error).__name__}: {error}"
            return {"error": pickle.dumps(OperatorError(said))}


async def run_orders(orders: Sequence[Order]) -> None:
    """The Dask task of a bundle of orders: lives until the last of its jobs has ended."""
    plugin = get_worker().plugins[NodePlugin.name]
    assert isinstance(plugin, NodePlugin)
    await plugin.agent.start(orders)


class DaskNode:
    """Keeps an agent connected to a scheduler for as long as :meth:`run` runs."""

    def __init__(self, agent: NodeAgent, scheduler: str, security: Security, scratch: Path) -> None:
        self.agent = agent
        self._scheduler, self._security, self._scratch = scheduler, security, scratch
        self._tls = Path(str(security.get_tls_config_for_role("worker")["ca_file"])).parent
        self._worker: Worker | None = None
        agent.on_report = self._report

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        while True:
            try:
                await self._serve()
            except (OSError, TimeoutError, ValueError, RuntimeError) as error:
                log.warning("node %s: no scheduler: %s", self.agent.name, error)
            await asyncio.sleep(RETRY)

    async def _serve(self) -> None:
        address, refused = scheduler_address(self._scheduler), stamp(self._tls)
        worker = self._make_worker(address)
        try:
            async with asyncio.timeout(_CONNECT):
                await worker
            self._worker = worker
            self.agent.address = worker.address
            log.info("node %s is %s at scheduler %s", self.agent.name, worker.address, address)
            # What happened meanwhile could not be said.
            self._report(await self.agent.known())
            beat = asyncio.ensure_future(self._beat(worker))
            ends = [asyncio.ensure_future(one) for one in (worker.finished(), changed(self._tls, refused))]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in (beat, *ends):
                    one.cancel()
            log.warning("node %s lost its scheduler, or other certificates are refused", self.agent.name)
        finally:
            self._worker = None
            with contextlib.suppress(Exception):
                await worker.close(timeout=1, executor_wait=False, reason="node-disconnects")

    def _make_worker(self, scheduler: str) -> Worker:
        name = self.agent.name
        return Worker(
            scheduler,
            # Not the node's name alone: a scheduler may still believe in the worker before this one.
            name=f"{name}/{self.agent.incarnation}",
            host=_listen_host(scheduler),
            security=self._security,
            nthreads=SLOTS,
            resources={resource(name): 1_000_000},
            plugins=(NodePlugin(self.agent, self._tls),),
            local_directory=str(self._scratch),
            memory_limit=0,
            dashboard=False,
            dashboard_address=HTTP_ADDRESS,
        )

    async def _beat(self, worker: Worker) -> None:
        while True:
            node = await self.agent.describe()
            worker.log_event(NODES_TOPIC, node.model_dump(mode="json"))
            await asyncio.sleep(HEARTBEAT)

    def _report(self, reports: list[Report]) -> None:
        if self._worker is not None and reports:
            self._worker.log_event(REPORTS_TOPIC, [report.to_wire() for report in reports])


def scheduler_address(given: str) -> str:
    """The address `given`, or the one in the file of that name; ``OSError`` when it is not there yet."""
    if "://" in given:
        return given
    if address := read_address(Path(given)):
        return address
    raise FileNotFoundError(f"{given} holds no scheduler's address yet")


def _listen_host(scheduler: str) -> str | None:
    host = scheduler.partition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return "127.0.0.1" if ipaddress.ip_address(host).is_loopback else None
    except ValueError:
        return None
