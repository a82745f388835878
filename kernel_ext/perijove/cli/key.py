"""``perijove key``: one's public keys for SSH."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import quote

import typer

from perijove.cli.session import AsJson, note, print_json, print_table, talk

key = typer.Typer(
    help="See, add and remove public keys for SSH.", no_args_is_help=True, rich_markup_mode="markdown"
)


@key.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List your keys by their fingerprints, as ssh-keygen -l prints them.

    perijove key ls
    """
    found = talk(lambda client: client.request_json("GET", "/keys"))
    if as_json:
        print_json(found)
        return
    day = "%Y-%m-%d"
    rows = [
        [one["fingerprint"], one["kind"], one["comment"], time.strftime(day, time.localtime(one["added"]))]
        for one in found
    ]
    print_table(["FINGERPRINT", "KIND", "COMMENT", "ADDED"], rows, wide={"COMMENT"})


@key.command("add")
def add(
    file: Annotated[typer.FileText, typer.Argument(help="A file .pub; - for standard input.")],
) -> None:
    """Add a public key: Ed25519, ECDSA, RSA of 3072 bits at least, or of a security key.

    perijove key add ~/.ssh/id_ed25519.pub
    """
    text = file.read(10_000)
    added = talk(lambda client: client.request_json("POST", "/keys", body={"key": text}))
    note(f"{added['fingerprint']} is yours")


@key.command("rm")
def rm(
    fingerprints: Annotated[list[str], typer.Argument(metavar="FINGERPRINT...", help="SHA256:...")],
) -> None:
    """Remove keys.

    perijove key rm SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU
    """
    for fingerprint in fingerprints:
        path = f"/keys/{quote(fingerprint, safe='')}"
        talk(lambda client, path=path: client.request("DELETE", path))  # type: ignore[misc]
        note(f"{fingerprint} is removed")
