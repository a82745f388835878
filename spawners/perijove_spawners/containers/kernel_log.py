"""What the kernel says of containers that it killed for want of memory (/dev/kmsg, Documentation/ABI)."""

from __future__ import annotations

import os

KMSG = "/dev/kmsg"
RECORD = 8192
"""The longest record the kernel gives."""


def killed_for_memory(container: str) -> bool:
    """Whether the out-of-memory killer names the control group of the container with id `container`.

    False, too, where the kernel's log may not be read: only its word counts.
    """
    try:
        log = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    needle = container.encode()
    try:
        while record := _next(log):
            if b"oom-kill:" in record and needle in record:
                return True
    finally:
        os.close(log)
    return False


def _next(log: int) -> bytes:
    while True:
        try:
            return os.read(log, RECORD)
        except BlockingIOError:
            return b""
        except BrokenPipeError:
            # records were overwritten while we read; the next read goes on with the oldest there is
            continue
