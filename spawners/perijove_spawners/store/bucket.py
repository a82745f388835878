"""A store's files in a bucket, or anywhere else that fsspec reaches."""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from perijove.model import UnavailableError
from perijove_spawners.store.place import CHUNK
from perijove_spawners.store.s3 import abort_uploads, far_errors

PART = 16 << 20
"""Bytes of a part of a multipart upload (at most 10,000 parts make an object)."""
AT_ONCE = 1000
"""Objects removed by one request, the most that S3 takes (DeleteObjects)."""
DOOMED = "doomed"
"""The note that says which files are just being removed."""
VOID = 300.0
"""Seconds after which that note is nobody's any more: whoever wrote it has died."""
HURRY = 60.0
"""Seconds after which its writer removes nothing any more."""
_NAME = re.compile(r"[0-9a-f]{64}")


class Bucket:
    """See :class:`~perijove_spawners.store.place.Place`.

    ``sha256/ab/cdef...`` are the files, ``incoming/`` those that are being written; the time of
    ``recent/abcdef...`` says when a file was put, or put again.

    Whoever puts a file writes ``recent/`` first and then looks into ``doomed``; whoever removes files
    writes ``doomed`` first and then looks into ``recent/``. So one of the two sees the other (S3 is
    strongly consistent: https://aws.amazon.com/s3/consistency/).
    """

    far = True

    def __init__(self, fs: Any, root: str) -> None:
        self.fs, self.root = fs, root

    def create(self) -> IncomingObject:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return IncomingObject(self, f"{self.root}/incoming/{secrets.token_hex(16)}")

    def open(self, name: str) -> BinaryIO:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return self._opened(self.path(name))

    def size(self, name: str) -> int:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            return int(self.fs.size(self.path(name)))

    def have(self, names: Iterable[str]) -> set[str]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            return {name for name in names if self.fs.exists(self.path(name))}

    def refresh(self, name: str) -> bool:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            if not self.fs.exists(self.path(name)):
                return False
            self.claim(name)
            return bool(self.fs.exists(self.path(name)))

    def claim(self, name: str) -> None:
        """Say that it is put now; returns when nobody is just removing it."""
        self.fs.pipe_file(f"{self.root}/recent/{name}", b"1")
        give_up = time.monotonic() + VOID
        while name in self._doomed():
            if time.monotonic() > give_up:
                raise UnavailableError(f"sha256:{name} is being removed from the store")
            time.sleep(0.2)

    def remove(self, names: Iterable[str], before: float) -> set[str]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        wanted, gone = list(names), set()
        with self.errors():
            for i in range(0, len(wanted), AT_ONCE):
                gone |= self._remove(wanted[i : i + AT_ONCE], before)
        return gone

    def _remove(self, names: list[str], before: float) -> set[str]:
        began = time.monotonic()
        self.set_note(DOOMED, json.dumps(names).encode())
        try:
            marks = {path.rpartition("/")[2]: self._changed(info) for path, info in self._listed("recent")}
            old = [name for name in names if marks.get(name, 0.0) < before]
            if time.monotonic() - began > HURRY:
                return set()
            self._remove_all(self.path(name) for name in old)
            self._remove_all(f"{self.root}/recent/{name}" for name in old if name in marks)
            return set(old)
        finally:
            self.set_note(DOOMED, None)

    def _remove_all(self, paths: Iterable[str]) -> None:
        found = list(paths)
        try:
            if found:
                self.fs.rm(found)
        except FileNotFoundError:
            for path in found:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(path)

    def _doomed(self) -> set[str]:
        try:
            info = self.fs.info(f"{self.root}/{DOOMED}")
            if time.time() - self._changed(info) > VOID:
                return set()
            return set(json.loads(self.fs.cat_file(f"{self.root}/{DOOMED}")))
        except FileNotFoundError:
            return set()

    def all(self) -> Iterator[tuple[str, int, float]]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            recent = {path.rpartition("/")[2]: self._changed(info) for path, info in self._listed("recent")}
            for path, info in self._listed("sha256"):
                name = "".join(path.rsplit("/", 2)[1:])
                if _NAME.fullmatch(name):
                    yield name, int(info["size"]), max(self._changed(info), recent.get(name, 0.0))

    def sweep(self, before: float) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            self._remove_all(p for p, info in self._listed("incoming") if self._changed(info) < before)
            if hasattr(self.fs, "list_multipart_uploads"):
                abort_uploads(self.fs, self.root, before)

    def location(self, name: str) -> str:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return str(self.fs.unstrip_protocol(self.path(name)))

    def note(self, title: str) -> bytes | None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            try:
                return bytes(self.fs.cat_file(f"{self.root}/{title}"))
            except FileNotFoundError:
                return None

    def set_note(self, title: str, text: bytes | None) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            if text is not None:
                self.fs.pipe_file(f"{self.root}/{title}", text)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(f"{self.root}/{title}")

    def sign(self, name: str, seconds: int) -> str | None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return self._signed(self.path(name), seconds)

    def sign_upload(self, upload: str, seconds: int) -> str | None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return self._signed(f"{self.root}/incoming/{upload}", seconds, client_method="put_object")

    def uploaded(self, upload: str) -> BinaryIO:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return self._opened(f"{self.root}/incoming/{upload}")

    def forget_upload(self, upload: str) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with self.errors():
            self._remove_all([f"{self.root}/incoming/{upload}"])

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return f"{self.root}/sha256/{name[:2]}/{name[2:]}"

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Its errors, as Perijove has them."""
        return far_errors(str(self.fs.unstrip_protocol(self.root)))

    def _opened(self, path: str) -> BinaryIO:
        with self.errors():
            file = self.fs.open(path, "rb", block_size=8 * CHUNK, cache_type="readahead")
        return io.BufferedReader(_Far(file, self), CHUNK)

    def _signed(self, path: str, seconds: int, **more: Any) -> str | None:
        with self.errors():
            try:
                return str(self.fs.sign(path, expiration=seconds, **more))
            except NotImplementedError:
                return None

    def _listed(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(f"{self.root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return list(found.items())

    @staticmethod
    def _changed(info: dict[str, Any]) -> float:
        at = info.get("LastModified") or info.get("mtime") or info.get("created") or time.time()
        return float(at) if isinstance(at, int | float) else float(at.timestamp())


class _Far(io.RawIOBase):
    """A file of a bucket whose errors are Perijove's."""

    def __init__(self, raw: BinaryIO, bucket: Bucket) -> None:
        self._raw, self._bucket = raw, bucket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._bucket.errors():
            data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


class IncomingObject:
    """See :class:`~perijove_spawners.store.place.Incoming`."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket, self._path = bucket, path
        with bucket.errors():
            self._file = bucket.fs.open(path, "wb", block_size=PART)

    def write(self, data: bytes) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        with self._bucket.errors():
            self._file.write(data)

    def finish(self, name: str) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        bucket, fs = self._bucket, self._bucket.fs
        with bucket.errors():
            self._file.close()
            bucket.claim(name)
            target = bucket.path(name)
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.mv(self._path, target)

    def abandon(self) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`. What cannot be removed now is swept later."""
        with contextlib.suppress(Exception):
            self._file.discard()
            # Else it would be sent after all when nobody holds it any more.
            self._file.closed = True
        with contextlib.suppress(Exception):
            self._bucket.fs.rm_file(self._path)
