"""``perijove sweep`` and ``perijove report``."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from perijove.cli.listing import STYLES
from perijove.cli.session import SESSION, note, print_json, print_table, talk
from perijove.cli.submit_options import (
    Constraint,
    Cpus,
    Cwd,
    Depends,
    Env,
    Exclusive,
    Gpus,
    Hold,
    Image,
    Label,
    Launcher,
    Memory,
    Name,
    Network,
    Node,
    OomRetry,
    Partition,
    Preemptible,
    Priority,
    Project,
    Reservation,
    Resource,
    Retries,
    RetryOn,
    Secret,
    Shm,
    Signal,
    Time,
    Volume,
)
from perijove.cli.whole import job_or_run
from perijove.client import AsyncClient
from perijove.model.errors import UserError
from perijove.options import OPTIONS, spec_fields
from perijove.reading import tasks_text
from perijove.sweeping import Grid
from perijove.sweeps import columns, failure_lines, flat, grid_of, points_of, submit_sweep, table

if TYPE_CHECKING:
    from perijove.handle import AsyncJob
    from perijove.runs import AsyncRun
    from perijove.sweeps import Point

RESULT = "What is shown"

Notebook = Annotated[Path | None, typer.Argument(help="The notebook; not with --of.")]
Parameter = Annotated[
    list[str] | None,
    Option("--parameter", "-p", help="NAME=VALUES: lr=0.1,0.01, seed=1:5, x=0:1:0.25 or xs=@list.json."),
]
Limit = Annotated[int | None, Option("--max", min=1, help="At most so many at once.")]
Of = Annotated[
    str | None, Option(metavar="ID", help="Show an earlier sweep instead.", rich_help_panel=RESULT)
]
Wait = Annotated[bool, Option("--wait/--no-wait", help="Stay until all have ended.", rich_help_panel=RESULT)]
AsCsv = Annotated[bool, Option("--csv", help="Print CSV.", rich_help_panel=RESULT)]
AsJson = Annotated[bool, Option("--json", help="Print JSON.", rich_help_panel=RESULT)]
Plot = Annotated[
    Path | None,
    Option(
        metavar="FILE", help="Draw recorded values over parameters: .png, .svg, .pdf.", rich_help_panel=RESULT
    ),
]


def sweep(
    ctx: typer.Context,
    notebook: Notebook = None,
    parameter: Parameter = None,
    limit: Limit = None,
    of: Of = None,
    wait: Wait = True,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    plot: Plot = None,
    name: Name = None,
    image: Image = None,
    launcher: Launcher = None,
    node: Node = None,
    cpus: Cpus = None,
    memory: Memory = None,
    gpus: Gpus = None,
    time: Time = None,
    shm: Shm = None,
    resource: Resource = None,
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
    exclusive: Exclusive = None,
    signal: Signal = None,
    preemptible: Preemptible = None,
    retries: Retries = None,
    retry_on: RetryOn = None,
    oom_retry: OomRetry = None,
) -> None:
    """Run a notebook for all combinations of some parameters, and show what each recorded.

    The sweep is an array, a job for each combination. A notebook records values by
    `perijove.record("loss", 0.1)`.

        perijove sweep train.ipynb -p lr=0.1,0.01 -p seed=1:5 --max 4

        perijove sweep --of 12 --csv > results.csv
    """

    async def sweeping(client: AsyncClient) -> tuple[AsyncJob, Sequence[Point]]:
        job, grid = await _known(client, of) if of else await _new(client, ctx.params)
        if wait:
            await _attended(job)
        return job, points_of(grid, await job.members())

    job, points = talk(sweeping)
    _show(job, points, ctx.params)


async def _known(client: AsyncClient, job_id: str) -> tuple[AsyncJob, Grid]:
    job = await client.job(job_id)
    return job, grid_of(job)


async def _new(client: AsyncClient, params: dict[str, Any]) -> tuple[AsyncJob, Grid]:
    if params["notebook"] is None:
        raise UserError("name a notebook, or an earlier sweep by --of ID")
    if not params["parameter"]:
        raise UserError("a sweep needs values of at least one parameter: -p lr=0.1,0.01")
    grid = Grid.parse(params["parameter"])
    fields = spec_fields(**{key: value for key, value in params.items() if key in OPTIONS})
    return await submit_sweep(client, params["notebook"], grid, fields, params["limit"]), grid


async def _attended(job: AsyncJob) -> None:
    """Wait for the array's end, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = Console(stderr=True, no_color=not SESSION.color, highlight=False)
    columns = (TextColumn("sweep {task.fields[label]}"), BarColumn(), TextColumn("{task.description}"))
    try:
        with Progress(
            *columns, TimeElapsedColumn(), console=shown, disable=not shown.is_terminal
        ) as progress:
            task = progress.add_task("", total=len(job.task_numbers), label=job.label)
            async for _ in job.changes():
                done = sum(number for state, number in job.tasks.items() if state.ended)
                progress.update(task, completed=done, description=tasks_text(job))
    except asyncio.CancelledError:
        note(f"left sweep {job.label}, which goes on; `perijove sweep --of {job.label}` returns to it")
        raise


