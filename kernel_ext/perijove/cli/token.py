"""``perijove token``: the tokens of one's devices and programs."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from perijove.cli.account import ScopeName
from perijove.cli.moments import clock
from perijove.cli.session import AsJson, note, print_json, print_table, talk

token = typer.Typer(
    help="See, make and revoke API tokens.", no_args_is_help=True, rich_markup_mode="markdown"
)


@token.command("ls")
def ls(
    owner: Annotated[str | None, typer.Option(help="Those of this user (administrators).")] = None,
    all_users: Annotated[
        bool, typer.Option("--all-users", "-a", help="Everybody's (administrators).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List tokens that have not expired: their devices, scopes, and when and from where they were used.

    perijove token ls
    """
    params = {"owner": owner, "all_users": "true" if all_users else None}
    found = talk(lambda client: client.request_json("GET", "/tokens", params))
    if as_json:
        print_json(found)
        return
    titles = ["TOKEN", *(["OWNER"] if all_users else []), "NAME", "SCOPE", "LAST USED", "FROM", "EXPIRES"]
    rows = [_row(one, all_users) for one in found]
    print_table(titles, rows, wide={"NAME"}, numbers={"TOKEN"})


def _row(one: dict[str, Any], owners: bool) -> list[str]:
    used = clock(one["last_used"]) if one["last_used"] else "never"
    owner = [one["owner"]] if owners else []
    rest = [one["name"], one["scope"], used, one["last_address"], clock(one["expires"])]
    return [str(one["id"]), *owner, *rest]


@token.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Of the device or program that will use it.")],
    scope: Annotated[
        ScopeName, typer.Option(help="What it may do: read, submit, or administer.")
    ] = ScopeName.SUBMIT,
    lifetime: Annotated[
        str | None, typer.Option("--for", help="How long it is valid, such as 30d; 90 days by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once. Its scope is no wider than that of your own token.

    perijove token create "nightly report" --scope read --for 30d
    """
    body = {"name": name, "scope": scope.value, **({"lifetime": lifetime} if lifetime else {})}
    made = talk(lambda client: client.request_json("POST", "/tokens", body=body))
    if as_json:
        print_json(made)
    else:
        typer.echo(made["token"])
        note(f"token {made['id']}, {made['scope']}, until {clock(made['expires'])}")


@token.command("revoke")
def revoke(
    numbers: Annotated[list[int], typer.Argument(metavar="TOKEN...", help="Numbers as `ls` shows them.")],
) -> None:
    """Revoke tokens: nothing is let in with them from now on.

    perijove token revoke 7
    """

    async def each(client: Any) -> None:
        for number in numbers:
            await client.request("DELETE", f"/tokens/{quote(str(number), safe='')}")
            note(f"token {number} is revoked")

    talk(each)
