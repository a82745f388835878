"""Whose login brought an image here: nobody else gets it without being let in by its registry.

An engine keeps what it pulled and gives it to everybody who names it. A repository of which something was
pulled with a login is therefore noted, and each job that wants an image of it has to be let in by the
registry first, with its own login or none (as Kubernetes does with the admission plugin AlwaysPullImages).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Collection
from pathlib import Path

from perijove_spawners.launcher import ImageMissingError, RegistryLogin
from perijove_spawners.references import registry_of, repository_of

FRESH = 300.0
"""Seconds for which a registry's yes holds."""
GRACE = 86400.0
"""Seconds for which it holds while the registry does not answer."""
_LOCAL = "localhost/"
"""What Podman puts before names without a registry."""


def auth_of(image: str, login: RegistryLogin | None) -> dict[str, str]:
    """The header ``X-Registry-Auth`` as the SDK takes it; without a login it is nobody's."""
    if login is None:
        return {}
    return {"username": login.username, "password": login.password, "serveraddress": registry_of(image)}


class RegistryAccess:
    """What is known of private repositories; `path` is the file in which they are noted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._private: set[str] | None = None
        self._let_in: dict[tuple[str, bytes], float] = {}
        self._salt = secrets.token_bytes(32)

    @property
    def private(self) -> set[str]:
        """Repositories of which something was pulled with a login."""
        if self._private is None:
            try:
                self._private = set(self._path.read_text().split())
            except FileNotFoundError:
                self._private = set()
        return self._private

    def note_private(self, image: str) -> None:
        """An image is about to be pulled with a login."""
        repository = repository_of(image)
        if repository not in self.private:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, f"{repository}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.private.add(repository)

    def to_ask(self, image: str, names: Collection[str]) -> bool:
        """Whether the registry has to let in who wants `image`, which is here under `names`.

        :class:`ImageMissingError` for an image of a private repository that goes by another name.
        """
        known = {repository_of(name.removeprefix(_LOCAL)) for name in names} | set(map(repository_of, names))
        repository = repository_of(image)
        if repository in known:
            return repository in self.private
        if known & self.private:
            raise ImageMissingError(f"image {image}: name it by its repository, and not by its id")
        return False

    def let_in(self, image: str, login: RegistryLogin | None) -> None:
        """The registry gave, or would give, `image` to this login."""
        self._let_in[repository_of(image), self.key(login)] = time.monotonic()

    def shut_out(self, image: str, login: RegistryLogin | None) -> None:
        """The registry refused."""
        self._let_in.pop((repository_of(image), self.key(login)), None)

    def was_let_in(self, image: str, login: RegistryLogin | None, within: float = FRESH) -> bool:
        """Whether it did so in the last seconds."""
        at = self._let_in.get((repository_of(image), self.key(login)))
        return at is not None and time.monotonic() - at < within

    def key(self, login: RegistryLogin | None) -> bytes:
        """Tells logins apart without keeping them."""
        if login is None:
            return b""
        text = f"{login.username}\0{login.password}".encode()
        return hmac.digest(self._salt, text, hashlib.sha256)
