"""From the store into a directory, with nothing followed and nothing overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from perijove.model.trees import Manifest, check_path
from perijove_spawners.store.place import CHUNK

Give = Callable[[Path], None]


def copy_file(source: BinaryIO, path: Path, mode: int, give: Give | None) -> None:
    """Write all of `source` to the new file `path`. ``FileExistsError`` when something is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
        os.fchmod(target.fileno(), mode)
    if give is not None:
        give(path)


def copy_tree(
    manifest: Manifest, opened: Callable[[str], BinaryIO], path: Path, mode: int, give: Give | None
) -> None:
    """Make the new directory `path` with the files of `manifest`, read by `opened`."""
    made: set[str] = set()
    _make(path, give)
    for entry in manifest.entries:
        check_path(entry.path)
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                _make(path / folder, give)
        executable = mode | (mode & 0o444) >> 2 if entry.executable else mode
        with opened(entry.digest) as source:
            copy_file(source, path / entry.path, executable, give)


def _make(path: Path, give: Give | None) -> None:
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    if give is not None:
        give(path)
