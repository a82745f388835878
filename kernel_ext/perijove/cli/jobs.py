"""What jobs write, and waiting for their end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from perijove.cli.output import (
    Labelled,
    Place,
    Verbose,
    copy,
    follow_calls,
    print_calls,
    to_stderr,
    to_stdout,
)
from perijove.cli.session import AsJson, JobIds, json_text, note, print_json, talk
from perijove.cli.submit import exit_code
from perijove.cli.whole import exit_code_of_run, follow_steps, job_or_run, print_step_logs, run_json
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
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Print what a job has written: its stdout to stdout, its stderr to stderr.

    Of an array what its members wrote, of a workflow's run what its steps did, one after the other; with
    --follow all steps at once, each line behind its step's label. With -v the calls made of the engine come
    first, on stderr. With --json each piece is a line of its own: {"job", "stream", "text"}.

    perijove logs -f 12

    perijove logs 12 --stream stderr

    perijove logs 12 --step train[3]

    perijove logs 12 -vv
    """
    log = _Log([stream] if stream else ["stdout", "stderr"], follow, verbose, as_json)

    async def copying(client: AsyncClient) -> None:
        await job_or_run(job_id, lambda _: of_job(client), lambda _: of_run(client))

    async def of_job(client: AsyncClient) -> None:
        await log.copy(await client.job(job_id))

    async def of_run(client: AsyncClient) -> None:
        run = await (await client.workflow(job_id)).refresh()
        await (follow_steps if follow else print_step_logs)(run, step, log.copy)

    talk(copying)


@dataclass
class _Log:
    """What is to be shown of each job."""

    streams: list[Streams]
    follow: bool
    verbose: int
    as_json: bool

    async def copy(self, whole: AsyncJob, place: Place | None = None) -> None:
        """Show `whole`, or its members one after the other; in `place` among other jobs."""
        if whole.document.get("archived"):
            raise NotFoundError(f"job {whole.label} is archived: what it wrote has been removed")
        for job in await whole.members():
            if not (job.attempt or self.follow):
                continue
            if self.as_json:
                calls: list[Streams] = ["engine"] if self.verbose else []
                await asyncio.gather(*(_pieces(job, each, self.follow) for each in calls + self.streams))
                continue
            if not self.follow:
                await print_calls(job, self.verbose)
            copies = [self._one(job, each, place) for each in self.streams]
            if self.follow:
                copies.append(follow_calls(job, self.verbose, place.filled if place else ""))
            await asyncio.gather(*copies)

    async def _one(self, job: AsyncJob, stream: Streams, place: Place | None) -> None:
        sink = to_stderr() if stream == "stderr" and len(self.streams) > 1 else to_stdout()
        if self.follow:
            labelled = Labelled(place, sink) if place else None
            await copy(job.follow_bytes(stream), labelled or sink)
            if labelled:
                labelled.close()
            return
        try:
            data = await job.logs(stream)
        except NotFoundError:
            if len(self.streams) == 1:
                raise
            data = b""
        if data:
            sink.write(data)


async def _pieces(job: AsyncJob, stream: Streams, follow: bool) -> None:
    """Print a log as lines of JSON, whatever bytes it holds."""

    def piece(text: str) -> None:
        typer.echo(json_text({"job": job.id, "stream": stream, "text": text}))

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
