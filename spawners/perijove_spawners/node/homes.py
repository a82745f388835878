"""Homes that Perijove makes itself: made, measured, handed over, removed.

What lies in them is strangers', and may change while it is looked at: no link is followed, and what is
changed is the very file that was looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from perijove.model import Account
from perijove_spawners.launcher import LaunchError, Mount
from perijove_spawners.node import filesystems, mounts
from perijove_spawners.node.disk import disk_use
from perijove_spawners.node.filesystems import FileSystemError, Image
from perijove_spawners.node.mounts import MountError
from perijove_spawners.node.ownership import give

log = logging.getLogger(__name__)

LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs"})
"""File systems that one host alone has mounted: elsewhere an image would be mounted by several."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_home(
    account: Account, wanted: Iterable[Mount], state: Path = Path("/"), limit: int | None = None
) -> None:
    """Make the account's home where it is missing: its owner's alone (0700), whole or not at all.

    Its place is the source of what is mounted there, else the path itself. With a `limit` in bytes it is a
    file system of its own of that size, where this host can have one (:func:`may_cap`); an older home that
    holds files already stays as it is. `state` as for :func:`~.mounts.resolve`. :class:`~.mounts.MountError`.
    """
    path = Path(next((m.source for m in wanted if m.target == account.home), account.home))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if reason := mounts.weakness(path.parent, state):
            raise MountError(f"the home {path} cannot be made: {reason}")
        parent = os.open(os.path.realpath(path.parent), _FOLDER)
        try:
            _make(parent, path, account)
        finally:
            os.close(parent)
        if limit is not None:
            _cap(path, account, limit)
    except FileSystemError as error:
        raise MountError(f"the home {path} cannot be made: {error}") from error
    except OSError as error:
        raise MountError(f"the home {path} cannot be made: {error.strerror}") from error


def _make(parent: int, path: Path, account: Account) -> None:
    with contextlib.suppress(FileNotFoundError):
        info = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            raise MountError(f"the home {path} is not a directory")
        if info.st_uid != account.uid and os.geteuid() == 0:
            raise MountError(f"the home {path} belongs to uid {info.st_uid} and not to {account.name}")
        return
    fresh = f".{path.name}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(fresh, dir_fd=parent)
    os.mkdir(fresh, 0o700, dir_fd=parent)
    if os.geteuid() == 0:
        os.chown(fresh, account.uid, account.gid, dir_fd=parent, follow_symlinks=False)
    # An empty directory gives way to it, anything else does not (rename(2)).
    os.rename(fresh, path.name, src_dir_fd=parent, dst_dir_fd=parent)


def capped(path: Path) -> Image:
    """The file system that a home with a limit is."""
    return Image(path.with_name(f".{path.name}.img"), path)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def may_cap(path: Path) -> str:
    """Why a home at `path` cannot be a file system of its own; empty when it can."""
    if reason := filesystems.missing():
        return reason
    kind = mounts.kind_of(path.parent)
    return (
        "" if kind in LOCAL else f"{path.parent} is on {kind or 'an unknown file system'}, which is not local"
    )


def _cap(path: Path, account: Account, limit: int) -> None:
    image = capped(path)
    if image.mounted:
        return
    if reason := may_cap(path):
        log.warning("the limit of home %s is not enforced: %s", path, reason)
        return
    with _alone(path):
        if os.path.ismount(path):
            return
        if image.path.exists():
            image.repair()
        elif any(path.iterdir()):
            log.warning("the limit of home %s is not enforced: it holds files already", path)
            return
        else:
            image.make(limit, account, sparse=True, lasting=True)
        image.mount()
        image.clear(account)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two jobs of one user may start at once."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(_lock_of(path), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Homes:
    """What a node does with homes for the service (:class:`perijove_spawners.protocol.NodeCalls`)."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def measure_home(self, path: str) -> int | None:
        return await asyncio.to_thread(_measure, Path(path))

    async def remove_home(self, path: str) -> None:
        await asyncio.to_thread(self._remove, Path(path))

    async def hand_over(self, path: str, old_uid: int, uid: int, gid: int, to: str | None = None) -> int:
        return await asyncio.to_thread(
            self._hand_over, Path(path), old_uid, (uid, gid), Path(to) if to is not None else None
        )

    def _remove(self, path: Path) -> None:
        self._check(path)
        image = capped(path)
        try:
            image.unmount()
            for left in (image.path, image.path.with_name(f"{image.path.name}.new"), _lock_of(path)):
                left.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                # Follows no links, also none that are put in its way (shutil.rmtree.avoids_symlink_attacks).
                shutil.rmtree(path)
        except (OSError, FileSystemError) as error:
            raise LaunchError(f"the home {path} cannot be removed: {error}") from error

    def _hand_over(self, path: Path, old_uid: int, new: tuple[int, int], to: Path | None) -> int:
        for place in (path, to):
            if place is not None:
                self._check(place)
        if to is not None and not os.path.lexists(path) and to.is_dir():
            path, to = to, None  # it was done before
        try:
            with _alone(path):
                # As after a restart of the machine: else its empty place would be given, and not the files.
                _mount_again(path)
                changed = give(path, *new, of=old_uid)
            if to is not None:
                _rename(path, to)
        except (OSError, FileSystemError) as error:
            raise LaunchError(f"the home {path} cannot be handed over: {error}") from error
        return changed

    def _check(self, path: Path) -> None:
        if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
            raise LaunchError(f"{path} is not the path of a home")
        try:
            reason = mounts.weakness(path.parent, self._state)
        except OSError as error:
            reason = f"{path.parent}: {error.strerror}"
        if reason:
            raise LaunchError(f"the home {path} is not touched: {reason}")


def _mount_again(path: Path) -> None:
    """Mount the file system that a home with a limit is, where there is one and it is not mounted."""
    image = capped(path)
    if image.path.exists() and not image.mounted:
        image.repair()
        image.mount()


def _measure(path: Path) -> int | None:
    image = capped(path)
    if image.mounted:
        found = os.statvfs(path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    with contextlib.suppress(OSError):
        return image.path.lstat().st_blocks * 512
    return disk_use(path)


def _rename(path: Path, to: Path) -> None:
    if os.path.lexists(to):
        raise FileSystemError(f"{to} is there already")
    image = capped(path)
    was_mounted = image.mounted
    image.unmount()
    if image.path.exists():
        image.path.rename(capped(to).path)
    path.rename(to)
    _lock_of(path).unlink(missing_ok=True)
    if was_mounted:
        capped(to).mount()
