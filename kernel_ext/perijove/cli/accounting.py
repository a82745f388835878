"""``perijove usage``, ``top``, ``share`` and ``projects``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perijove.cli.session import AsJson, print_json, print_table, talk
from perijove.inert import printable
from perijove.model.quantities import format_duration, format_size
from perijove.reading import label_of
from perijove.waiting import exact_duration

AXES = ["owner", "project", "day", "image", "node", "partition", "kind"]


def _axes() -> list[str]:
    return AXES


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="owner, project, day, image, node, partition or kind; several with commas.",
            autocompletion=_axes,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="A date such as 2026-07-31 (UTC), or so long ago: 7d. 30d when not given."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; now when not given.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this user's (administrators).")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's; its leads see all of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what jobs held: core-hours, GiB-hours of memory, GPU-hours. What was asked for counts, from the
    start to the end; `perijove show` says what a job made of it.

    perijove usage --since 7d --by day

    perijove usage --by project,owner --since 2026-01-01
    """
    words = [word.strip() for given in by or ["owner"] for word in given.split(",") if word.strip()]
    axes = list(dict.fromkeys("owner" if word == "user" else word for word in words))

    found = talk(lambda c: c.usage(axes, since=since, until=until, owner=owner, project=project))
    if as_json:
        print_json(found)
        return
    sums = ("jobs", "cpu_hours", "memory_hours", "gpu_hours")
    numbers = ["JOBS", "CPU h", "GiB h", "GPU h"]
    rows = [
        [*(row.get(axis) or "-" for axis in axes), *map(_number, (row[k] for k in sums))] for row in found
    ]
    if len(rows) > 1:
        total = [_number(sum(row[key] for row in found)) for key in sums]
        rows.append(["total", *[""] * (len(axes) - 1), *total])
    titles = [axis.upper() for axis in axes]
    print_table([*titles, *numbers], rows, wide=set(titles), numbers=set(numbers))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def top(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show running jobs by what they use now, the busiest first, with what they asked for.

    perijove top -n 5
    """
    found = talk(lambda client: client.top(limit))
    if as_json:
        print_json(found)
        return
    titles = ["ID", "OWNER", "NAME", "NODE", "TIME", "CPU", "MEMORY", "PEAK", "GPU"]
    numbers = {"CPU", "MEMORY", "PEAK", "GPU"}
    print_table(titles, map(_busy, found), wide={"NAME", "NODE"}, numbers=numbers)


def _busy(entry: dict[str, Any]) -> list[str]:
    job, stats = entry["job"], entry["stats"]
    spec = job.get("spec") or {}
    started, gpus = job.get("started"), (spec.get("gpus") or {}).get("count", 0)
    return [
        label_of(job),
        job["owner"],
        job["name"],
        job.get("node") or "-",
        _ran(job) if started else "-",
        f"{stats['cpu']:.1f}/{spec.get('cpu', 1):g}",
        f"{format_size(stats['memory'])}/{format_size(spec.get('memory', 0))}",
        format_size(stats.get("memory_peak", 0)),
        f"{stats.get('gpu', 0):.1f}/{gpus}" if gpus else "-",
    ]


def _ran(job: dict[str, Any]) -> str:
    from perijove.handle import AsyncJob

    return format_duration(AsyncJob(None, job).elapsed or 0.0)  # type: ignore[arg-type]


def share(as_json: AsJson = False) -> None:
    """Show the fair share: which part of the site is due to whom, and which part they had.

    FACTOR decides who is next: 1 for who has used nothing, 0.5 for who had what was due, towards 0 above.

    perijove share
    """
    found = talk(lambda client: client.share())
    if as_json:
        print_json(found)
        return
    titles = ["PROJECT", "OWNER", "SHARES", "USAGE h", "DUE", "HAD", "FACTOR"]
    rows = [
        [
            row.get("project") or "-",
            row["owner"] or "-",
            f"{row['shares']:g}",
            f"{row['usage']:.2f}",
            f"{row['target']:.1%}",
            f"{row['actual']:.1%}" if "actual" in row else "-",
            f"{row['factor']:.3f}",
        ]
        for row in found
    ]
    print_table(titles, rows, wide={"PROJECT", "OWNER"}, numbers=set(titles[2:]))


LIMITS = {
    "pending": "jobs waiting",
    "running": "jobs running",
    "cpus": "cores",
    "memory": "memory",
    "gpus": "GPUs",
    "disk": "disk",
    "cpu_hours": "core-hours",
    "memory_hours": "GiB-hours",
    "gpu_hours": "GPU-hours",
}
"""Limit -> its name for people, in the order in which they are shown."""


def projects(as_json: AsJson = False) -> None:
    """Show your projects: what each may use, what it uses now, and your own part.

    perijove projects
    """
    found = talk(lambda client: client.projects())
    if as_json:
        print_json(found)
        return
    for number, project in enumerate(found):
        if number:
            typer.echo()
        _project(project)
    if not found:
        typer.echo("you are in no project")


def _project(project: dict[str, Any]) -> None:
    marks = [
        word for word, holds in (("default", project["default"]), ("you lead it", project["lead"])) if holds
    ]
    marked = f" ({', '.join(marks)})" if marks else ""
    about = f": {project['description']}" if project.get("description") else ""
    typer.echo(printable(f"{project['name']}{about}{marked}"))
    if project.get("volumes"):
        typer.echo(printable(f"  volumes  {', '.join(project['volumes'])}"))
    if project.get("max_time"):
        typer.echo(f"  time     {exact_duration(project['max_time'])} at most")
    used, mine = project["used"], project["mine"]
    limits, own = project["limits"], project["member_limits"]
    shown = [k for k in LIMITS if k in limits or k in own or used.get(k) or mine.get(k)]
    rows = [
        [
            f"  {LIMITS[key]}",
            _amount(key, used.get(key)),
            _amount(key, limits.get(key)),
            _amount(key, mine.get(key)),
            _amount(key, own.get(key)),
        ]
        for key in shown
    ]
    if rows:
        titles = ["", "USED", "OF", "BY YOU", "OF YOURS"]
        print_table(titles, rows, numbers=set(titles[1:]))


def _amount(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return format_size(value) if key in {"memory", "disk"} else f"{value:.1f}".removesuffix(".0")
