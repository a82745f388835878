"""The store: files and folders, put and found by digest."""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from perijove.model import NotFoundError, OperatorError, TooLargeError, format_size
from perijove.model.trees import FILE, MAX_MANIFEST, Entry, Manifest, blob_of, is_tree
from perijove_spawners.store.bucket import Bucket
from perijove_spawners.store.checked import Checked
from perijove_spawners.store.copying import Give, copy_file, copy_tree
from perijove_spawners.store.errors import CorruptError, FullError
from perijove_spawners.store.folder import Folder
from perijove_spawners.store.place import CHUNK, Blob, Place
from perijove_spawners.store.s3 import with_defaults

_DIGEST = re.compile(r"sha256(-tree)?:[0-9a-f]{64}")
FULL_NOTE = "full"
FULL_EVERY = 10.0
"""Seconds between two looks whether the store was declared full."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put: its digest and its size in bytes."""

    digest: str
    size: int


class Store:
    """Files by digest below one folder or URL, for example ``/srv/perijove/store`` or ``s3://bucket/perijove``.

    All calls block; use a thread inside an event loop.
    """

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self._place = _place_of(os.fspath(url), options)
        self._full: tuple[float, str | None] = (0.0, None)

    # in

    def put(self, source: BinaryIO | Iterable[bytes], *, limit: int | None = None) -> Stored:
        """Take in all of `source`. :class:`TooLargeError` beyond `limit` bytes, with nothing kept.

        What is there already counts as put now. In a folder it is replaced by itself, which mends damage;
        to a bucket it is not sent again when `source` can be read twice.
        """
        if self._place.far and (known := self._put_again(source)) is not None:
            return known
        with self.writer(limit=limit) as writer:
            for chunk in _chunks(source):
                writer.write(chunk)
            return writer.commit()

    @contextmanager
    def writer(self, *, limit: int | None = None) -> Iterator[Writer]:
        """Take in a file piece by piece; what is not committed leaves no trace."""
        writer = self.begin(limit)
        try:
            yield writer
        finally:
            writer.discard()

    def begin(self, limit: int | None = None) -> Writer:
        """The same for whoever discards it themselves."""
        self._refuse_when_full()
        return Writer(self._place, limit)

    def put_tree(self, entries: Iterable[Entry]) -> Stored:
        """Take in a folder whose files are in the store. ``ValueError`` for a path that is not below it."""
        manifest = Manifest.of(entries)
        encoded = manifest.encoded()
        if len(encoded) > MAX_MANIFEST:
            raise TooLargeError(f"a folder's list of files may have at most {format_size(MAX_MANIFEST)}")
        self.put([encoded])
        return Stored(manifest.digest, manifest.size)

    def refresh(self, digest: str) -> bool:
        """Count it as put just now; False when the store does not have it. A folder's files too."""
        if not self._place.refresh(_name(digest)):
            return False
        if not is_tree(digest):
            return True
        files = {one.digest for one in self.open_tree(digest).entries}
        return all(self._place.refresh(_name(file)) for file in files)

    # out

    def open(self, digest: str) -> BinaryIO:
        """Read a file; at its end :class:`CorruptError` when the bytes do not match `digest`."""
        if is_tree(digest):
            raise NotFoundError(f"{digest} is a folder, and no file")
        try:
            return io.BufferedReader(Checked(self._place.open(_name(digest)), digest), CHUNK)
        except FileNotFoundError:
            raise _missing(digest) from None

    def open_tree(self, digest: str) -> Manifest:
        """The files of a folder. :class:`CorruptError` when what is kept is no list of files."""
        if not is_tree(digest):
            raise NotFoundError(f"{digest} is no folder")
        try:
            with self.open(blob_of(digest)) as file:
                return Manifest.parse(file.read(MAX_MANIFEST + 1))
        except NotFoundError:
            raise _missing(digest) from None
        except ValueError as error:
            raise CorruptError(f"{digest} is no folder: {error}") from None

    def copy_out(
        self, digest: str, path: str | os.PathLike[str], give: Give | None = None, *, mode: int = 0o444
    ) -> None:
        """Make the file or folder `path`, which must not be there; its parent must.

        `give` is called with each path made, files when they are whole. Files have `mode`, those that are
        executable in a folder also the x bits beside its r bits; folders have 0755. Raises as
        :meth:`open`; what was made until then stays. What is damaged is not kept any longer.
        """
        try:
            self._copy_out(digest, Path(path), give, mode)
        except CorruptError:
            self.drop_damaged(digest)
            raise

    def _copy_out(self, digest: str, target: Path, give: Give | None, mode: int) -> None:
        if is_tree(digest):
            copy_tree(self.open_tree(digest), self.open, target, mode, give)
            return
        with self.open(digest) as source:
            copy_file(source, target, mode, give)

    def drop_damaged(self, digest: str) -> None:
        """Remove what of it is not what its digest says, read once more: it can be made again then."""
        files = [digest]
        if is_tree(digest):
            try:
                files = [one.digest for one in self.open_tree(digest).entries]
            except CorruptError:
                files = [blob_of(digest)]
        for file in files:
            try:
                self.check(file)
            except CorruptError:
                self.delete([file])
            except NotFoundError:
                continue

    # what there is

    def exists(self, digest: str) -> bool:
        """Whether the store has it."""
        return bool(self._place.have([_name(digest)]))

    def exists_many(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that the store has. Of a folder it is its list of files that counts."""
        names = {digest: _name(digest) for digest in digests}
        there = self._place.have(set(names.values()))
        return {digest for digest, name in names.items() if name in there}

    def size(self, digest: str) -> int:
        """Bytes, of a folder all its files'; :class:`NotFoundError` when the store does not have it."""
        if is_tree(digest):
            return self.open_tree(digest).size
        try:
            return self._place.size(_name(digest))
        except FileNotFoundError:
            raise _missing(digest) from None

    def url(self, digest: str) -> str:
        """Where it lies; of a folder, its list of files."""
        return self._place.location(_name(digest))

    def check(self, digest: str) -> None:
        """Read all of it. :class:`CorruptError` when it is damaged, :class:`NotFoundError` when not whole."""
        for file in [one.digest for one in self.open_tree(digest).entries] if is_tree(digest) else [digest]:
            with self.open(file) as opened:
                while opened.read(CHUNK):
                    pass

    # for its operator

    def all(self) -> Iterator[Blob]:
        """Each file kept, lists of folders' files among them, in no order."""
        for name, size, changed in self._place.all():
            yield Blob(FILE + name, size, changed)

    def delete(self, digests: Iterable[str], *, before: float = float("inf")) -> set[str]:
        """Remove those that were not put since `before`; those that are gone. A folder's files stay."""
        names = {_name(digest): digest for digest in digests}
        return {names[name] for name in self._place.remove(names, before)}

    def sweep(self, before: float) -> None:
        """Remove what uploads that broke off before that time left behind."""
        self._place.sweep(before)

    def declare_full(self, reason: str | None) -> None:
        """Have everybody who uses the store put nothing more, for that reason; None: let them again."""
        self._place.set_note(FULL_NOTE, None if reason is None else reason.encode())
        self._full = (time.monotonic(), reason)

    # by URL

    def sign(self, digest: str, seconds: int) -> str | None:
        """A URL from which anybody can read the file for so long; None where the store has no server."""
        return self._place.sign(_name(digest), seconds)

    def sign_upload(self, upload: str, seconds: int) -> str | None:
        """Likewise one to ``PUT`` a file to. `upload`: 32 hexadecimal digits, never used before."""
        return self._place.sign_upload(upload, seconds)

    def take_upload(self, upload: str, *, limit: int | None = None) -> Stored:
        """Take in what came by that URL. :class:`NotFoundError` when nothing did."""
        try:
            with self._place.uploaded(upload) as file:
                stored = self.put(file, limit=limit)
        except FileNotFoundError:
            raise NotFoundError("nothing was sent to that URL") from None
        self._place.forget_upload(upload)
        return stored

    def _put_again(self, source: BinaryIO | Iterable[bytes]) -> Stored | None:
        """What `source` is, when it can be read twice and the store has it; else it is where it was."""
        if not isinstance(source, io.IOBase) or not source.seekable():
            return None
        digest, size, begin = hashlib.sha256(), 0, source.tell()
        for chunk in _chunks(source):
            digest.update(chunk)
            size += len(chunk)
        source.seek(begin)
        name = digest.hexdigest()
        return Stored(FILE + name, size) if self._place.refresh(name) else None

    def _refuse_when_full(self) -> None:
        looked, reason = self._full
        if not looked or time.monotonic() - looked > FULL_EVERY:
            text = self._place.note(FULL_NOTE)
            reason = None if text is None else text.decode(errors="replace")
            self._full = (time.monotonic(), reason)
        if reason is not None:
            raise FullError(reason)


class Writer:
    """One file on its way into the store."""

    def __init__(self, place: Place, limit: int | None) -> None:
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        self._incoming = place.create()
        self._open = True

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return FILE + self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Add `data`; :class:`TooLargeError` beyond the limit."""
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise TooLargeError(f"a file may have at most {format_size(self._limit)}")
        self._hash.update(data)
        self._incoming.write(data)

    def commit(self) -> Stored:
        """Make it visible under its digest."""
        name = self._hash.hexdigest()
        self._incoming.finish(name)
        self._open = False
        return Stored(FILE + name, self._size)

    def discard(self) -> None:
        """Drop it unless it was committed."""
        if self._open:
            self._open = False
            self._incoming.abandon()


def _place_of(url: str, options: Mapping[str, Any]) -> Place:
    s3 = url.startswith(("s3://", "s3a://"))
    try:
        fs, root = url_to_fs(url, **(with_defaults(options) if s3 else options))
    except (ImportError, ValueError, TypeError) as error:
        text = "perijove[s3] is not installed here" if s3 and isinstance(error, ImportError) else str(error)
        raise OperatorError(f"store: {url} cannot be used: {text}") from error
    return Folder(str(root)) if isinstance(fs, LocalFileSystem) else Bucket(fs, str(root).rstrip("/"))


def _name(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise NotFoundError(f"{digest[:100]!r} is not a digest; one looks like sha256:9f86d081...")
    return digest.rpartition(":")[2]


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(f"{digest} is not in the store")


def _chunks(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while data := read(CHUNK):
        yield data
