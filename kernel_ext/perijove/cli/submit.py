"""``perijove submit`` and ``perijove run``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import typer

from perijove.cli.announcement import tell
from perijove.cli.explaining import at_terminal, remark
from perijove.cli.group import separated
from perijove.cli.output import Verbose, copy, follow_calls, to_stderr, to_stdout
from perijove.cli.session import AsJson, note, print_json, talk
from perijove.cli.submit_options import (
    Array,
    Command,
    Constraint,
    Cpus,
    Cwd,
    Depends,
    Env,
    Exclusive,
    Gpus,
    Gui,
    Hold,
    Image,
    Ipc,
    Label,
    Launcher,
    Memory,
    Name,
    Network,
    Node,
    Nodes,
    OomRetry,
    Partition,
    Port,
    Preemptible,
    Priority,
    Project,
    Require,
    Reservation,
    Resource,
    Retries,
    RetryOn,
    Runenv,
    Secret,
    Shm,
    Signal,
    Time,
    TmpDisk,
    User,
    Volume,
    Wait,
)
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.headers import headers_of, late_text
from perijove.model.errors import UserError
from perijove.model.states import State
from perijove.options import OPTIONS, combined, spec_fields
from perijove.workplace import place


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
    port: Port = None,
    ipc: Ipc = None,
    gui: Gui = None,
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

        perijove submit --port 8888 -- python -m http.server 8888

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
    port: Port = None,
    ipc: Ipc = None,
    gui: Gui = None,
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

        perijove run --gui --image lab/viewer:3 -- viewer scan.tif

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
