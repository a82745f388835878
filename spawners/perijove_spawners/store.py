"""The content-addressed store: files under the digest of their bytes, in a folder or any fsspec URL.

A file becomes visible whole or not at all, and is checked again whenever it is read. Names are
``sha256:`` and 64 hexadecimal digits. All calls block; use a thread inside an event loop.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from perijove.model import NotFoundError, OperatorError, TooLargeError, format_size

CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class CorruptError(OperatorError):
    """The store's content does not match its digest."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put: its digest and its size in bytes."""

    digest: str
    size: int


class Store:
    """Files by digest below one folder or URL, for example ``/srv/perijove/store`` or ``s3://bucket/perijove``."""

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self._fs, root = url_to_fs(os.fspath(url), **options)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, source: BinaryIO | Iterable[bytes], *, limit: int | None = None) -> Stored:
        """Take in all of `source`. :class:`TooLargeError` beyond `limit` bytes, with nothing kept."""
        with self.writer(limit=limit) as writer:
            for chunk in _chunks(source):
                writer.write(chunk)
            return writer.commit()

    @contextmanager
    def writer(self, *, limit: int | None = None) -> Iterator[Writer]:
        """Take in a file piece by piece; what is not committed leaves no trace."""
        writer = Writer(self, limit)
        try:
            yield writer
        finally:
            writer.discard()

    def open(self, digest: str) -> BinaryIO:
        """Read a file; at its end :class:`CorruptError` when the bytes do not match `digest`."""
        path = self._path(digest)
        try:
            return io.BufferedReader(_Checked(self._fs.open(path, "rb"), digest), CHUNK)
        except FileNotFoundError:
            raise NotFoundError(f"{digest} is not in the store") from None

    def exists(self, digest: str) -> bool:
        """Whether the store has it."""
        return bool(self._fs.exists(self._path(digest)))

    def size(self, digest: str) -> int:
        """Its size in bytes; :class:`NotFoundError` when the store does not have it."""
        try:
            return int(self._fs.size(self._path(digest)))
        except FileNotFoundError:
            raise NotFoundError(f"{digest} is not in the store") from None

    def _path(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise NotFoundError(f"{digest[:100]!r} is not a digest; one looks like sha256:9f86d081...")
        name = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{name[:2]}/{name[2:]}"

    def _create(self) -> tuple[str, BinaryIO]:
        path = f"{self._root}/incoming/{secrets.token_hex(16)}"
        self._fs.makedirs(f"{self._root}/incoming", exist_ok=True)
        return path, self._fs.open(path, "wb")

    def _keep(self, temporary: str, digest: str) -> None:
        path = self._path(digest)
        if self._fs.exists(path):
            self._fs.rm_file(temporary)
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if self._local:
            Path(temporary).replace(path)
        else:
            self._fs.mv(temporary, path)

    def _drop(self, temporary: str) -> None:
        if self._fs.exists(temporary):
            self._fs.rm_file(temporary)


class Writer:
    """One file on its way into the store."""

    def __init__(self, store: Store, limit: int | None) -> None:
        self._store, self._limit = store, limit
        self._hash = hashlib.sha256()
        self._size = 0
        self._path, self._file = store._create()
        self._open = True

    def write(self, data: bytes) -> None:
        """Add `data`; :class:`TooLargeError` beyond the limit."""
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise TooLargeError(f"a file may have at most {format_size(self._limit)}")
        self._hash.update(data)
        self._file.write(data)

    def commit(self) -> Stored:
        """Make it visible under its digest."""
        digest = f"sha256:{self._hash.hexdigest()}"
        self._file.flush()
        if self._store._local:
            os.fsync(self._file.fileno())
        self._file.close()
        self._store._keep(self._path, digest)
        self._open = False
        return Stored(digest, self._size)

    def discard(self) -> None:
        """Drop it unless it was committed."""
        if self._open:
            self._open = False
            self._file.close()
            self._store._drop(self._path)


class _Checked(io.RawIOBase):
    """A stream that fails at its end when its bytes do not match the digest."""

    def __init__(self, raw: BinaryIO, digest: str) -> None:
        self._raw, self._digest = raw, digest
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        if not data:
            if f"sha256:{self._hash.hexdigest()}" != self._digest:
                raise CorruptError(f"{self._digest} is damaged in the store")
            return 0
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()

    def __enter__(self) -> Self:
        return self


def _chunks(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while data := read(CHUNK):
        yield data
