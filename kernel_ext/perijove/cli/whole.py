"""Commands that take the id of a job or of a run of a workflow: which of the two it is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from perijove.cli.session import console, printable
from perijove.model.errors import NotFoundError

if TYPE_CHECKING:
    from perijove.runs import AsyncRun

T = TypeVar("T")


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
            typer.echo(printable(f"==> {label} (job {job.label}) <=="), err=True)
        await copy(job)


def exit_code_of_run(run: AsyncRun) -> int:
    """0 when it succeeded."""
    return 0 if run.state == "succeeded" else 1
