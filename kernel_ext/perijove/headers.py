"""Options that a script carries itself, in lines ``#PERIJOVE --cpus 4``.

They are read as sbatch(1) reads ``#SBATCH``: from the beginning of a line, and only above the first line
that is neither blank nor a comment. Words are split as a shell does (:mod:`shlex`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from perijove.model.errors import UserError

MARK = "#PERIJOVE"


@dataclass(frozen=True, slots=True)
class Header:
    """One such line."""

    line: int
    """Its number, from 1."""
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Headers:
    """Those of one script."""

    read: tuple[Header, ...] = ()
    late: tuple[int, ...] = ()
    """Numbers of lines that come after the first command and therefore mean nothing."""


def headers_of(script: str, name: str) -> Headers:
    """The header lines of `script`; `name` stands for it in errors (:class:`UserError`)."""
    read: list[Header] = []
    late: list[int] = []
    commands = False
    for number, line in enumerate(script.split("\n"), 1):
        if (rest := _options(line)) is not None:
            if commands:
                late.append(number)
            else:
                read.append(Header(number, _split(rest, f"{name}:{number}")))
        elif line.strip() and not line.lstrip().startswith("#"):
            commands = True
    return Headers(tuple(read), tuple(late))


def _options(line: str) -> str | None:
    """What follows the mark; None for a line without it."""
    rest = line.removeprefix(MARK)
    if rest == line or (rest and not rest[0].isspace()):
        return None
    return rest


def _split(text: str, place: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{place}: {error} in {text.strip()!r}") from None


def late_text(headers: Headers, name: str) -> str:
    """A warning about lines that were passed over; empty when there are none."""
    if not headers.late:
        return ""
    lines = ", ".join(map(str, headers.late))
    return f"{name}: {MARK} after the first command is not read (line {lines})"
