"""One job's standing as text and as HTML, for where no widget can be shown and for what is saved.

Names and messages come from jobs and other people: all of it is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perijove.inert import html_text, printable
from perijove.model.quantities import format_duration, format_size
from perijove.model.states import State
from perijove.reading import tasks_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perijove.reading import Record

COLOURS = {
    State.PENDING: "#8a6100",
    State.HELD: "#8a6100",
    State.STARTING: "#0b5cad",
    State.RUNNING: "#0b5cad",
    State.SUSPENDED: "#7a3e9d",
    State.SUCCEEDED: "#1b6e2e",
}
FAILED = "#b00020"


def status_text(job: Record) -> str:
    """For example ``job 12 "train" running for 2m05s on n1: 25 % epoch 3 of 12``."""
    name = f' "{job.name}"' if job.name else ""
    return printable(" ".join(filter(None, [f"job {job.label}{name} {job.state}", detail(job)])))


def detail(job: Record, *, progress: bool = True) -> str:
    """What there is to say beyond the state: time, node, progress unless a bar tells it, reason."""
    parts = []
    if job.elapsed is not None:
        parts.append(f"{'after' if job.ended else 'for'} {format_duration(job.elapsed)}")
    if node := job.document.get("node"):
        parts.append(f"on {node}")
    text = " ".join(parts)
    if progress and not job.ended and (far := progress_text(job)):
        text += f": {far}"
    said = _said(job) if progress else job.reason
    return f"{text}{': ' if text else ''}{said}" if said else text


def progress_text(job: Record) -> str:
    """For example ``25 % epoch 3 of 12``; empty when the job tells of none."""
    fraction = job.document.get("progress")
    if fraction is None:
        return ""
    return f"{fraction:.0%} {job.document.get('progress_text') or ''}".rstrip()


def badge(job: Record) -> str:
    """The state as a coloured word (HTML); the word alone tells as much as the colour."""
    colour = COLOURS.get(job.state, FAILED)
    style = f"background:{colour};color:#fff;border-radius:3px;padding:1px 6px;font-weight:600"
    return f'<span role="status" style="{style}">{html_text(job.state)}</span>'


def status_html(job: Record) -> str:
    """The same as :func:`status_text`, as one line of HTML."""
    name = f" {html_text(job.name)}" if job.name else ""
    said = html_text(detail(job))
    return f'<div class="perijove-job">{badge(job)} job {html_text(job.label)}{name} {said}</div>'


def status_bundle(job: Record) -> dict[str, str]:
    """The job as a MIME bundle."""
    return {"text/plain": status_text(job), "text/html": status_html(job)}


def table_html(jobs: Sequence[Record]) -> str:
    """A table of jobs."""
    titles = ("job", "name", "state", "time", "node", "reason")
    head = "".join(f'<th scope="col" style="text-align:left">{title}</th>' for title in titles)
    rows = "".join(f"<tr>{''.join(_cells(job))}</tr>" for job in jobs)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(job: Record) -> list[str]:
    spent = format_duration(job.elapsed) if job.elapsed is not None else ""
    plain = [job.label, job.name, None, spent, job.document.get("node") or "", _said(job)]
    cells = [badge(job) if cell is None else html_text(cell) for cell in plain]
    return [f'<td style="text-align:left">{cell}</td>' for cell in cells]


def _said(job: Record) -> str:
    return "; ".join(filter(None, [tasks_text(job), job.reason]))


def table_text(jobs: Sequence[Record]) -> str:
    """The same in columns."""
    if not jobs:
        return "no jobs"
    rows = [
        [
            job.label,
            job.name,
            job.state,
            format_duration(job.elapsed) if job.elapsed is not None else "-",
            _said(job),
        ]
        for job in jobs
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )
    return printable("\n".join(lines))


def attempt_lines(history: Sequence[dict[str, Any]]) -> list[str]:
    """The earlier attempts of a job, from its events: where each ran and how it ended."""
    lines, node, asked = [], "", ""
    for event in history:
        detail = event.get("detail") or {}
        if event["event"] == "placed":
            node, asked = str(detail.get("node") or ""), ""
        elif event["event"] == "reschedule":
            asked = f"rescheduled by {detail.get('by') or 'somebody'}"
        elif event["event"] == "requeued":
            reason = detail.get("reason") or asked or "went back to the queue"
            memory = detail.get("memory")
            more = f"; then with {format_size(memory['to'])} memory" if memory else ""
            lines.append(f"{event['attempt']}{f' on {node}' if node else ''}: {reason}{more}")
    return lines


def efficiency_text(usage: dict[str, Any]) -> str:
    """What of that asked for was used: ``62% of CPU, 1.2G of 8G memory (15%)``; may be empty."""
    parts = []
    for name, word in (("cpu", "CPU"), ("gpu", "GPU")):
        if (one := usage.get(name) or {}).get("efficiency") is not None:
            parts.append(f"{one['efficiency']:.0%} of {word}")
    if (memory := usage.get("memory") or {}).get("efficiency") is not None:
        used, asked = format_size(memory["used"]), format_size(memory["asked"])
        parts.insert(1, f"{used} of {asked} memory ({memory['efficiency']:.0%})")
    if (spent := usage.get("time") or {}).get("efficiency") is not None:
        parts.append(f"{spent['efficiency']:.0%} of its time")
    return ", ".join(parts)


def usage_text(stats: dict[str, float]) -> str:
    """For example ``0.5 cores, 64M memory (peak 80M)``."""
    if not stats.get("memory") and not stats.get("cpu"):
        return ""
    text = f"{stats.get('cpu', 0):.1f} cores, {format_size(stats.get('memory', 0))} memory"
    peak = stats.get("memory_peak") or 0
    return f"{text} (peak {format_size(peak)})" if peak else text
