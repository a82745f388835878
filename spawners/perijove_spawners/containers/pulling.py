"""What engines say while they pull an image, and why they cannot: pure functions of their words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perijove.model import format_size
from perijove_spawners.launcher import ImageMissingError, LaunchError, RegistryLogin
from perijove_spawners.references import registry_of

EVERY = 2.0
"""Seconds between two reports of progress."""

Trouble = Literal["refused", "unknown", "nowhere", "silent", "other"]
_WORDS: dict[Trouble, tuple[str, ...]] = {
    "refused": (
        "unauthorized",
        "authentication required",
        "no basic auth credentials",
        "denied",
        "username or password",
        "username/password",
    ),
    "unknown": ("manifest unknown", "name unknown", "repository name not known", "not found"),
    "nowhere": ("no such host",),
    "silent": (
        "connection refused",
        "connection reset",
        "timeout",
        "timed out",
        "time-out",
        "unexpected eof",
        "network is unreachable",
        "no route to host",
        "server misbehaving",
        "temporary failure",
        "too many requests",
        "toomanyrequests",
        "service unavailable",
        "bad gateway",
    ),
}


class RegistrySilentError(LaunchError):
    """The registry of an image does not answer; later it may."""

    transient = True


def trouble(said: str) -> Trouble:
    """What is wrong, by an engine's sentence (moby, containers/image, error codes of OCI distribution)."""
    text = said.lower()
    return next((kind for kind, words in _WORDS.items() if any(word in text for word in words)), "other")


def error_of(image: str, login: RegistryLogin | None, said: str) -> LaunchError:
    """The error, for people, of an engine that says `said` when it is to pull `image`."""
    host = registry_of(image)
    match trouble(said):
        case "refused" if login is None:
            text = f"its registry {host} wants a login that may read it (perijove registry login {host})"
        case "refused":
            text = f"its registry {host} refuses the login that you, your project or the site has there"
        case "unknown":
            text = f"its registry {host} has no such image"
        case "nowhere":
            text = f"there is no registry {host}"
        case "silent":
            return RegistrySilentError(
                f"image {image} cannot be pulled: its registry {host} is silent: {said}"
            )
        case _:
            text = said
    return ImageMissingError(f"image {image} cannot be pulled: {text}")


@dataclass(slots=True)
class Layer:
    """One layer on its way."""

    there: bool = False
    done: int = 0
    """Bytes."""
    size: int = 0


@dataclass
class Progress:
    """How much of an image has arrived, from the lines of ``POST /images/create``."""

    layers: dict[str, Layer] = field(default_factory=dict)
    _said: float = 0.0

    def heard(self, line: Mapping[str, Any]) -> str | None:
        """What to tell people, when there is news and some time has passed."""
        self._take(line)
        now = time.monotonic()
        if not self.layers or now < self._said + EVERY:
            return None
        self._said = now
        return str(self)

    def _take(self, line: Mapping[str, Any]) -> None:
        name, status = line.get("id"), str(line.get("status", ""))
        if not isinstance(name, str) or status.startswith("Pulling from"):
            return
        layer = self.layers.setdefault(name, Layer())
        detail = line.get("progressDetail")
        if status == "Downloading" and isinstance(detail, dict):
            layer.done, layer.size = int(detail.get("current") or 0), int(detail.get("total") or 0)
        elif status in {"Download complete", "Pull complete", "Already exists"}:
            layer.there, layer.done = True, layer.size

    def __str__(self) -> str:
        there, size = (
            sum(one.there for one in self.layers.values()),
            sum(o.size for o in self.layers.values()),
        )
        done = sum(one.done for one in self.layers.values())
        bytes_of = f", {format_size(done)} of {format_size(size)}" if size else ""
        return f"{there} of {len(self.layers)} layers{bytes_of}"
