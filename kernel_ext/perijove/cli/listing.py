"""``perijove ls`` and ``perijove show``."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from perijove.cli.announcement import tell
from perijove.cli.session import AsJson, JobIds, print_json, print_table, talk
from perijove.cli.whole import job_or_run, print_run, run_json
from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.inert import printable
from perijove.model.errors import PerijoveError, UserError
from perijove.model.quantities import format_duration, format_size
from perijove.model.states import ENDED, State
from perijove.reading import tasks_text
from perijove.runs import AsyncRun
from perijove.status import attempt_lines, efficiency_text
from perijove.waiting import blocker_lines, exact_duration, forecast_text, gpus_text, hint_text

STYLES = {
    **dict.fromkeys(map(str, State), "red"),
    State.PENDING: "yellow",
    State.HELD: "yellow",
    State.STARTING: "cyan",
    State.RUNNING: "cyan",
    State.SUSPENDED: "magenta",
    State.SUCCEEDED: "green",
}


def _states() -> list[str]:
    return [*State, "live", "ended"]


def ls(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", help="Only these: a state, `live` or `ended`.", autocompletion=_states),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's (administrators).")] = None,
    project: Annotated[
        str | None, typer.Option(help="Only this project's; its leads see all of them.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only those labelled KEY=VALUE.")] = None,
    members: Annotated[int | None, typer.Option(metavar="ID", help="The members of this array.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first. An array is one row, with how many of its members stand where.

    perijove ls --state live

    perijove ls -s failed -n 10 --json

    perijove ls --members 12 -s failed
    """
    wanted = expand_states(state or [])

    async def asking(client: AsyncClient) -> list[AsyncJob]:
        return await client.jobs(
            state=wanted, name=name, owner=owner, project=project, label=label, array=members, limit=limit
        )

    found = talk(asking)
    if as_json:
        print_json([job.document for job in found])
    else:
        _table(found)
        tell()


def expand_states(given: list[str]) -> list[str]:
    """States by name, with the two words that stand for several; ``UserError`` for another word."""
    groups = {"ended": sorted(ENDED), "live": [state for state in State if state not in ENDED]}
    names = [word for value in given for word in value.split(",")]
    if unknown := [word for word in names if word not in groups and word not in set(State)]:
        raise UserError(f"--state: {unknown[0]!r} is none of {', '.join(_states())}")
    return [str(state) for word in names for state in groups.get(word, [word])]


def _table(found: list[AsyncJob]) -> None:
    owners = len({job.document.get("owner") for job in found}) > 1
    titles = ["ID", *(["OWNER"] if owners else []), "NAME", "STATE", "NODE", "TIME", "REASON"]
    print_table(titles, (_row(job, owners) for job in found), wide={"NAME", "REASON"}, styles=STYLES)


def _row(job: AsyncJob, owners: bool) -> list[str]:
    document = job.document
    spent = format_duration(job.elapsed) if job.elapsed is not None else "-"
    said = "; ".join(filter(None, [tasks_text(job), job.reason]))
    owner = [document["owner"]] if owners else []
    return [job.label, *owner, job.name, job.state, document.get("node") or "-", spent, said]


def show(ids: JobIds, as_json: AsJson = False) -> None:
    """Show all that is known of a job: state, reason, attempts, resources asked for and used, outputs.

    Of a run of a workflow: its steps.

    perijove show 12

    perijove show 12 --json | jq .state
    """

    async def asking(client: AsyncClient) -> list[list[tuple[str, str]] | AsyncRun]:
        return await asyncio.gather(*(seen(client, job_id) for job_id in ids))

    async def seen(client: AsyncClient, number: str) -> list[tuple[str, str]] | AsyncRun:
        return await job_or_run(number, lambda one: _seen(client, one), lambda one: _run(client, one))

    async def records(client: AsyncClient) -> list[dict[str, Any]]:
        return await asyncio.gather(*(one_record(client, job_id) for job_id in ids))

    async def one_record(client: AsyncClient, number: str) -> dict[str, Any]:
        async def of_run(one: str) -> dict[str, Any]:
            return run_json(await _run(client, one))

        return await job_or_run(number, client.job_record, of_run)

    if as_json:
        found = talk(records)
        print_json(found[0] if len(found) == 1 else found)
        return
    for number, rows in enumerate(talk(asking)):
        if number:
            typer.echo()
        if isinstance(rows, AsyncRun):
            print_run(rows)
            continue
        for title, value in rows:
            typer.echo(f"{title:>12}  {printable(value)}")


async def _run(client: AsyncClient, number: str) -> AsyncRun:
    return await (await client.workflow(number)).refresh()


async def _seen(client: AsyncClient, job_id: str) -> list[tuple[str, str]]:
    job = await client.job(job_id)
    waits = job.state in {State.PENDING, State.HELD}
    why, usage, history = await asyncio.gather(
        _or_nothing(client.why(job_id), waits),
        _or_nothing(client.usage_of(job_id), job.attempt > 0 and not job.is_array),
        _or_nothing(client.history(job_id), job.attempt > 1),
    )
    return view(job, why or {}, usage or {}, history or [])


