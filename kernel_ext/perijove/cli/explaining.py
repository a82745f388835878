"""``perijove why``, and what is said after a submission."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import typer

from perijove.cli.session import AsJson, JobIds, note, print_json, talk
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.inert import printable
from perijove.model.errors import PerijoveError
from perijove.model.states import State
from perijove.waiting import why_lines

PATIENCE = 3.0
"""Seconds that a remark after a submission is worth."""


def why(ids: JobIds, as_json: AsJson = False) -> None:
    """Say why jobs wait: the reason with all that blocks them, when they are likely to start, and with which
    changes they would start now. Of an ended job: why it ended.

    perijove why 12

    perijove why 12 --json | jq .forecast
    """

    async def asking(client: AsyncClient) -> list[dict[str, Any]]:
        return await asyncio.gather(*(client.why(job_id) for job_id in ids))

    found = talk(asking)
    if as_json:
        print_json(found[0] if len(found) == 1 else found)
        return
    for answer in found:
        for line in why_lines(answer):
            typer.echo(printable(line))


def at_terminal() -> bool:
    """Whether somebody reads along, and no program does."""
    return sys.stderr.isatty() and sys.stdout.isatty()


async def remark(job: AsyncJob) -> None:
    """Say on standard error why a job that was just submitted waits, if it does."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await job.why()
    except (PerijoveError, TimeoutError):
        return  # the job is in the queue, and that was said
    if job.state in {State.PENDING, State.HELD} and answer.get("reason"):
        for line in why_lines(answer):
            note(line)
