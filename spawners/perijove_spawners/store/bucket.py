"""A store's files in a bucket, or anywhere else that fsspec reaches."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from perijove_spawners.store.place import CHUNK

PART = 16 << 20
"""Bytes of a part of a multipart upload (at most 10,000 parts make an object)."""


class Bucket:
    """See :class:`~perijove_spawners.store.place.Place`.

    ``sha256/ab/cdef...`` are the files, ``incoming/`` those that are being written; the time of
    ``recent/abcdef...`` says when a file that was there already was put again.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self.fs, self.root = fs, root

    def create(self) -> IncomingObject:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return IncomingObject(self, f"{self.root}/incoming/{secrets.token_hex(16)}")

    def open(self, name: str) -> BinaryIO:
        """See :class:`~perijove_spawners.store.place.Place`."""
        opened: BinaryIO = self.fs.open(self.path(name), "rb", block_size=8 * CHUNK, cache_type="readahead")
        return opened

    def size(self, name: str) -> int:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return int(self.fs.size(self.path(name)))

    def have(self, names: Iterable[str]) -> set[str]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return {name for name in names if self.fs.exists(self.path(name))}

    def refresh(self, name: str) -> bool:
        """See :class:`~perijove_spawners.store.place.Place`."""
        self.fs.pipe_file(f"{self.root}/recent/{name}", b"")
        return bool(self.fs.exists(self.path(name)))

    def remove(self, name: str, before: float) -> bool:
        """See :class:`~perijove_spawners.store.place.Place`."""
        path, mark = self.path(name), f"{self.root}/recent/{name}"
        for one in (path, mark):
            with contextlib.suppress(FileNotFoundError):
                if self._changed(self.fs.info(one, refresh=True)) >= before:
                    return False
        for one in (path, mark):
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(one)
        return True

    def all(self) -> Iterator[tuple[str, int, float]]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        recent = {path.rpartition("/")[2]: self._changed(info) for path, info in self._listed("recent")}
        for path, info in self._listed("sha256"):
            name = "".join(path.rsplit("/", 2)[1:])
            if len(name) == 64:
                yield name, int(info["size"]), max(self._changed(info), recent.get(name, 0.0))

    def sweep(self, before: float) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        for path, info in self._listed("incoming"):
            if self._changed(info) < before:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(path)

    def location(self, name: str) -> str:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return str(self.fs.unstrip_protocol(self.path(name)))

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return f"{self.root}/sha256/{name[:2]}/{name[2:]}"

    def _listed(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(f"{self.root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return list(found.items())

    @staticmethod
    def _changed(info: dict[str, Any]) -> float:
        at = info.get("LastModified") or info.get("last_modified") or info.get("created")
        return float(at.timestamp()) if at is not None else time.time()


class IncomingObject:
    """See :class:`~perijove_spawners.store.place.Incoming`."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket, self._path = bucket, path
        self._file = bucket.fs.open(path, "wb", block_size=PART)

    def write(self, data: bytes) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        self._file.write(data)

    def finish(self, name: str) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        fs = self._bucket.fs
        self._file.close()
        target = self._bucket.path(name)
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.mv(self._path, target)

    def abandon(self) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        with contextlib.suppress(NotImplementedError):
            self._file.discard()
        self._file.closed = True
        with contextlib.suppress(FileNotFoundError):
            self._bucket.fs.rm_file(self._path)
