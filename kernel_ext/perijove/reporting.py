"""What a job's own code may call to tell how far it is, and what it found."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

RECORDED = ".recorded.jsonl"
"""In the job's folder ``output``: lines ``{"name": ..., "value": JSON}``; the last of a name counts."""
LARGEST = 256 * 1024
"""Bytes that all recorded values of a job may have together, as JSON; the node reads no more."""
SENTENCE = 500
"""Characters of the sentence that says why a job failed."""
_DEEPEST = 50
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]{0,199}")
"""As ``record:NAME`` has it (:mod:`perijove.model.places`)."""


def progress(fraction: float, text: str = "") -> None:
    """Tell how far this job is, from 0 to 1, with a few words: ``progress(0.25, "epoch 3 of 12")``.

    It shows where the job is watched, in the notebook and in ``perijove show``. Outside a job it does
    nothing, so that the same code runs anywhere.
    """
    directory = os.environ.get("PERIJOVE_JOB_DIR")
    if not directory:
        return
    from perijove.runner.display import DisplayLog

    DisplayLog(Path(directory)).progress(fraction, text)


def record(name: str, value: Any) -> None:
    """Record a result of this job under `name`: ``record("loss", 0.1)``.

    The last value of a name counts. It becomes one of the job's ``values``, a sweep's table shows it, and
    steps of a workflow can use it. `value` is what JSON has: None, a truth value, number or text, and lists
    and dicts of them. Numbers and arrays of numpy, pandas, torch and the like are recorded as numbers and
    lists, times in ISO 8601, and NaN and infinity, which JSON does not have, as None. Outside a job it
    prints what would be recorded.

    Raises ``TypeError`` for what is no JSON; ``ValueError`` for a name that is none, for what no database
    holds (integers of more than 64 bits, NUL in a text), and when all recorded values together would exceed
    256 KiB.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"record({name!r}): the name must be letters, digits, _ . + or -,"
            " and begin with a letter, a digit or _"
        )
    line = json.dumps({"name": name, "value": _plain(value, name)}, allow_nan=False).encode() + b"\n"
    directory = os.environ.get("PERIJOVE_JOB_DIR")
    # A notebook server is a job too, whose end nobody waits for.
    if not directory or "JUPYTERHUB_SERVICE_PREFIX" in os.environ:
        sys.stdout.write(f"{name} = {json.dumps(json.loads(line)['value'], ensure_ascii=False)}\n")
        return
    _append(Path(directory) / "output" / RECORDED, name, line)


def fail(text: str) -> None:
    """Leave a sentence that says why this job fails; the node tells it as the job's reason.

    For runners, just before they end. Outside a job it does nothing.
    """
    directory = os.environ.get("PERIJOVE_JOB_DIR")
    if directory:
        line = json.dumps({"failure": " ".join(text.split())[:SENTENCE]}).encode() + b"\n"
        with suppress(OSError):
            _append(Path(directory) / "output" / RECORDED, "", line)


def _append(path: Path, name: str, line: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with _locked(path.parent.parent / ".recorded.lock"):
        there = path.read_bytes() if path.exists() else b""
        # What a killed process left of a line is no line.
        there = there[: there.rfind(b"\n") + 1]
        # Room is kept for why it may fail at last.
        limit = LARGEST - 6 * SENTENCE - 100 if name else LARGEST
        if len(there) + len(line) > limit:
            there = _last_of_each(there, name)
        if len(there) + len(line) > limit:
            raise ValueError(
                f"record({name!r}): all recorded values would be {(len(there) + len(line)) >> 10} KiB"
                f" as JSON, and {LARGEST >> 10} KiB are the limit: write what is large to a file"
            )
        partial = path.with_suffix(".partial")
        partial.write_bytes(there + line)
        partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Several processes of one job may record at once.
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_of_each(lines: bytes, but: str) -> bytes:
    last = {json.loads(line).get("name"): line for line in lines.splitlines(keepends=True)}
    last.pop(but, None)
    return b"".join(last.values())


def _plain(value: Any, place: str, depth: int = _DEEPEST) -> Any:
    """`value` as JSON has it; `place` is how to reach it from the recorded one."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"record: {place} has a NUL or half a surrogate pair, which no text may have")
        return str(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"record: {place} is a number of more than 64 bits; record it as text")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth == 0:
        raise ValueError(f"record: {place} lies {_DEEPEST} lists and dicts deep, and that is too deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"record: {place} has the key {key!r}; keys must be text")
        return {
            _plain(key, f"a key of {place}"): _plain(each, f"{place}[{key!r}]", depth - 1)
            for key, each in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(each, f"{place}[{index}]", depth - 1) for index, each in enumerate(value)]
    return _converted(value, place, depth)


def _converted(value: Any, place: str, depth: int) -> Any:
    """What numpy, pandas and the like have a form for; none of them is imported."""
    if callable(frame := getattr(value, "to_dict", None)) and hasattr(value, "columns"):
        columns = frame(orient="list")
        return {
            str(name): _plain(column, f"{place}[{name!r}]", depth - 1) for name, column in columns.items()
        }
    for form in ("tolist", "isoformat", "item"):
        if callable(convert := getattr(value, form, None)):
            plain = convert()
            # NaT, the time that is none, calls itself so.
            if form == "isoformat":
                return None if plain == "NaT" else plain
            if type(plain) is not type(value):
                return _plain(plain, place, depth - 1)
    raise TypeError(
        f"record: {place} is a {type(value).__name__}, which JSON has no form for; it takes None, truth"
        " values, numbers, text, and lists and dicts of them"
    )
