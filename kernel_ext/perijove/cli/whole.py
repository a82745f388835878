"""Commands that take the id of a job or of a run of a workflow: which of the two it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from perijove.cli.output import Place
from perijove.cli.session import console, error_console
from perijove.inert import printable
from perijove.model.errors import NotFoundError

if TYPE_CHECKING:
    from perijove.runs import AsyncRun

T = TypeVar("T")

TOGETHER = 32
"""Steps whose output is followed at the same time; others wait for their turn, and nothing is lost."""


async def job_or_run(
    number: str, of_job: Callable[[str], Awaitable[T]], of_run: Callable[[str], Awaitable[T]]
) -> T:
    """What `of_job` answers, or `of_run` where `number` is that of a run."""
    try:
        return await of_job(number)
    except NotFoundError as error:
        if not any(each.field == "workflow" for each in error.errors):
            raise
        return await of_run(number)


def run_json(run: AsyncRun) -> dict[str, Any]:
    """A run with its steps, for scripts."""
    return {**run.document, "step_runs": list(run.step_documents.values())}


def print_run(run: AsyncRun) -> None:
    """A run with its steps, for people."""
    from perijove.dag_text import run_table

    console().print(run_table(run.record, list(run.steps.values()), time.time()))


async def print_step_logs(run: AsyncRun, step: str | None, copy: Callable[[Any], Awaitable[None]]) -> None:
    """What the jobs of a run's steps wrote, one after the other, each under its name."""
    labels = [
        label
        for label, each in run.step_documents.items()
        if step in (None, label, each["step"]) and each.get("job") is not None
    ]
    if step is not None and not labels:
        run.step(step)  # names those that there are
    for label in labels:
        job = await run.step(label).job()
        if job is None:
            continue
        if len(labels) > 1:
            error_console().print(
                printable(f"==> {label} (job {job.label}) <=="), style="bold cyan", markup=False
            )
        await copy(job)


async def follow_steps(
    run: AsyncRun, step: str | None, copy: Callable[[Any, Place | None], Awaitable[None]]
) -> None:
    """The same of all steps at once, as they come to run, until the run has ended; each in its place."""
    if step is not None and step.partition("[")[0] not in {e["step"] for e in run.step_documents.values()}:
        run.step(step)  # names those that there are
    begun: set[tuple[str, Any]] = set()
    turns = asyncio.Semaphore(TOGETHER)

    async def one(number: Any, place: Place | None) -> None:
        async with turns:
            await copy(await run.client.job(number), place)

    try:
        async with asyncio.TaskGroup() as group, aclosing(run.changes()) as changes:
            async for _ in changes:
                width = max(map(len, run.step_documents), default=0)
                for label, each in run.step_documents.items():
                    key = label, each.get("job")
                    if key[1] is None or key in begun or step not in (None, label, each["step"]):
                        continue
                    place = None if step == label else Place(label, len(begun), width)
                    begun.add(key)
                    group.create_task(one(key[1], place))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def exit_code_of_run(run: AsyncRun) -> int:
    """0 when it succeeded."""
    return 0 if run.state == "succeeded" else 1
