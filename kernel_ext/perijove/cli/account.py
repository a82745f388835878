"""``perijove login`` and ``perijove logout``."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from enum import StrEnum
from typing import Annotated

import typer

from perijove.cli.device import let_in, open_browser
from perijove.cli.session import AsJson, note, print_json
from perijove.client import AsyncClient
from perijove.connection import Connection, forget_login, normal_url, store_login, stored_login
from perijove.model.errors import OperatorError, PerijoveError

SERVICE = "/services/perijove"
"""Where the service lies below a hub's address."""


class ScopeName(StrEnum):
    """What a token may be used for."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


def login(
    url: Annotated[
        str, typer.Argument(help="The service, or the hub it belongs to: https://hub.example.org")
    ],
    scope: Annotated[
        ScopeName, typer.Option(help="What this device may do: read, submit, or administer.")
    ] = ScopeName.SUBMIT,
    name: Annotated[
        str | None, typer.Option(help="What this device is called in the list of yours; its host's name.")
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address; open no browser.")
    ] = False,
    token_file: Annotated[
        typer.FileText | None,
        typer.Option(help="Read a token from this file and ask for nothing; - for standard input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let this machine in, and keep what later commands need.

    Prints a code and an address: there somebody with a browser, here or elsewhere, logs in and says that this
    device is theirs. It gets a token of its own, which `perijove token revoke` ends.

    With a token from elsewhere (--token-file, PERIJOVE_TOKEN, or a pipe) nobody is asked. A token never is an
    argument, since others on this machine see those. What is stored is readable for you alone.

        perijove login https://hub.example.org

        perijove login https://hub.example.org --scope read --name "wall display"

        perijove login https://hub.example.org --token-file - < token
    """
    token = _token(token_file)
    device = (scope.value, name or socket.gethostname(), not no_browser)
    connection, who = asyncio.run(_logged_in(normal_url(url), token, device))
    path = store_login(connection)
    if as_json:
        print_json({"url": connection.url, "name": who, "kept_in": str(path)})
    else:
        note(f"logged in to {connection.url} as {who} (kept in {path})")


def _token(token_file: typer.FileText | None) -> str | None:
    """A token that is there already; None: this device asks for one."""
    if token_file is not None:
        return token_file.read().strip()
    if given := os.environ.get("PERIJOVE_TOKEN"):
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip() or None
    return None


async def _logged_in(url: str, token: str | None, device: tuple[str, str, bool]) -> tuple[Connection, str]:
    """The connection under which the service answers: `url` itself or the hub's service below it."""
    candidates = [url] if url.endswith(SERVICE) else [url, url.removesuffix("/hub") + SERVICE]
    failure: PerijoveError | None = None
    for candidate in candidates:
        try:
            found = await _by_device(candidate, *device) if token is None else token
            connection = Connection(candidate, found, source="perijove login")
            async with AsyncClient(connection=connection) as client:
                return connection, str((await client.me())["name"])
        except (OperatorError, KeyError, TypeError) as error:
            failure = failure or OperatorError(f"no Perijove service answers at {url} ({error})")
    assert failure is not None
    raise failure


async def _by_device(url: str, scope: str, name: str, browser: bool) -> str:
    def show(page: str, code: str) -> None:
        note(f"go to {page}")
        note(f"log in, see that the code there is {code}, and say that this device is yours")
        if browser and open_browser(page):
            note("(a browser was opened)")

    async with AsyncClient(connection=Connection(url, source="perijove login")) as client:
        return await let_in(client, scope, name, show)


def logout() -> None:
    """Forget what `perijove login` stored, and revoke the token if it was made for this device.

    perijove logout
    """
    login = stored_login()
    if login is not None and login.token:
        try:
            asyncio.run(_given_back(login))
        except PerijoveError as error:
            note(f"the token was not revoked ({error}); revoke it on the page of your account")
    note("logged out" if forget_login() else "there was no login to forget")


async def _given_back(login: Connection) -> None:
    async with AsyncClient(connection=login) as client:
        await client.post_form("/device/revocation", {"token": login.token})
