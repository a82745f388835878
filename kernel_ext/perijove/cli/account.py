"""``perijove login`` and ``perijove logout``."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer

from perijove.cli.session import AsJson, note, print_json
from perijove.client import AsyncClient
from perijove.connection import Connection, forget_login, normal_url, store_login
from perijove.model.errors import OperatorError, PerijoveError

SERVICE = "/services/perijove"
"""Where the service lies below a hub's address."""


def login(
    url: Annotated[
        str, typer.Argument(help="The service, or the hub it belongs to: https://hub.example.org")
    ],
    token_file: Annotated[
        typer.FileText | None,
        typer.Option(help="Read the token from this file; - for standard input. Else it is asked for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the address and a token of a service for this user's later commands.

    The token comes from the hub's page "Token" (or from PERIJOVE_TOKEN); it never is an argument, since
    others on this machine see those. It is stored readable for you alone.

        perijove login https://hub.example.org

        perijove login https://hub.example.org --token-file - < token
    """
    token = _token(token_file)
    connection, who = asyncio.run(_checked(normal_url(url), token))
    path = store_login(connection)
    if as_json:
        print_json({"url": connection.url, "name": who, "kept_in": str(path)})
    else:
        note(f"logged in to {connection.url} as {who} (kept in {path})")


def _token(token_file: typer.FileText | None) -> str:
    if token_file is not None:
        return token_file.read().strip()
    if given := os.environ.get("PERIJOVE_TOKEN"):
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    return str(typer.prompt("Token", hide_input=True)).strip()


async def _checked(url: str, token: str) -> tuple[Connection, str]:
    """The connection under which the service answers: `url` itself or the hub's service below it."""
    candidates = [url] if url.endswith(SERVICE) else [url, url.removesuffix("/hub") + SERVICE]
    failure: PerijoveError | None = None
    for candidate in candidates:
        connection = Connection(candidate, token, source="perijove login")
        try:
            async with AsyncClient(connection=connection) as client:
                return connection, str((await client.me())["name"])
        except (OperatorError, KeyError, TypeError) as error:
            failure = failure or OperatorError(f"no Perijove service answers at {url} ({error})")
    assert failure is not None
    raise failure


def logout() -> None:
    """Forget what `perijove login` stored.

    perijove logout
    """
    note("logged out" if forget_login() else "there was no login to forget")
