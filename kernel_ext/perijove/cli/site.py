"""Commands about the site: nodes, events, versions."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from perijove.cli.session import AsJson, json_text, print_json, print_table, talk
from perijove.client import AsyncClient
from perijove.inert import printable
from perijove.model.quantities import format_size
from perijove.version import __version__

_IF_ANY = frozenset({"OTHER", "REASON"})
"""Columns left out where no node has anything in them."""


def nodes(as_json: AsJson = False) -> None:
    """List the nodes, what they have and what of it is free.

    perijove nodes
    """
    found = talk(lambda client: client.nodes())
    if as_json:
        print_json(found)
        return
    titles = ["NODE", "STATE", "CPUS", "MEMORY", "GPUS", "OTHER", "LAUNCHERS", "REASON"]
    rows = [_row(entry) for entry in found]
    shown = [i for i, title in enumerate(titles) if title not in _IF_ANY or any(row[i] for row in rows)]
    titles, rows = [titles[i] for i in shown], [[row[i] for i in shown] for row in rows]
    styles = {"up": "green", "down": "red", "drain": "yellow"}
    print_table(titles, rows, wide={"NODE", "OTHER", "LAUNCHERS", "REASON"}, styles=styles)


def _row(entry: dict[str, Any]) -> list[str]:
    node, free = entry["node"], entry["free"]
    gpus = free.get("gpus", 0)
    return [
        node["name"],
        node.get("state", ""),
        f"{free['cpu']:g} of {node['cpus']:g} free",
        f"{format_size(free['memory'])} of {format_size(node['memory'])} free",
        f"{gpus if isinstance(gpus, int) else len(gpus)} of {len(node.get('gpus') or [])} free",
        " ".join(f"{name}={count}" for name, count in sorted((node.get("resources") or {}).items())),
        " ".join(launcher["name"] for launcher in node.get("launchers") or []),
        node.get("reason") or "",
    ]


def events(
    job: Annotated[str | None, typer.Option(help="Only this job's.")] = None,
    since: Annotated[str, typer.Option(help="Begin after the event of this number.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Print what happens to jobs, as it does; Ctrl-C ends it.

    perijove events --job 12
    """

    async def printing(client: AsyncClient) -> None:
        async for event in client.events(job, last_id=since):
            if event.name != "job":
                continue
            if as_json:
                typer.echo(json_text(event.json()))
                continue
            entry = event.json()["event"]
            at = time.strftime("%H:%M:%S", time.localtime(entry["at"]))
            typer.echo(
                printable(f"{entry['seq']:>8} {at} job {entry['job']} {entry['event']}: {entry['state']}")
            )

    talk(printing)


def version(as_json: AsJson = False) -> None:
    """Print the version of this client."""
    if as_json:
        print_json({"perijove": __version__})
    else:
        typer.echo(f"perijove {__version__}")
