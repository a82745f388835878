"""The command group: errors become one clear line, and commands of other packages are loaded when called."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from perijove.cli.session import report
from perijove.cli.workflows import names_flow
from perijove.model.errors import PerijoveError

GROUP = "perijove.commands"
"""Entry points: a name, and a function with Typer annotations, a Typer app or a command."""

_HELP = {
    "database": "Back up, restore and migrate the service's database.",
    "node": "Make this host a node that runs jobs.",
    "rehearse": "Replay recorded jobs under another policy, and see who would wait longer or shorter.",
    "serve": "Run the service alone, for an existing Dask scheduler and hub.",
    "simulate": "Run a trace of jobs on imagined nodes under a policy.",
    "up": "Start Perijove on this machine: service, node and, unless --no-hub, JupyterHub.",
}


class Group(TyperGroup):
    """Perijove's commands and those that installed packages add."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_extras().keys() - self.commands.keys())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if found := super().get_command(ctx, cmd_name):
            return found
        extra = _extras().get(cmd_name)
        return _Unloaded(extra) if extra else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:1] == ["run"] and names_flow(args[1:]):
            flows = self.get_command(ctx, "workflow")
            return "run", flows.get_command(ctx, "run"), args[1:]
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _Unloaded):
            command = command.load()
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PerijoveError as error:
            raise typer.Exit(report(error)) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


class _Unloaded(TyperCommand):
    """Stands for a command of another package in the list of commands, without importing it."""

    def __init__(self, entry: EntryPoint) -> None:
        package = entry.dist.name if entry.dist else entry.value
        super().__init__(
            entry.name, help=_HELP.get(entry.name, f"From {package}."), rich_help_panel="On a service's host"
        )
        self.entry = entry

    def load(self) -> Any:
        try:
            found = self.entry.load()
        except ImportError as error:
            extra = "node" if self.entry.name == "node" else "hub"
            typer.echo(
                f"perijove: {self.entry.name} needs more than is installed here ({error});"
                f" install perijove[{extra}]",
                err=True,
            )
            raise typer.Exit(1) from error
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        if callable(found) and not hasattr(found, "main"):
            app = typer.Typer(add_completion=False)
            app.command(self.entry.name)(found)
            return typer.main.get_command(app)
        return found


def _extras() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


class CommandLine(TyperCommand):
    """A command that takes another command line; it remembers whether a ``--`` set the two apart."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["perijove.separated"] = "--" in args
        return list(super().parse_args(ctx, args))


def separated(ctx: typer.Context) -> bool:
    """Whether the command stood after ``--``."""
    return bool(ctx.meta.get("perijove.separated"))
