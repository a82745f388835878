"""Folders: a list of files by path, kept as a file of its own.

The list is JSON in the canonical form of RFC 8785, sorted by path in the order of its bytes in UTF-8, so
that equal folders have equal digests. Links and empty folders are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

TREE, FILE = "sha256-tree:", "sha256:"
MAX_MANIFEST = 64 << 20
"""Bytes of a manifest: some 400,000 files."""
MAX_PATH, MAX_NAME = 4096, 255
"""Bytes, as Linux has them (``PATH_MAX``, ``NAME_MAX`` of limits.h)."""
MAX_DEPTH = 200
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS = frozenset({"path", "digest", "size", "executable"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder. `size` in bytes."""

    path: str
    digest: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a folder, sorted by path. Made by :meth:`of` or :meth:`parse`, which check it."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """From entries in any order; ``ValueError`` says which path cannot be part of a folder."""
        found = tuple(sorted(entries, key=_order))
        _check(found)
        return cls(found)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """The inverse of :meth:`encoded`; ``ValueError`` for anything but the canonical form."""
        if len(data) > MAX_MANIFEST:
            raise ValueError(f"a manifest has at most {MAX_MANIFEST} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError("a manifest is JSON") from None
        if not isinstance(document, dict) or set(document) != {"entries"}:
            raise ValueError('a manifest is {"entries": [...]}')
        manifest = cls.of(entries_of(document["entries"]))
        if manifest.encoded() != data:
            raise ValueError("a manifest is in its canonical form, sorted by path")
        return manifest

    def encoded(self) -> bytes:
        """Its bytes."""
        entries = [
            {"digest": one.digest, "executable": one.executable, "path": one.path, "size": one.size}
            for one in self.entries
        ]
        return json.dumps({"entries": entries}, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def digest(self) -> str:
        """The folder's."""
        return TREE + hashlib.sha256(self.encoded()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(one.size for one in self.entries)

    def find(self, path: str) -> Entry | None:
        """The file of that path."""
        return next((one for one in self.entries if one.path == path), None)


def is_tree(digest: str) -> bool:
    """Whether it is a folder's."""
    return digest.startswith(TREE)


def blob_of(digest: str) -> str:
    """The digest of the file that holds it: of a folder its manifest's, of a file its own."""
    return FILE + digest.removeprefix(TREE) if is_tree(digest) else digest


def entries_of(listed: Any) -> list[Entry]:
    """Entries from JSON. ``ValueError`` names the first that is none."""
    if not isinstance(listed, list):
        raise ValueError("entries: must be a list")
    found = []
    for number, one in enumerate(listed):
        if not isinstance(one, dict) or not set(one) <= _FIELDS:
            raise ValueError(f"entries.{number}: must be {{path, digest, size, executable}}")
        path, digest, size = one.get("path"), one.get("digest"), one.get("size", 0)
        executable = one.get("executable", False)
        if not isinstance(path, str):
            raise ValueError(f"entries.{number}.path: must be a text")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"entries.{number}.digest: must be sha256: and 64 hexadecimal digits")
        if type(size) is not int or not 0 <= size < 1 << 62:
            raise ValueError(f"entries.{number}.size: must be a number of bytes")
        if not isinstance(executable, bool):
            raise ValueError(f"entries.{number}.executable: must be true or false")
        found.append(Entry(path, digest, size, executable))
    return found


def check_path(path: str) -> None:
    """``ValueError`` unless `path` names a file below a folder: relative, no ``..``, no empty part."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path!r}: a path in a folder is UTF-8") from None
    parts = encoded.split(b"/")
    if len(encoded) > MAX_PATH or len(parts) > MAX_DEPTH or max(map(len, parts)) > MAX_NAME:
        raise ValueError(f"{path[:80]!r}...: the path is too long")
    if b"\0" in encoded or any(part in (b"", b".", b"..") for part in parts):
        raise ValueError(f"{path[:200]!r}: a path in a folder is relative, without . and .. and empty parts")


def _order(entry: Entry) -> bytes:
    # What is no text in UTF-8 is refused right after.
    return entry.path.encode(errors="surrogatepass")


def _check(entries: tuple[Entry, ...]) -> None:
    folders: set[str] = set()
    files = set(map(attrgetter("path"), entries))
    if len(files) < len(entries):
        twice = next(one.path for one, other in pairwise(entries) if one.path == other.path)
        raise ValueError(f"{twice[:200]!r}: the path is there twice")
    for one in entries:
        check_path(one.path)
        parent = one.path.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    if both := folders & files:
        raise ValueError(f"{min(both)[:200]!r}: a path cannot be a file and a folder")
