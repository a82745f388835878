"""Runs a program that ends when its parent does: ``python -m perijove_hub.up.leash PROGRAM ARG...``

The kernel sends SIGTERM at the parent's death (prctl(2), PR_SET_PDEATHSIG), which holds across
execve(2); so nothing that ``perijove up`` or its hub started outlives a kill -9 of either.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "PERIJOVE_PARENT_PID"
"""Variable with the pid of who starts the program: closes the gap before the prctl."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have this process get SIGTERM when its parent ends; exits at once when that has happened already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    expected = os.environ.pop(PARENT, "")
    if expected and os.getppid() != int(expected):
        sys.exit(f"the parent {expected} has gone")


def leashed(*command: str) -> list[str]:
    """The command line that runs `command` on a leash."""
    return [sys.executable, "-m", "perijove_hub.up.leash", *command]


if __name__ == "__main__":
    die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
