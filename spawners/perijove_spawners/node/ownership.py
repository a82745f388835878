"""Giving files away that are a stranger's: no link is followed; what changes is the very file looked at."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from perijove_spawners.failpoints import reach

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST = 512
"""Directories within each other; what lies deeper keeps its owner."""


def give(path: Path, uid: int, gid: int, *, of: int | None = None) -> int:
    """Give `path` and all below to an account; how many files and directories changed their owner.

    `of`: only what belongs to this uid, and the group only where it is that of `path`. Programs lose their
    setuid and setgid bits (chown(2)). Nothing on other file systems is touched. `path` itself is given last,
    so a walk that was cut short is taken up as it was begun. ``OSError``.
    """
    top = os.open(path, _FOLDER)
    try:
        info = os.fstat(top)
        walk = _Walk(info.st_dev, uid, gid, of, info.st_gid)
        walk.below(top, DEEPEST)
        walk.give(top)
        return walk.changed
    finally:
        os.close(top)


@dataclass(slots=True)
class _Walk:
    device: int
    uid: int
    gid: int
    of: int | None
    old_gid: int
    changed: int = 0

    def below(self, folder: int, depth: int) -> None:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            try:
                found = os.open(name, _LOOK, dir_fd=folder)
            except FileNotFoundError:
                continue
            try:
                info = os.fstat(found)
                if info.st_dev != self.device:
                    continue
                if depth and stat.S_ISDIR(info.st_mode):
                    following = os.open(".", _FOLDER, dir_fd=found)
                    try:
                        self.below(following, depth - 1)
                    finally:
                        os.close(following)
                self.give(found)
            finally:
                os.close(found)

    def give(self, descriptor: int) -> None:
        """The file that is open; only root could have changed its owner since it was looked at."""
        info = os.fstat(descriptor)
        if self.of is None:
            uid, gid = self.uid, self.gid
        elif info.st_uid == self.of:
            uid, gid = self.uid, self.gid if info.st_gid == self.old_gid else -1
        else:
            return
        if (info.st_uid, info.st_gid) != (uid, gid):
            os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
            self.changed += 1
            if self.changed == 2:
                reach("node.home-part")
