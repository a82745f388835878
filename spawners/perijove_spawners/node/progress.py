"""How far a job says it is: lines ``{"progress": 0.25, "text": "epoch 3"}`` of its ``display.jsonl``."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from perijove.model import Account
from perijove_spawners.node.jobfiles import read_display
from perijove_spawners.node.staging import JOB

LINE_LIMIT = 64 << 10
"""Bytes; a longer line is not looked at."""
_TEXT_LIMIT = 200


class ProgressReader:
    """Reads what was added to one job's display stream since it was last asked."""

    def __init__(self, folder: Path | str, account: Account) -> None:
        self._folder, self._account = folder, account
        self._path = f"{folder}/{JOB}/display.jsonl"
        self._offset = 0

    def read(self) -> tuple[float, str] | None:
        """The latest progress since the last call; None without news. Costs one stat(2) then."""
        try:
            size = os.lstat(self._path).st_size
        except OSError:
            return None
        if size == self._offset:
            return None
        # Only the end counts; also when the job has begun its file anew.
        start = max(self._offset if size > self._offset else 0, size - 2 * LINE_LIMIT)
        data = read_display(Path(self._folder), self._account, start, 2 * LINE_LIMIT)
        whole = data.rfind(b"\n") + 1
        self._offset = start + whole
        return latest(data[:whole])


def latest(data: bytes) -> tuple[float, str] | None:
    """The last well-formed progress line of `data`."""
    for line in reversed(data.splitlines()):
        if b'"progress"' in line and len(line) <= LINE_LIMIT and (found := _parse(line)):
            return found
    return None


def _parse(line: bytes) -> tuple[float, str] | None:
    try:
        entry = json.loads(line)
        value = float(entry["progress"])
        text = str(entry.get("text", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not math.isfinite(value):
        return None
    return min(1.0, max(0.0, value)), "".join(c for c in text if c.isprintable())[:_TEXT_LIMIT]
