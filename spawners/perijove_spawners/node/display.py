"""A display for a job in a container (``gui``): the node's X server by its socket, with the user's cookie.

The job's X clients find the cookie whatever the container's host name is, as entries of the family Wild
(Xauth, Xsecurity(7)).
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from perijove.model import Account
from perijove_spawners.launcher import LaunchError, Mount

SOCKETS = "/tmp/.X11-unix"  # noqa: S108 -- where X servers have them (X(7))
DEFAULT = ":0"
AUTHORITY = ".Xauthority"
_LARGEST = 64 << 10
_WILD = 0xFFFF
_DISPLAY = re.compile(r":(\d{1,5})(\.\d+)?")
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Entry = tuple[int, bytes, bytes, bytes, bytes]
"""Family, address, display number, protocol, cookie."""


def mount_of(display: str) -> Mount:
    """The folder of sockets; :class:`LaunchError` when there is none for `display`."""
    found = _DISPLAY.fullmatch(display)
    if found is None:
        raise LaunchError(f"DISPLAY={display[:80]!r}: must be a display of the node, as :0")
    path = Path(f"{SOCKETS}/X{int(found[1])}")
    try:
        there = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        there = False
    if not there:
        raise LaunchError(f"there is no X server for DISPLAY={display} on this node ({path})")
    return Mount(SOCKETS, SOCKETS, read_only=True)


def place_authority(home: Path, job: Path, account: Account, owner: Account) -> None:
    """Copy the cookies of the file ``.Xauthority`` in the `owner`'s `home` into the job's directory.

    `account`: whose that is. Nothing without such a file.
    """
    cookies = _read(home, owner)
    if cookies is None:
        return
    folder = os.open(job, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(AUTHORITY, flags, 0o400, dir_fd=folder)
        except FileExistsError:
            return  # made by an agent that was killed since
        with os.fdopen(descriptor, "wb") as file:
            file.write(anywhere(cookies))
            if os.geteuid() == 0:
                os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(folder)


def _read(home: Path, account: Account) -> bytes | None:
    """The file, if it is the account's own: what lies in a home is a stranger's."""
    try:
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        descriptor = os.open(AUTHORITY, _FILE, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != account.uid or info.st_nlink > 1:
            return None
        return file.read(_LARGEST)


def anywhere(data: bytes) -> bytes:
    """The same cookies, for a client on whatever host."""
    return b"".join(
        _written((_WILD, b"", number, name, cookie)) for _, _, number, name, cookie in entries(data)
    )


def entries(data: bytes) -> Iterator[Entry]:
    """The entries of an authority file, up to where it is damaged."""
    at = 0
    while at + 2 <= len(data):
        (family,) = struct.unpack_from(">H", data, at)
        at, fields = at + 2, []
        for _ in range(4):
            if at + 2 > len(data):
                return
            (size,) = struct.unpack_from(">H", data, at)
            field = data[at + 2 : at + 2 + size]
            if len(field) < size:
                return
            fields.append(field)
            at += 2 + size
        yield (family, fields[0], fields[1], fields[2], fields[3])


def _written(entry: Entry) -> bytes:
    family, *fields = entry
    return struct.pack(">H", family) + b"".join(struct.pack(">H", len(f)) + f for f in fields)


def home_of(account: Account, mounts: Iterable[Mount]) -> Path:
    """Where the account's home is on the node."""
    return Path(next((m.source for m in mounts if m.target == account.home), account.home))
