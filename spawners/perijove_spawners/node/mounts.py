"""Directories of the node that a job sees: found, resolved and checked before anything is mounted."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from perijove.model import Account
from perijove_spawners.launcher import LaunchError, Mount


class MountError(LaunchError):
    """A directory that the job needs is missing on the node, or must not be mounted."""


def resolve(mounts: Iterable[Mount], node: str, state: Path = Path("/")) -> tuple[Mount, ...]:
    """`mounts` with the sources' links followed; :class:`MountError` when one cannot be used.

    Directories above `state`, the agent's own, are trusted: who may change those could replace all of it.
    """
    above = frozenset(state.absolute().parents)
    return tuple(Mount(_resolve(m, node, above), m.target, m.read_only) for m in mounts)


def _resolve(mount: Mount, node: str, above: frozenset[Path]) -> str:
    source = mount.source
    if not source.startswith("/") or ".." in source.split("/"):
        raise MountError(f"{source!r}, to be mounted at {mount.target}, is not an absolute path")
    if link := _foreign_link(source):
        raise MountError(
            f"{source} is not mounted at {mount.target}: {link} on its way is a link made by a user"
        )
    real = os.path.realpath(source)
    if not Path(real).is_dir():
        raise MountError(f"{source}, to be mounted at {mount.target}, is not a directory of node {node}")
    if weakness := _weakness(Path(real), above):
        raise MountError(f"{source} is not mounted at {mount.target}: {weakness}")
    return real


def _trusted() -> set[int]:
    """Root, the agent, and whoever ``/`` belongs to: in a user namespace root has another number."""
    return {0, os.geteuid(), os.lstat("/").st_uid}


def _weakness(real: Path, safe: frozenset[Path]) -> str | None:
    """Why a user could put a link in the place of `real` before the engine comes to it.

    Groups may write on the way: who is in one is the administrator's choice.
    """
    trusted = _trusted()
    for path, parent in zip([real, *real.parents], real.parents, strict=False):
        if parent in safe:
            continue
        try:
            above, here = os.lstat(parent), os.lstat(path)
        except OSError:
            continue
        if above.st_uid not in trusted:
            return f"{parent} on its way belongs to a user"
        if above.st_mode & stat.S_IWOTH and not (above.st_mode & stat.S_ISVTX and here.st_uid in trusted):
            return f"everybody may write in {parent} on its way"
    return None


def _foreign_link(source: str) -> str | None:
    """The first link on the way to `source` that neither root nor the agent's own account made.

    Links that such links lead to are looked at too.
    """
    trusted = _trusted()
    pending, seen = [source], 0
    while pending:
        path = "/"
        parts = [part for part in pending.pop().split("/") if part]
        for position, part in enumerate(parts):
            path = os.path.normpath(f"{path}/{part}")
            try:
                info = os.lstat(path)
            except OSError:
                return None
            if not stat.S_ISLNK(info.st_mode):
                continue
            seen += 1
            if info.st_uid not in trusted or seen > 40:
                return path
            rest = "/".join(parts[position + 1 :])
            pending.append(str(Path(path).parent / Path(path).readlink() / rest))
            break
    return None


def make_home(account: Account, mounts: Iterable[Mount]) -> None:
    """Make the account's home where it is missing: its owner's alone (0700), whole or not at all.

    Its place is the source of what is mounted there, else the path itself.
    """
    source = next((m.source for m in mounts if m.target == account.home), account.home)
    path = Path(source)
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(fresh, account.uid, account.gid)
        fresh.rename(path)
    except OSError as error:
        if not path.exists():
            raise MountError(f"the home {path} cannot be made: {error.strerror}") from error
