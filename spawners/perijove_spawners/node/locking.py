"""One agent at a time on a node's directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from perijove.model import OperatorError


def lock(directory: Path) -> int:
    """Held while the descriptor that it gives is open; :class:`OperatorError` while another has it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OperatorError(f"another node agent runs on {directory}") from None
    return descriptor
