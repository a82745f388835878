"""Commands that do something to jobs that are there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from perijove.cli.session import AsJson, JobIds, note, print_json, report, talk
from perijove.cli.whole import job_or_run
from perijove.client import AsyncClient, Verb
from perijove.model.errors import UserError

VERBS: dict[Verb, str] = {
    "hold": "Keep waiting jobs from starting; of an array or a run of a workflow, what of it waits.",
    "release": "Let held jobs, or held runs of workflows, start.",
    "suspend": "Freeze running jobs where they are; that time counts against no limit.",
    "reschedule": "Stop running jobs and let them wait again: a new attempt, in a fresh directory.",
}
Records = list[dict[str, Any]]


def each(
    ids: list[str],
    as_json: bool,
    do: Callable[[AsyncClient, str], Coroutine[Any, Any, dict[str, Any] | None]],
) -> Records:
    """Do something to one job after the other; exits with 1 when one refuses, after the others."""

    async def asking(client: AsyncClient) -> tuple[Records, int]:
        records, code = [], 0
        for job_id in ids:
            try:
                if (record := await do(client, job_id)) is not None:
                    records.append(record)
            except UserError as error:
                code = report(error)
        return records, code

    records, code = talk(asking)
    if as_json:
        print_json(records[0] if len(ids) == 1 and records else records)
    if code:
        raise typer.Exit(code)
    return records


def acting(verb: Verb) -> Callable[[list[str], bool], None]:
    """The command that asks for `verb`, for one job after the other."""

    def act(ids: JobIds, as_json: AsJson = False) -> None:
        each(ids, as_json, lambda client, job_id: _act(client, job_id, verb))

    act.__name__ = verb
    act.__doc__ = f"{VERBS[verb]}\n\nperijove {verb} 12 13_7"
    return act


async def _act(client: AsyncClient, number: str, verb: Verb) -> dict[str, Any]:
    """Do it to a job, or to a run of a workflow where runs know the verb."""
    if verb not in {"hold", "release"}:
        return await client.act(number, verb)
    of_run: Any = verb
    return await job_or_run(
        number, lambda one: client.act(one, verb), lambda one: client.act_on_run(one, of_run)
    )


def kill(
    ids: JobIds,
    dependants: Annotated[
        bool, typer.Option("--dependants", help="Also the jobs that wait for them, and so on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop jobs or runs of workflows for good, whether they wait or run: politely first, then by force.

    perijove kill 12 13_7

    perijove kill --dependants 12
    """

    async def killed(client: AsyncClient, number: str) -> dict[str, Any]:
        return await job_or_run(
            number,
            lambda one: client.act(one, "kill", dependants=dependants),
            lambda one: client.act_on_run(one, "kill"),
        )

    each(ids, as_json, killed)


def update(
    ids: JobIds,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Another time limit, such as 2h.")] = None,
    priority: Annotated[int | None, typer.Option(help="From 0 to 100.")] = None,
    cpus: Annotated[
        float | None, typer.Option("--cpus", "--cpu", "-c", help="Cores, while it waits.")
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", "-m", help="Memory, while it waits.")] = None,
    partition: Annotated[str | None, typer.Option(help="Another group of nodes, while it waits.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change jobs that wait or run. What may be changed, and by whom, is the site's policy.

    perijove update 12 --time 4h

    perijove update 12 13 --priority 30 --memory 12G
    """
    given = {
        "time_limit": time,
        "priority": priority,
        "cpu": cpus,
        "memory": memory,
        "partition": partition,
        "name": name,
    }
    fields = {field: value for field, value in given.items() if value is not None}
    if not fields:
        raise typer.BadParameter("say what to change: --time, --priority, --cpus, --memory, ...")
    each(ids, as_json, lambda client, job_id: client.update(job_id, fields))


def rerun(ids: JobIds, as_json: AsJson = False) -> None:
    """Submit ended jobs once more, as new ones; prints their ids.

    perijove rerun 12
    """

    async def again(client: AsyncClient, job_id: str) -> dict[str, Any]:
        job = await client.rerun(job_id)
        if not as_json:
            typer.echo(job.label)
        return job.document

    each(ids, as_json, again)


def archive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Job ids, such as 12.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Jobs that ended so long ago, such as 30d.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Only those labelled KEY=VALUE.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", help="Only these: succeeded, failed, killed, ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove the directories and logs of ended jobs. Their records and the accounting stay.

    perijove archive 12 13

    perijove archive --older-than 30d --state failed
    """
    if bool(ids) == bool(older_than):
        raise typer.BadParameter("say which: job ids, or --older-than TIME with --label and --state")
    if ids:
        each(ids, as_json, lambda client, job_id: client.act(job_id, "archive"))
        return
    states = [word for given in state or () for word in given.split(",")]

    async def asking(client: AsyncClient) -> int:
        assert older_than is not None
        return await client.archive_many(older_than=older_than, label=label or (), state=states)

    count = talk(asking)
    if as_json:
        print_json({"jobs": count})
    else:
        typer.echo(f"{count} jobs archived")


def purge(
    ids: JobIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all that is kept of ended jobs: directory, logs, outputs, record. The accounting stays.

    perijove purge 12
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Remove {', '.join(ids)} for good?", abort=True, err=True)

    async def removed(client: AsyncClient, job_id: str) -> None:
        await client.purge(job_id)
        if not as_json:
            note(f"job {job_id} removed")

    each(ids, as_json, removed)
