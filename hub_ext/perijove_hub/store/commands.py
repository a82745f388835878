"""``perijove database``: copies of the database, for the operator on the service's host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from perijove.model import OperatorError

if TYPE_CHECKING:
    from perijove_hub.store.database import Database

database = typer.Typer(
    name="database",
    help="Back up, restore and migrate the service's database.",
    no_args_is_help=True,
    add_completion=False,
)

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Directory of all state, whose settings say which database.",
        envvar="PERIJOVE_STATE",
        file_okay=False,
    ),
]


@database.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; replaced if it is there.")],
    state: State = None,
) -> None:
    """Copy the database to FILE while services use it."""
    from perijove_hub.store import backup as copies

    with _Opened(state) as opened:
        copies.backup(opened, file.absolute())
    typer.echo(f"{file}: {file.stat().st_size} bytes")


@database.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `perijove database backup` wrote.", exists=True)],
    state: State = None,
    force: Annotated[bool, typer.Option("--force", help="Even while a service leads.")] = False,
    skip: Annotated[
        int, typer.Option(help="So many ids after the last one in FILE are not given again.", min=0)
    ] = 1_000_000,
) -> None:
    """Put the database in FILE in place of what is there; stop all services before."""
    from perijove_hub.store import backup as copies

    with _Opened(state) as opened:
        copies.restore(opened, file.absolute(), force=force, skip=skip)
    typer.echo(f"{file} is restored; start the service: it compares with what runs on the nodes")


@database.command()
def migrate(state: State = None) -> None:
    """Bring the database to this version's form; a service does so when it starts."""
    with _Opened(state) as opened:
        opened.migrate()


class _Opened:
    """The database of the settings; what is wrong becomes one line and status 1."""

    def __init__(self, state: Path | None) -> None:
        from perijove_hub.settings import Settings
        from perijove_hub.store.database import Database

        try:
            settings = Settings.read(state)
            settings.state.mkdir(parents=True, exist_ok=True, mode=0o711)
            self._database = Database(settings.database_at)
        except OperatorError as error:
            _give_up(error)

    def __enter__(self) -> Database:
        return self._database

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from perijove_hub.store.database import TRANSIENT

        self._database.close()
        if isinstance(error, OperatorError):
            _give_up(error)
        if isinstance(error, TRANSIENT):
            _give_up(OperatorError(f"database_url: {str(getattr(error, 'orig', error)).strip()}"))


def _give_up(error: Exception) -> NoReturn:
    typer.echo(f"perijove: {error}", err=True)
    raise typer.Exit(1) from error
