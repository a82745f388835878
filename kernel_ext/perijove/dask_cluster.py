"""A user's own Dask cluster, whose scheduler and workers are jobs in the queue like any other.

It is a Dask ``SpecCluster``: ``scale``, ``adapt``, ``get_client``, the widget in notebooks and JupyterLab's
Dask extension work as with all of Dask's clusters.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from distributed import Client as DaskClient
from distributed.comm.core import connect
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.security import Security

from perijove.client import AsyncClient
from perijove.connection import Connection, find_connection
from perijove.handle import AsyncJob
from perijove.model.errors import PerijoveError, UserError
from perijove.model.quantities import parse_duration, parse_size
from perijove.workplace import interpreter, place

PORTS = range(20_000, 32_000)
"""Below what Linux gives out by itself (ip_local_port_range)."""
LABEL = "dask"
"""Label of a cluster's jobs; its value is the cluster's name in the dashboard's address."""
SPARE = 0.9
"""Of a worker's memory, what Dask may plan with: the nanny and the interpreters take the rest."""


class _Jobs:
    """The service, and what all jobs of one cluster have in common."""

    def __init__(self, connection: Connection, token: str, fields: Mapping[str, Any]) -> None:
        self.connection, self.token, self.fields = connection, token, fields
        self.client = AsyncClient(connection=connection)
        self.security = Security.temporary()
        self._tls = ""

    async def submit(self, name: str, arguments: list[str], **more: Any) -> AsyncJob:
        """Submit one of its jobs."""
        if not self._tls:
            self._tls = await self.client.upload(json.dumps(_pem(self.security)).encode())
        fields = place({**self.fields, **more}, self.connection.launchers)
        labels = {**fields.get("labels", {}), LABEL: self.token}
        python = await interpreter(fields, self.client)
        return await self.client.submit(
            {
                **fields,
                "kind": "dask",
                "name": name,
                "command": [python, "-m", "perijove.runner.dask", *arguments],
                "inputs": {"tls.json": self._tls},
                "labels": labels,
            }
        )


class _Part(ProcessInterface):
    """A job as Dask's clusters want to see it."""

    def __init__(self, jobs: _Jobs, name: Any = None) -> None:
        super().__init__(name=name)  # type: ignore[no-untyped-call]
        self.jobs, self.name = jobs, name
        self.job: AsyncJob | None = None

    async def _submit(self, name: str, arguments: list[str], **fields: Any) -> AsyncJob:
        self.job = await self.jobs.submit(name, arguments, **fields)
        if self.status is Status.closed:  # meanwhile
            await self._kill()
        return self.job

    async def _kill(self) -> None:
        if self.job is not None:
            with contextlib.suppress(PerijoveError):
                await self.jobs.client.act(self.job.label, "kill")

    async def close(self) -> None:
        """Have its job stopped."""
        if self.status is not Status.closed:
            await self._kill()
        await super().close()  # type: ignore[no-untyped-call]


class SchedulerJob(_Part):
    """The cluster's scheduler. Starting it waits in the queue, at most `timeout` seconds."""

    def __init__(self, jobs: _Jobs, *, prefix: str, idle: float, linger: float, timeout: float) -> None:
        super().__init__(jobs)
        self._prefix, self._idle, self._linger, self._timeout = prefix, idle, linger, timeout

    async def start(self) -> None:
        """Submit it and wait until it answers."""
        port, dashboard = random.sample(PORTS, 2)
        arguments = ["scheduler", "--port", str(port), "--dashboard-port", str(dashboard)]
        arguments += ["--prefix", self._prefix, "--idle", str(self._idle), "--linger", str(self._linger)]
        self.job = await self._submit(
            "dask-scheduler", arguments, cpu=0.5, memory="1G", gpus=0, ports=[port, dashboard]
        )
        try:
            async with asyncio.timeout(self._timeout):
                self.address = await self._reachable(port)
        except TimeoutError:
            await self._kill()
            raise TimeoutError(
                f"the scheduler (job {self.job.label}) did not answer within {self._timeout:g} s:"
                f" {self.job.state}; timeout= makes it longer, and perijove why {self.job.label} says why"
            ) from None
        await super().start()  # type: ignore[no-untyped-call]

    async def _reachable(self, port: int) -> str:
        """The scheduler's address, once it can be connected to."""
        assert self.job is not None
        arguments = self.jobs.security.get_connection_args("client")
        while True:
            await self.job.refresh()
            if self.job.ended:
                raise await self.job.failure()
            endpoint = self.job.document.get("endpoint") or {}
            if place_of := endpoint.get("ports", {}).get(str(port)):
                address = f"tls://{place_of}"
                with contextlib.suppress(OSError):
                    comm = await connect(address, timeout=2, **arguments)
                    comm.abort()
                    return address
            await asyncio.sleep(0.2)


