"""``perijove submit`` and ``perijove run``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from perijove.cli.announcement import tell
from perijove.cli.explaining import at_terminal, remark
from perijove.cli.group import separated
from perijove.cli.output import Verbose, copy, follow_calls, to_stderr, to_stdout
from perijove.cli.session import AsJson, note, partitions, print_json, projects, talk
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.headers import headers_of, late_text
from perijove.model.errors import UserError
from perijove.model.states import State
from perijove.options import OPTIONS, combined, spec_fields
from perijove.workplace import place

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", help="The program and its arguments, or a script file.", show_default=False
    ),
]
WHERE = "Where"
RESOURCES = "Resources"
FILES = "Files and environment"
QUEUE = "Queue"
"""Parts of the help."""

Name = Annotated[str | None, Option(help="What to call the job.")]
Image = Annotated[str | None, Option(help="Container image to run in.", rich_help_panel=WHERE)]
Runenv = Annotated[str | None, Option(help="NAME[-VERSION]; see `perijove runenvs`.", rich_help_panel=WHERE)]
Require = Annotated[list[str] | None, Option(help="FEATURE[-VERSION] of it.", rich_help_panel=WHERE)]
User = Annotated[str | None, Option(help="root in its container, where granted.", rich_help_panel=WHERE)]
Launcher = Annotated[
    str | None, Option(help="docker, podman, process, ...: see `perijove nodes`.", rich_help_panel=WHERE)
]
Node = Annotated[str | None, Option(help="Run on this node only.", rich_help_panel=WHERE)]
Cpus = Annotated[
    str | None, Option("--cpus", "--cpu", "-c", help="Cores, such as 2 or 0.5.", rich_help_panel=RESOURCES)
]
Memory = Annotated[
    str | None, Option("--memory", "-m", help="Memory, such as 512M or 8G.", rich_help_panel=RESOURCES)
]
Gpus = Annotated[
    str | None,
    Option(
        "--gpus",
        "-g",
        help="GPUs: 2, a100, a100:2, or 2@40G for at least so much memory.",
        rich_help_panel=RESOURCES,
    ),
]
Time = Annotated[
    str | None,
    Option(
        "--time", "-t", help="Stop it after this long: 90s, 30m, 1d12h, 2:00:00.", rich_help_panel=RESOURCES
    ),
]
Shm = Annotated[str | None, Option(help="Size of /dev/shm.", rich_help_panel=RESOURCES)]
TmpDisk = Annotated[
    str | None,
    Option(help="Scratch space on the node, as 20G; $PERIJOVE_SCRATCH.", rich_help_panel=RESOURCES),
]
Resource = Annotated[
    list[str] | None,
    Option(help="NAME=COUNT of what else nodes count, such as licence=1.", rich_help_panel=RESOURCES),
]
Array = Annotated[
    str | None,
    Option(
        "--array",
        "-a",
        help="A job for each number: START:END[:STEP], then %N for at most N at once.",
        rich_help_panel=QUEUE,
    ),
]
Depends = Annotated[
    list[str] | None,
    Option(
        "--depends",
        "-d",
        help="Wait for another job: afterok:ID (or just ID), afterany:ID, afternotok:ID,"
        " after:ID; 12_7 is a member.",
        rich_help_panel=QUEUE,
    ),
]
Partition = Annotated[
    str | None, Option(help="Group of nodes to run on.", autocompletion=partitions, rich_help_panel=WHERE)
]
Reservation = Annotated[
    str | None, Option(help="Run on the nodes that this reservation keeps.", rich_help_panel=WHERE)
]
Nodes = Annotated[
    int | None,
    Option(
        help="So many nodes at once, each with all that is asked for; started together.",
        rich_help_panel=RESOURCES,
    ),
]
Exclusive = Annotated[
    bool | None,
    Option("--exclusive/--no-exclusive", help="Share the node with no other job.", rich_help_panel=RESOURCES),
]
Signal = Annotated[
    str | None,
    Option(
        metavar="NAME@TIME",
        help="Warn it some time before its time limit: USR1@5m.",
        rich_help_panel=RESOURCES,
    ),
]
Preemptible = Annotated[
    bool | None,
    Option(
        "--preemptible/--no-preemptible",
        help="It may be stopped, with notice, for a job that is not.",
        rich_help_panel=QUEUE,
    ),
]
Constraint = Annotated[
    list[str] | None, Option(help="KEY=VALUE label that the node must bear.", rich_help_panel=WHERE)
]
Priority = Annotated[int | None, Option(help="From 0 to 100; 50 when not given.", rich_help_panel=QUEUE)]
Project = Annotated[
    str | None,
    Option(
        help="On whose account it runs; see `perijove projects`.",
        autocompletion=projects,
        rich_help_panel=QUEUE,
    ),
]
Volume = Annotated[
    list[str] | None,
    Option(help="A volume of this site, NAME or NAME:ro, beside the home.", rich_help_panel=FILES),
]
Network = Annotated[str | None, Option(help="none, bridge, user, project or host.", rich_help_panel=FILES)]
Env = Annotated[
    list[str] | None,
    Option("--env", "-e", help="KEY=VALUE for the job's environment.", rich_help_panel=FILES),
]
Secret = Annotated[
    list[str] | None,
    Option(metavar="NAME[=file|env|env:VAR]", help="See `perijove secret`.", rich_help_panel=FILES),
]
Label = Annotated[list[str] | None, Option("--label", "-l", help="KEY=VALUE to find it by.")]
Cwd = Annotated[
    str | None,
    Option(help="Working directory; this one where the job sees it, else the home.", rich_help_panel=FILES),
]
Hold = Annotated[
    bool | None,
    Option("--hold/--no-hold", help="Do not start it before `perijove release`.", rich_help_panel=QUEUE),
]
Retries = Annotated[
    int | None,
    Option(help="Run it again this often when it fails or its node is lost.", rich_help_panel=QUEUE),
]
RetryOn = Annotated[
    list[str] | None,
    Option(help="Only after these: failure, node, oom, time, exit:CODE; with commas.", rich_help_panel=QUEUE),
]
OomRetry = Annotated[
    str | None,
    Option(
        metavar="FACTOR",
        help="When out of memory, again with so many times as much: 2x.",
        rich_help_panel=QUEUE,
    ),
]
Wait = Annotated[bool, Option("--wait", "-w", help="Stream its output and exit as it does.")]


def submit(
    ctx: typer.Context,
    command: Command,
    name: Name = None,
    image: Image = None,
    runenv: Runenv = None,
    require: Require = None,
    user: User = None,
    launcher: Launcher = None,
    node: Node = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    time: Time = None,
    shm: Shm = None,
    tmp_disk: TmpDisk = None,
    resource: Resource = None,
    array: Array = None,
    depends: Depends = None,
    constraint: Constraint = None,
    priority: Priority = None,
    project: Project = None,
    volume: Volume = None,
    network: Network = None,
    env: Env = None,
    secret: Secret = None,
    label: Label = None,
    cwd: Cwd = None,
    hold: Hold = None,
    partition: Partition = None,
    reservation: Reservation = None,
    nodes: Nodes = None,
    exclusive: Exclusive = None,
    signal: Signal = None,
    preemptible: Preemptible = None,
    retries: Retries = None,
    retry_on: RetryOn = None,
    oom_retry: OomRetry = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Submit a command or a script; prints the job's id once it is safely in the queue.

    Options come before the command; `--` keeps the command's own options apart. Without `--`, a file that
    holds text is sent as a script. Lines `#PERIJOVE --cpus 4` at its beginning are options too; those given
    here count more.

        perijove submit --cpus 4 --memory 8G -- python train.py --epochs 12

        perijove submit --array 1:100%5 job.sh

        perijove submit --retries 2 --retry-on node,exit:75 --oom-retry 2x job.sh

        second=$(perijove submit --depends afterok:$(perijove submit first.sh) second.sh)

        perijove submit --wait -- make test
    """
    _submit(_fields(ctx, command), wait=wait, as_json=as_json)


