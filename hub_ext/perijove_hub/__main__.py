"""``python -m perijove_hub serve``, ``node``, ``up``: without the kernel side's command line."""

import typer

from perijove_hub.commands import serve, up
from perijove_spawners.commands import node

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(node)
app.command()(serve)
app.command()(up)
app(prog_name="perijove")
