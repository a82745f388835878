"""Reading what must be what its digest says."""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, Self

from perijove_spawners.store.errors import CorruptError


class Checked(io.RawIOBase):
    """A stream that fails at its end when its bytes do not match the digest."""

    def __init__(self, raw: BinaryIO, digest: str) -> None:
        self._raw, self._digest = raw, digest
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See :class:`io.RawIOBase`. Raises :class:`CorruptError` where the end would be."""
        data = self._raw.read(len(buffer))
        if not data:
            if f"sha256:{self._hash.hexdigest()}" != self._digest:
                raise CorruptError(f"{self._digest} is damaged in the store")
            return 0
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close what it reads from."""
        self._raw.close()
        super().close()

    def __enter__(self) -> Self:
        return self
