"""The highest fence that a node has seen: what keeps a replaced leader from changing anything."""

from __future__ import annotations

import os
from pathlib import Path

from perijove_spawners.launcher import StaleFenceError


class FenceKeeper:
    """Keeps it in a file, which is written only when it rises, and is on disk before anything follows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.highest = _read(path)

    def meet(self, fence: int) -> None:
        """Take note of `fence`; :class:`StaleFenceError` when a higher one was seen, ``OSError`` when it
        cannot be kept. 0 is none.
        """
        if not fence:
            return
        if fence < self.highest:
            raise StaleFenceError(
                f"refused: another service leads (fence {self.highest}, this came with {fence})"
            )
        if fence > self.highest:
            _write(self._path, fence)
            self.highest = fence


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        # The file is replaced as a whole: one that is no number was never ours.
        return 0


def _write(path: Path, fence: int) -> None:
    fresh = path.with_name(f".{path.name}")
    with fresh.open("w") as file:
        file.write(str(fence))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
