"""What became of the calls of a warm job: ``pool.jsonl``, a line when a call begins and one when it ends.

It is the only record: who asks reads it from where they left off, and still can when the job was killed. A
call without a line has not begun. Of two lines that say the same of a call the first counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOURNAL = "pool.jsonl"
FOLDER = "pool"
"""Beside it: files that calls take and results that are too large for a line."""
SOCKET = "pool.sock"
_PIECE = 1 << 20


class Journal:
    """Appends lines; each is whole, since it is one ``write`` to a file opened for append."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(directory / JOURNAL, flags, 0o600)
        self._read, self._rest = 0, b""
        self._waiting = b""

    def begin(self, call: str) -> None:
        """Say that `call` begins; what was kept back before is written too."""
        self._write(_line({"call": call, "begun": time.time()}))

    def keep(self, call: str, ended: dict[str, Any]) -> None:
        """Say how `call` ended, with the next line or :meth:`flush`: a write for each would cost more."""
        self._waiting += _line({"call": call, "ended": time.time(), **ended})

    def end(self, call: str, ended: dict[str, Any]) -> None:
        """Say at once how `call` ended."""
        self.keep(call, ended)
        self.flush()

    def flush(self) -> None:
        """Write what was kept back."""
        if self._waiting:
            self._write(b"")

    def news(self) -> Iterator[dict[str, Any]]:
        """Lines written since the last look, whoever wrote them, each with ``at``: the offset behind it."""
        while piece := os.pread(self._descriptor, _PIECE, self._read):
            self._read += len(piece)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            at = self._read - len(self._rest) - sum(len(line) + 1 for line in lines)
            for line in lines:
                at += len(line) + 1
                yield {**json.loads(line), "at": at}

    @property
    def size(self) -> int:
        """Bytes seen by :meth:`news`, up to the end of a line."""
        return self._read - len(self._rest)

    def _write(self, line: bytes) -> None:
        line, self._waiting = self._waiting + line, b""
        while line:
            line = line[os.write(self._descriptor, line) :]


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, default=str).encode() + b"\n"