class WorkerJob(_Part):
    """A worker of the cluster: running, or waiting in the queue."""

    def __init__(
        self, scheduler: str, *, jobs: _Jobs, name: Any, threads: int, fields: Mapping[str, Any], beside: Any
    ) -> None:
        super().__init__(jobs, name)
        self._scheduler, self._threads, self._fields, self._beside = scheduler, threads, fields, beside

    async def start(self) -> None:
        """Submit it."""
        memory = int(parse_size(self._fields["memory"]) * SPARE)
        arguments = ["worker", "--scheduler", self._scheduler, "--threads", str(self._threads)]
        arguments += ["--memory", str(memory), "--name", str(self.name)]
        fields = dict(self._fields)
        if fields.get("network") != "host" and (node := self._beside()) is not None:
            # Containers of different hosts do not reach each other on their bridges.
            fields["node"] = node
        await self._submit("dask-worker", arguments, **fields)
        await super().start()  # type: ignore[no-untyped-call]


class DaskCluster(SpecCluster):
    """A Dask cluster of your own: ``cluster = DaskCluster(workers=4, cpus=2, memory="4G")``.

    Scheduler and workers run in the notebook's image, as you, and are charged to you. `workers` may be
    changed by ``cluster.scale(8)`` or be left to Dask by ``cluster.adapt(minimum=0, maximum=8)``; those that
    have no room wait in the queue. ``client = cluster.get_client()``; ``cluster.dashboard_link`` is the
    dashboard.

    `options` are those of :func:`perijove.submit` (``image``, ``gpus``, ``project``, ``priority``, ``time``,
    ``env``...). On several nodes the workers need ``network="host"``; else all run beside the scheduler.
    `idle`: it ends after so long without work. `linger`: it ends so long after the last client, this
    notebook's kernel among them, has gone. `timeout`: for how long its start waits in the queue. Links are
    encrypted (TLS, with a key of the cluster's own). With ``asynchronous=True`` await it.
    """

    def __init__(
        self,
        workers: int = 0,
        *,
        cpus: float = 1,
        memory: str | int = "2G",
        idle: str | float = "1h",
        linger: str | float = "2m",
        timeout: str | float = "10m",
        url: str | None = None,
        token: str | None = None,
        asynchronous: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if workers < 0:
            raise UserError(f"workers: must be 0 or more, not {workers}")
        connection = Connection(url.rstrip("/"), token or "") if url else find_connection()
        self.dashboard_name = secrets.token_hex(16)
        shared = {key: value for key, value in options.items() if key not in {"gpus", "resources"}}
        jobs = _Jobs(connection, self.dashboard_name, shared)
        self._jobs = jobs
        self._dashboard_path = f"{urlsplit(connection.url).path}/dask/{self.dashboard_name}"
        self._presence: Any = None
        scheduler = {
            "jobs": jobs,
            "prefix": self._dashboard_path,
            "idle": parse_duration(idle),
            "linger": parse_duration(linger),
            "timeout": parse_duration(timeout),
        }
        worker = {
            "jobs": jobs,
            "threads": max(1, int(cpus)),
            "fields": {**options, "cpu": cpus, "memory": memory},
            "beside": self._node,
        }
        spec = {"cls": WorkerJob, "options": worker}
        super().__init__(  # type: ignore[no-untyped-call]
            workers=dict.fromkeys(range(workers), spec),
            worker=spec,
            scheduler={"cls": SchedulerJob, "options": scheduler},
            security=jobs.security,
            asynchronous=asynchronous,
            name=name or f"perijove-{self.dashboard_name[:6]}",
        )

    @property
    def dashboard_link(self) -> str:
        """Where the dashboard is seen, behind the service and its login."""
        if "JUPYTERHUB_SERVICE_PREFIX" in os.environ:  # the browser knows the hub by another name than we do
            return f"{os.environ.get('JUPYTERHUB_HOST', '')}{self._dashboard_path}/status"
        parts = urlsplit(self._jobs.connection.url)
        return f"{parts.scheme}://{parts.netloc}{self._dashboard_path}/status"

    def _node(self) -> str | None:
        job = getattr(self.scheduler, "job", None)
        return None if job is None else job.document.get("node")

    async def _start(self) -> None:
        await super()._start()  # type: ignore[no-untyped-call]
        # While this kernel lives, the scheduler has a client.
        if self._presence is None:
            self._presence = await DaskClient(
                self.scheduler_address,
                security=self.security,
                asynchronous=True,
                set_as_default=False,
                name="presence",
            )

    async def _scheduler_gone(self) -> None:
        """Note when the scheduler has ended by itself: nobody is to be asked to let go of workers then."""
        job = getattr(self.scheduler, "job", None)
        if job is not None and self.scheduler is not None:
            with contextlib.suppress(PerijoveError):
                await job.refresh()
            if job.ended:
                self.scheduler.status = Status.closed

    async def _close(self) -> None:
        if self._presence is not None:
            with contextlib.suppress(Exception):
                await self._presence.close()
            self._presence = None
        await self._scheduler_gone()
        await super()._close()  # type: ignore[no-untyped-call]
        await self._jobs.client.close()


def _pem(security: Any) -> dict[str, str]:
    return {
        "ca": security.tls_ca_file,
        "cert": security.tls_scheduler_cert,
        "key": security.tls_scheduler_key,
    }


__all__ = ["DaskCluster"]
