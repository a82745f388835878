"""File systems of a size of their own: an image file, mounted through a loop device (loop(4)).

Its size is the limit, whatever is written and by whom, and nothing of it needs the host's own quotas. Only
root can mount; what is mounted allows neither devices nor setuid programs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perijove.model import Account

TIMEOUT = 600.0
"""Seconds that a program may take; checking a large image after a power failure takes long."""
MOUNT_OPTIONS = "loop,nosuid,nodev,noatime"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_BYTES_PER_INODE = 16 << 10


class FileSystemError(Exception):
    """A program failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file system in the file `path`, seen at the directory `at`."""

    path: Path
    at: Path

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.at)

    def make(self, size: int, account: Account, *, sparse: bool, lasting: bool) -> None:
        """Make it anew with room for `size` bytes of files, whole under its name or not at all.

        Not `sparse`: the room is taken at once (fallocate(2)), or ``OSError`` (ENOSPC). `lasting`: with a
        journal, so that a crash does not damage it.
        """
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            whole = file_size(size, lasting=lasting)
            if sparse:
                os.ftruncate(descriptor, whole)
            else:
                os.posix_fallocate(descriptor, 0, whole)
        except OSError:
            fresh.unlink()
            raise
        finally:
            os.close(descriptor)
        extended = f"lazy_itable_init=1,nodiscard,root_owner={account.uid}:{account.gid}"
        features = "^resize_inode" if lasting else "^has_journal,^resize_inode"
        _run(
            *("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-i", str(_BYTES_PER_INODE)),
            *("-O", features, "-E", extended, str(fresh)),
        )
        fresh.rename(self.path)

    def mount(self) -> None:
        """Have it at its place, where `account` finds nothing but its own."""
        if self.mounted:
            return
        _run("mount", "-t", "ext4", "-o", MOUNT_OPTIONS, str(self.path), str(self.at))

    def clear(self, account: Account) -> None:
        """The top of what was just made: its owner's alone, and empty."""
        with contextlib.suppress(FileNotFoundError):
            (self.at / "lost+found").rmdir()
        os.chown(self.at, account.uid, account.gid)
        self.at.chmod(0o700)

    def repair(self) -> None:
        """After a crash of the machine (e2fsck(8)); while it is not mounted."""
        _run("fsck.ext4", "-p", str(self.path), accepted=(0, 1))

    def unmount(self) -> None:
        """Its space is free once nobody has a file of it open any more."""
        while self.mounted:
            try:
                _run("umount", str(self.at))
            except FileSystemError:
                _run("umount", "--lazy", str(self.at))


def file_size(size: int, *, lasting: bool) -> int:
    """Of an image with room for `size` bytes of files.

    Inodes take theirs (a sixty-fourth), what ext4 keeps for its maps (2 %, 16 MiB at most), and a journal.
    """
    whole = size + size // 56 + min(size // 44, 17 << 20) + (512 << 10)
    if lasting:
        whole += min(max(whole // 32, 8 << 20), 1 << 30)
    return -(-whole // 4096) * 4096


def missing() -> str:
    """Why this host cannot have such file systems; empty when it may."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices (the kernel's module loop)"
    return ""


def _run(program: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env={"PATH": _PATH, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FileSystemError(f"{program}: {error}") from error
    if done.returncode not in accepted:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FileSystemError(f"{program}: {said[-1] if said else f'exit code {done.returncode}'}")
