"""``perijove submit`` and ``perijove run``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from typer import Option

from perijove.cli.group import separated
from perijove.cli.session import AsJson, note, print_json, talk
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.model.errors import UserError
from perijove.model.states import State
from perijove.options import spec_fields
from perijove.workplace import place

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", help="The program and its arguments, or a script file.", show_default=False
    ),
]
Name = Annotated[str | None, Option(help="What to call the job.")]
Image = Annotated[str | None, Option(help="Container image to run in.")]
Launcher = Annotated[str | None, Option(help="docker, podman, process, ...: see `perijove nodes`.")]
Node = Annotated[str | None, Option(help="Run on this node only.")]
Cpus = Annotated[str | None, Option("--cpus", "--cpu", "-c", help="Cores, such as 2 or 0.5.")]
Memory = Annotated[str | None, Option("--memory", "-m", help="Memory, such as 512M or 8G.")]
Gpus = Annotated[str | None, Option("--gpus", "-g", help="GPUs: 2, a100 or a100:2.")]
Time = Annotated[
    str | None, Option("--time", "-t", help="Stop it after this long: 90s, 30m, 1d12h, 2:00:00.")
]
Shm = Annotated[str | None, Option(help="Size of /dev/shm.")]
Array = Annotated[str | None, Option("--array", "-a", help="A job for each number: START:END[:STEP].")]
Depends = Annotated[
    list[str] | None, Option("--depends", "-d", help="Wait for another job: afterok:ID, afterany:ID, ...")
]
Constraint = Annotated[list[str] | None, Option(help="KEY=VALUE label that the node must bear.")]
Priority = Annotated[int | None, Option(help="From 0 to 100; 50 when not given.")]
Project = Annotated[str | None, Option(help="On whose account it runs.")]
Volume = Annotated[list[str] | None, Option(help="A volume of this site, NAME or NAME:ro, beside the home.")]
Network = Annotated[str | None, Option(help="none, bridge, host or user.")]
Env = Annotated[list[str] | None, Option("--env", "-e", help="KEY=VALUE for the job's environment.")]
Label = Annotated[list[str] | None, Option("--label", "-l", help="KEY=VALUE to find it by.")]
Cwd = Annotated[str | None, Option(help="Working directory; this one where the job sees it, else the home.")]
Hold = Annotated[bool, Option("--hold", help="Do not start it before `perijove release`.")]
Retries = Annotated[int | None, Option(help="Run it again this often when it fails or its node is lost.")]
Wait = Annotated[bool, Option("--wait", "-w", help="Stream its output and exit as it does.")]


def submit(
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
    shm: Shm = None,
    array: Array = None,
    depends: Depends = None,
    constraint: Constraint = None,
    priority: Priority = None,
    project: Project = None,
    volume: Volume = None,
    network: Network = None,
    env: Env = None,
    label: Label = None,
    cwd: Cwd = None,
    hold: Hold = False,
    retries: Retries = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Submit a command or a script; prints the job's id once it is safely in the queue.

    Options come before the command; `--` keeps the command's own options apart. Without `--`, a file that
    holds text is sent as a script.

        perijove submit --cpus 4 --memory 8G -- python train.py --epochs 12

        perijove submit --array 1:100 job.sh

        second=$(perijove submit --depends afterok:$(perijove submit first.sh) second.sh)

        perijove submit --wait -- make test
    """
    fields = spec_fields(**_given(ctx, "command", "wait", "as_json"))
    _submit({**work(command, separated(ctx)), **fields}, wait=wait, as_json=as_json)


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
    cwd: Cwd = None,
    as_json: AsJson = False,
) -> None:
    """Run a command as a job, stream its output and exit with its exit code.

    The same as `submit --wait`, with the options one needs at a terminal.

        perijove run --gpus 1 -- nvidia-smi
    """
    fields = spec_fields(**_given(ctx, "command", "as_json"))
    _submit({**work(command, separated(ctx)), **fields}, wait=True, as_json=as_json)


def _given(ctx: typer.Context, *others: str) -> dict[str, Any]:
    return {key: value for key, value in ctx.params.items() if key not in others and value is not None}


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
            script = {"name": path.name, "script": text}
            return {**script, "args": command[1:]} if command[1:] else script
    return {"command": command}


def _check_script(path: Path, text: str) -> None:
    """Refuse what the shell would make nonsense of: a program in another language that does not say which."""
    if not text.startswith("#!") and path.suffix not in {"", ".sh", ".bash", ".job"}:
        raise UserError(
            f"{path} does not begin with #! and would be run by bash; name its program in a first line"
            f" such as #!/usr/bin/env python3, or before it: -- python3 {path}"
        )


def _submit(fields: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    async def submitting(client: AsyncClient) -> AsyncJob:
        job = await client.submit(place(fields, client.connection.launchers))
        if wait and not as_json:
            if sys.stderr.isatty():
                note(f"job {job.label}")
            await _streamed(job)
        elif wait:
            await job.wait()
        return job

    job = talk(submitting)
    if as_json:
        print_json(job.document)
    elif not wait:
        typer.echo(job.label)
    if wait:
        raise typer.Exit(exit_code(job))


async def _streamed(job: AsyncJob) -> None:
    left = f"left job {job.label}, which goes on; `perijove kill {job.label}` stops it"
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(job.follow_bytes("stdout"), sys.stdout.buffer))
            group.create_task(copy(job.follow_bytes("stderr"), sys.stderr.buffer))
            group.create_task(job.wait())
    except asyncio.CancelledError:
        note(left)
        raise
    except BaseExceptionGroup as failures:
        # The first of them is what went wrong; the others were cancelled for it.
        if isinstance(failures.exceptions[0], BrokenPipeError):
            note(left)
        raise failures.exceptions[0] from None


async def copy(chunks: AsyncGenerator[bytes, None], target: BinaryIO) -> None:
    """Write `chunks` to `target` as they come."""
    async with aclosing(chunks):
        async for data in chunks:
            target.write(data)
            target.flush()


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
