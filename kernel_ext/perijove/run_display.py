"""A run of a workflow as HTML and as text: what notebooks show and keep.

Names and messages come from documents and from jobs: all of it is escaped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perijove.dag import Standing, graph_of, needs_of, planned, standings, sum_text
from perijove.dag_svg import COLOURS, clean, cut, svg
from perijove.dag_text import MOST_ROWS, Row, headline, rows_of, run_text, state_text
from perijove.inert import html_text
from perijove.model.quantities import format_duration
from perijove.model.runs import Run as RunRecord
from perijove.model.runs import StepRun, StepState
from perijove.model.states import State
from perijove.model.workflow import Workflow

if TYPE_CHECKING:
    from perijove.sync_runs import Run

_SCROLLS = "overflow-x:auto;max-width:100%"


def pages_of(url: str, env: Mapping[str, str] | None = None) -> str:
    """Where a browser that shows this notebook finds the pages of the service at `url`; ends in a slash.

    In a server that a hub started the service lies beside the hub, at whatever address the browser has for
    that: the hub's public one where it has any, else only the path is taken.
    """
    env = os.environ if env is None else env
    path = urlsplit(url).path
    beside = env.get("JUPYTERHUB_USER") and "/services/" in path
    return f"{env.get('JUPYTERHUB_HOST', '')}{path}/" if beside else f"{url}/"


def run_bundle(
    run: RunRecord, steps: Iterable[StepRun], *, pages: str = "", now: float | None = None
) -> dict[str, str]:
    """The run as a MIME bundle. `pages`: where the service's pages are, for links; see :func:`pages_of`."""
    now = time.time() if now is None else now
    steps = list(steps)
    return {"text/plain": run_text(run, steps, now), "text/html": run_html(run, steps, pages=pages, now=now)}


def run_html(run: RunRecord, steps: Iterable[StepRun], *, pages: str, now: float) -> str:
    """The run as HTML that stands on its own."""
    steps = list(steps)
    parts = [head_html(run, pages, now), after_html(run, pages)]
    if run.workflow is not None:
        parts.insert(1, picture_html(run.workflow, run.id, steps, pages=pages, now=now))
        table = table_html(run.workflow, steps, pages=pages, now=now)
        shown = "" if run.state is State.SUCCEEDED else " open"
        parts.append(f"<details{shown}><summary>Steps</summary>{table}</details>")
    return f'<div class="perijove-run">{"".join(parts)}</div>'


def head_html(run: RunRecord, pages: str, now: float) -> str:
    """Its state, name, time and sums, in a line."""
    spent = format_duration((run.ended or now) - run.submitted)
    word = "after" if run.ended is not None else "for"
    number = f"run {run.id}"
    if pages:
        number = f'<a href="{clean(pages)}workflows/{run.id}" target="_blank" rel="noopener">{number}</a>'
    why = f": {clean(cut(run.reason.message or str(run.reason.code), 400))}" if run.reason else ""
    sums = f" \u2013 {sum_text(run.steps)}" if run.steps else ""
    state = badge(StepState(run.state))
    return f"<div>{state} {number} <b>{clean(cut(run.name, 80))}</b> {word} {spent}{sums}{why}</div>"


def after_html(run: RunRecord, pages: str) -> str:
    """How to go on with a run that has failed; else nothing."""
    if run.state not in {State.FAILED, State.KILLED}:
        return ""
    ways = f"<code>%workflow {run.id} --resume</code>"
    if pages:
        page = f'<a href="{clean(pages)}workflows/{run.id}" target="_blank" rel="noopener">its page</a>'
        ways += f", or the button on {page}, runs"
    else:
        ways += " runs"
    return f"<div>{ways} what has not succeeded once more.</div>"


def badge(state: StepState) -> str:
    """The state as a coloured word; the word alone tells as much as the colour."""
    style = f"background:{COLOURS[state]};color:#fff;border-radius:3px;padding:1px 6px;font-weight:600"
    return f'<span role="status" style="{style}">{html_text(state)}</span>'


def picture_html(
    workflow: Workflow, number: int | None, steps: Iterable[StepRun], *, pages: str = "", now: float
) -> str:
    """The graph; its boxes lead to the pages of their jobs, where `pages` is known."""
    graph = graph_of(standings(workflow, steps), needs_of(workflow))
    title = f"run {number}, {workflow.name}" if number is not None else workflow.name

    def link(box: Standing) -> str | None:
        return f"{pages}job/{box.job}" if pages and box.job is not None else None

    note = f"<small>{html_text(graph.note)}</small>" if graph.note else ""
    picture = svg(graph, now=now, title=title, links=link)
    return f'<div style="{_SCROLLS};margin:.4em 0">{picture}</div>{note}'


def table_html(workflow: Workflow, steps: Iterable[StepRun], *, pages: str = "", now: float) -> str:
    """The steps: state, progress, time, why."""
    rows = rows_of(workflow, steps)
    titles = ("step", "state", "progress", "time", "why")
    head = "".join(f'<th scope="col" style="text-align:left">{title}</th>' for title in titles)
    body = "".join(f"<tr>{_cells(row, pages, now)}</tr>" for row in rows[:MOST_ROWS])
    more = f"<p>and {len(rows) - MOST_ROWS:,} more</p>" if len(rows) > MOST_ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="{_SCROLLS}">{table}</div>{more}'


def _cells(row: Row, pages: str, now: float) -> str:
    box = row.standing
    _, far, spent, said = row.cells(now)
    name = clean(row.label)
    if pages and box.job is not None and (not box.many or box.total == 1):
        name = f'<a href="{clean(pages)}job/{box.job}" target="_blank" rel="noopener">{name}</a>'
    indent = "padding-left:2em;" if row.inner else ""
    more = state_text(box).removeprefix(box.state)
    cells = [f"{badge(box.state)}{more}", far, spent, clean(cut(said, 300))]
    left = "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells)
    return f'<td style="{indent}text-align:left">{name}</td>{left}'


def workflow_bundle(workflow: Workflow) -> dict[str, str]:
    """A workflow that has not run yet: its graph."""
    words = f'workflow "{cut(workflow.name, 80)}": {len(workflow.steps)} steps'
    lines = [
        f"  {name} ({step.what})" + (f" after {', '.join(step.needs())}" if step.needs() else "")
        for name, step in list(workflow.steps.items())[:MOST_ROWS]
    ]
    if len(workflow.steps) > MOST_ROWS:
        lines.append(f"  ... and {len(workflow.steps) - MOST_ROWS:,} more")
    graph = graph_of(planned(workflow), needs_of(workflow))
    picture = svg(graph, now=0.0, title=workflow.name, plan=True)
    head = f"<div>workflow <b>{clean(cut(workflow.name, 80))}</b>, {len(workflow.steps):,} steps</div>"
    return {
        "text/plain": "\n".join([words, *lines]),
        "text/html": f'<div class="perijove-run">{head}<div style="{_SCROLLS}">{picture}</div></div>',
        "image/svg+xml": picture,
    }


class RunTable(list["Run"]):
    """Runs of workflows; a list like any other, but for how it looks."""

    def __repr__(self) -> str:
        return "\n".join(headline(run.record, time.time()) for run in self) or "no runs of workflows"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        rows = [head_html(run.record, pages_of(run.async_run.client.url), time.time()) for run in self]
        return "".join(rows) or "<p>no runs of workflows</p>"


__all__ = [
    "RunTable",
    "after_html",
    "head_html",
    "headline",
    "pages_of",
    "picture_html",
    "run_bundle",
    "run_html",
    "table_html",
    "workflow_bundle",
]
