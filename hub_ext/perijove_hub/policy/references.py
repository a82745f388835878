"""References of container images in one form, and patterns of them.

What is compared is what an engine makes of a reference, never its text: ``python``, ``docker.io/python`` and
``docker.io/library/python:latest`` are one image. Grammar and defaults are those of the Docker engine
(github.com/distribution/reference), which Podman's Docker API follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from perijove_spawners.launcher import ARCHIVE, ARCHIVES

HUB = "docker.io"
"""The registry of names that say none."""
_HUBS = frozenset({HUB, f"index.{HUB}"})
_OFFICIAL = "library/"
"""Where names of one part lie there."""
LATEST = "latest"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[0-9]{1,5})?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]+")
"""Whatever consists of these alone, engines may take for (the beginning of) an image's id."""
_LOADED = ARCHIVES.partition("/")[2].rstrip(":")
_PATTERN = re.compile(r"[A-Za-z0-9._/:@*?-]+")
ANY = "*"
FORM = "must be REPOSITORY, REPOSITORY:TAG or REPOSITORY@sha256:..., in lower case, such as python:3.12-slim"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image as an engine would name it in full."""

    registry: str
    """Host, with its port when one was given."""
    repository: str
    """Path at the registry."""
    tag: str | None = None
    """Without meaning for the engine where there is a digest."""
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """What `text` means. Raises ``ValueError`` that says what would be accepted."""
        name, at, digest = text.partition("@")
        if at and not DIGEST.fullmatch(digest):
            raise ValueError("after @ must come sha256: and 64 hexadecimal digits")
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            head, colon, tag = name, "", ""
        if colon and not _TAG.fullmatch(tag):
            raise ValueError("a tag has at most 128 letters, digits and _ . -, and begins with no . or -")
        registry, repository = _located(head)
        if not _HOST.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
            raise ValueError(FORM)
        if len(registry) + len(repository) > 255:
            raise ValueError("the name of a repository has at most 255 characters")
        if "/" not in head and (head == "sha256" or (len(head) == 64 and _ID.fullmatch(head))):
            raise ValueError("an image is named by its repository, not by its id")
        return cls(registry, repository, tag or None, digest or None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else "" if self.digest else f":{LATEST}"
        return f"{self.registry}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> tuple[str, str]:
        """Name and tag, for looking it up; of one without a tag, ``latest``."""
        return self.name, self.tag or LATEST

    @property
    def is_archive(self) -> bool:
        """Whether it is the agents' own name of an image that somebody brought as an archive."""
        return self.registry in {HUB, "localhost"} and self.repository == _LOADED


def _located(name: str) -> tuple[str, str]:
    """Registry and repository of what stands before tag and digest."""
    first, slash, rest = name.partition("/")
    host = first.lower()
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = HUB, name
    if host in _HUBS:
        return HUB, rest if "/" in rest else f"{_OFFICIAL}{rest}"
    return host, rest


def written(text: str, reference: Reference) -> str:
    """`text`, such that no engine takes it for the id of an image."""
    bare = reference.tag is None and reference.digest is None
    return f"{text}:{LATEST}" if bare and _ID.fullmatch(text) else text


def pinned(text: str, digest: str) -> str:
    """The reference `text` with `digest` in place of its own."""
    return f"{text.partition('@')[0]}@{digest}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Images by registry, repository, tag and digest.

    A digest says by itself what is run, whatever tag stands before it. So a pattern with a tag means no
    image with a digest, unless it has ``@*`` or that digest.
    """

    text: str
    name: re.Pattern[str] | None
    """Of registry and repository; None for archives."""
    tag: re.Pattern[str] | None = None
    digest: str | None = None
    """``*`` for any."""
    across: bool = False

    def meets(self, reference: Reference) -> bool:
        """Whether it means the image."""
        if self.name is None or not any(self.name.fullmatch(name) for name in self._names(reference)):
            return False
        if reference.digest is not None:
            if self.digest is None:
                return self.tag is None
            if self.digest not in {ANY, reference.digest}:
                return False
            return self.tag is None or reference.tag is None or self._tagged(reference.tag)
        if self.digest not in {None, ANY}:
            return False
        return self._tagged(reference.tag or LATEST)

    def _tagged(self, tag: str) -> bool:
        return self.tag is None or self.tag.fullmatch(tag) is not None

    def _names(self, reference: Reference) -> tuple[str, ...]:
        if not self.across or reference.registry != HUB:
            return (reference.name,)
        return reference.name, reference.repository, reference.repository.removeprefix(_OFFICIAL)

    @property
    def archives(self) -> bool:
        """Whether it means images that users bring as archives."""
        return self.name is None


@lru_cache(4096)
def pattern(text: str) -> Pattern:
    """The pattern in `text`. ``*`` and ``?`` stay within a part of a path, ``**`` is any number of parts.

    Without a registry it is the one of names that say none; only ``**`` at the beginning means all
    registries. ``archive:*`` means all images brought as archives. Raises ``ValueError``.
    """
    if text == f"{ARCHIVE}{ANY}":
        return Pattern(text, None)
    if not _PATTERN.fullmatch(text):
        raise ValueError("must be a pattern of images such as registry.lab.example/tools/*:2.*")
    name, at, digest = text.partition("@")
    if at and digest != ANY and not DIGEST.fullmatch(digest):
        raise ValueError("after @ must come * or sha256: and 64 hexadecimal digits")
    head, tag = _tag_of(name)
    if head != head.lower():
        raise ValueError("names of images are in lower case")
    parts = head.split("/")
    if "" in parts or any("**" in part and part != "**" for part in parts):
        raise ValueError("parts of a path are parted by single / and ** is a part by itself")
    full = head if head.startswith("**") else "/".join(_located(head))
    return Pattern(text, re.compile(_expression(full)), _any_tag(tag), digest or None)


@lru_cache(4096)
def loose_pattern(text: str) -> Pattern:
    """A pattern as the setting ``images`` has them, whose ``*`` is any text (fnmatch(3))."""
    if text == f"{ARCHIVE}{ANY}":
        return Pattern(text, None)
    name, _, digest = text.partition("@")
    head, tag = _tag_of(name)
    return Pattern(text, re.compile(translate(head)), _any_tag(tag), digest or None, across=True)


def _tag_of(name: str) -> tuple[str, str]:
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "")


def _any_tag(tag: str) -> re.Pattern[str] | None:
    return None if tag in {"", ANY} else re.compile(_expression(tag))


def _expression(glob: str) -> str:
    parts = re.split(r"(\*\*|\*|\?)", glob)
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(part) or re.escape(part) for part in parts)
