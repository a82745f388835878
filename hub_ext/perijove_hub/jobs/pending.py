"""What gathers between two commits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from perijove.model import Job, JobEvent
from perijove_hub.jobs.effects import Effect
from perijove_hub.store.database import Batch


@dataclass(slots=True)
class Pending:
    """What the next commit writes, and what happens after it, in this order."""

    batch: Batch = field(default_factory=Batch)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    published: list[tuple[JobEvent, Job]] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.batch or self.waiters or self.effects or self.published)
