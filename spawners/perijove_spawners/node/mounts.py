"""Directories of the node that a job sees: found, resolved and checked before anything is mounted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from perijove_spawners.launcher import LaunchError, Mount


class MountError(LaunchError):
    """A directory that the job needs is missing on the node, or must not be mounted."""


def resolve(mounts: Iterable[Mount], node: str, state: Path = Path("/")) -> tuple[Mount, ...]:
    """`mounts` with the sources' links followed; :class:`MountError` when one cannot be used.

    Directories above `state`, the agent's own, are trusted: who may change those could replace all of it.
    """
    above = frozenset(state.absolute().parents)
    found: list[Mount] = []
    for mount in mounts:
        real = Mount(_resolve(mount, node, above), mount.target, mount.read_only)
        found += [real, *below(real, mount_points(), above)] if mount.read_only else [real]
    return tuple(found)


def below(mount: Mount, points: Iterable[str], safe: frozenset[Path] = frozenset()) -> list[Mount]:
    """What is mounted on this node below `mount`, as mounts of their own.

    Engines make a directory read-only and not what is mounted in it, so they are asked to leave that out.
    Where users could put a link in the way it stays out.
    """
    top = mount.source.rstrip("/") + "/"
    return [
        Mount(point, f"{mount.target.rstrip('/')}/{point[len(top) :]}", mount.read_only)
        for point in sorted(set(points))
        if point.startswith(top) and not _weakness(Path(point), safe)
    ]


def mount_points() -> list[str]:
    """Where something is mounted that root may look at."""
    return [
        point
        for point, (kind, options) in _mounted()
        if not kind.startswith("fuse") or "allow_other" in options.split(",")
    ]


def _mounted() -> Iterator[tuple[str, tuple[str, str]]]:
    """Mount points with kind and options of what is there (proc_pid_mountinfo(5))."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ")
        path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        yield path, (kind, options)


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


def weakness(path: Path, state: Path = Path("/")) -> str | None:
    """Why a user could put something into the directory `path`, or another one in its place.

    `state` as for :func:`resolve`. ``OSError`` when it is not there.
    """
    if link := _foreign_link(str(path)):
        return f"{link} on its way is a link made by a user"
    real, safe = Path(os.path.realpath(path)), frozenset(state.absolute().parents)
    info = os.lstat(real)
    if real not in safe and info.st_uid not in _trusted():
        return f"{real} belongs to a user"
    if real not in safe and info.st_mode & stat.S_IWOTH:
        return f"everybody may write in {real}"
    return _weakness(real, safe)


def kind_of(path: Path) -> str:
    """The kind of file system that `path` is on, as ``ext4``; empty when that cannot be found out."""
    best, kind = -1, ""
    for point, found in _mounted():
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found[0]
    return kind


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
