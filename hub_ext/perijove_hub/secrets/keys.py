"""The keys that secrets are encrypted with: a file of Fernet keys, one a line; the first one encrypts.

Fernet (https://github.com/fernet/spec) is AES-128-CBC with HMAC-SHA256. It binds no context, so each text
begins with the place of its secret: what is copied to another row of the database cannot be read there.
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from perijove.model import OperatorError
from perijove_hub.private_files import write_private


class UnreadableError(OperatorError):
    """No key of this service fits, or the text was changed or is another's."""


class KeyRing:
    """The keys in a file, which is made when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: list[str] = []

    def read(self) -> None:
        """Read the file, if there is one. :class:`OperatorError` when it holds no keys."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            self._keys = []
            return
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"the keys of secrets cannot be read: {self._path}: {error}") from error
        self._keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        self._check()

    def _check(self) -> None:
        for number, key in enumerate(self._keys, start=1):
            try:
                Fernet(key)
            except ValueError:
                # The message must not quote the key.
                said = f"{self._path}: key {number} is none (32 bytes in URL-safe base64 are)"
                raise OperatorError(said) from None

    def add(self) -> None:
        """Put a new key first. :class:`OperatorError` when the file cannot be written."""
        self.read()
        keys = [Fernet.generate_key().decode(), *self._keys]
        try:
            write_private(self._path, "\n".join(keys) + "\n")
        except OSError as error:
            text = f"the key of secrets cannot be written: {self._path}: {error.strerror}"
            raise OperatorError(text) from error
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def seal(self, place: tuple[str, ...], value: bytes) -> bytes:
        """`value`, encrypted for that place."""
        if not self._keys:
            self.add()
        return Fernet(self._keys[0]).encrypt(_context(place) + value)

    def open(self, place: tuple[str, ...], sealed: bytes) -> bytes:
        """What was sealed for that place; :class:`UnreadableError` for anything else."""
        context, text = _context(place), b""
        if self._keys:
            try:
                text = MultiFernet([Fernet(key) for key in self._keys]).decrypt(sealed)
            except InvalidToken:
                text = b""
        if not text.startswith(context):
            raise UnreadableError("the service has no key for it; ask the administrator, or set it again")
        return text[len(context) :]

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key sealed it."""
        try:
            Fernet(self._keys[0]).decrypt(sealed)
        except (InvalidToken, IndexError):
            return False
        return True


def _context(place: tuple[str, ...]) -> bytes:
    return json.dumps(place).encode() + b"\n"
