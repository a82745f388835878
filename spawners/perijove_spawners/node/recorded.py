"""Values that a job recorded, from the file in which it wrote them.

``output/.recorded.jsonl`` has a line ``{"name": NAME, "value": JSON}`` for each; the last of a name counts.
A line ``{"failure": SENTENCE}`` says why the job is about to fail, for people.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perijove.model import Account
from perijove_spawners.node.jobfiles import ForeignFileError, open_file

RECORDED = ".recorded.jsonl"
LARGEST = 256 << 10
"""Bytes of that file that are read, from its end."""
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]{0,199}")
_DEEPEST = 50
_SENTENCE = 500
_INTEGERS = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a job said in that file."""

    values: dict[str, Any] = field(default_factory=dict)
    """Name -> JSON."""
    failure: str = ""


def read_recorded(folder: Path, account: Account) -> Recorded:
    """What the job of an attempt recorded. Lines that are malformed are passed over."""
    try:
        with open_file(folder, account, "output", RECORDED) as file:
            size = os.fstat(file.fileno()).st_size
            return parsed(os.pread(file.fileno(), LARGEST, max(0, size - LARGEST)))
    except (FileNotFoundError, ForeignFileError):
        return Recorded()


def parsed(text: bytes) -> Recorded:
    """What is recorded in `text`; see :func:`read_recorded`."""
    values: dict[str, Any] = {}
    failure = ""
    for line in text.split(b"\n"):
        try:
            said = json.loads(line, parse_constant=_refused)
        except (ValueError, RecursionError):
            continue
        if not isinstance(said, dict):
            continue
        if isinstance(sentence := said.get("failure"), str):
            failure = _printable(sentence)
        elif "value" in said and isinstance(name := said.get("name"), str):
            value = said["value"]
            # No number that is none, nothing that the way to the service or its database cannot hold.
            if _NAME.fullmatch(name) and _plain(value, _DEEPEST):
                values.pop(name, None)
                values[name] = value
    return Recorded(values, failure)


def canonical(value: Any) -> bytes:
    """A value as JSON, the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _plain(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return value in _INTEGERS
    if isinstance(value, float):
        return value - value == 0.0  # 1e999 is read as infinity
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(_encodable(key) and _plain(part, depth - 1) for key, part in value.items())
    return all(_plain(part, depth - 1) for part in value)


def _printable(text: str) -> str:
    words = " ".join(text[: 4 * _SENTENCE].split())
    return "".join(character for character in words if character.isprintable())[:_SENTENCE]


def _encodable(text: str) -> bool:
    # PostgreSQL's JSON holds no NUL.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
