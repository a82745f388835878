"""References of container images in one form: the only place that reads them.

What is compared is what an engine makes of a reference, never its text: ``python``, ``docker.io/python`` and
``docker.io/library/python:latest`` are one image. Grammar and defaults are those of the Docker engine
(github.com/distribution/reference), which Podman's Docker API follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from perijove_spawners.launcher import ARCHIVES

HUB = "docker.io"
"""The registry of names that say none."""
_HUBS = frozenset({HUB, f"index.{HUB}", f"registry-1.{HUB}"})
"""All names of it."""
HERE = "localhost"
"""What Podman puts before names without a registry: they are in none."""
OFFICIAL = "library/"
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
        registry, repository = located(head)
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


def located(name: str) -> tuple[str, str]:
    """Registry and repository of what stands before tag and digest, unchecked."""
    first, slash, rest = name.partition("/")
    host = first.lower()
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = HUB, name
    if host in _HUBS:
        return HUB, rest if "/" in rest else f"{OFFICIAL}{rest}"
    return host, rest


def written(text: str, reference: Reference) -> str:
    """`text`, such that no engine takes it for the id of an image."""
    bare = reference.tag is None and reference.digest is None
    return f"{text}:{LATEST}" if bare and _ID.fullmatch(text) else text


def pinned(text: str, digest: str) -> str:
    """The reference `text` with `digest` in place of its own."""
    return f"{text.partition('@')[0]}@{digest}"


def manifest_of(text: str, names: Iterable[str]) -> str | None:
    """REPOSITORY@DIGEST: the manifest by which an engine has the image `text` from that image's registry.

    `names` are the engine's for that image (``RepoDigests``). None when none of them is of that repository
    and has the digest that `text` asks for: it was made here, or came as an archive.
    """
    try:
        wanted = Reference.parse(text)
    except ValueError:
        return None
    if wanted.registry == HERE:
        return None
    for name in names:
        repository, _, digest = name.partition("@")
        if repository_of(repository) == wanted.name and digest and wanted.digest in {None, digest}:
            return f"{wanted.name}@{digest}"
    return None


def repository_of(image: str) -> str:
    """Registry and repository of `image`; what is no reference, such as an image's id, stands for itself."""
    try:
        return Reference.parse(image).name
    except ValueError:
        return image


def registry_of(image: str) -> str:
    """The host of the registry that an engine asks for `image`; :data:`HUB` for what is no reference."""
    try:
        return Reference.parse(image).registry
    except ValueError:
        return HUB
