"""Commands about jobs that exist."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import typer

from perijove.cli.session import AsJson, JobIds, console, note, print_json, printable, report, talk
from perijove.cli.submit import copy, exit_code
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.model.errors import NotFoundError, PerijoveError, UserError
from perijove.model.quantities import format_duration, format_size
from perijove.model.states import ENDED, State

VERBS = {
    "kill": "Stop jobs for good, whether they wait or run.",
    "hold": "Keep waiting jobs from starting.",
    "release": "Let held jobs start.",
    "suspend": "Freeze running jobs where they are.",
    "resume": "Let suspended jobs go on.",
}
STYLES = {
    State.PENDING: "yellow",
    State.HELD: "yellow",
    State.STARTING: "cyan",
    State.RUNNING: "cyan",
    State.SUSPENDED: "magenta",
    State.SUCCEEDED: "green",
}
Streams = Literal["stdout", "stderr", "display"]


def _states() -> list[str]:
    return [*State, "live", "ended"]


def ls(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", help="Only these: a state, `live` or `ended`.", autocompletion=_states),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's (administrators).")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only those labelled KEY=VALUE.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    perijove ls --state live

    perijove ls -s failed -n 10 --json
    """
    wanted = expand_states(state or [])

    async def asking(client: AsyncClient) -> list[AsyncJob]:
        return await client.jobs(state=wanted, name=name, owner=owner, label=label, limit=limit)

    found = talk(asking)
    if as_json:
        print_json([job.document for job in found])
    else:
        _table(found)


def expand_states(given: list[str]) -> list[str]:
    """States by name, with the two words that stand for several; ``UserError`` for another word."""
    groups = {"ended": sorted(ENDED), "live": [state for state in State if state not in ENDED]}
    names = [word for value in given for word in value.split(",")]
    if unknown := [word for word in names if word not in groups and word not in set(State)]:
        raise UserError(f"--state: {unknown[0]!r} is none of {', '.join(_states())}")
    return [str(state) for word in names for state in groups.get(word, [word])]


def _table(found: list[AsyncJob]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "ID", "NAME", "STATE", "NODE", "TIME", "REASON", box=None, pad_edge=False, header_style="bold"
    )
    for job in found:
        spent = format_duration(job.elapsed) if job.elapsed is not None else "-"
        cells = [job.label, job.name, job.state, job.document.get("node") or "-", spent, job.reason]
        style = STYLES.get(job.state, "red")
        table.add_row(*(Text(printable(c), style if i == 2 else "") for i, c in enumerate(cells)))
    console().print(table)


def show(ids: JobIds, as_json: AsJson = False) -> None:
    """Show all that is known of a job: state, reason, node, times, resources, outputs.

    perijove show 12

    perijove show 12 --json | jq .state
    """

    async def asking(client: AsyncClient) -> list[AsyncJob]:
        return await asyncio.gather(*(client.job(job_id) for job_id in ids))

    found = talk(asking)
    if as_json:
        print_json(found[0].document if len(found) == 1 else [job.document for job in found])
        return
    for number, job in enumerate(found):
        if number:
            typer.echo()
        for title, value in view(job):
            typer.echo(f"{title:>12}  {printable(value)}")


def view(job: AsyncJob) -> list[tuple[str, str]]:
    """A job for people, as titles and values."""
    document, spec = job.document, job.spec
    gpus = ", ".join(gpu.get("model") or gpu["uuid"] for gpu in document.get("gpus") or [])
    rows = [
        ("job", job.label),
        ("name", job.name),
        ("owner", document.get("owner")),
        ("state", job.state),
        ("reason", job.reason),
        ("exit code", job.exit_code),
        ("array", _array(spec) if job.is_array else None),
        ("node", document.get("node")),
        ("launcher", document.get("launcher")),
        ("image", spec.get("image")),
        ("runs", _what(spec)),
        ("in", spec.get("cwd")),
        ("asked for", _asked(spec)),
        ("after", ", ".join(map(_dependency, spec.get("depends_on") or []))),
        ("labels", ", ".join(f"{key}={value}" for key, value in (spec.get("labels") or {}).items())),
        ("GPUs", gpus),
        ("submitted", _clock(document.get("submitted"))),
        ("started", _clock(document.get("started"))),
        ("ended", _clock(document.get("ended"))),
        ("ran for", format_duration(job.elapsed) if job.elapsed is not None else None),
        ("attempt", document.get("attempt") or None),
        ("progress", _progress(document)),
        ("memory peak", format_size(document["memory_peak"]) if document.get("memory_peak") else None),
        ("outputs", ", ".join(job.outputs())),
    ]
    return [(title, str(value)) for title, value in rows if value not in (None, "")]