def _show(job: AsyncJob, points: Sequence[Point], params: dict[str, Any]) -> None:
    if params["of"] is None and not params["wait"]:
        typer.echo(job.label)
        return
    if params["as_json"]:
        print_json({"job": job.id, "state": str(job.state), "results": flat(points)})
    elif params["as_csv"]:
        rows = flat(points)
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        titles, cells = table(points)
        parameters, values = columns(points)
        print_table(titles, cells, numbers={*parameters, *values}, styles=STYLES)
    for line in failure_lines(points):
        note(line)
    if params["plot"] is not None:
        _draw(points, params["plot"])
    if any(point.error for point in points):
        raise typer.Exit(1)


def _draw(points: Sequence[Point], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from perijove.sweep_plot import plot

    varied = [
        name
        for name in (points[0].parameters if points else ())
        if len({repr(point.parameters[name]) for point in points}) > 1
    ]
    axes = plot(points, varied, None, None, varied[1] if len(varied) > 1 else None)
    try:
        axes.figure.savefig(target)
    except (OSError, ValueError) as error:
        raise UserError(f"--plot {target}: {error}") from error


def _only_notebook(run: AsyncRun) -> str:
    """The one step of a run that has executed a notebook."""
    found = [label for label, each in run.step_documents.items() if "notebook" in (each.get("outputs") or {})]
    if len(found) != 1:
        there = f"choose one by --step: {', '.join(found[:10])}" if found else "none of its steps has run one"
        raise UserError(f"run {run.id}: which notebook? {there}")
    return found[0]


def report(
    job_id: Annotated[
        str, typer.Argument(metavar="ID", help="Job of a notebook, such as 12 or 12_7, or run of a workflow.")
    ],
    step: Annotated[
        str | None,
        Option(help="Of a workflow's run with several notebooks: this step."),
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE", help="Where it goes; else NAME.ID.html.")
    ] = None,
    code: Annotated[bool, Option("--code/--no-code", help="With the code, or the output only.")] = True,
) -> None:
    """Make an HTML page of the notebook that a job or step ran, with its outputs; also when it failed.

    perijove report 12 -o fit.html

    perijove report 12 --step fit[3]
    """

    async def of_job(client: AsyncClient) -> tuple[str, bytes, str]:
        job = await client.job(job_id)
        name = "notebook" if "notebook" in job.outputs() else "notebook.ipynb"
        return job.name or "notebook", await job.output(name), job.label

    async def of_run(client: AsyncClient) -> tuple[str, bytes, str]:
        run = await (await client.workflow(job_id)).refresh()
        label = step or _only_notebook(run)
        return label, await run.step(label).output("notebook"), str(run.id)

    from perijove.notebook_page import page

    name, notebook, number = talk(
        lambda client: job_or_run(job_id, lambda _: of_job(client), lambda _: of_run(client))
    )
    target = output or Path(f"{Path(name).stem}.{number}.html")
    try:
        target.write_text(page(notebook, name, code=code), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    typer.echo(str(target))
