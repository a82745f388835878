"""``python -m perijove.runner.dask scheduler|worker``: the parts of a user's own Dask cluster, as jobs.

Both come with the input ``tls.json`` (``ca``, ``cert``, ``key`` as PEM): whoever has it may use the cluster,
and nobody else. See :class:`perijove.dask_cluster.DaskCluster`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from distributed import Nanny, Scheduler, SchedulerPlugin
from distributed.security import Security

from perijove.runner.directory import JobDirectory

TLS = "tls.json"
HANDING_OVER = 5.0
"""Seconds in which a worker that is stopped hands over what it holds."""


class Owners(SchedulerPlugin):
    """Closes the scheduler when no client has been there for `linger` seconds."""

    def __init__(self, scheduler: Any, linger: float) -> None:
        self._scheduler, self._linger = scheduler, linger
        self._leaving: asyncio.TimerHandle | None = None
        self._arm()

    def add_client(self, scheduler: Any, client: str) -> None:
        self._disarm()

    def remove_client(self, scheduler: Any, client: str) -> None:
        # The scheduler has a client of its own, which never leaves.
        if not set(scheduler.clients) - {client, "fire-and-forget"}:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._leaving = asyncio.get_running_loop().call_later(self._linger, self._leave)

    def _disarm(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave(self) -> None:
        print(f"no client for {self._linger:g} s: closing", flush=True)
        self._closing = asyncio.ensure_future(self._scheduler.close(reason="its owner has gone"))


def run_scheduler(directory: JobDirectory, arguments: argparse.Namespace) -> int:
    """Serve until idle, left alone or stopped; the exit code."""

    async def serve() -> None:
        scheduler = Scheduler(
            protocol="tls",
            port=arguments.port,
            security=_security(directory),
            dashboard=True,
            dashboard_address=f":{arguments.dashboard_port}",
            http_prefix=arguments.prefix,
            idle_timeout=arguments.idle or None,
        )
        async with scheduler:
            scheduler.add_plugin(Owners(scheduler, arguments.linger), name="owners")
            await _served(scheduler.finished(), scheduler.close)

    asyncio.run(serve())
    return 0


def run_worker(directory: JobDirectory, arguments: argparse.Namespace) -> int:
    """Work for the scheduler until it closes, is gone, or the job is stopped; the exit code."""

    async def serve() -> None:
        name = int(arguments.name) if arguments.name.isdecimal() else arguments.name
        nanny = Nanny(
            arguments.scheduler,
            nthreads=arguments.threads,
            memory_limit=arguments.memory,
            name=name,
            security=_security(directory),
            death_timeout=arguments.patience,
            local_directory=str(directory.path / "dask"),
        )
        async with nanny:
            await _served(nanny.finished(), lambda: _leave(nanny))

    asyncio.run(serve())
    return 0


async def _leave(nanny: Nanny) -> None:
    """Hand what the worker holds to others, while there is time, and end."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        leaving = nanny.scheduler.retire_workers(workers=[nanny.worker_address], remove=True)
        await asyncio.wait_for(leaving, HANDING_OVER)
    await nanny.close(reason="its job is stopped")


async def _served(finished: Awaitable[Any], close: Callable[[], Awaitable[Any]]) -> None:
    """Wait for the end, which SIGTERM brings about in good order."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ended, stopped = asyncio.ensure_future(finished), asyncio.ensure_future(stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended, 5)
    stopped.cancel()


def _security(directory: JobDirectory) -> Security:
    pem = json.loads(directory.input(TLS).read_text())
    given = {f"tls_{role}_{part}": pem[part] for role in ("scheduler", "worker") for part in ("cert", "key")}
    client = {"tls_client_cert": pem["cert"], "tls_client_key": pem["key"]}
    return Security(tls_ca_file=pem["ca"], require_encryption=True, **given, **client)


def main(argv: list[str] | None = None) -> int:
    """Run one of the two; the exit code."""
    parser = argparse.ArgumentParser(prog="perijove.runner.dask", description=__doc__)
    kinds = parser.add_subparsers(required=True)
    scheduler = kinds.add_parser("scheduler")
    scheduler.set_defaults(run=run_scheduler)
    scheduler.add_argument("--port", type=int, required=True)
    scheduler.add_argument("--dashboard-port", type=int, required=True)
    scheduler.add_argument("--prefix", default="", help="path under which the dashboard is served")
    scheduler.add_argument("--idle", type=float, default=0, help="seconds without work after which it ends")
    scheduler.add_argument("--linger", type=float, default=120, help="seconds it stays without a client")
    worker = kinds.add_parser("worker")
    worker.set_defaults(run=run_worker)
    worker.add_argument("--scheduler", required=True, help="tls://HOST:PORT")
    worker.add_argument("--threads", type=int, default=1)
    worker.add_argument("--memory", type=int, required=True, help="bytes")
    worker.add_argument("--name", required=True)
    worker.add_argument("--patience", type=float, default=30, help="seconds without a scheduler it stays")
    arguments = parser.parse_args(argv)
    return int(arguments.run(JobDirectory.find(), arguments))


if __name__ == "__main__":
    sys.exit(main())
