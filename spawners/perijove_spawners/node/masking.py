"""Values of secrets that turn up in what a job shows, replaced: pure functions.

Found are a value as it is, as JSON has it within quotes, each line of one that has several, and base64 of it
(RFC 4648, both alphabets), also within longer base64 and in lines of 64 or 76 characters. What a job encodes
in other ways is not found: this keeps secrets from being shown by accident, and not from whoever wants to.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

LEAST = 6
"""Bytes of what is looked for; shorter values are in every other text."""
MOST = 2000
"""Patterns that are looked for; the longest count."""
STARS = "***"
"""Stands for a value where lengths do not matter."""
_LINES = (64, 76)
"""Characters of a line of base64, in PEM (RFC 7468) and in MIME (RFC 2045)."""


class Mask:
    """What hides the values of one job; false when there is nothing to hide."""

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        found = {pattern for value in values for pattern in patterns(value)}
        self._patterns = sorted(found, key=lambda one: (-len(one), one))[:MOST]
        self.longest = len(self._patterns[0]) if self._patterns else 0

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __repr__(self) -> str:
        return f"Mask({len(self._patterns)} patterns)"

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where values are in `data`, in order; those that overlap are one."""
        found: list[tuple[int, int]] = []
        for pattern in self._patterns:
            found += [(at, at + len(pattern)) for at in _each(pattern, data)]
        return _joined(found)

    def stars(self, data: bytes) -> bytes:
        """`data` with as many stars in the place of values: what follows stays where it is."""
        spans = self.spans(data)
        if not spans:
            return data
        masked = bytearray(data)
        for start, end in spans:
            masked[start:end] = b"*" * (end - start)
        return bytes(masked)

    def hidden(self, text: str) -> str:
        """`text` with :data:`STARS` for each value."""
        data = text.encode(errors="surrogatepass")
        spans = self.spans(data)
        if not spans:
            return text
        kept, at = [], 0
        for start, end in spans:
            kept += [data[at:start], STARS.encode()]
            at = end
        return b"".join([*kept, data[at:]]).decode(errors="replace")

    def hidden_in(self, value: Any) -> Any:
        """JSON with :data:`STARS` for each value in its texts, also in names."""
        if not self:
            return value
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, list):
            return [self.hidden_in(one) for one in value]
        if isinstance(value, dict):
            return {self.hidden(str(name)): self.hidden_in(one) for name, one in value.items()}
        return STARS if type(value) is int and self.spans(str(value).encode()) else value

    def notebook(self, data: bytes) -> bytes:
        """A notebook (nbformat 4) with :data:`STARS` for each value; `data` itself when there is none."""
        if not self.spans(data):
            return data
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return self.stars(data)
        text = json.dumps(self.hidden_in(document), indent=1, ensure_ascii=False)
        return text.encode(errors="replace") + b"\n"

    def window(self, offset: int, limit: int) -> tuple[int, int]:
        """From where, and how many bytes, must be read so that :meth:`cut` can give `limit` bytes."""
        before = min(offset, max(0, self.longest - 1))
        return offset - before, before + limit + max(0, self.longest - 1)

    def cut(self, data: bytes, offset: int, limit: int, *, ended: bool) -> bytes:
        """At most `limit` bytes from `offset`, masked as all there is at once would be.

        `data` is what was read of :meth:`window`, less of it only where there is no more yet. Unless it has
        `ended`, bytes with which a value may begin are not given before what follows them is there.
        """
        start, wanted = self.window(offset, limit)
        before = offset - start
        held = 0 if ended or len(data) >= wanted else self._begun(data)
        return self.stars(data)[before : min(before + limit, len(data) - held)]

    def _begun(self, data: bytes) -> int:
        """So many bytes at the end of `data` may be the beginning of a value."""
        most = 0
        for pattern in self._patterns:
            tail = data[-(len(pattern) - 1) :]
            for at in _each(pattern[:1], tail):
                if len(tail) - at <= most or pattern.startswith(tail[at:]):
                    most = max(most, len(tail) - at)
                    break
        return most


def patterns(value: bytes) -> Iterator[bytes]:
    """What is looked for to find `value`."""
    parts = [value, *value.splitlines()]
    for part in {part.strip() for part in parts}:
        if len(part) < LEAST:
            continue
        yield part
        text = part.decode(errors="replace")
        for ascii_only in (True, False):
            yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
    whole = value.strip()
    if len(whole) >= LEAST:
        yield from _base64(whole)


def _base64(value: bytes) -> Iterator[bytes]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # Characters that also depend on what stands before or behind are left out.
            first, last = -(-shift * 8 // 6), (shift + len(value)) * 8 // 6
            yield encode(bytes(shift) + value)[first:last]
        for width in _LINES:
            text = encode(value)[: len(value) * 8 // 6]
            lines = [text[i : i + width] for i in range(0, len(text), width)]
            yield from (line for line in lines if len(line) > LEAST)


def _each(pattern: bytes, data: bytes) -> Iterator[int]:
    at = data.find(pattern)
    while at >= 0:
        yield at
        at = data.find(pattern, at + 1)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


async def masked(
    read: Callable[[int, int], Awaitable[bytes]], mask: Mask, offset: int, limit: int, *, ended: bool
) -> bytes:
    """See :meth:`Mask.cut`. `read` gives at most so many bytes from an offset, less than it has perhaps."""
    if not mask:
        return await read(offset, limit)
    start, wanted = mask.window(offset, limit)
    data = b""
    while len(data) < wanted and (more := await read(start + len(data), wanted - len(data))):
        data += more
    return await asyncio.to_thread(mask.cut, data, offset, limit, ended=ended)
