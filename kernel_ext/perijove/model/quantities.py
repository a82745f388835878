"""Sizes and durations as people write them.

Sizes follow Docker and Slurm: suffixes are powers of 1024 whether written ``K``, ``KB``, ``Ki`` or
``KiB``; a bare number is bytes. Durations: ``90`` and ``90s`` are seconds, ``1d12h30m``, ``1.5h``, and
Slurm's ``HH:MM:SS``, ``D-HH:MM:SS`` and ``MM:SS`` (sbatch(1), ``--time``).
"""

from __future__ import annotations

import re

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_SIZE = re.compile(rf"({_NUMBER}|\.[0-9]{{1,20}})\s*(?:([kmgtp])i?)?b?", re.IGNORECASE)
_UNITS = "kmgtp"
MAX_SIZE = 1 << 60
"""One exbibyte: more than any size here can mean."""

_SECONDS = (86400, 3600, 60, 1)
_PLAIN = re.compile(_NUMBER)
# Spaces belong to the part before them: of two patterns in a row that both take them, all ways are tried.
_PARTS = re.compile("".join(rf"(?:({_NUMBER})\s*{unit}\s*)?" for unit in "dhms"), re.IGNORECASE)
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})")
MAX_DURATION = 10 * 365 * 86400.0
"""Ten years, in seconds."""


def parse_size(text: str | float) -> int:
    """Bytes of a size such as ``8G``, ``512M``, ``1.5GiB`` or ``1048576``.

    Raises ``ValueError`` that says what would be accepted.
    """
    number: float
    if isinstance(text, str):
        match = _SIZE.fullmatch(text.strip())
        if not match:
            raise ValueError("must be a size such as 512M, 8G or a number of bytes")
        unit = (match[2] or "").lower()
        given = int(match[1]) if match[1].isdecimal() else float(match[1])  # exact beyond 2**53 too
        number = given * 1024 ** (_UNITS.index(unit) + 1 if unit else 0)
    elif isinstance(text, int | float) and not isinstance(text, bool):
        number = text
    else:
        raise ValueError("must be a size such as 512M, 8G or a number of bytes")
    if not 0 <= number <= MAX_SIZE:  # nan too
        raise ValueError(f"must lie between 0 and {format_size(MAX_SIZE)}")
    return int(number)


def format_size(size: float) -> str:
    """A size for people, at most one digit after the point: ``1.5G``, ``512M``, ``17``."""
    value, unit = float(size), ""
    for step in _UNITS.upper():
        if round(value, 1) < 1024:
            break
        value, unit = value / 1024, step
    return f"{value:.1f}".removesuffix(".0") + unit


def parse_duration(text: str | float) -> float:
    """Seconds of a duration such as ``90``, ``15m``, ``1d12h``, ``1:30:00`` or ``2-00:00:00``.

    Raises ``ValueError`` that says what would be accepted.
    """
    if isinstance(text, str):
        seconds = _parse_duration_text(text.strip())
    elif isinstance(text, int | float) and not isinstance(text, bool):
        seconds = text
    else:
        raise ValueError("must be a duration such as 90s, 15m, 1d12h or HH:MM:SS")
    if not 0 < seconds <= MAX_DURATION:  # nan too
        raise ValueError("must be longer than 0 s and at most ten years")
    return float(seconds)


def _parse_duration_text(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    match = (_PARTS.fullmatch(text) if text else None) or _CLOCK.fullmatch(text)
    if not match:
        raise ValueError("must be a duration such as 90s, 15m, 1d12h or HH:MM:SS")
    return sum(float(part) * unit for part, unit in zip(match.groups("0"), _SECONDS, strict=True))


def format_duration(seconds: float) -> str:
    """A duration for people, two units at most: ``45s``, ``2m05s``, ``3h07m``, ``2d04h``."""
    total = max(0, round(seconds))
    minutes, s = divmod(total, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    if d:
        return f"{d}d{h:02}h"
    if h:
        return f"{h}h{m:02}m"
    return f"{m}m{s:02}s" if m else f"{s}s"
