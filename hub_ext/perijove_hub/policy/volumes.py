"""Volumes: directories of the nodes by name, and which paths they may have."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable

from pydantic import field_validator

from perijove.model.values import Title
from perijove_hub.policy.who import Audience
from perijove_spawners.places import lies_in

HOME = "home"
"""The name of everybody's own, which no other volume may have."""
SYSTEM_TARGETS = (
    "/bin", "/boot", "/dev", "/etc", "/in", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin",
    "/sys", "/usr",
)  # fmt: skip
"""Folders of a container in whose place nothing may be put."""
SYSTEM_SOURCES = ("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/lib/containers",
                  "/var/lib/docker", "/var/run")  # fmt: skip
"""Folders of a node that no job may be shown: who may write (or, some of them, read) there is its root."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f:,\\]")
PLACES = ("user", "project", "home")


def overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    return lies_in(one, other) or lies_in(other, one)


def wrong_path(path: str) -> str:
    """Why a configured path cannot be one; empty when it can."""
    if _FORBIDDEN.search(path):
        return "a path of a volume has no colons, commas, backslashes or control characters"
    unknown = [name for name in _PLACEHOLDER.findall(path) if name not in PLACES]
    if unknown or "{" in (rest := _PLACEHOLDER.sub("x", path)) or "}" in rest:
        return "in braces may stand {user}, {project} or {home}"
    if not path.startswith(("/", "{home}")):
        return "must be an absolute path, or begin with {home}"
    if "{home}" in path[1:] or (path.startswith("{home}") and path[6:7] not in {"", "/"}):
        return "{home} stands at the beginning, and / follows"
    if any(part in {".", ".."} for part in path.split("/")):
        return "must not contain . or .. as a part"
    return ""


def wrong_source(path: str) -> str:
    """Why a path cannot be shown to jobs."""
    whole, of_system = "the whole of a node is no volume", "nothing of {} of a node is a volume"
    return _wrong(path, SYSTEM_SOURCES, lies_in, whole, of_system)


def wrong_target(path: str) -> str:
    """Why a volume cannot be seen there."""
    whole = "a volume cannot be seen in place of all there is"
    return _wrong(
        path, SYSTEM_TARGETS, overlap, whole, "would take the place of {}; use another folder, as /data"
    )


def _wrong(
    path: str, tops: Iterable[str], touches: Callable[[str, str], bool], whole: str, of_system: str
) -> str:
    if said := wrong_path(path):
        return said
    plain = "/" + posixpath.normpath(path).lstrip("/")
    if plain == "/":
        return whole
    return next((of_system.format(top) for top in tops if touches(plain, top)), "")


class VolumeEntry(Audience):
    """A directory of the nodes that jobs may ask for by its name."""

    source: str
    """On the node; ``{user}``, ``{project}`` and ``{home}`` are replaced."""
    target: str
    """In the job, likewise. Plain processes see the source instead."""
    description: Title = ""
    read_only: bool = False

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if said := wrong_source(value):
            raise ValueError(said)
        return value

    @field_validator("target")
    @classmethod
    def _target(cls, value: str) -> str:
        if said := wrong_target(value):
            raise ValueError(said)
        return value


def same_places(targets: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of names whose targets are one folder, or of which one lies in the other."""
    given = list(targets)
    return [
        (name, other)
        for i, (name, path) in enumerate(given)
        for other, before in given[:i]
        if overlap(posixpath.normpath(path), posixpath.normpath(before))
    ]