async def _or_nothing(answer: Coroutine[Any, Any, Any], wanted: bool) -> Any:
    """What is beside the job itself: without it the job is shown all the same."""
    if not wanted:
        answer.close()
        return None
    try:
        return await answer
    except PerijoveError:
        return None


def view(
    job: AsyncJob, why: dict[str, Any], usage: dict[str, Any], history: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    """A job for people, as titles and values."""
    document, spec = job.document, job.spec
    gpus = ", ".join(gpu.get("model") or gpu["uuid"] for gpu in document.get("gpus") or [])
    reason = why.get("reason") or document.get("reason") or {}
    rows: list[tuple[str, Any]] = [
        ("job", job.label),
        ("name", job.name),
        ("owner", document.get("owner")),
        ("project", spec.get("project")),
        ("state", job.state),
        ("reason", job.reason),
        *(("blocked by", line) for line in blocker_lines(reason.get("blockers") or [])),
        ("forecast", forecast_text(why.get("forecast"))),
        *(("hint", hint_text(hint)) for hint in why.get("hints") or []),
        ("exit code", job.exit_code),
        ("array", _array(spec) if job.is_array and spec.get("array") else None),
        ("members", tasks_text(job)),
        ("node", document.get("node")),
        ("partition", document.get("partition") or spec.get("partition")),
        ("reservation", spec.get("reservation")),
        ("launcher", document.get("launcher")),
        ("image", spec.get("image")),
        ("image ran", _ran_in(document)),
        ("runs", _what(spec)),
        ("in", spec.get("cwd")),
        ("asked for", asked(spec)),
        ("retries", _retries(spec)),
        ("after", ", ".join(map(_dependency, spec.get("depends_on") or []))),
        ("labels", ", ".join(f"{key}={value}" for key, value in (spec.get("labels") or {}).items())),
        ("GPUs", gpus),
        ("submitted", _clock(document.get("submitted"))),
        ("started", _clock(document.get("started"))),
        ("ended", _clock(document.get("ended"))),
        ("ran for", format_duration(job.elapsed) if job.elapsed is not None else None),
        ("attempt", document.get("attempt") or None),
        *(("", line) for line in attempt_lines(history)),
        ("progress", _progress(document)),
        ("used", efficiency_text(usage)),
        ("memory peak", _peak(document) if not usage else None),
        ("rerun of", document.get("rerun_of")),
        ("archived", "its directory and logs are removed" if document.get("archived") else None),
        ("outputs", ", ".join(job.outputs())),
    ]
    return [(title, str(value)) for title, value in rows if value not in (None, "")]


def _ran_in(document: dict[str, Any]) -> str | None:
    """The image's name at its registry, else its id on the engine."""
    return document.get("image_manifest") or document.get("image_digest")


def _peak(document: dict[str, Any]) -> str | None:
    return format_size(document["memory_peak"]) if document.get("memory_peak") else None


def _what(spec: dict[str, Any]) -> str | None:
    if spec.get("script"):
        return shlex.join(["script", *spec.get("args", [])])
    return shlex.join(spec.get("command") or []) or spec.get("notebook")


def _array(spec: dict[str, Any]) -> str:
    given = spec["array"]
    limit = f", at most {given['limit']} at once" if given.get("limit") else ""
    return "{start}:{end}:{step}".format_map(given) + limit


def asked(spec: dict[str, Any]) -> str:
    """The resources of a spec, for people."""
    gpus, limit, nodes = spec.get("gpus") or {}, spec.get("time_limit"), spec.get("nodes") or 1
    parts = [f"{nodes} nodes, each"] if nodes > 1 else []
    parts.append(f"{spec.get('cpu', 1):g} CPUs")
    if spec.get("memory"):
        parts.append(f"{format_size(spec['memory'])} memory")
    if gpus.get("count"):
        parts.append(f"{gpus_text(gpus)} GPUs")
    parts += [f"{number} {name}" for name, number in (spec.get("resources") or {}).items()]
    parts += [word for word in ("exclusive", "preemptible") if spec.get(word)]
    if limit:
        parts.append(f"{exact_duration(limit)} at most")
    return ", ".join(parts)


def _retries(spec: dict[str, Any]) -> str | None:
    causes = [
        f"exit:{each['code']}" if each.get("code") else str(each["cause"])
        for each in spec.get("retry_on") or []
    ]
    parts = []
    if spec.get("retries"):
        parts.append(" after ".join(filter(None, [str(spec["retries"]), ", ".join(causes)])))
    if spec.get("oom_retry"):
        parts.append(f"out of memory: with {spec['oom_retry']:g} times as much")
    return "; ".join(parts) or None


def _dependency(given: dict[str, Any]) -> str:
    task = "" if given.get("task") is None else f"_{given['task']}"
    return f"{given['type']}:{given['job']}{task}"


def _clock(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _progress(document: dict[str, Any]) -> str | None:
    if document.get("progress") is None:
        return None
    return f"{document['progress']:.0%} {document.get('progress_text') or ''}".rstrip()
