"""The API tokens in force, in memory by their hashes: what is revoked opens nothing from that moment on."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from perijove.model import (
    FieldError,
    InvalidSpecError,
    Scope,
    Token,
    UnavailableError,
    UserError,
    format_duration,
)
from perijove_hub.store.database import TRANSIENT, Database, StaleLeaderError
from perijove_hub.store.tokens import add_token, all_tokens, note_uses, remove_tokens
from perijove_hub.tokens.secret import digest, new_secret

log = logging.getLogger(__name__)
T = TypeVar("T")
DAY = 86400.0
USUAL = 90 * DAY
"""Seconds after which a token expires when nothing was said."""
MOST = 100
"""Tokens of one user."""
NOTED = 60.0
"""Seconds between two notes of when tokens were last used."""


class Tokens:
    """API tokens. `longest`: the most seconds that one may be valid."""

    def __init__(
        self, database: Database, longest: float = 366 * DAY, clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._longest, self._clock = database, longest, clock
        self._by_hash: dict[str, Token] = {}
        self._hashes: dict[int, str] = {}
        self._last = 0
        self._used: dict[int, tuple[float, str]] = {}
        self._noting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load them, as a service that begins to lead does."""
        self._by_hash = await asyncio.to_thread(self._database.read, all_tokens)
        self._hashes = {token.id: key for key, token in self._by_hash.items()}
        self._last = max(self._hashes, default=0)
        self._noting = asyncio.create_task(self._note_uses())

    async def close(self) -> None:
        """Note the last uses."""
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)
            self._noting = None
            await self._note()

    def find(self, secret: str) -> Token | None:
        """The token of that secret; None when there is none, or it has expired."""
        wanted = digest(secret)
        found = self._by_hash.get(wanted)
        if found is None or not secrets.compare_digest(self._hashes[found.id], wanted):
            return None
        return found if found.expires > self._clock() else None

    def used(self, token: int, address: str) -> None:
        """Remember that a token was used now, from `address`; on the disk within a minute."""
        now, key = self._clock(), self._hashes.get(token)
        if key is None:
            return
        known = self._by_hash[key]
        if known.last_used is None or now - known.last_used >= NOTED or known.last_address != address:
            noted = {"last_used": now, "last_address": address[:100]}
            self._by_hash[key] = known.model_copy(update=noted)
            self._used[token] = now, address[:100]

    def of(self, owner: str | None = None) -> list[Token]:
        """Tokens that have not expired, of one user or of all, by id."""
        now = self._clock()
        found = (one for one in self._by_hash.values() if owner is None or one.owner == owner)
        return sorted((one for one in found if one.expires > now), key=lambda one: one.id)

    def get(self, token: int) -> Token | None:
        """The token of that number."""
        key = self._hashes.get(token)
        return self._by_hash[key] if key is not None else None

    async def make(self, owner: str, name: str, scope: Scope, lifetime: float | None = None) -> Token:
        """A new token, durable, with its secret. `lifetime` in seconds.

        Raises :class:`InvalidSpecError` for one that is too long, :class:`UserError` when there are too many.
        """
        seconds = min(USUAL, self._longest) if lifetime is None else lifetime
        if seconds > self._longest:
            said = f"tokens of this site are valid for {format_duration(self._longest)} at most"
            raise InvalidSpecError(errors=[FieldError("lifetime", format_duration(seconds), said)])
        await self._remove([one.id for one in self._by_hash.values() if one.expires <= self._clock()])
        if len(self.of(owner)) >= MOST:
            raise UserError(f"you have {MOST} tokens; revoke those that you do not need")
        self._last += 1
        now, secret = self._clock(), new_secret()
        made = Token(id=self._last, owner=owner, name=name, scope=scope, created=now, expires=now + seconds)
        await self._write(partial(add_token, digest=digest(secret), made=made))
        self._by_hash[digest(secret)] = made
        self._hashes[made.id] = digest(secret)
        return made.model_copy(update={"token": secret})

    async def revoke(self, token: int) -> None:
        """Remove a token: durable, and no request is let in with it from now on."""
        await self._remove([token])

    async def revoke_all(self, owner: str, before: float | None = None) -> int:
        """Remove the tokens of a user that were made before a moment, or all; how many there were."""
        mine = [one.id for one in self._by_hash.values() if one.owner == owner]
        old = [id_ for id_ in mine if before is None or self._by_hash[self._hashes[id_]].created < before]
        await self._remove(old)
        return len(old)

    async def _remove(self, ids: list[int]) -> None:
        if not ids:
            return
        await self._write(partial(remove_tokens, ids=ids))
        for id_ in ids:
            if (key := self._hashes.pop(id_, None)) is not None:
                del self._by_hash[key]
            self._used.pop(id_, None)

    async def _write(self, act: Callable[[Connection], T]) -> T:
        return await durably(self._database, act)

    async def _note_uses(self) -> None:
        while True:
            await asyncio.sleep(NOTED)
            await self._note()

    async def _note(self) -> None:
        uses, self._used = self._used, {}
        try:
            if uses:
                await asyncio.to_thread(self._database.write, partial(note_uses, uses=uses))
        except (*TRANSIENT, StaleLeaderError) as error:
            log.warning("the last uses of tokens were not noted: %s", error)


async def durably(database: Database, act: Callable[[Connection], T]) -> T:
    """Do `act` in a transaction of the leader's. :class:`UnavailableError` when that cannot be done now."""
    try:
        return await asyncio.to_thread(database.write, act)
    except TRANSIENT as error:
        log.error("the database does not write: %s", error)
        raise UnavailableError("the database does not write; try again") from error
