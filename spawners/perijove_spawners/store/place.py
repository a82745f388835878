"""What a store needs of the place where its files lie: a folder, or a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

CHUNK = 1 << 20
"""Bytes read or written at once."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the store: its digest, its bytes, and when it was last put (seconds since the epoch)."""

    digest: str
    size: int
    changed: float


class Incoming(Protocol):
    """A file on its way in, which nobody sees yet."""

    def write(self, data: bytes) -> None:
        """Add `data`."""

    def finish(self, name: str) -> None:
        """Make it visible as `name`, whole and durably, in the place of one with the same content."""

    def abandon(self) -> None:
        """Leave no trace of it."""


class Place(Protocol):
    """Keeps files by name, 64 hexadecimal digits each. All calls block.

    Raises :class:`~perijove.model.UnavailableError` for what may pass, :class:`FullError`, and
    :class:`~perijove.model.OperatorError` for what its operator must mend.
    """

    far: bool
    """Sending a file there costs more than reading it twice."""

    def create(self) -> Incoming:
        """Begin a file."""

    def open(self, name: str) -> BinaryIO:
        """Read one; ``FileNotFoundError`` when there is none."""

    def size(self, name: str) -> int:
        """Its bytes; ``FileNotFoundError`` when there is none."""

    def have(self, names: Iterable[str]) -> set[str]:
        """Those of `names` that are there."""

    def refresh(self, name: str) -> bool:
        """Make it count as put just now; False when there is none."""

    def remove(self, names: Iterable[str], before: float) -> set[str]:
        """Remove those that were not put since `before`; those that are gone."""

    def all(self) -> Iterator[tuple[str, int, float]]:
        """Each name with its bytes and when it was last put."""

    def sweep(self, before: float) -> None:
        """Remove what uploads that broke off before that time left behind."""

    def location(self, name: str) -> str:
        """Its URL."""

    def note(self, title: str) -> bytes | None:
        """A few bytes that all who use the place can read; None where there is none."""

    def set_note(self, title: str, text: bytes | None) -> None:
        """Write or remove it."""

    def sign(self, name: str, seconds: int) -> str | None:
        """A URL from which anybody can read the file for so long; None where there are no such URLs."""

    def sign_upload(self, upload: str, seconds: int) -> str | None:
        """Likewise one to which anybody can ``PUT`` a file, which nobody sees under any name."""

    def uploaded(self, upload: str) -> BinaryIO:
        """What came by it; ``FileNotFoundError`` when nothing did."""

    def forget_upload(self, upload: str) -> None:
        """Remove what came by it."""
