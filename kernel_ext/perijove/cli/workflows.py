"""Commands for workflows: start, list, check, convert."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from perijove.cli.output import Place, Verbose, follow_calls
from perijove.cli.session import AsJson, console, note, print_json, print_table, projects, talk
from perijove.cli.whole import exit_code_of_run, follow_steps, print_run, run_json
from perijove.client import AsyncClient
from perijove.inert import printable
from perijove.model.errors import UserError
from perijove.model.quantities import format_duration
from perijove.model.states import State

if TYPE_CHECKING:
    from perijove.handle import AsyncJob
    from perijove.runs import AsyncRun

FLOW_SUFFIXES = (".yaml", ".yml", ".json")
Flow = Annotated[
    str, typer.Argument(metavar="FLOW", help="The workflow: a .yaml or .json file.", show_default=False)
]
Given = Annotated[
    list[str] | None,
    Option(
        "--parameter",
        "-p",
        metavar="NAME=VALUE",
        help="A parameter of the workflow: lr=0.1, xs=[1,2], xs=@list.json.",
    ),
]
CacheOption = Annotated[
    Literal["use", "refresh", "off"],
    Option(help="Take results of equal steps, make them anew, or neither take nor keep any."),
]

workflow = typer.Typer(no_args_is_help=True, help="Start, check and convert workflows.")


def names_flow(words: list[str]) -> bool:
    """Whether the command line after ``run`` is that of a workflow: its first word that is no option."""
    takes = {"-p", "--parameter", "--cache", "--priority", "--project", "-l", "--label"}
    rest = iter(words)
    for word in rest:
        if word in takes:
            next(rest, None)
        elif not word.startswith("-"):
            return word.endswith(FLOW_SUFFIXES) and Path(word).is_file()
        elif word == "--":
            return False
    return False


@workflow.command("run")
def run_flow(
    flow: Flow,
    parameter: Given = None,
    cache: CacheOption = "use",
    detach: Annotated[bool, Option("--detach", "-d", help="Print the run's id and leave it.")] = False,
    fail_fast: Annotated[
        bool | None, Option("--fail-fast/--no-fail-fast", help="A failed step stops all others.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", "-n", help="Only say what would run, and why.")] = False,
    hold: Annotated[bool, Option(help="Start nothing before `perijove release`.")] = False,
    priority: Annotated[int | None, Option(help="From 0 to 100; 50 when not given.")] = None,
    project: Annotated[str | None, Option(help="On whose account.", autocompletion=projects)] = None,
    label: Annotated[list[str] | None, Option("--label", "-l", help="KEY=VALUE to find it by.")] = None,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Run a workflow, show how its steps stand, and exit with 0 when all succeeded.

    `perijove run FLOW` is the same. Files and notebooks that it names are sent along; relative paths count
    from the file's folder. Ctrl-C leaves the run going on.

        perijove workflow run flow.yaml -p lr=0.1 -p xs=@list.json

        perijove workflow run flow.yaml --dry-run
    """
    from perijove.documents import given_values, load
    from perijove.importing import plan, submit
    from perijove.options import pairs

    loaded = load(flow)
    given = given_values(loaded.parameters, parameter or [])
    how: dict[str, Any] = {"cache": cache, "priority": priority, "project": project, "fail_fast": fail_fast}
    how |= {"hold": hold or None, "labels": pairs("label", label or []) or None}

    async def starting(client: AsyncClient) -> Any:
        folder = Path(flow).parent
        if dry_run:
            return await plan(client, loaded, given, folder, **how)
        run = await submit(client, loaded, given, folder, **how)
        if detach:
            if not as_json:
                typer.echo(run.id)
        else:
            await followed(run, quiet=as_json, verbose=verbose)
        return run

    found = talk(starting)
    if dry_run:
        print_explanation(found["steps"], as_json)
        return
    if as_json:
        print_json(run_json(found))
    if not detach:
        raise typer.Exit(exit_code_of_run(found))


async def followed(run: AsyncRun, *, quiet: bool = False, verbose: int = 0) -> None:
    """Stay with a run until it has ended, showing how it stands."""
    try:
        if quiet:
            await run.wait()
        else:
            standing = _live(run) if sys.stdout.isatty() else _lines(run)
            await asyncio.gather(standing, *([_calls(run, verbose)] if verbose else []))
    except asyncio.CancelledError:
        note(f"left run {run.id}, which goes on; `perijove kill {run.id}` stops it")
        raise
    if not quiet and run.state is not State.SUCCEEDED:
        note(str(await run.failure()))


async def _calls(run: AsyncRun, verbose: int) -> None:
    """Show the engine calls that are made for the steps."""

    async def of_step(job: AsyncJob, place: Place | None) -> None:
        await follow_calls(job, verbose, place.filled if place else "")

    await follow_steps(run, None, of_step)