def run(
    ctx: typer.Context,
    command: Command,
    name: Name = None,
    image: Image = None,
    launcher: Launcher = None,
    node: Node = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    time: Time = None,
    project: Project = None,
    volume: Volume = None,
    network: Network = None,
    env: Env = None,
    secret: Secret = None,
    cwd: Cwd = None,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Run a command as a job, stream its output and exit with its exit code; or run a workflow.

    The same as `submit --wait`, with the options one needs at a terminal. A .yaml or .json file is a
    workflow, whose options are those of `perijove workflow run --help`.

        perijove run --gpus 1 -- nvidia-smi

        perijove run -vv --image python:3.12 -- python --version

        perijove run flow.yaml -p lr=0.1
    """
    _submit(_fields(ctx, command), wait=True, as_json=as_json, verbose=verbose)


def _fields(ctx: typer.Context, command: list[str]) -> dict[str, Any]:
    """Fields of the spec: what to run, then the script's own options, then those given here."""
    fields = work(command, separated(ctx))
    if script := fields.get("script"):
        fields = combined(fields, header_fields(script, command[0]))
    given = {key: value for key, value in ctx.params.items() if key in OPTIONS and value is not None}
    return combined(fields, spec_fields(**given))


def header_fields(script: str, name: str) -> dict[str, Any]:
    """The fields that the ``#PERIJOVE`` lines of `script` ask for; ``UserError`` names file and line."""
    headers = headers_of(script, name)
    if text := late_text(headers, name):
        note(text)
    fields: dict[str, Any] = {}
    for header in headers.read:
        try:
            fields = combined(fields, spec_fields(**_parsed(header.words)))
        except UserError as error:
            raise UserError(f"{name}:{header.line}: {error}") from None
    return fields


def _parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """The options in `words`, read as those of ``perijove submit`` are."""
    reader = typer.Typer(add_completion=False)
    reader.command("submit", context_settings={"allow_interspersed_args": False})(submit)
    command = typer.main.get_command(reader)
    for parameter in command.params:
        parameter.required = False  # here there is no command to run
    try:
        params = command.make_context("submit", list(words)).params
    except Exception as error:
        # What the command line's parser raises, whichever library typer carries it in.
        if not hasattr(error, "format_message"):
            raise
        raise UserError(error.format_message()) from None
    if extra := params.pop("command"):
        raise UserError(f"an option is expected, not {extra[0]!r}")
    given = {key: value for key, value in params.items() if value not in (None, False) or key in OPTIONS}
    if other := sorted(given.keys() - OPTIONS):
        raise UserError(f"--{other[0].removeprefix('as_')} belongs on the command line")
    return {key: value for key, value in given.items() if value is not None}


def work(command: list[str], apart: bool) -> dict[str, Any]:
    """What to run: a script when the first word names a file of text, else a command.

    `apart`: the words stood after ``--``, and are a command unless all there is is a file that cannot be run.
    """
    path = Path(command[0])
    if path.is_file() and (not apart or (len(command) == 1 and not os.access(path, os.X_OK))):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            text = "\0"
        if text.strip() and "\0" not in text:
            _check_script(path, text)
            return {"name": path.name, "script": text, **({"args": command[1:]} if command[1:] else {})}
    return {"command": command}


def _check_script(path: Path, text: str) -> None:
    """Refuse what the shell would make nonsense of: a program in another language that does not say which."""
    if not text.startswith("#!") and path.suffix not in {"", ".sh", ".bash", ".job"}:
        raise UserError(
            f"{path} does not begin with #! and would be run by bash; name its program in a first line"
            f" such as #!/usr/bin/env python3, or before it: -- python3 {path}"
        )


def _submit(fields: dict[str, Any], *, wait: bool, as_json: bool, verbose: int = 0) -> None:
    async def submitting(client: AsyncClient) -> AsyncJob:
        job = await client.submit(place(fields, client.connection.launchers))
        if wait and not as_json:
            if sys.stderr.isatty():
                note(f"job {job.label}")
            await _streamed(job, verbose)
        elif wait:
            await job.wait()
        elif not as_json:
            typer.echo(job.label)
            if at_terminal():
                await remark(job)
        return job

    job = talk(submitting)
    if as_json:
        print_json(job.document)
    else:
        tell()
    if wait:
        raise typer.Exit(exit_code(job))


async def _streamed(job: AsyncJob, verbose: int) -> None:
    left = f"left job {job.label}, which goes on; `perijove kill {job.label}` stops it"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(follow_calls(job, verbose))
            group.create_task(copy(job.follow_bytes("stdout"), to_stdout()))
            group.create_task(copy(job.follow_bytes("stderr"), to_stderr()))
            group.create_task(job.wait())
    except asyncio.CancelledError:
        note(left)
        raise
    except BaseExceptionGroup as failures:
        # The first of them is what went wrong; the others were cancelled for it.
        if isinstance(failures.exceptions[0], BrokenPipeError):
            note(left)
        raise failures.exceptions[0] from None


def exit_code(job: AsyncJob) -> int:
    """The exit code for a job that ended; what needs words gets them on standard error."""
    if job.state is State.SUCCEEDED:
        return 0
    code = job.exit_code
    if job.state is State.FAILED and code:
        if job.reason and code != 1 and "exit code" not in job.reason.lower():
            note(f"job {job.label} failed: {job.reason}")
        return code
    note(f"job {job.label} {job.state}: {job.reason}" if job.reason else f"job {job.label} {job.state}")
    return 1
