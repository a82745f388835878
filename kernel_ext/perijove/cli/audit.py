"""``perijove audit``: who did what to what is not theirs."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer

from perijove.cli.moments import instant
from perijove.cli.session import AsJson, json_text, print_json, print_table, talk
from perijove.client import AsyncClient
from perijove.inert import printable
from perijove.model.errors import UserError

PAUSE = 1.0
"""Seconds between two looks for what is new."""


def audit(
    by: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    act: Annotated[str | None, typer.Option(help="Only this: kill, drain, policy, ...")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only to this: `job 12`; `node *` for all nodes.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="So long ago, as 7d, or a date, as 2026-09-01.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is done from now on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what administrators and leads did, the last at the end; of leads, what was done in their projects.

    perijove audit --by ada --since 7d

    perijove audit --subject 'job 12' --json
    """
    wanted = {"by": by, "act": act, "subject": subject, "since": _moment(since)}

    async def asked(client: AsyncClient) -> list[dict[str, Any]]:
        page = await client.request_json("GET", "/audit", {**wanted, "limit": limit})
        return list(reversed(page["entries"]))

    found = talk(asked)
    if not follow:
        if as_json:
            print_json(found)
        else:
            rows = [[one["seq"], _clock(one["at"]), one["by"], one["act"], one["subject"]] for one in found]
            print_table(
                ["NUMBER", "WHEN", "BY", "ACT", "SUBJECT"], rows, wide={"SUBJECT"}, numbers={"NUMBER"}
            )
        return
    for one in found:
        _line(one, as_json)
    talk(lambda client: _following(client, wanted, found[-1]["seq"] if found else 0, as_json))


async def _following(client: AsyncClient, wanted: dict[str, Any], last: int, as_json: bool) -> None:
    while True:
        page = await client.request_json("GET", "/audit", {**wanted, "after": last, "limit": 1000})
        for one in page["entries"]:
            _line(one, as_json)
            last = one["seq"]
        if page["next"] is None:
            await asyncio.sleep(PAUSE)


def _line(one: dict[str, Any], as_json: bool) -> None:
    words = (_clock(one["at"]), one["by"], one["act"], one["subject"])
    typer.echo(json_text(one) if as_json else printable("  ".join(words)))


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return max(0.0, instant(text, ago=True))
    except ValueError:
        raise UserError(f"--since: must be a date or a time such as 7d (given: {text})") from None
