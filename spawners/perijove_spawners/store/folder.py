"""A store's files in a folder of this host, or of a filesystem that hosts share."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from perijove_spawners.store.errors import folder_errors
from perijove_spawners.store.place import CHUNK

_NAME = re.compile(r"[0-9a-f]{62}")


class Folder:
    """See :class:`~perijove_spawners.store.place.Place`.

    ``sha256/ab/cdef...`` are the files, ``incoming/`` those that are being written.
    """

    far = False

    def __init__(self, root: str) -> None:
        self.root = root
        with folder_errors(root):
            Path(root, "incoming").mkdir(parents=True, exist_ok=True, mode=0o700)
            Path(root).chmod(0o700)

    def create(self) -> IncomingFile:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return IncomingFile(self, f"{self.root}/incoming/{secrets.token_hex(16)}")

    def open(self, name: str) -> BinaryIO:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return Path(self.path(name)).open("rb", buffering=0)

    def size(self, name: str) -> int:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return Path(self.path(name)).stat().st_size

    def have(self, names: Iterable[str]) -> set[str]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return {name for name in names if os.path.exists(self.path(name))}  # noqa: PTH110

    def refresh(self, name: str) -> bool:
        """See :class:`~perijove_spawners.store.place.Place`."""
        try:
            os.utime(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def remove(self, names: Iterable[str], before: float) -> set[str]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return {name for name in names if self._remove(name, before)}

    def _remove(self, name: str, before: float) -> bool:
        # Moved out of the way first: whoever puts it meanwhile finds it not there, or has made it new.
        aside = f"{self.root}/incoming/{secrets.token_hex(16)}"
        try:
            os.rename(self.path(name), aside)  # noqa: PTH104
        except FileNotFoundError:
            return True
        if Path(aside).stat().st_mtime >= before:
            os.rename(aside, self.path(name))  # noqa: PTH104
            return False
        Path(aside).unlink()
        return True

    def all(self) -> Iterator[tuple[str, int, float]]:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{self.root}/sha256") as folders:
            for folder in folders:
                with os.scandir(folder.path) as files:
                    for file in files:
                        if _NAME.fullmatch(file.name):
                            with contextlib.suppress(FileNotFoundError):
                                info = file.stat(follow_symlinks=False)
                                yield folder.name + file.name, info.st_size, info.st_mtime

    def sweep(self, before: float) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        with os.scandir(f"{self.root}/incoming") as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    if file.stat(follow_symlinks=False).st_mtime < before:
                        Path(file.path).unlink()

    def location(self, name: str) -> str:
        """See :class:`~perijove_spawners.store.place.Place`."""
        return Path(self.path(name)).absolute().as_uri()

    def note(self, title: str) -> bytes | None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        try:
            return Path(self.root, title).read_bytes()
        except FileNotFoundError:
            return None

    def set_note(self, title: str, text: bytes | None) -> None:
        """See :class:`~perijove_spawners.store.place.Place`."""
        path = Path(self.root, title)
        if text is None:
            path.unlink(missing_ok=True)
        else:
            fresh = Path(self.root, "incoming", secrets.token_hex(16))
            fresh.write_bytes(text)
            fresh.replace(path)

    def sign(self, name: str, seconds: int) -> None:
        """It has no server of its own."""

    def sign_upload(self, upload: str, seconds: int) -> None:
        """It has no server of its own."""

    def uploaded(self, upload: str) -> BinaryIO:
        """Nothing comes without the service."""
        raise FileNotFoundError(upload)

    def forget_upload(self, upload: str) -> None:
        """There is none."""

    def path(self, name: str) -> str:
        """Where the file of that name lies."""
        return f"{self.root}/sha256/{name[:2]}/{name[2:]}"


class IncomingFile:
    """See :class:`~perijove_spawners.store.place.Incoming`."""

    def __init__(self, folder: Folder, path: str) -> None:
        self._folder, self._path = folder, path
        with folder_errors(folder.root):
            try:
                self._file = self._opened()
            except FileNotFoundError:
                Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = self._opened()

    def write(self, data: bytes) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        with folder_errors(self._folder.root):
            self._file.write(data)

    def finish(self, name: str) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        target = Path(self._folder.path(name))
        with folder_errors(self._folder.root):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            # A file that takes long to arrive was not put when it began.
            os.utime(self._path, (time.time(),) * 2)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(self._path, target)  # noqa: PTH105
            _sync(target.parent)

    def abandon(self) -> None:
        """See :class:`~perijove_spawners.store.place.Incoming`."""
        with contextlib.suppress(OSError):
            self._file.close()  # what it still holds may not fit on the disk
        Path(self._path).unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb", CHUNK)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
