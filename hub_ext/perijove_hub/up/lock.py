"""One `up` for each state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from perijove.model import OperatorError


class StateLock:
    """Holds ``DIR/lock``, with the holder's pid in it; the kernel lets go of it however the holder ends."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lock"

    def __enter__(self) -> StateLock:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise OperatorError(
                f"another up (pid {holder}) uses {self._path.parent}; stop it or use another --state"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
