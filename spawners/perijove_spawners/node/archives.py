"""Images that are archives in the store, for launchers that load them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from perijove.model import PerijoveError, UnavailableError
from perijove_spawners.launcher import ARCHIVE
from perijove_spawners.node.staging import StagingError, StagingFaultError
from perijove_spawners.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """See :class:`perijove_spawners.launcher.Archive`."""

    store: Store
    digest: str

    @classmethod
    def of(cls, image: str | None, store: Store) -> StoredArchive | None:
        """The archive that `image` names; None for any other image."""
        return cls(store, image.removeprefix(ARCHIVE)) if image and image.startswith(ARCHIVE) else None

    async def size(self) -> int:
        return await self._in_thread(lambda: self.store.size(self.digest))

    async def fetch(self, path: Path) -> None:
        await self._in_thread(lambda: self.store.copy_out(self.digest, path))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except UnavailableError as error:
            raise StagingFaultError(f"the image's archive could not be fetched: {error}") from error
        except PerijoveError as error:
            raise StagingError(f"the image's archive could not be fetched: {error}") from error
        except OSError as error:
            said = f"the image's archive could not be kept: {error.strerror or error}"
            raise StagingFaultError(said) from error
