"""What a job leaves on its node, opened as what it is: a stranger's.

Links are not followed at any step, and only regular files that belong to the job's account are taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import BinaryIO

from perijove.model import Account
from perijove_spawners.node.staging import JOB

READ_LIMIT = 1 << 20
"""Bytes given out at once."""
MOST_FILES, DEEPEST = 100_000, 64
"""Files and levels of a folder that is kept as an output."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO must not wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Found = tuple[str, BinaryIO]
"""A file's path below the folder that was looked through, and the file; open until the next is asked for."""


class ForeignFileError(Exception):
    """It is there, but not what may be taken from the job's account. The message continues a sentence."""


def open_file(folder: Path, account: Account, *parts: str) -> BinaryIO:
    """The file ``job/*parts`` of an attempt's folder; see :func:`open_below`."""
    return open_below(folder / JOB, account, *parts)


def open_below(base: Path, account: Account, *parts: str) -> BinaryIO:
    """The file at `parts` below `base`, whose own way nobody but the agent can change.

    ``FileNotFoundError`` when there is none, :class:`ForeignFileError` when it is not to be trusted.
    """
    *steps, name = parts
    current = _open_folder(base, steps)
    try:
        return _open_regular(current, name, account)
    finally:
        os.close(current)


def read_display(folder: Path, account: Account, offset: int, limit: int) -> bytes:
    """At most `limit` bytes of ``display.jsonl`` from byte `offset`; nothing where there is none."""
    try:
        with open_file(folder, account, "display.jsonl") as file:
            return os.pread(file.fileno(), min(limit, READ_LIMIT), offset)
    except (FileNotFoundError, ForeignFileError):
        return b""


def tree(base: Path, account: Account, *parts: str) -> Iterator[Found]:
    """All files of the folder at `parts` below `base`, by name; hidden ones too.

    ``FileNotFoundError`` when there is no such folder. :class:`ForeignFileError` for a link or anything else
    in it that is no file or folder of the account, and for one of more than :data:`MOST_FILES`.
    """
    top = _open_folder(base, parts)
    try:
        yield from _Walk(account).all(top, "")
    finally:
        os.close(top)


def matching(
    base: Path, account: Account, fixed: tuple[str, ...], pattern: tuple[str, ...]
) -> Iterator[Found]:
    """The files below the folder at `fixed` that match `pattern`, a wildcard pattern for each level.

    As in a shell (POSIX, 2.13): ``*`` and ``?`` stand for nothing with a leading dot. ``**`` stands for any
    number of folders. Errors as in :func:`tree`, of links only when they match.
    """
    top = _open_folder(base, fixed)
    try:
        yield from _Walk(account).matching(top, "", pattern)
    finally:
        os.close(top)


class _Walk:
    """One look through a folder that may change meanwhile."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._seen: set[str] = set()

    def all(self, folder: int, prefix: str) -> Iterator[Found]:
        for name, mode in _entries(folder):
            path = self._path(prefix, name)
            if stat.S_ISDIR(mode):
                yield from self._inside(folder, name, path, self.all)
            else:
                yield from self._file(folder, name, path)

    def matching(self, folder: int, prefix: str, pattern: tuple[str, ...]) -> Iterator[Found]:
        first, *others = pattern
        rest = tuple(others)
        if first == "**":
            yield from self.matching(folder, prefix, rest or ("*",))
        for name, mode in _entries(folder):
            if not _fits(name, "*" if first == "**" else first):
                continue
            path, is_folder = self._path(prefix, name), stat.S_ISDIR(mode)
            if is_folder and (rest or first == "**"):
                then = partial(self.matching, pattern=pattern if first == "**" else rest)
                yield from self._inside(folder, name, path, then)
            elif not is_folder and not rest and first != "**":
                yield from self._file(folder, name, path)

    def _path(self, prefix: str, name: str) -> str:
        path = f"{prefix}/{name}" if prefix else name
        if path.count("/") >= DEEPEST:
            raise ForeignFileError(f"has folders in more than {DEEPEST} levels")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ForeignFileError(f"holds a file whose name is not UTF-8: {ascii(path)[:200]}") from None
        return path

    def _inside(
        self, folder: int, name: str, path: str, walk: Callable[[int, str], Iterator[Found]]
    ) -> Iterator[Found]:
        below = _open_folder(name, (), at=folder)
        try:
            yield from walk(below, path)
        finally:
            os.close(below)

    def _file(self, folder: int, name: str, path: str) -> Iterator[Found]:
        if path in self._seen:
            return
        self._seen.add(path)
        if len(self._seen) > MOST_FILES:
            raise ForeignFileError(f"has more than {MOST_FILES:,} files")
        try:
            file = _open_regular(folder, name, self._account)
        except ForeignFileError as error:
            raise ForeignFileError(f"holds {path[:200]}, which {error}") from error
        with file:
            yield path, file


def _entries(folder: int) -> list[tuple[str, int]]:
    """What a folder holds, by name, with types; what goes away meanwhile is not there."""
    found: list[tuple[str, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(found) > MOST_FILES:
                raise ForeignFileError(f"has more than {MOST_FILES:,} files")
            try:
                found.append((entry.name, entry.stat(follow_symlinks=False).st_mode))
            except FileNotFoundError:
                continue
    return sorted(found, key=lambda one: os.fsencode(one[0]))


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _open_folder(base: Path | str, parts: tuple[str, ...] | list[str], *, at: int | None = None) -> int:
    try:
        current = os.open(base, _FOLDER, dir_fd=at)
        for part in parts:
            try:
                following = os.open(part, _FOLDER, dir_fd=current)
            finally:
                os.close(current)
            current = following
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ForeignFileError(f"cannot be opened safely ({error.strerror})") from error
    return current


def _open_regular(folder: int, name: str, account: Account) -> BinaryIO:
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ForeignFileError(f"cannot be opened safely ({error.strerror})") from error
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != account.uid:
        os.close(descriptor)
        raise ForeignFileError("is not a regular file of the job's account")
    return os.fdopen(descriptor, "rb", buffering=0)
