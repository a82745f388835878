"""Secrets and logins at image registries from the command line; no value ever is an argument."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from perijove.cli.moments import clock
from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.model.errors import UserError

secret = typer.Typer(
    help="Keep passwords and tokens for jobs: encrypted, and told to nobody else.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
registry = typer.Typer(
    help="Keep logins at private image registries.", no_args_is_help=True, rich_markup_mode="markdown"
)

Project = Annotated[str | None, typer.Option(help="That of a project; it may be set by its leads.")]
Name = Annotated[str, typer.Argument(help="Letters, digits and . _ -")]
Host = Annotated[str, typer.Argument(help="As images name it: ghcr.io, or registry.example.org:5000.")]


@secret.command("set")
def set_secret(
    name: Name,
    file: Annotated[Path | None, typer.Option(help="Holds the value; - for standard input.")] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Set a secret; the value is asked for, or comes from standard input or a file.

    perijove secret set hf-token

    perijove secret set aws-key --file ~/.aws/credentials --project lab
    """
    value = _value(f"Value of {name}", file)
    if not value:
        raise UserError("the value is empty")
    made = talk(lambda client: client.set_secret(name, value, project=project))
    if as_json:
        print_json(made)
    else:
        note(f"secret {name} is set; give it to a job by --secret {name}")


def _value(prompt: str, file: Path | None) -> bytes:
    """From a file as it is; of a line that was typed or piped without the end of the line."""
    if file is not None and str(file) != "-":
        try:
            return file.read_bytes()
        except OSError as error:
            raise UserError(f"--file {file}: {error.strerror}") from error
    if file is None and sys.stdin.isatty():
        return str(typer.prompt(prompt, hide_input=True)).encode()
    given = sys.stdin.buffer.read()
    return given.removesuffix(b"\n").removesuffix(b"\r") if given.count(b"\n") == 1 else given


@secret.command("ls")
def ls_secrets(project: Project = None, as_json: AsJson = False) -> None:
    """List your secrets by name, or those of a project.

    perijove secret ls
    """
    _show(talk(lambda client: client.secrets(project)), "NAME", as_json)


@secret.command("rm")
def rm_secret(name: Name, project: Project = None) -> None:
    """Remove a secret; jobs that run with it keep it until they end.

    perijove secret rm hf-token
    """
    talk(lambda client: client.remove_secret(name, project=project))
    note(f"removed: {name}")


@secret.command("rotate")
def rotate() -> None:
    """Make a new key and encrypt all secrets with it (administrators).

    perijove secret rotate
    """
    note(f"encrypted anew: {talk(lambda client: client.rotate_secrets())}")


@registry.command("login")
def login(
    host: Host,
    username: Annotated[str, typer.Option("--username", "-u", help="Or the name of an access token.")],
    password_file: Annotated[
        Path | None, typer.Option(help="Holds the password; - for standard input.")
    ] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Keep a login at an image registry; the password is asked for, or comes from standard input.

    perijove registry login ghcr.io --username ada

    perijove registry login registry.example.org:5000 -u robot --project lab < password
    """
    password = _value(f"Password of {username} at {host}", password_file).decode(errors="replace").strip()
    if not password:
        raise UserError("the password is empty")
    made = talk(lambda client: client.set_registry(host, username, password, project=project))
    if as_json:
        print_json(made)
    else:
        note(f"your jobs fetch images from {host} as {username}")


@registry.command("ls")
def ls_registries(project: Project = None, as_json: AsJson = False) -> None:
    """List the registries that you have a login at, or a project.

    perijove registry ls
    """
    _show(talk(lambda client: client.registries(project)), "REGISTRY", as_json)


@registry.command("logout")
def logout(host: Host, project: Project = None) -> None:
    """Forget a login.

    perijove registry logout ghcr.io
    """
    talk(lambda client: client.remove_registry(host, project=project))
    note(f"forgotten: the login at {host}")


def _show(found: list[dict[str, Any]], title: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [[one["name"], clock(one["changed"]), one["by"]] for one in found]
    print_table([title, "SET", "BY"], rows)
