"""What is known of each attempt's container, so that the engine is asked little."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perijove.model import Attempt
from perijove_spawners.cgroups import Cgroup
from perijove_spawners.containers.connection import Connection
from perijove_spawners.containers.container import DIRECTORY, NETWORK, Dialect
from perijove_spawners.containers.container_log import ContainerLog
from perijove_spawners.containers.inventory import Inventory
from perijove_spawners.containers.kernel_log import killed_for_memory
from perijove_spawners.containers.log_records import LogRecords
from perijove_spawners.containers.reading import Sample, status_of
from perijove_spawners.containers.usage import cgroup_of, measure
from perijove_spawners.launcher import EngineError, Phase, Status

FEW = 8
"""Attempts up to which asking for each is cheaper for the engine than listing all its containers."""
MEASURING = 1.0
"""Seconds between two looks at what containers use; shorter jobs are not measured."""
SIGKILLED = 137


@dataclass
class Known:
    """What is remembered of an attempt; but for `stopped` it can all be asked for again."""

    state: str = ""
    """The engine's word, as of `status`."""
    status: Status = field(default_factory=lambda: Status(Phase.UNKNOWN))
    log: ContainerLog | None = None
    cgroup: Cgroup | None = None
    used: Sample | None = None
    asked: Sample | None = None
    """At the last call of stats."""
    stopped: bool = False
    """By us."""
    network: str = ""


class Survey:
    """Looks at containers, remembers what it saw, and measures those that run."""

    def __init__(self, connection: Connection, containers: Inventory, dialect: Dialect) -> None:
        self._connection = connection
        self._containers = containers
        self._dialect = dialect
        self._root = ""
        self._known: dict[Attempt, Known] = {}
        self._meter: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin; the connection is there."""
        if "{root}" in self._dialect.log_file:
            info = await self._connection.quick(lambda: self._connection.api.info())
            self._root = str(info.get("DockerRootDir") or "")
        if self._meter is None:
            self._meter = asyncio.create_task(self._keep_measuring())

    async def close(self) -> None:
        """End, and forget all."""
        if self._meter is not None:
            self._meter.cancel()
            self._meter = None
        await asyncio.gather(*(known.log.close() for known in self._known.values() if known.log))
        self._known.clear()

    def get(self, attempt: Attempt) -> Known | None:
        """What is remembered of `attempt`."""
        return self._known.get(attempt)

    def known(self, attempt: Attempt) -> Known:
        """The same, with room made for what is not remembered yet."""
        return self._known.setdefault(attempt, Known())

    def note_start(self, attempt: Attempt) -> None:
        """It was started just now, by us."""
        self._known[attempt] = Known(status=Status(Phase.RUNNING), asked=Sample(time.time()))

    def forget(self, attempt: Attempt) -> None:
        """It was removed."""
        self._known.pop(attempt, None)

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        """The status of each, with what was used so far."""
        wanted = list(dict.fromkeys(attempts))
        states = await self._containers.states() if len(wanted) > FEW else None
        found = await asyncio.gather(*(self._status(attempt, states) for attempt in wanted))
        return dict(zip(wanted, found, strict=True))

    async def _status(self, attempt: Attempt, states: Mapping[Attempt, str] | None) -> Status:
        if states is not None and attempt not in states:
            return Status(Phase.UNKNOWN)
        known = self._known.get(attempt)
        if states is None or known is None or known.state != states[attempt]:
            known = await self.look(attempt)
        if known is None:
            return Status(Phase.UNKNOWN)
        used = known.used or Sample(0.0)
        return replace(known.status, memory_peak=used.memory_peak, cpu_seconds=used.cpu_seconds)

    async def look(self, attempt: Attempt) -> Known | None:
        """What the engine has of `attempt` now; None when it has nothing."""
        info = await self._containers.find(attempt)
        if info is None:
            return None
        known = self._known.setdefault(attempt, Known())
        known.state, known.status = info["State"]["Status"], status_of(info)
        if known.status.phase is Phase.RUNNING and known.cgroup is None:
            known.cgroup = await asyncio.to_thread(cgroup_of, info)
        known.network = info["Config"]["Labels"].get(NETWORK, "")
        if known.log is None:
            directory = Path(info["Config"]["Labels"][DIRECTORY])
            name, records = self._containers.name(attempt), self._log_records(info)
            known.log = ContainerLog(self._connection, name, directory, records)
        if known.status.phase is Phase.EXITED:
            known.log.ended = True
            if known.status.exit_code == SIGKILLED and self._dialect.loses_oom and not known.stopped:
                killed = await asyncio.to_thread(killed_for_memory, info["Id"])
                known.status = replace(known.status, out_of_memory=killed)
        return known

    async def _keep_measuring(self) -> None:
        while True:
            await asyncio.sleep(MEASURING)
            running = [a for a, known in self._known.items() if known.status.phase is Phase.RUNNING]
            with contextlib.suppress(EngineError):
                for attempt in running:
                    known = self._known.get(attempt)
                    if known is not None and known.cgroup is None:
                        known = await self.look(attempt)
                    if known is not None and known.cgroup is not None:
                        known.used = await asyncio.to_thread(measure, known.cgroup, time.time(), known.used)

    def _log_records(self, info: Mapping[str, Any]) -> LogRecords | None:
        """The engine's own file; None when this process may not read it."""
        path = self._dialect.log_file.format(root=self._root, id=info["Id"], path=info.get("LogPath", ""))
        return LogRecords(Path(path), self._dialect.log_entries) if os.access(path, os.R_OK) else None
