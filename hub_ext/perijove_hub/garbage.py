"""What of the content store is needed, what could go, and what it may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from perijove.model import NotFoundError, TooLargeError, format_size
from perijove.model.trees import blob_of
from perijove_hub.policy.document import Policy
from perijove_hub.policy.guests import TermsOf, nobody
from perijove_hub.settings import Settings
from perijove_hub.store import files
from perijove_hub.store.database import Database
from perijove_hub.store.files import Owned
from perijove_spawners.store import Blob, CorruptError, Manifest, Store, is_tree

log = logging.getLogger(__name__)

GRACE = 3600.0
"""Seconds that a file stays at least after it was last put: whoever put it has yet to say what for."""
ROUND = 600.0
"""Seconds between two looks at how full the store is."""
STALE = 86400.0
"""Seconds after which an upload that has not come to its end has broken off."""
AT_ONCE = 1000
"""Files removed in one step."""


def needed(roots: Iterable[str], open_tree: Callable[[str], Manifest]) -> set[str]:
    """The files that `roots` stand for: themselves, and of folders their lists and all files in them.

    A folder that is gone or damaged needs nothing.
    """
    found: set[str] = set()
    for root in roots:
        found.add(blob_of(root))
        if is_tree(root):
            try:
                found.update(one.digest for one in open_tree(root).entries)
            except NotFoundError:
                continue
            except CorruptError as error:
                log.warning("%s", error)
    return found


def collectable(blobs: Iterable[Blob], kept: Collection[str], before: float) -> Iterator[Blob]:
    """Those that nothing needs and that were not put since `before`."""
    return (blob for blob in blobs if blob.changed < before and blob.digest not in kept)


@dataclass(slots=True)
class Collected:
    """What a collection removed, or would."""

    files: int = 0
    size: int = 0
    """Bytes."""
    kept_files: int = 0
    kept_size: int = 0
    dry_run: bool = False


@dataclass(slots=True)
class Usage:
    """What the store holds. Sizes in bytes; of a folder the list of its files counts as a file."""

    files: int = 0
    size: int = 0
    needed: int = 0
    """Bytes that jobs, runs and results need."""
    pinned: int = 0
    """Bytes that pinned runs need, part of `needed`."""
    recent: int = 0
    """Bytes that nothing needs but that were put within the grace period."""
    collectable: int = 0
    """Bytes that a collection would remove."""
    quota: int | None = None
    users: list[Owned] = field(default_factory=list)
    """What each owns; what two own counts for both."""


class Keeper:
    """Looks after the content store. Lives in the event loop of the service; what blocks goes to threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Store,
        policy: Callable[[], Policy],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._database, self.store = settings, database, store
        self._policy, self._clock = policy, clock
        self.grace = GRACE
        self.terms_of: TermsOf = nobody
        self._one = asyncio.Lock()
        """Held by whoever goes through the whole store."""

    # ---- for those who name files

    async def hold(self, digests: Collection[str]) -> set[str]:
        """Keep these from being collected for the grace period, within which whatever needs them must be in
        the database; those that the store does not have.
        """
        return await asyncio.to_thread(self._hold, set(digests))

    def _hold(self, digests: set[str]) -> set[str]:
        return {digest for digest in digests if not self._held(digest)}

    def _held(self, digest: str) -> bool:
        with contextlib.suppress(NotFoundError):
            return self.store.refresh(digest)
        return False

    async def make_room(self, owner: str, size: int) -> None:
        """:class:`TooLargeError` when `owner` may not own `size` bytes more."""
        policy = self._policy()
        user = policy.user(owner)
        guest = user.guest or self.terms_of(owner) is not None
        limits = [user.limits.store, policy.guests.store if guest else None]
        if not (given := [limit for limit in limits if limit is not None]):
            return
        have = sum(one.size for one in await asyncio.to_thread(files.owned, self._database, owner))
        if have + size > min(given):
            text = f"{format_size(have)} of {format_size(min(given))} are taken"
            raise TooLargeError(f"{owner} may keep no more in the store: {text}; archive or purge jobs")

    # ---- for operators

    async def run(self) -> None:
        """Work for ever: see how full the store is, and collect where the settings say so."""
        while True:
            try:
                await self.round()
            except Exception:
                log.exception("the store was not looked after; trying again later")
            await asyncio.sleep(ROUND)

    async def round(self) -> None:
        """One look."""
        if self._settings.store_collect is not None:
            done = await self.collect(older_than=self._settings.store_collect)
            if done.files:
                log.info("removed %d files of the store, %s", done.files, format_size(done.size))
        elif self._settings.store_quota is not None:
            async with self._one:
                await asyncio.to_thread(self._measure)

    async def collect(self, *, older_than: float = 0.0, dry_run: bool = False) -> Collected:
        """Remove what nothing needs and was last put longer ago than `older_than` and the grace period."""
        async with self._one:
            return await asyncio.to_thread(self._collect, older_than, dry_run)

    async def usage(self, owner: str | None = None) -> Usage:
        """What the store holds, and what `owner` owns, or everybody."""
        async with self._one:
            return await asyncio.to_thread(self._usage, owner)

    def _collect(self, older_than: float, dry_run: bool) -> Collected:
        before, done = self._before(older_than), Collected(dry_run=dry_run)
        # In this order: what is named after the roots were read was put again before, and so after `before`.
        blobs = list(self.store.all())
        gone = list(collectable(blobs, self._needed(), before))
        if not dry_run:
            removed: set[str] = set()
            for i in range(0, len(gone), AT_ONCE):
                removed |= self.store.delete([blob.digest for blob in gone[i : i + AT_ONCE]], before=before)
            gone = [blob for blob in gone if blob.digest in removed]
            self._forget(gone)
            self.store.sweep(self._clock() - STALE)
        done.files, done.size = len(gone), sum(blob.size for blob in gone)
        done.kept_files = len(blobs) - done.files
        done.kept_size = sum(blob.size for blob in blobs) - done.size
        if not dry_run:
            self._declare(done.kept_size)
        return done

    def _before(self, older_than: float) -> float:
        before = self._clock() - max(older_than, self.grace)
        working = files.oldest_at_work(self._database)
        return before if working is None else min(before, working)

    def _needed(self) -> set[str]:
        return needed(files.roots(self._database), self.store.open_tree)

    def _forget(self, gone: list[Blob]) -> None:
        digests = {blob.digest for blob in gone}
        trees = {tree for tree in files.trees(self._database) if blob_of(tree) in digests}
        files.forget_files(self._database, digests | trees)

    def _measure(self) -> None:
        self._declare(sum(blob.size for blob in self.store.all()))

    def _declare(self, size: int) -> None:
        quota = self._settings.store_quota
        if quota is None or size < quota:
            self.store.declare_full(None)
        else:
            taken = f"{format_size(size)} of {format_size(quota)} (store_quota)"
            self.store.declare_full(f"the store is full: {taken} are taken; its administrator can collect")

    def _usage(self, owner: str | None) -> Usage:
        before, kept = self._before(0.0), self._needed()
        pinned = needed(files.pinned_roots(self._database), self.store.open_tree)
        usage = Usage(quota=self._settings.store_quota, users=files.owned(self._database, owner))
        for blob in self.store.all():
            usage.files += 1
            usage.size += blob.size
            if blob.digest in kept:
                usage.needed += blob.size
                usage.pinned += blob.size if blob.digest in pinned else 0
            elif blob.changed < before:
                usage.collectable += blob.size
            else:
                usage.recent += blob.size
        return usage
