"""What administrators tell everybody, on all pages and in terminals; kept as versions of one document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from perijove.model import Announcement, NotFoundError, UserError
from perijove_hub.store.database import Database

DOCUMENT = "announcements"
MOST = 20
"""Announcements at once: nobody reads more."""


class Announcements:
    """Those that have not ended. Each change is durable before it holds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[Announcement, ...] = ()
        self._last = 0
        self._changing = asyncio.Lock()

    async def recall(self) -> None:
        """What the database has: of a service that begins to lead."""
        kept = await asyncio.to_thread(self._database.document, DOCUMENT)
        found: dict[str, Any] = json.loads(kept.body) if kept is not None else {}
        self._last = int(found.get("last", 0))
        self._known = tuple(Announcement.model_validate(one) for one in found.get("announcements", []))

    def at(self, now: float) -> list[Announcement]:
        """Those that hold now, warnings first, then by their begin."""
        held = [one for one in self.known(now) if one.begins <= now]
        return sorted(held, key=lambda one: (one.level != "warning", one.begins, one.id))

    def known(self, now: float) -> list[Announcement]:
        """Those that hold now or will."""
        return [one for one in self._known if one.ends is None or one.ends > now]

    def get(self, number: int) -> Announcement:
        """The one of that number; :class:`NotFoundError`."""
        for one in self._known:
            if one.id == number:
                return one
        raise NotFoundError(f"there is no announcement {number}")

    async def add(self, announcement: Announcement, now: float) -> Announcement:
        """Tell everybody; the announcement with its number. :class:`UserError` when there are too many."""
        async with self._changing:
            known = self.known(now)
            if len(known) >= MOST:
                raise UserError(f"there are {MOST} announcements already; remove one")
            added = announcement.model_copy(update={"id": self._last + 1})
            await self._save([*known, added], added.id, added.by, now)
        return added

    async def remove(self, number: int, by: str, now: float) -> None:
        """Tell it no more; :class:`NotFoundError`."""
        async with self._changing:
            gone = self.get(number)
            kept = [one for one in self.known(now) if one is not gone]
            await self._save(kept, self._last, by, now)

    async def _save(self, kept: Sequence[Announcement], last: int, by: str, now: float) -> None:
        body = json.dumps({"last": last, "announcements": [one.model_dump(mode="json") for one in kept]})
        await asyncio.to_thread(self._database.save_document, DOCUMENT, body, by, now)
        self._known, self._last = tuple(kept), last
