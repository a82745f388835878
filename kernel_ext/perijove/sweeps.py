"""Sweeps: a notebook run for all combinations of some parameters, as an array, and what came of each."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perijove.inert import html_text, printable
from perijove.model.errors import FieldError, InvalidSpecError, UserError
from perijove.model.states import State
from perijove.reading import Record, tasks_text
from perijove.sweeping import Grid

if TYPE_CHECKING:
    import pandas

    from perijove.client import AsyncClient
    from perijove.handle import AsyncJob
    from perijove.sync import Client, Job

OPTION = "--sweep"
"""Of ``python -m perijove.runner notebook``; takes the grid."""
_LARGEST = 100_000
"""Characters of the grid as JSON; Linux takes 128 KiB for an argument of a program (execve(2))."""


@dataclass(frozen=True, slots=True)
class Point:
    """One combination, and what came of it so far."""

    job: str
    """The label of its job, such as ``12_3``."""
    state: str
    parameters: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    """What it recorded."""
    error: str = ""
    """Why it did not succeed."""
    seconds: float | None = None
    """How long it has run."""


async def submit_sweep(
    client: AsyncClient, notebook: Path, grid: Grid, fields: Mapping[str, Any], limit: int | None = None
) -> AsyncJob:
    """An array with a member for each point of `grid`, at most `limit` of them at once.

    `fields`: of the spec. :class:`~perijove.InvalidSpecError` names a parameter that the notebook does not
    have.
    """
    from dataclasses import replace

    from perijove.payload import notebook_payload

    payload = notebook_payload(notebook, {})
    if known := known_parameters(payload.files["notebook.ipynb"]):
        _check(grid, known)
    text = grid.to_json()
    if len(text) > _LARGEST:
        raise InvalidSpecError(
            errors=[
                FieldError("-p", "", f"the values are {len(text)} characters as JSON, more than {_LARGEST}")
            ]
        )
    arguments = (*payload.arguments, OPTION, text)
    array = {"start": 1, "end": len(grid), "limit": limit}
    return await replace(payload, arguments=arguments).submit(client, {**fields, "array": array})


def known_parameters(notebook: bytes) -> list[str]:
    """Names that the notebook's cell tagged ``parameters`` sets; none when it is in another language."""
    try:
        document = json.loads(notebook)
        metadata = document.get("metadata", {})
        language = metadata.get("kernelspec", {}).get("language") or metadata.get("language_info", {}).get(
            "name"
        )
        cells = [
            cell
            for cell in document["cells"]
            if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", [])
        ]
        source = "".join(cells[0]["source"]) if cells and language in {None, "python"} else ""
        tree = ast.parse(source)
    except (ValueError, KeyError, AttributeError, TypeError):
        return []
    return list(
        dict.fromkeys(
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
    )


def _check(grid: Grid, known: Sequence[str]) -> None:
    unknown = [name for name in grid.axes if name not in known]
    if unknown:
        text = f"the notebook has no such parameter; it has: {', '.join(known)}"
        raise InvalidSpecError(errors=[FieldError(name, "", text) for name in unknown])


def grid_of(job: Record) -> Grid:
    """The grid of a sweep that was submitted before; :class:`UserError` when `job` is none."""
    command = list(job.spec.get("command") or ())
    if OPTION not in command[:-1] or not job.is_array:
        raise UserError(f"job {job.label} is no sweep")
    return Grid(json.loads(command[command.index(OPTION) + 1]))


def points_of(grid: Grid, members: Iterable[Record]) -> list[Point]:
    """What came of each combination, in the order of the members."""
    return [
        Point(
            job=job.label,
            state=str(job.state),
            parameters=parameters,
            values=dict(job.document.get("values") or {}),
            error=(job.reason or str(job.state)) if job.ended and job.state is not State.SUCCEEDED else "",
            seconds=job.elapsed,
        )
        for parameters, job in zip(grid, members, strict=True)
    ]


def columns(points: Sequence[Point]) -> tuple[list[str], list[str]]:
    """Names of the parameters and of the recorded values, each in the order of their first appearance."""
    parameters = dict.fromkeys(name for point in points for name in point.parameters)
    values = dict.fromkeys(name for point in points for name in point.values)
    return list(parameters), list(values)


def table(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows, for people: parameters, recorded values, state, job."""
    parameters, values = columns(points)
    rows = [
        [
            *(shown(point.parameters.get(name)) for name in parameters),
            *(shown(point.values[name]) if name in point.values else "" for name in values),
            point.state,
            point.job,
        ]
        for point in points
    ]
    return [*parameters, *values, "state", "job"], rows


def shown(value: Any) -> str:
    """A value as a cell of a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def failures(points: Iterable[Point]) -> dict[str, list[str]]:
    """Error -> the jobs that ended with it, the most frequent first."""
    found: dict[str, list[str]] = {}
    for point in points:
        if point.error:
            found.setdefault(point.error, []).append(point.job)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def failure_lines(points: Iterable[Point]) -> list[str]:
    """A line for each error, with some of the jobs that it ended."""
    lines = []
    for error, jobs in failures(points).items():
        named = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
        lines.append(f"{len(jobs)} x {error} ({named})")
    return lines


def flat(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A dict for each point: parameters, recorded values, ``state``, ``job``, ``error``, ``seconds``."""
    parameters, values = columns(points)
    return [
        {
            **{name: point.parameters.get(name) for name in parameters},
            **{name: point.values.get(name) for name in values},
            "state": point.state,
            "job": point.job,
            "error": point.error,
            "seconds": point.seconds,
        }
        for point in points
    ]


class Sweep:
    """A sweep: its array, and what its members recorded. A notebook shows it as a table."""

    def __init__(self, job: Job, grid: Grid | None = None) -> None:
        self.job = job
        """The array."""
        self.grid = grid if grid is not None else grid_of(job)
        self._points: list[Point] | None = None

    @property
    def results(self) -> list[Point]:
        """What came of each combination so far."""
        if self._points is None:
            points = points_of(self.grid, self.job.refresh().members())
            if not self.job.ended:
                return points
            self._points = points
        return self._points

    @property
    def failures(self) -> dict[str, list[str]]:
        """Error -> the jobs that ended with it."""
        return failures(self.results)

    def wait(self, timeout: float | None = None) -> Sweep:
        """Return when all have ended, whichever way; ``TimeoutError`` after `timeout` seconds."""
        self.job.wait(timeout)
        return self

    def table(self) -> pandas.DataFrame:
        """The results as a pandas DataFrame: parameters, recorded values, ``state``, ``job``, ``error``."""
        import pandas

        return pandas.DataFrame(flat(self.results))

    def plot(self, x: str | None = None, y: str | None = None, *, by: str | None = None) -> Any:
        """A recorded number against a parameter, as matplotlib Axes.

        Without names: the first number recorded against the first parameter that was varied. `by`: another
        parameter, a line for each of its values; a line goes through the means.
        """
        from perijove.sweep_plot import plot

        return plot(self.results, self.grid.varied, x, y, by)

    def _summary(self, points: Sequence[Point]) -> str:
        return f"sweep {self.job.label} {self.job.state}: {tasks_text(self.job)}"

    def __repr__(self) -> str:
        points = self.results
        titles, rows = table(points)
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in [titles, *rows]
        ]
        told = [self._summary(points), *(line.rstrip() for line in lines), *failure_lines(points)]
        return printable("\n".join(told))

    def _repr_html_(self) -> str:
        points = self.results
        titles, rows = table(points)
        head = "".join(f'<th scope="col">{html_text(title)}</th>' for title in titles)
        body = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
        failed = "".join(f"<li>{html_text(line)}</li>" for line in failure_lines(points))
        return (
            f"<p>{html_text(self._summary(points))}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + (f"<ul>{failed}</ul>" if failed else "")
        )


def start(
    client: Client,
    notebook: str | Path,
    axes: Mapping[str, Any],
    limit: int | None,
    options: Mapping[str, Any],
) -> Sweep:
    """Submit a sweep; in a notebook its progress is shown below the cell."""
    from perijove.options import OPTIONS, spec_fields
    from perijove.sync import LOOP, Job

    known = spec_fields(**{name: value for name, value in options.items() if name in OPTIONS})
    fields = {**known, **{name: value for name, value in options.items() if name not in OPTIONS}}
    grid = Grid(axes)
    path = Path(notebook).expanduser()
    job = Job(LOOP.run(submit_sweep(client.async_client, path, grid, fields, limit)))
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython

        if getattr(get_ipython(), "kernel", None) is not None:
            from perijove.submission import attend_in_background

            attend_in_background(job)
    return Sweep(job, grid)
