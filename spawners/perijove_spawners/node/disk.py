"""How much of the disk an attempt's folder takes: of files that are strangers', in bounded time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

ENTRIES = 200_000
"""Files and directories looked at in one folder; what lies beyond is not counted."""
DEPTH = 64
"""Directories within each other."""
_BLOCK = 512
"""Bytes that ``st_blocks`` counts in (stat(2))."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def disk_use(folder: Path, entries: int = ENTRIES) -> int | None:
    """Bytes on disk below `folder`, of its first so many `entries`; None when it is not there.

    No link is followed and no other file system entered; a file of several names counts once.
    """
    try:
        root = os.open(folder, _FLAGS)
    except OSError:
        return None
    return _Walk(root, entries).total


class _Walk:
    def __init__(self, root: int, entries: int) -> None:
        info = os.fstat(root)
        self._device = info.st_dev
        self._left = entries
        self._seen: set[int] = set()
        self.total = info.st_blocks * _BLOCK
        self._enter(root, DEPTH)

    def _enter(self, descriptor: int, depth: int) -> None:
        below = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if self._left == 0:
                        return
                    self._left -= 1
                    try:
                        info = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                    except OSError:
                        continue
                    self._count(info)
                    if stat.S_ISDIR(info.st_mode) and info.st_dev == self._device and depth:
                        below.append(entry.name)
            for name in below:
                try:
                    following = os.open(name, _FLAGS, dir_fd=descriptor)
                except OSError:
                    continue
                self._enter(following, depth - 1)
        finally:
            os.close(descriptor)

    def _count(self, info: os.stat_result) -> None:
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            if info.st_ino in self._seen:
                return
            self._seen.add(info.st_ino)
        self.total += info.st_blocks * _BLOCK
