"""``perijove up`` and ``perijove serve``: the operator's commands, by entry point."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perijove.model import OperatorError


class OnExit(StrEnum):
    """What becomes of jobs when `up` ends."""

    LEAVE = "leave"
    STOP = "stop"


def up(
    hub: Annotated[
        bool, typer.Option("--hub/--no-hub", help="With JupyterHub, or for the current user alone.")
    ] = True,
    state: Annotated[
        Path | None, typer.Option(help="Directory of all state.", envvar="PERIJOVE_STATE", file_okay=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on: 8000, without hub 8008; 0 for any free one.", min=0, max=65535),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(help="Launcher of jobs that name none: docker if an engine answers, else process."),
    ] = None,
    on_exit: Annotated[
        OnExit, typer.Option(help="Whether running jobs go on or are stopped.")
    ] = OnExit.LEAVE,
    scheduler_host: Annotated[
        str,
        typer.Option(
            help="Address of this machine by which nodes on others reach it.",
            envvar="PERIJOVE_SCHEDULER_HOST",
        ),
    ] = "127.0.0.1",
) -> None:
    """Run Perijove on this machine until Ctrl-C.

    Prints a line "Perijove is ready at URL" when it accepts work. A second run with the same state
    directory goes on where the first was.
    """
    from perijove_hub.settings import default_state
    from perijove_hub.up.plan import UpOptions
    from perijove_hub.up.run import run

    logging.basicConfig(level=logging.WARNING, format="perijove: %(message)s")
    options = UpOptions(
        state=(state or default_state()).absolute(),
        hub=hub,
        host=host,
        port=port,
        launcher=launcher,
        on_exit=on_exit.value,
        scheduler_host=scheduler_host,
    )
    try:
        run(options)
    except OperatorError as error:
        typer.echo(f"perijove: {error}", err=True)
        raise typer.Exit(1) from error


def serve() -> None:
    """Run the service alone; its settings are PERIJOVE_* variables and DIR/perijove.yaml.

    JupyterHub starts this as a managed service, and `perijove up --no-hub` without a hub.
    """
    from perijove_hub.app import serve as run_service
    from perijove_hub.settings import Settings

    try:
        run_service(Settings.read())
    except OperatorError as error:
        typer.echo(f"perijove: {error}", err=True)
        raise typer.Exit(1) from error