async def _live(run: AsyncRun) -> None:
    from rich.live import Live

    from perijove.dag_text import run_table

    def table() -> Any:
        return run_table(run.record, list(run.steps.values()), time.time())

    with Live(console=console(), get_renderable=table, refresh_per_second=4):
        await run.wait()


async def _lines(run: AsyncRun) -> None:
    """A line for each step that comes into another state, for logs."""
    typer.echo(f"run {run.id} {printable(run.name)}")
    told: dict[str, int] = {}
    async with aclosing(run.changes()) as changes:
        async for _ in changes:
            for label, step in run.step_documents.items():
                # What was asked may be newer than the events that follow: a step does not go back.
                far = _FAR.get(step["state"], len(_FAR))
                if far > told.get(label, 0):
                    told[label] = far
                    typer.echo(_step_line(label, step))
    typer.echo(f"run {run.id} {run.state}")


_FAR = {"waiting": 0, "held": 1, "pending": 2, "starting": 3, "suspended": 4, "running": 5}
"""How far a step in this state has come; one in any other has ended."""


def _step_line(label: str, step: dict[str, Any]) -> str:
    parts = [label, step["state"]]
    if step.get("job") is not None:
        parts.append(f"(job {step['job']})")
    if step.get("cached_from") is not None:
        parts.append(f"(result of run {step['cached_from']})")
    reason = (step.get("reason") or {}).get("message")
    if reason and step["state"] in {"failed", "lost", "killed", "rejected", "skipped"}:
        parts.append(f"- {reason}")
    return printable(" ".join(parts))


def workflows(
    state: Annotated[
        list[str] | None, Option("--state", "-s", help="Only these: running, held, succeeded, ...")
    ] = None,
    owner: Annotated[str | None, Option(help="Only this user's (administrators).")] = None,
    limit: Annotated[int, Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs of workflows, newest first.

    perijove workflows --state running

    perijove workflows -n 5 --json
    """
    from perijove.cli.listing import STYLES, expand_states

    wanted = expand_states(state or [])
    found = talk(lambda client: client.workflows(state=wanted, owner=owner, limit=limit))
    if as_json:
        print_json([run.document for run in found])
        return
    print_table(
        ["ID", "OWNER", "NAME", "STATE", "TIME", "STEPS"],
        ([run.id, run.document.get("owner"), run.name, run.state, _time(run), _steps(run)] for run in found),
        wide={"NAME", "STEPS"},
        styles=STYLES,
    )


def _time(run: AsyncRun) -> str:
    began, ended = run.document.get("submitted"), run.document.get("ended")
    return "-" if began is None else format_duration((ended or time.time()) - began)


def _steps(run: AsyncRun) -> str:
    return ", ".join(f"{count} {state}" for state, count in run.counts.items())


@workflow.command("check")
def check(
    flow: Flow,
    parameter: Given = None,
    as_json: AsJson = False,
) -> None:
    """Check a workflow without a service: its form, references, cycles, and parameters when any are given.

    perijove workflow check flow.yaml
    """
    from perijove.documents import given_values, load
    from perijove.model.parameters import parameter_values

    loaded = load(flow)
    if parameter:
        parameter_values(loaded.parameters, given_values(loaded.parameters, parameter))
    if as_json:
        print_json({"name": loaded.name, "steps": list(loaded.steps), "parameters": list(loaded.parameters)})
    else:
        typer.echo(f"{flow}: {len(loaded.steps)} steps, {len(loaded.parameters)} parameters")


@workflow.command("convert")
def convert(
    flow: Flow,
    to: Annotated[
        Literal["yaml", "json", "v1"], Option(help="v1: version 1 of the container build system, as JSON.")
    ],
    output: Annotated[
        str | None, Option("--output", "-o", help="A file, instead of standard output.")
    ] = None,
) -> None:
    """Write a workflow in another form; nothing is lost.

    perijove workflow convert flow.yaml --to v1 -o dag.json
    """
    from perijove.documents import load, written

    text = written(load(flow), to)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error


def print_explanation(steps: list[dict[str, Any]], as_json: bool) -> None:
    """Of each step, where its result comes from or why it runs."""
    if as_json:
        print_json(steps)
        return
    rows = [[step["label"], step.get("state") or "-", line] for step in steps for line in _why(step)]
    last = None
    for row in rows:
        row[0], row[1], last = ("", "", last) if row[0] == last else (row[0], row[1], row[0])
    print_table(["STEP", "STATE", "WHY"], rows, wide={"WHY"})


def _why(step: dict[str, Any]) -> list[str]:
    if step.get("cached_from") is not None:
        return [f"the result of run {step['cached_from']}"]
    causes = step.get("causes") or []
    return [cause.get("message") or cause["kind"] for cause in causes] or [""]


__all__ = ["names_flow", "print_explanation", "print_run", "run_flow", "workflow", "workflows"]
