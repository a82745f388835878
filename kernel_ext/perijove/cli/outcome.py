"""What came of a run: why its steps ran, the records of its results, capsules; and running the rest anew."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from perijove.cli import acting
from perijove.cli.session import AsJson, note, print_json, print_table, recent_runs, talk
from perijove.cli.whole import exit_code_of_run, job_or_run, run_json
from perijove.cli.workflows import CacheOption, Given, followed, print_explanation
from perijove.client import AsyncClient
from perijove.model.errors import UserError
from perijove.options import pairs
from perijove.runs import AsyncRun

RunId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The run of a workflow, such as 12.", autocompletion=recent_runs),
]
JobOrRun = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A job or a run of a workflow, such as 12.", autocompletion=recent_runs
    ),
]


def explain(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="The run, such as 12; your latest when not given.",
            autocompletion=recent_runs,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say of each step of a run whose result was taken, or because of which change it ran.

    perijove explain 12

    perijove explain 12 --json | jq '.[].causes'
    """

    async def asking(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.explain_run(run_id if run_id is not None else await _latest(client))

    print_explanation(talk(asking), as_json)


async def _latest(client: AsyncClient) -> int:
    found = await client.workflows(limit=1)
    if not found:
        raise UserError("there is no run of a workflow yet")
    return found[0].id


def record(number: JobOrRun, as_json: AsJson = False) -> None:
    """Print the result record of a job, or those of a run's steps: inputs, outputs, machine, image, times.

    It is JSON with and without --json.

    perijove record 12 --json | jq .machine
    """
    del as_json

    async def asking(client: AsyncClient) -> Any:
        return await job_or_run(
            number,
            lambda one: client.record_of("jobs", one),
            lambda one: client.record_of("workflows", one),
        )

    print_json(talk(asking))


def capsule(
    run_id: RunId,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write, such as run.zip.")],
    data: Annotated[
        bool, typer.Option("--data", help="With the inputs themselves, not only digests.")
    ] = False,
    crate: Annotated[bool, typer.Option("--crate", help="As an RO-Crate instead.")] = False,
) -> None:
    """Write a run as one file that others can run again: its record, code, parameters and environment.

    perijove capsule 12 -o fit.zip --data

    perijove rerun fit.zip
    """

    async def asking(client: AsyncClient) -> bytes:
        return await client.capsule(run_id, data=data, crate=crate)

    content = talk(asking)
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    note(f"{output}: {len(content)} bytes")


def rerun(
    what: Annotated[
        list[str], typer.Argument(metavar="ID...|CAPSULE", help="Job ids, such as 12, or a capsule's file.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="STEP/NAME=PATH", help="Of a capsule: an input it does not hold."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Of a capsule: a variable that it hides."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Of a capsule: also with inputs that are not the same.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit ended jobs once more and print the new ids; or run a capsule and say what differs.

    After a capsule it exits with 0 when all results are the same.

    perijove rerun 12

    perijove rerun fit.zip --input prep/data=data.csv
    """
    if not (len(what) == 1 and Path(what[0]).is_file()):
        acting.rerun(what, as_json)
        return
    from perijove.capsule import Rerun, read_capsule
    from perijove.capsule import rerun as run_capsule

    sealed = read_capsule(what[0])

    async def running(client: AsyncClient) -> Rerun:
        return await run_capsule(
            client,
            sealed,
            inputs=pairs("input", inputs or []),
            env=pairs("env", env or []),
            force=force,
            on_run=None if as_json else followed,
        )

    found = talk(running)
    if as_json:
        print_json({"run": found.run.document, "rows": [asdict(row) for row in found.rows]})
    else:
        rows = [[row.step, row.what, row.before, row.after, row.verdict] for row in found.rows]
        print_table(["STEP", "WHAT", "BEFORE", "AFTER", "VERDICT"], rows, wide={"BEFORE", "AFTER"})
    raise typer.Exit(0 if found.equal else 1)


def resume(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs or runs, such as 12 or 12_7.")],
    parameter: Given = None,
    cache: CacheOption = "use",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Of a run: print the new one's id and leave it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let suspended jobs go on; of a run of a workflow, run what did not succeed once more, as a new run.

    Of a run, parameters given with -p replace those of before: what depends on them runs again.

    perijove resume 12

    perijove resume 12 -p lr=0.01
    """

    async def resuming(client: AsyncClient) -> list[Any]:
        return [
            await job_or_run(
                one,
                lambda number: _resume_job(client, number, parameter),
                lambda number: _resume_run(
                    client, number, parameter, cache, follow=not detach, quiet=as_json
                ),
            )
            for one in ids
        ]

    found = talk(resuming)
    if as_json:
        shown = [run_json(one) if isinstance(one, AsyncRun) else one for one in found]
        print_json(shown[0] if len(shown) == 1 else shown)
    runs = [one for one in found if isinstance(one, AsyncRun)]
    if detach and not as_json:
        for run in runs:
            typer.echo(run.id)
    if not detach and any(exit_code_of_run(run) for run in runs):
        raise typer.Exit(1)


async def _resume_job(client: AsyncClient, number: str, parameter: list[str] | None) -> Any:
    if parameter:
        await client.job_record(number)  # says so when it is a run's id
        raise UserError(f"job {number} takes no parameters; only runs of workflows do")
    return await client.act(number, "resume")


async def _resume_run(
    client: AsyncClient, number: str, parameter: list[str] | None, cache: Any, *, follow: bool, quiet: bool
) -> AsyncRun:
    from perijove.documents import given_values

    before = await client.workflow(number)
    workflow = before.record.workflow
    known = workflow.parameters if workflow else {}
    given = await asyncio.to_thread(given_values, known, parameter or [])
    run = await client.resume_run(number, given, cache=cache)
    if follow:
        await followed(run, quiet=quiet)
    return run
