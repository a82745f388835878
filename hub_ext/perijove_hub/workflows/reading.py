"""What a run has to read before it can go on: contents of files, code of notebooks, who owns what."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from perijove.model import NotFoundError, PerijoveError, Step
from perijove_hub.store.database import Database
from perijove_hub.workflows import cells
from perijove_hub.workflows.live import Live
from perijove_hub.workflows.resolve import CONTENT_BYTES, Unresolvable, parsed
from perijove_hub.workflows.submitting import Draft
from perijove_spawners.store import CorruptError, Store, is_tree

log = logging.getLogger(__name__)

NOTEBOOKS = 500
"""Notebooks whose code is remembered."""


class Reading:
    """Reads in threads of its own."""

    def __init__(self, store: Store, database: Database) -> None:
        self.store, self._database = store, database
        self._codes: OrderedDict[str, Any] = OrderedDict()

    async def contents(self, live: Live, digests: Iterable[str]) -> None:
        """Have what these hold at hand."""
        for digest in digests:
            try:
                live.contents[digest] = await asyncio.to_thread(self._content, digest)
            except (NotFoundError, CorruptError) as error:
                live.contents[digest] = Unresolvable(str(error))
            except (PerijoveError, OSError) as error:
                # The store may be back at the next look.
                log.warning("run %d: %s cannot be read: %s", live.run.id, digest, error)
                await asyncio.sleep(1.0)

    def _content(self, digest: str) -> Any:
        try:
            if is_tree(digest):
                return self.store.open_tree(digest)
            with self.store.open(digest) as file:
                return parsed(file.read(CONTENT_BYTES + 1))
        except CorruptError:
            self.store.drop_damaged(digest)
            raise

    async def code(self, step: Step) -> Any:
        """What of a notebook step's code determines its result; None of other steps."""
        if step.notebook is None:
            return None
        if step.notebook not in self._codes:
            self._codes[step.notebook] = await asyncio.to_thread(self._code, step.notebook)
            while len(self._codes) > NOTEBOOKS:
                self._codes.popitem(last=False)
        return self._codes[step.notebook]

    def _code(self, digest: str) -> Any:
        with self.store.open(digest) as file:
            data = file.read(cells.LARGEST + 1)
        try:
            return cells.code_of(data)
        except ValueError as error:
            raise Unreadable(f"notebook: {error}") from None

    async def check_claims(self, live: Live, some: Sequence[Draft]) -> None:
        """Note in those that name others' files that they do."""
        claimed = {digest for one in some for digest in one.made.claimed} - live.owned
        if claimed:
            live.owned |= await asyncio.to_thread(self.owned, live.run.owner, claimed)
        for one in some:
            if wrong := one.made.claimed - live.owned:
                one.wrong = f"{min(wrong)}: no such file was uploaded by you"

    def owned(self, owner: str, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that this user may use."""
        return {digest for digest in digests if self._database.owns(owner, digest)}


class Unreadable(NotFoundError):  # noqa: N818 - says what was found instead
    """It is no notebook."""
