"""Reports as tables and bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from perijove.model import format_duration, format_size
from perijove_hub.simulation.measure import Line, Report
from perijove_hub.simulation.rehearsal import Rehearsal

BAR = 40
SHOWN = 30
"""Users in a table; the JSON has all."""


def show(found: Report | Rehearsal, console: Console) -> None:
    """Print it."""
    if isinstance(found, Report):
        _show_report(found, console)
    else:
        _show_rehearsal(found, console)


def _show_rehearsal(found: Rehearsal, console: Console) -> None:
    before, after = found.before, found.after
    table = _table("Rehearsal", ("", "recorded", "policy of then", "this policy"), right=(1, 2, 3))
    rows: list[tuple[str, ...]] = [
        ("Started", str(found.recorded.starts), str(before.waiting.starts), str(after.waiting.starts))
    ]
    for title, part in (("Waiting, median", "median"), ("95 %", "p95"), ("longest", "longest")):
        columns = (found.recorded, before.waiting, after.waiting)
        rows.append((title, *(seconds(getattr(one, part)) for one in columns)))
    rows.append(("Cores in use", "", f"{before.cpu_use:.1%}", f"{after.cpu_use:.1%}"))
    rows.append(("Refused", "", str(before.refused), str(after.refused)))
    rows.append(("Furthest from a fair share", "", f"{before.unfairness:.1%}", f"{after.unfairness:.1%}"))
    for row in rows:
        table.add_row(*row)
    table.caption = f"the replay starts {found.agreement:.1%} of the jobs in the recorded order"
    users = _table(
        "Waiting, by user", ("", "starts", "median", "change", "95 %", "change"), right=range(1, 6)
    )
    for one in sorted(found.users, key=lambda one: -abs(one.mean))[:SHOWN]:
        was, is_ = one.before, one.after
        cells = (seconds(is_.median), _signed(one.median), seconds(is_.p95), _signed(is_.p95 - was.p95))
        users.add_row(Text(one.user), str(is_.starts), *cells)
    if len(found.users) > SHOWN:
        users.caption = f"the {SHOWN} for whom most changes of {len(found.users)}; --json has all"
    console.print(Group(table, users))


def _signed(value: float) -> Text:
    if abs(value) < 1:
        return Text("-")
    return (
        Text(f"+{seconds(value)}", style="red") if value > 0 else Text(f"-{seconds(-value)}", style="green")
    )


def _show_report(report: Report, console: Console) -> None:
    parts: list[RenderableType] = [_summary(report), _histogram(report)]
    if report.projects:
        parts.append(_lines("Projects", report.projects))
    parts.append(_lines("Users", report.users))
    parts.append(_longest(report))
    console.print(Group(*parts))


def _summary(report: Report) -> Table:
    table = _table("Summary", ("", ""))
    ended = ", ".join(f"{count} {state}" for state, count in report.ended.items()) or "none"
    rows = [
        ("Submitted", f"{report.submitted}" + (f", {report.refused} refused" if report.refused else "")),
        ("Ended", ended + (f"; {report.unfinished} never did" if report.unfinished else "")),
        ("Attempts", str(report.attempts)),
        (
            "Waiting, median / 95 % / longest",
            waits(report.waiting.median, report.waiting.p95, report.waiting.longest),
        ),
        ("Slowdown, mean bounded", f"{report.slowdown:.2f}"),
        ("Makespan", seconds(report.makespan)),
        ("Cores in use", f"{report.cpu_use:.1%} ({report.cpu_hours:.0f} hours)"),
        ("GPUs in use", f"{report.gpu_use:.1%} ({report.gpu_hours:.0f} hours)"),
        ("Furthest from a fair share", f"{report.unfairness:.1%}"),
        ("Starved", str(report.starved)),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _histogram(report: Report) -> Table:
    table = _table("Waiting times", ("up to", "starts", ""), right=(0, 1))
    most = max((count for _, count in report.histogram), default=0)
    for bound, count in report.histogram:
        table.add_row(seconds(bound), str(count), Text("#" * round(BAR * count / most) if most else ""))
    return table


def _lines(title: str, lines: Sequence[Line]) -> Table:
    columns = ("", "starts", "median", "95 %", "cores h", "GPUs h", "due", "had")
    table = _table(title, columns, right=range(1, len(columns)))
    largest = sorted(lines, key=lambda line: -line.cpu_hours - line.gpu_hours)[:SHOWN]
    for line in [line for line in lines if line in largest]:
        name = (
            line.project
            if line.user is None
            else f"{line.user} ({line.project})"
            if line.project
            else line.user
        )
        wait = line.waiting
        table.add_row(
            Text(name or ""),
            str(wait.starts),
            seconds(wait.median),
            seconds(wait.p95),
            f"{line.cpu_hours:.0f}",
            f"{line.gpu_hours:.0f}",
            f"{line.target:.1%}",
            f"{line.realised:.1%}",
        )
    if len(lines) > SHOWN:
        table.caption = f"the {SHOWN} with most hours of {len(lines)}; --json has all"
    return table


def _longest(report: Report) -> Table:
    table = _table("Waited longest", ("job", "user", "waited", "started", "asked for"), right=(2,))
    for late in report.longest:
        asked = f"{late.cpu:g} cores, {format_size(late.memory)}"
        asked += f", {late.gpus} GPUs" if late.gpus else ""
        asked += f", {late.nodes} nodes" if late.nodes > 1 else ""
        table.add_row(late.job, Text(late.user), seconds(late.waited), "yes" if late.started else "no", asked)
    return table


def _table(title: str, columns: Sequence[str], right: Iterable[int] = ()) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for i, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if i in right else "left",
            no_wrap=True,
            overflow="fold" if i == 0 else "ellipsis",
        )
    return table


def seconds(value: float) -> str:
    """A time for people; short ones too."""
    return format_duration(round(value)) if value >= 1 else "0s"


def waits(*values: float) -> str:
    """Several of them."""
    return " / ".join(map(seconds, values))
