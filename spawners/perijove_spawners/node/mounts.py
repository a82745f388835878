"""Directories of the node that a job sees: found, resolved and checked before anything is mounted."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from perijove_spawners.launcher import LaunchError, Mount

log = logging.getLogger(__name__)

_MOST_LINKS = 40


class MountError(LaunchError):
    """A directory that the job needs is missing on the node, or must not be mounted.

    It is told to the job's owner by the volume's name; the path goes to the agent's log.
    """


def resolve(mounts: Iterable[Mount], node: str, state: Path = Path("/")) -> tuple[Mount, ...]:
    """`mounts` with the sources' links followed; :class:`MountError` when one cannot be used.

    Directories above `state`, the agent's own, are trusted: who may change those could replace all of it.
    """
    above = frozenset(state.absolute().parents)
    found: list[Mount] = []
    for mount in mounts:
        real = replace(mount, source=_resolve(mount, node, above))
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
        if point.startswith(top) and _is_safe(point, safe)
    ]


def _is_safe(point: str, safe: frozenset[Path]) -> bool:
    try:
        return _walk(point, safe) == point
    except (OSError, _WeakError):
        return False


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
    source, real, wrong, where = mount.source, "", "", ""
    if not source.startswith("/") or ".." in source.split("/"):
        wrong = "the site's list has no absolute path for it"
    try:
        real = "" if wrong else _walk(source, above)
    except _WeakError as error:
        wrong, where = f"{error.what} on its way", f": {error}"
    except OSError:
        pass
    if not wrong and not (real and Path(real).is_dir()):
        wrong = "it is not there, or no directory"
    if wrong:
        log.warning("%s is not mounted, %s%s", source, wrong, where)
        raise MountError(f"{mount} cannot be had on node {node}: {wrong}")
    return real


def weakness(path: Path, state: Path = Path("/")) -> str | None:
    """Why a user could put something into the directory `path`, or another one in its place.

    `state` as for :func:`resolve`. ``OSError`` when it is not there.
    """
    safe = frozenset(state.absolute().parents)
    try:
        real = Path(_walk(str(path), safe))
    except _WeakError as error:
        return str(error)
    info = os.lstat(real)
    if real not in safe and info.st_uid not in _trusted():
        return f"{real} belongs to a user"
    if real not in safe and info.st_mode & stat.S_IWOTH:
        return f"everybody may write in {real}"
    return None


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


class _WeakError(Exception):
    """A user could have something else found in a directory's place; the message continues a sentence."""

    def __init__(self, what: str, path: str) -> None:
        super().__init__(f"{what} on its way: {path}")
        self.what = what


def _walk(source: str, safe: frozenset[Path]) -> str:
    """The place that the path `source` leads to, without a link in it. ``OSError`` when it is not there.

    Each step is looked at before it is taken, and where nobody but those who are trusted can change it:
    what was found stays so until the engine comes to it, however fast somebody swaps things elsewhere.
    Groups may write on the way: who is in one is the administrator's choice.
    """
    trusted, path, links = _trusted(), "/", 0
    parts = [part for part in source.split("/") if part not in {"", "."}][::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            path = os.path.dirname(path)  # noqa: PTH120 -- no link is left in it
            continue
        parent, path = path, f"{path.rstrip('/')}/{part}"
        here = os.lstat(path)
        is_link = stat.S_ISLNK(here.st_mode)
        links += is_link
        if is_link and (here.st_uid not in trusted or links > _MOST_LINKS):
            raise _WeakError("there is a link made by a user", path)
        if Path(parent) not in safe:
            _check(parent, here.st_uid in trusted)
        if is_link:
            target = os.readlink(path)  # noqa: PTH115
            parts += [one for one in target.split("/") if one not in {"", "."}][::-1]
            path = "/" if target.startswith("/") else parent
    return path


def _check(parent: str, entry_is_trusted: bool) -> None:
    above = os.lstat(parent)
    if above.st_uid not in _trusted():
        raise _WeakError("a directory belongs to a user", parent)
    if above.st_mode & stat.S_IWOTH and not (above.st_mode & stat.S_ISVTX and entry_is_trusted):
        raise _WeakError("everybody may write in a directory", parent)
