"""What jobs write, and waiting for their end."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from typing import Annotated, Literal

import typer

from perijove.cli.session import AsJson, JobIds, note, print_json, talk
from perijove.cli.submit import copy, exit_code
from perijove.cli.whole import exit_code_of_run, job_or_run, print_step_logs, run_json
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.model.errors import NotFoundError
from perijove.runs import AsyncRun

Streams = Literal["stdout", "stderr", "display", "engine"]


def logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job, such as 12 or 12_7.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    stream: Annotated[
        Streams | None, typer.Option("--stream", help="Only this one; both without, each to its own.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Of a workflow's run: only this step, such as fit[3].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a job has written: its stdout to stdout, its stderr to stderr.

    Of an array what its members wrote, of a workflow's run what its steps did, one after the other. With
    --json each piece is a line of its own: {"job", "stream", "text"}.

    perijove logs -f 12

    perijove logs 12 --stream stderr

    perijove logs 12 --step train[3]
    """
    streams: list[Streams] = [stream] if stream else ["stdout", "stderr"]

    async def copying(client: AsyncClient) -> None:
        await job_or_run(job_id, lambda _: of_job(client), lambda _: of_run(client))

    async def of_run(client: AsyncClient) -> None:
        run = await (await client.workflow(job_id)).refresh()
        await print_step_logs(run, step, members)

    async def of_job(client: AsyncClient) -> None:
        await members(await client.job(job_id))

    async def members(whole: AsyncJob) -> None:
        if whole.document.get("archived"):
            raise NotFoundError(f"job {whole.label} is archived: what it wrote has been removed")
        for job in await whole.members():
            if job.attempt or follow:
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
    """Wait until jobs or runs of workflows have ended; exits with the first exit code that is not 0.

    perijove wait 12 13 && echo both succeeded
    """

    async def waiting(client: AsyncClient) -> list[AsyncJob | AsyncRun]:
        jobs = await asyncio.gather(*(found(client, job_id) for job_id in ids))
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(job.wait() for job in jobs))
        return jobs

    async def found(client: AsyncClient, number: str) -> AsyncJob | AsyncRun:
        return await job_or_run(number, client.job, client.workflow)

    try:
        jobs = talk(waiting)
    except TimeoutError:
        note(f"not ended after {timeout:g} s")
        raise typer.Exit(1) from None
    if as_json:
        documents = [run_json(job) if isinstance(job, AsyncRun) else job.document for job in jobs]
        print_json(documents[0] if len(jobs) == 1 else documents)
    else:
        for job in jobs:
            typer.echo(f"{job.id if isinstance(job, AsyncRun) else job.label} {job.state}")
    raise typer.Exit(next((code for code in map(_exit_code, jobs) if code), 0))


def _exit_code(one: AsyncJob | AsyncRun) -> int:
    return exit_code_of_run(one) if isinstance(one, AsyncRun) else exit_code(one)
