"""Patterns of container images, as administrators write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from perijove_spawners.launcher import ARCHIVE
from perijove_spawners.references import DIGEST, HUB, LATEST, OFFICIAL, Reference, located

_PATTERN = re.compile(r"[A-Za-z0-9._/:@*?-]+")
ANY = "*"


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
        return reference.name, reference.repository, reference.repository.removeprefix(OFFICIAL)

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
    full = head if head.startswith("**") else "/".join(located(head))
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
