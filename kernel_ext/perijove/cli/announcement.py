"""``perijove announcement``, and the note of it in terminals."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from perijove.cli.moments import clock, instant
from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.client import AsyncClient
from perijove.model.errors import PerijoveError, UserError

announcement = typer.Typer(
    help="Tell everybody something (administrators).", no_args_is_help=True, rich_markup_mode="markdown"
)
ASK_AGAIN = 600.0
"""Seconds for which a terminal session is not asked for again."""


@announcement.command("add")
def add(
    text: Annotated[str, typer.Argument(help="One line.")],
    warning: Annotated[bool, typer.Option("--warning", help="It is a warning.")] = False,
    begins: Annotated[str | None, typer.Option(help="A date and time; now when not given.")] = None,
    ends: Annotated[str | None, typer.Option(help="A date and time, or so long from now: 8h, 2d.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Also on the login page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a line on all pages, and in everybody's terminal.

    perijove announcement add "New GPUs on n7" --ends 7d

    perijove announcement add "Power off at noon" --warning --public --ends 2026-09-02T12:00
    """
    body: dict[str, Any] = {"text": text, "level": "warning" if warning else "info", "public": public}
    body |= {"begins": _moment("--begins", begins), "ends": _moment("--ends", ends)}
    made = talk(lambda client: client.request_json("POST", "/announcements", body=body))
    if as_json:
        print_json(made)
    else:
        note(f"announcement {made['id']}: {made['text']}")


@announcement.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List what is announced; administrators also see what will be.

    perijove announcement ls
    """

    async def asked(client: AsyncClient) -> list[dict[str, Any]]:
        coming = {"coming": "true"} if (await client.me())["admin"] else {}
        return list(await client.request_json("GET", "/announcements", coming))

    found = talk(asked)
    if as_json:
        print_json(found)
        return
    rows = [[o["id"], o["level"], clock(o["begins"]), clock(o["ends"]), o["by"], o["text"]] for o in found]
    print_table(["ID", "LEVEL", "FROM", "TO", "BY", "TEXT"], rows, wide={"TEXT"}, numbers={"ID"})


@announcement.command("rm")
def rm(number: Annotated[int, typer.Argument(metavar="ID", help="See `perijove announcement ls`.")]) -> None:
    """Tell it no more.

    perijove announcement rm 3
    """
    talk(lambda client: client.request("DELETE", f"/announcements/{number}"))


def tell() -> None:
    """Say what is announced on standard error, each announcement once in a terminal session.

    What goes wrong is not said: it is not what was asked for.
    """
    if not sys.stderr.isatty():
        return
    try:
        session = f"{os.getsid(0)} {os.ttyname(2)}"
        told = _read(session)
        if time.time() - told["asked"] < ASK_AGAIN:
            return
        found = talk(lambda client: client.request_json("GET", "/announcements"))
        for one in found:
            if one["id"] not in told["ids"]:
                note(f"{'Warning: ' if one['level'] == 'warning' else ''}{one['text']}")
        kept = {"session": session, "ids": [one["id"] for one in found], "asked": time.time()}
        _file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _file().write_text(json.dumps(kept))
    except (OSError, PerijoveError, KeyError, TypeError):
        return


def _read(session: str) -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text())
        if found["session"] == session:
            return {"ids": list(found["ids"]), "asked": float(found["asked"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"ids": [], "asked": 0.0}


def _file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "perijove" / "announced.json"


def _moment(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return instant(text)
    except ValueError:
        raise UserError(f"{option}: must be a date such as 2026-09-01T08:00 (given: {text})") from None
