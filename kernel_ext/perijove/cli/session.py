"""What every command shares: the client it talks through, how it prints, and how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from perijove.client import AsyncClient
from perijove.inert import printable
from perijove.model.errors import PerijoveError, UnavailableError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
JobIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...", help="Job ids, such as 12 or 12_7.", autocompletion=lambda: _recent_ids()
    ),
]


@dataclass
class Session:
    """The options before the command's name."""

    verbose: bool = False
    color: bool = True


SESSION = Session()


def talk(action: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
    """Do `action` with a client of the service found."""

    async def talking() -> T:
        async with AsyncClient(trace=_trace if SESSION.verbose else None) as client:
            return await action(client)

    return asyncio.run(talking())


def _trace(line: str) -> None:
    typer.echo(f"perijove: {printable(line)}", err=True)


def report(error: PerijoveError) -> int:
    """Say what went wrong, a line for each thing; the exit code for it."""
    lines = [str(each) for each in error.errors] if len(error.errors) > 1 else [str(error)]
    for line in lines:
        typer.echo(f"perijove: {printable(line)}", err=True)
    return 3 if isinstance(error, UnavailableError) else 1


def note(text: str) -> None:
    """A remark for people, beside the output."""
    typer.echo(f"perijove: {printable(text)}", err=True)


def print_json(value: Any) -> None:
    """For scripts."""
    typer.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON with its letters as they are; what would steer a terminal is escaped (RFC 8259)."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def console() -> Console:
    """For people: tables and, on a terminal that wants them, colours."""
    from rich.console import Console

    plain = not SESSION.color or "NO_COLOR" in os.environ
    # Whoever pipes a table into a program wants whole cells.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 500
    return Console(no_color=plain, highlight=False, width=width, soft_wrap=False)


def error_console() -> Console:
    """The same on standard error, where lines are as long as they are."""
    from rich.console import Console

    plain = not SESSION.color or "NO_COLOR" in os.environ
    return Console(stderr=True, no_color=plain, highlight=False, soft_wrap=True)


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    wide: Collection[str] = (),
    numbers: Collection[str] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """A row a line, however narrow the terminal: the columns named `wide` give way first.

    `numbers` are set to the right. `styles` colours the cells that hold one of its words.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify: Any = "right" if title in numbers else "left"
        table.add_column(title, no_wrap=title not in wide, overflow="ellipsis", justify=justify)
    for row in rows:
        cells = [printable(cell).replace("\n", " ") for cell in row]
        colours = [(styles or {}).get(cell, "") for cell in cells]
        table.add_row(
            *(Text(c, s, no_wrap=True, overflow="ellipsis") for c, s in zip(cells, colours, strict=True))
        )
    console().print(table)


def _recent_ids() -> list[tuple[str, str]]:
    """Ids for the shell's completion."""

    async def asked(client: AsyncClient) -> list[tuple[str, str]]:
        return [(job.label, f"{job.state} {job.name}") for job in await client.jobs(limit=30)]

    return _completions(asked)


def recent_runs() -> list[tuple[str, str]]:
    """Runs of workflows, likewise."""

    async def asked(client: AsyncClient) -> list[tuple[str, str]]:
        return [(str(run.id), f"{run.state} {run.name}") for run in await client.workflows(limit=30)]

    return _completions(asked)


def partitions() -> list[tuple[str, str]]:
    """Partitions that the user may name, for the shell's completion."""

    async def asked(client: AsyncClient) -> list[tuple[str, str]]:
        return [(name, "") for name in (await client.site()).get("partitions") or []]

    return _completions(asked)


def projects() -> list[tuple[str, str]]:
    """The user's projects, likewise."""

    async def asked(client: AsyncClient) -> list[tuple[str, str]]:
        return [(project["name"], project.get("description", "")) for project in await client.projects()]

    return _completions(asked)


def _completions(
    ask: Callable[[AsyncClient], Coroutine[Any, Any, list[tuple[str, str]]]],
) -> list[tuple[str, str]]:
    """What `ask` finds; nothing when the service is slow to answer."""

    async def asked() -> list[tuple[str, str]]:
        async with AsyncClient(timeout=1.0) as client:
            return await ask(client)

    try:
        return asyncio.run(asked())
    except PerijoveError:
        return []