def _what(spec: dict[str, Any]) -> str | None:
    if spec.get("script"):
        return shlex.join(["script", *spec.get("args", [])])
    return shlex.join(spec.get("command") or []) or spec.get("notebook")


def _array(spec: dict[str, Any]) -> str:
    given = spec["array"]
    return given if isinstance(given, str) else "{start}:{end}:{step}".format_map(given)


def _asked(spec: dict[str, Any]) -> str:
    gpus, limit = spec.get("gpus") or {}, spec.get("time_limit")
    parts = [f"{spec.get('cpu', 1):g} CPUs"]
    if spec.get("memory"):
        parts.append(f"{format_size(spec['memory'])} memory")
    if gpus.get("count"):
        parts.append(" ".join(filter(None, [str(gpus["count"]), gpus.get("model"), "GPUs"])))
    if limit:
        parts.append(f"{format_duration(limit)} at most")
    return ", ".join(parts)


def _dependency(given: Any) -> str:
    return given if isinstance(given, str) else f"{given['kind']}:{given['job']}"


def _clock(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _progress(document: dict[str, Any]) -> str | None:
    if document.get("progress") is None:
        return None
    return f"{document['progress']:.0%} {document.get('progress_text') or ''}".rstrip()


def logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job, such as 12 or 12_7.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    stream: Annotated[
        Streams | None, typer.Option("--stream", help="Only this one; both without, each to its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a job has written: its stdout to stdout, its stderr to stderr.

    Of an array what its members wrote, one after the other. With --json each piece is a line of its own:
    {"job", "stream", "text"}.

    perijove logs -f 12

    perijove logs 12 --stream stderr
    """
    streams: list[Streams] = [stream] if stream else ["stdout", "stderr"]

    async def copying(client: AsyncClient) -> None:
        for job in await (await client.job(job_id)).members():
            await asyncio.gather(*(_one(job, each) for each in streams))

    async def _one(job: AsyncJob, each: Streams) -> None:
        if as_json:
            await _pieces(job, each, follow)
            return
        target = sys.stderr.buffer if each == "stderr" and stream is None else sys.stdout.buffer
        if follow:
            await copy(job.follow_bytes(each), target)
            return
        try:
            data = await job.logs(each)
        except NotFoundError:
            if stream is not None:
                raise
            data = b""
        target.write(data)
        target.flush()

    talk(copying)


async def _pieces(job: AsyncJob, stream: Streams, follow: bool) -> None:
    """Print a log as lines of JSON, whatever bytes it holds."""

    def piece(text: str) -> None:
        typer.echo(json.dumps({"job": job.id, "stream": stream, "text": text}, ensure_ascii=False))

    if follow:
        async with aclosing(job.follow(stream)) as texts:
            async for text in texts:
                piece(text)
    elif data := await job.logs(stream):
        piece(data.decode(errors="replace"))


def wait(
    ids: JobIds,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until jobs have ended; exits with the first exit code that is not 0.

    perijove wait 12 13 && echo both succeeded
    """

    async def waiting(client: AsyncClient) -> list[AsyncJob]:
        jobs = await asyncio.gather(*(client.job(job_id) for job_id in ids))
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(job.wait() for job in jobs))
        return jobs

    try:
        jobs = talk(waiting)
    except TimeoutError:
        note(f"not ended after {timeout:g} s")
        raise typer.Exit(1) from None
    if as_json:
        print_json(jobs[0].document if len(jobs) == 1 else [job.document for job in jobs])
    else:
        for job in jobs:
            typer.echo(f"{job.label} {job.state}")
    raise typer.Exit(next((code for code in map(exit_code, jobs) if code), 0))


def acting(verb: str) -> Callable[[list[str], bool], None]:
    """The command that asks for `verb`, for one job after the other."""

    def act(ids: JobIds, as_json: AsJson = False) -> None:
        async def asking(client: AsyncClient) -> tuple[list[dict[str, Any]], int]:
            records, code = [], 0
            for job_id in ids:
                try:
                    records.append(await client.act(job_id, verb))  # type: ignore[arg-type]
                except UserError as error:
                    code = report(error)
            return records, code

        records, code = talk(asking)
        if as_json:
            print_json(records[0] if len(ids) == 1 and records else records)
        raise typer.Exit(code)

    act.__name__ = verb
    return act


__all__ = ["VERBS", "PerijoveError", "acting", "logs", "ls", "show", "wait"]
