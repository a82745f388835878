"""The content store from the command line: what it holds, what could go, and what is to stay."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perijove.cli.session import AsJson, note, print_json, print_table, talk
from perijove.model.quantities import format_size

store = typer.Typer(
    help="See what the content store holds, and remove what nothing needs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
Runs = Annotated[list[int], typer.Argument(metavar="RUN...", help="Numbers of runs of workflows.")]


@store.command("usage")
def usage(as_json: AsJson = False) -> None:
    """Show who owns how much, what is needed or pinned, and what a collection would remove.

    perijove store usage
    """
    found = talk(lambda client: client.store())
    if as_json:
        print_json(found)
        return
    rows = [[row["owner"], row["files"], format_size(row["size"])] for row in found["users"]]
    print_table(["OWNER", "FILES", "SIZE"], rows, numbers={"FILES", "SIZE"})
    of = f" of {format_size(found['quota'])}" if found.get("quota") is not None else ""
    typer.echo(f"\nin the store: {_files(found['files'])}, {format_size(found['size'])}{of}")
    typer.echo(f"needed by jobs, runs and results: {format_size(found['needed'])}", nl=False)
    typer.echo(f" ({format_size(found['pinned'])} pinned)")
    typer.echo(f"recent: {format_size(found['recent'])}; could go: {format_size(found['collectable'])}")


@store.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Only what was last put so long ago, as 30d; at least an hour.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what no job, run or result needs (administrators).

    perijove store gc --dry-run

    perijove store gc --older-than 30d
    """
    done = talk(lambda client: client.collect(older_than=older_than or 0, dry_run=dry_run))
    if as_json:
        print_json(done)
        return
    verb = "would be removed" if dry_run else "removed"
    files, size = _files(done["files"]), format_size(done["size"])
    note(f"{files}, {size} {verb}; {format_size(done['kept_size'])} stay")


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


@store.command("pin")
def pin(runs: Runs, as_json: AsJson = False) -> None:
    """Keep the results of runs until they are unpinned, whatever is collected.

    perijove store pin 12
    """
    _act(runs, "pin", as_json)


@store.command("unpin")
def unpin(runs: Runs, as_json: AsJson = False) -> None:
    """Keep the results of runs no longer than those of others.

    perijove store unpin 12
    """
    _act(runs, "unpin", as_json)


def _act(runs: list[int], verb: str, as_json: bool) -> None:
    async def acting(client: Any) -> list[Any]:
        return [await client.act_on_run(run, verb) for run in runs]

    done = talk(acting)
    if as_json:
        print_json(done)
    else:
        note(f"{verb}ned: {', '.join(map(str, runs))}")
