"""The audit log as the service keeps it: an act is on the disk before it is done."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from perijove.model import UnavailableError
from perijove_hub.store.audit import Act, append
from perijove_hub.store.database import TRANSIENT, Database, StaleLeaderError

log = logging.getLogger("perijove.audit")


class AuditLog:
    """Adds acts to the log; those that come while others are being written share one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Sequence[Act], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def note(self, by: str, act: str, subject: str, **more: Any) -> None:
        """`by` does `act` to `subject`, with other fields of :class:`Act`; returns when that is durable."""
        await self.write([Act(time.time(), by, act, subject, **more)])

    async def write(self, acts: Sequence[Act]) -> None:
        """Write `acts`, all or none. :class:`UnavailableError`: they are not written, and may not be done."""
        for act in acts:
            log.info("%s", line(act))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((acts, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        while self._waiting:
            bundle, self._waiting = self._waiting, []
            acts = [act for some, _ in bundle for act in some]
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._database.write, partial(append, acts=acts))
            except StaleLeaderError as error:
                failure = error
            except TRANSIENT as error:
                log.error("the audit log cannot be written: %s", error)
                failure = UnavailableError("the audit log cannot be written; nothing was done")
            except Exception as error:
                log.exception("the audit log cannot be written")
                failure = error
            for _, written in bundle:
                if written.done():
                    continue
                if failure is None:
                    written.set_result(None)
                else:
                    written.set_exception(failure)
        self._writing = None


def line(act: Act) -> str:
    """`act` as a line of the service's own log."""
    said = {
        "by": act.by,
        "act": act.act,
        "subject": act.subject,
        "project": act.project,
        "before": act.before,
        "after": act.after,
        "address": act.address or None,
        "token": act.token or None,
    }
    known = {name: value for name, value in said.items() if value is not None}
    return json.dumps(known, default=str, sort_keys=True)
