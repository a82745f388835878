"""What the page of a run shows, from its record and steps: the picture, tables of values, why steps ran."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from perijove.dag import Standing, graph_of, needs_of, standings
from perijove.dag_svg import fits_a_phone, svg
from perijove.model import Cause, Output, Run, StepRun

VALUE = 200
"""Characters of a value in a table."""
ROWS = 200
"""Of each table."""
NAMED = 5
"""Steps of the same reason that are listed by name."""
IMAGES = 12
IMAGE_BYTES = 1 << 20
"""Of one image that is shown in the page itself; larger ones are there to be downloaded."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def pictures(run: Run, steps: Iterable[StepRun], root: str, now: float) -> list[tuple[str, Markup]]:
    """(class, SVG): the graph as it fits, and where that helps another for narrow screens."""
    if run.workflow is None:
        return []
    graph = graph_of(standings(run.workflow, steps), needs_of(run.workflow))
    title = f"run {run.id}, {run.name}"

    def link(box: Standing) -> str | None:
        if box.job is not None and not box.many:
            return f"{root}job/{box.job}"
        step = quote(box.name, safe="")
        return f"{root}workflows/{run.id}?step={step}#steps" if box.many and box.total > 1 else None

    drawn = svg(graph, now=now, title=title, links=link)
    if not fits_a_phone(graph):
        return [("", _markup(drawn))]
    down = svg(graph, now=now, title=title, links=link, direction="down")
    return [("broad", _markup(drawn)), ("narrow", _markup(down))]


def _markup(drawn: str) -> Markup:
    return Markup(drawn)  # noqa: S704 - the picture escapes all texts in it


@dataclass(frozen=True, slots=True)
class Values:
    """What the instances of a step recorded, a row for each."""

    step: str
    names: list[str]
    rows: list[tuple[str, list[str]]]
    more: int = 0


def recorded(steps: Iterable[StepRun]) -> list[Values]:
    """Tables of values by step; of a mapped step one row for each instance."""
    by_step: dict[str, list[StepRun]] = {}
    for step in steps:
        if any(output.valued for output in step.outputs.values()):
            by_step.setdefault(step.step, []).append(step)
    return [_values(name, runs) for name, runs in by_step.items()]


def _values(step: str, runs: Sequence[StepRun]) -> Values:
    names = list(
        dict.fromkeys(name for run in runs for name, output in run.outputs.items() if output.valued)
    )[:20]
    rows = [(run.label, [_written(run.outputs.get(name)) for name in names]) for run in runs[:ROWS]]
    return Values(step, names, rows, max(0, len(runs) - ROWS))


def _written(output: Output | None) -> str:
    return shortly(output.value) if output is not None and output.valued else ""


def shortly(value: Any) -> str:
    """A value as JSON, cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE else f"{text[: VALUE - 1]}\u2026"


@dataclass(frozen=True, slots=True)
class Made:
    """A file or folder that a step made."""

    label: str
    name: str
    output: Output

    @property
    def folder(self) -> bool:
        """It is one."""
        return (self.output.digest or "").startswith("sha256-tree:")


def made_by(steps: Iterable[StepRun]) -> list[Made]:
    """Files and folders, in the order of steps; what is a value too is in the tables of values."""
    return [
        Made(step.label, name, output)
        for step in steps
        for name, output in step.outputs.items()
        if output.digest is not None and not output.valued
    ]


def image_type(data: bytes) -> str | None:
    """What sort of image it is, by its first bytes; None when browsers would not show it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def may_be_image(made: Made) -> bool:
    """Whether it is worth a look: by its name and size."""
    names = (made.output.name.lower(), made.name.lower())
    looks = any(name.endswith((".png", ".jpg", ".jpeg", ".gif", ".webp")) for name in names)
    return looks and not made.folder and (made.output.size or 0) <= IMAGE_BYTES


def data_uri(kind: str, data: bytes) -> str:
    """RFC 2397."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True, slots=True)
class Why:
    """Why some steps ran, or whose results were taken."""

    steps: list[str]
    causes: list[Cause]
    cached_from: int | None = None

    @property
    def labels(self) -> str:
        """Which steps; many are counted."""
        more = len(self.steps) - NAMED
        return ", ".join(self.steps[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def whys(steps: Iterable[StepRun]) -> list[Why]:
    """Steps whose running, or not running, is explained; those for which it is the same together."""
    found: dict[str, Why] = {}
    for step in steps:
        if step.causes or step.cached_from:
            same = json.dumps([step.cached_from, *(cause.model_dump(mode="json") for cause in step.causes)])
            found.setdefault(same, Why([], step.causes, step.cached_from)).steps.append(step.label)
    return list(found.values())
