"""Processes of this machine, as proc(5) tells them.

The standard library is all that is used here: spawner processes import this (see :mod:`.supervisor`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one of the same number.

    Valid within one boot of the machine: `started` is in clock ticks since then.
    """

    pid: int
    started: int


class Process(NamedTuple):
    """What /proc/PID/stat says of a process."""

    pid: int
    state: str
    parent: int
    session: int
    started: int
    cpu_seconds: float
    """Its own and those of the children it waited for."""
    memory: int
    """Bytes resident."""

    @property
    def gone(self) -> bool:
        """It has ended, and at most its parent has not yet looked."""
        return self.state in "ZX"


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on; empty when there is no such process to be seen.

    Another error, as of too many open files, says nothing of the process: who took it for gone would have
    the launcher bury a job that runs.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
    # The second field is the program's name in parentheses, which may itself hold any byte.
    return text[text.rindex(b")") + 2 :].split(maxsplit=22)


def read(pid: int) -> Process | None:
    """The process of that number, None when there is none."""
    fields = _stat(pid)
    if not fields:
        return None
    return Process(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_seconds=sum(map(int, fields[11:15])) / _TICKS,
        memory=int(fields[21]) * _PAGE,
    )


def identify(pid: int) -> Identity | None:
    """Who has that number now; None when nobody has."""
    fields = _stat(pid)
    return Identity(pid, int(fields[19])) if fields and fields[0] not in b"ZX" else None


def alive(identity: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(identity.pid) == identity


def _surely_alive(identity: Identity) -> bool:
    try:
        return alive(identity)
    except OSError:
        return False


@cache
def boot_id() -> str:
    """Changes each time the machine starts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def everything() -> Iterator[Process]:
    """All processes of the machine that have not ended."""
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        if (process := read(pid)) and not process.gone:
            yield process


def descendants(pid: int) -> list[Process]:
    """What `pid` started, directly or not."""
    children: dict[int, list[Process]] = {}
    for process in everything():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def related(pid: int, mark: str) -> list[Process]:
    """Descendants of `pid`, members of its session, and whoever has `mark` in the environment."""
    found = {process.pid: process for process in descendants(pid)}
    needle = mark.encode(errors="surrogateescape") + b"\0"
    for process in everything():
        if process.pid == pid or process.session == pid or needle in _environment(process.pid):
            found[process.pid] = process
    return list(found.values())


def _environment(pid: int) -> bytes:
    """Empty when it may not be read."""
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def session_members(leader: Identity) -> list[Process]:
    """What still runs in the session that `leader` made, also after `leader` has ended.

    The kernel gives no process a number that is still in use as a session's. So when another process has
    the leader's number, the session has ended and what has its number is another.
    """
    members = [process for process in everything() if process.session == leader.pid]
    if any(p.pid == leader.pid and p.started != leader.started for p in members):
        return []
    return [process for process in members if process.started >= leader.started]


def send_signal(identity: Identity, number: int) -> bool:
    """Signal that very process; False when it has ended, or cannot be looked at now.

    The descriptor of pidfd_open(2) keeps the number from being given to another between look and signal.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if not _surely_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def send_all(processes: Iterable[Process], number: int) -> None:
    """Signal each that still runs."""
    for process in processes:
        send_signal(Identity(process.pid, process.started), number)
