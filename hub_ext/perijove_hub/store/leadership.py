"""Who leads: one service of several takes the lease and keeps it; the others wait.

The thread that renews it does nothing else, so that a busy service does not lose it. A process that died is
followed at once by the next on the same host and state directory, since the kernel let go of its lock; by
services elsewhere when its lease has run out.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from perijove_hub.private_files import kept_name
from perijove_hub.store.database import TRANSIENT, Database
from perijove_hub.store.engine import writing
from perijove_hub.store.lease import Lease, StaleLeaderError

log = logging.getLogger(__name__)

TTL = 10.0
"""Seconds after which a leader that said nothing may be followed."""
LOCK = "service.lock"


def holder_at(state: Path) -> str:
    """The name of services on this host that share the directory `state`, and so its lock."""
    return f"{socket.gethostname()}/{kept_name(state / 'service-id')}"


class Leadership:
    """The lease on `database`, for the service `holder` that is reached at `url`.

    `lock`: a file, locked while this process lives, that only services of the same `holder` lock. Without it
    a dead predecessor is waited for like any other.
    """

    def __init__(
        self, database: Database, holder: str, url: str, *, ttl: float = TTL, lock: Path | None = None
    ) -> None:
        self.database, self.holder, self.url, self.ttl = database, holder, url, ttl
        self.fence: int | None = None
        """While it leads: larger than that of any leader before."""
        self.ready = False
        """Whether the service that leads has begun to work."""
        self.lost: Callable[[], None] = _stay
        """Called once, in another thread, when another service leads."""
        self._lock, self._descriptor = lock, -1
        self._ended = threading.Event()
        self._renewals: threading.Thread | None = None

    def leader(self) -> Lease | None:
        """Who leads, or led last."""
        with self.database.engine.connect() as connection:
            return self.database.lease.read(connection)

    def acquire(self) -> bool:
        """Take the lease, if it is free; from then on it is renewed and the database knows the fence."""
        alone = self._locked()
        with writing(self.database.engine) as connection:
            fence = self.database.lease.acquire(
                connection, holder=self.holder, url=self.url, ttl=self.ttl, alone=alone
            )
        if fence is None:
            return False
        self.fence = fence
        self.database.lead(fence)
        log.info("this service leads, with fence %d", fence)
        self._renewals = threading.Thread(target=self._keep, args=(fence,), name="lease", daemon=True)
        self._renewals.start()
        return True

    async def wait(self) -> int:
        """Take the lease as soon as it is free; the fence. A database that does not answer is waited for."""
        while True:
            try:
                if await asyncio.to_thread(self.acquire):
                    assert self.fence is not None
                    return self.fence
            except TRANSIENT as error:
                log.warning("the database does not answer: %s", error)
            await asyncio.sleep(min(0.5, self.ttl / 10))

    def release(self) -> None:
        """Stop leading; another may at once."""
        self._ended.set()
        if self._renewals is not None:
            self._renewals.join()
            self._renewals = None
        if self.fence is not None:
            try:
                with writing(self.database.engine) as connection:
                    self.database.lease.release(connection, self.fence)
            except TRANSIENT as error:
                log.warning("the lease runs out by itself, it was not let go: %s", error)
            self.fence = None
            self.database.lead(None)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _keep(self, fence: int) -> None:
        while not self._ended.wait(self.ttl / 3):
            try:
                self._locked()  # once a predecessor that hangs is gone
                with writing(self.database.engine) as connection:
                    self.database.lease.renew(connection, fence, self.ttl)
            except StaleLeaderError as error:
                log.critical("leadership lost: %s", error)
                self.lost()
                return
            except TRANSIENT as error:
                # Nobody else can take it either while the database is away.
                log.error("the lease was not renewed: %s", error)

    def _locked(self) -> bool:
        """Whether this process has the lock: then no other of the same holder lives."""
        if self._lock is None or self._descriptor >= 0:
            return self._descriptor >= 0
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


def _stay() -> None:
    pass
