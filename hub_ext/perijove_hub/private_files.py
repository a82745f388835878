"""Small files of the state directory, whole or not there at all, and readable by their owner only."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file of mode 0600 that never was seen half written."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def kept_secret(path: Path, size: int = 32) -> str:
    """The secret in `path`, made of `size` random bytes the first time."""
    return _kept(path, lambda: secrets.token_urlsafe(size))


def kept_name(path: Path) -> str:
    """The name in `path`; the first time one that hardly is anybody else's on this engine."""
    return _kept(path, lambda: secrets.token_hex(3))


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        if text := path.read_text().strip():
            return text
    except FileNotFoundError:
        pass
    text = make()
    write_private(path, text + "\n")
    return text
