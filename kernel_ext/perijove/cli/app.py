"""The application: options before the command, and the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from perijove.cli import (
    account,
    accounting,
    acting,
    announcement,
    audit,
    explaining,
    governing,
    images,
    jobs,
    key,
    listing,
    outcome,
    project,
    secret,
    site,
    store,
    submit,
    sweep,
    token,
    user,
    workflows,
)
from perijove.cli.group import CommandLine, Group
from perijove.cli.session import SESSION

app = typer.Typer(
    cls=Group,
    name="perijove",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="The service is found by PERIJOVE_URL and PERIJOVE_TOKEN, by what `perijove login` stored, or by"
    " what `perijove up` left on this machine.",
)


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the requests made.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
) -> None:
    """Batch computing for JupyterHub: send work to the queue, look after it, fetch what it made."""
    SESSION.verbose, SESSION.color = verbose, not no_color


_LINE = {"allow_interspersed_args": False}
_FLOWS = "Workflows"
_SITE, _OPERATE, _CLIENT = "The site", "For administrators", "This client"
app.command("submit", cls=CommandLine, context_settings=_LINE)(submit.submit)
app.command("run", cls=CommandLine, context_settings=_LINE)(submit.run)
app.command("sweep")(sweep.sweep)
app.command("report")(sweep.report)
app.command("ls")(listing.ls)
app.command("show")(listing.show)
app.command("why")(explaining.why)
app.command("logs")(jobs.logs)
app.command("wait")(jobs.wait)
app.command("kill")(acting.kill)
for _verb in acting.VERBS:
    app.command(_verb)(acting.acting(_verb))
app.command("resume")(outcome.resume)
app.command("update")(acting.update)
app.command("rerun")(outcome.rerun)
app.command("archive")(acting.archive)
app.command("purge")(acting.purge)
app.command("workflows", rich_help_panel=_FLOWS)(workflows.workflows)
app.command("explain", rich_help_panel=_FLOWS)(outcome.explain)
app.command("record", rich_help_panel=_FLOWS)(outcome.record)
app.command("capsule", rich_help_panel=_FLOWS)(outcome.capsule)
app.add_typer(workflows.workflow, name="workflow", rich_help_panel=_FLOWS)
app.command("nodes", rich_help_panel=_SITE)(site.nodes)
app.command("top", rich_help_panel=_SITE)(accounting.top)
app.command("usage", rich_help_panel=_SITE)(accounting.usage)
app.command("share", rich_help_panel=_SITE)(accounting.share)
app.command("projects", rich_help_panel=_SITE)(accounting.projects)
app.command("images", rich_help_panel=_SITE)(images.images)
app.command("runenvs", rich_help_panel=_SITE)(images.runenvs)
app.command("volumes", rich_help_panel=_SITE)(images.volumes)
app.command("events", rich_help_panel=_SITE)(site.events)
app.add_typer(secret.secret, name="secret", rich_help_panel=_SITE)
app.add_typer(secret.registry, name="registry", rich_help_panel=_SITE)
app.add_typer(store.store, name="store", rich_help_panel=_SITE)
app.command("login", rich_help_panel=_CLIENT)(account.login)
app.command("logout", rich_help_panel=_CLIENT)(account.logout)
app.add_typer(token.token, name="token", rich_help_panel=_CLIENT)
app.add_typer(key.key, name="key", rich_help_panel=_CLIENT)
app.command("version", rich_help_panel=_CLIENT)(site.version)
app.add_typer(project.project, name="project", rich_help_panel=_OPERATE)
app.command("quota", rich_help_panel=_OPERATE)(project.quota)
app.command("audit", rich_help_panel=_OPERATE)(audit.audit)
app.add_typer(announcement.announcement, name="announcement", rich_help_panel=_OPERATE)
app.add_typer(project.join_token, name="join-token", rich_help_panel=_OPERATE)
app.command("drain", rich_help_panel=_OPERATE)(governing.drain)
app.command("undrain", rich_help_panel=_OPERATE)(governing.undrain)
app.command("remove-node", rich_help_panel=_OPERATE)(governing.remove_node)
app.add_typer(user.user, name="user", rich_help_panel=_OPERATE)
app.add_typer(governing.policy, name="policy", rich_help_panel=_OPERATE)
app.add_typer(governing.reservation, name="reservation", rich_help_panel=_OPERATE)
app.add_typer(images.image, name="image", rich_help_panel=_OPERATE)
app.add_typer(images.volume, name="volume", rich_help_panel=_OPERATE)
app.add_typer(governing.maintenance, name="maintenance", rich_help_panel=_OPERATE)
