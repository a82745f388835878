"""Linux calls that Python 3.11 does not offer, by their manual pages; all raise ``OSError``.

The standard library is all that is used here: spawner processes import this (see :mod:`.supervisor`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


# prctl(2) takes unsigned longs, whatever Python would make of its numbers.
_LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, value, 0, 0, 0))


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs (PR_SET_CHILD_SUBREAPER)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal: int) -> None:
    """Have this process killed when its parent ends; forgotten when the account changes, so set it after."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def no_new_privileges() -> None:
    """Programs with set-user-ID run without it, from here on and below."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def leave_network() -> None:
    """Enter a new network with nothing in it but the loopback interface (CLONE_NEWNET)."""
    _check(_LIBC.unshare(_CLONE_NEWNET))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def enter_network(descriptor: int) -> None:
    """Enter the network of an open ``/proc/PID/ns/net`` (setns(2))."""
    _check(_LIBC.setns(descriptor, _CLONE_NEWNET))
