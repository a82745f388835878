"""What jobs write, as it comes to a terminal: standard error in another colour, steps under their labels."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO

from typer import Option

from perijove.cli.session import SESSION, error_console
from perijove.engine_calls import Call, body_text, command_line, pieces
from perijove.inert import printable

if TYPE_CHECKING:
    from perijove.handle import AsyncJob

Verbose = Annotated[
    int,
    Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        metavar="",
        help="Show the calls made of the engine; -vv also what was sent, and as a command line.",
    ),
]
_STYLES = {"time": "dim", "engine": "cyan", "what": "bold", "answer": "green", "failure": "red"}
_YELLOW, _RESET = b"\x1b[33m", b"\x1b[0m"
_LABELS = (36, 35, 32, 34, 33)
"""Colours of steps' labels (ECMA-48, SGR), one after the other."""


def coloured() -> bool:
    """Whether both streams go to a terminal that wants colours."""
    wanted = SESSION.color and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty() and sys.stderr.isatty()


@dataclass(frozen=True)
class Sink:
    """Where a stream goes, and in which colour."""

    target: BinaryIO
    colour: bytes = b""

    def write(self, data: bytes, before: bytes = b"") -> None:
        """At once; `before` in its own colours."""
        self.target.write(before + (self.colour + data + _RESET if self.colour else data))
        self.target.flush()


def to_stdout() -> Sink:
    """Standard output as it is."""
    return Sink(sys.stdout.buffer)


def to_stderr() -> Sink:
    """Standard error, in another colour where both can be seen."""
    return Sink(sys.stderr.buffer, _YELLOW if coloured() else b"")


@dataclass(frozen=True)
class Place:
    """A step among those that are shown together: the `number`-th, its label filled up to `width`."""

    label: str
    number: int
    width: int

    @property
    def filled(self) -> str:
        """Its label with blanks up to the width."""
        return f"{printable(self.label):{self.width}}"


class Labelled:
    """Whole lines of a stream, each behind its step's label."""

    def __init__(self, place: Place, sink: Sink) -> None:
        text = f"{place.filled} |".encode()
        if coloured():
            text = b"\x1b[%dm%s%s" % (_LABELS[place.number % len(_LABELS)], text, _RESET)
        self._start, self._sink, self._rest = text + b" ", sink, b""

    def write(self, data: bytes) -> None:
        """Write the lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._sink.write(line + b"\n", self._start)

    def close(self) -> None:
        """Write what is left without a line's end."""
        if self._rest:
            self.write(b"\n")


async def copy(chunks: AsyncGenerator[bytes, None], target: Sink | Labelled) -> None:
    """Write `chunks` as they come."""
    async with aclosing(chunks):
        async for data in chunks:
            target.write(data)


async def follow_calls(job: AsyncJob, verbose: int, label: str = "") -> None:
    """Show the engine calls of `job` as they are made, if `verbose` says so."""
    from perijove.display import LineReader

    if verbose:
        reader = LineReader()
        async with aclosing(job.follow("engine")) as texts:
            async for text in texts:
                for call in reader.feed(text):
                    print_call(call, verbose, label)


async def print_calls(job: AsyncJob, verbose: int, label: str = "") -> None:
    """The same of those made so far."""
    from perijove.display import LineReader

    if verbose:
        for call in LineReader().feed((await job.logs("engine")).decode(errors="replace")):
            print_call(call, verbose, label)


def print_call(call: Call, verbose: int, label: str = "") -> None:
    """On standard error: a line; from 2 on what was sent, and the command line that does the same."""
    from rich.console import Group, RenderableType
    from rich.json import JSON
    from rich.text import Text

    words = [(f"{printable(text)}", _STYLES[kind]) for text, kind in pieces(call)]
    spaced = [part for word in words for part in (word, ("  ", ""))][:-1]
    before = [(f"{printable(label)}  ", "magenta")] if label else []
    shown: list[RenderableType] = [Text.assemble(*before, *spaced)]
    if verbose > 1:
        body = printable(body_text(call))
        if body:
            shown.append(JSON(body) if body.startswith(("{", "[")) else Text(body))
        if line := command_line(call):
            shown.append(Text(printable(line), "green"))
    error_console().print(Group(*shown), soft_wrap=True)
