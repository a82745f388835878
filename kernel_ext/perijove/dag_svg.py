"""The picture of a run: an SVG that needs nothing beside itself, in notebooks as on the service's pages.

Colours tell the state, and so does a word in each box. Lines and names take the colour of the text around
(``currentColor``), so they suit dark and light pages. Names are their owners' text: all of it is escaped,
characters that XML has no place for are replaced, and what is too long is cut at the edge of its box.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from html import escape
from math import ceil
from typing import Literal

from perijove.dag import ORDER, Graph, Standing, sum_text
from perijove.dag_layout import Layout, Place, layout
from perijove.model.runs import StepState

WIDTH, HEIGHT = 208, 60
"""Of a box, in CSS pixels."""
AHEAD, BESIDE = 44, 16
"""Pixels between layers, and between boxes of one."""
MARGIN = 6
WIDE = 1100
"""Pixels up to which layers go from left to right; beyond, from top to bottom where that is less."""
PHONE = 2 * (WIDTH + BESIDE) + 2 * MARGIN
"""Pixels of a picture that can still be read on a phone."""
COLUMNS = 23
"""Of a name and the word for its kind, before it is cut."""

_WAITS, _GOES, _ENDED, _OTHER = "#8a6100", "#0b5cad", "#1b6e2e", "#5c6167"
COLOURS: Mapping[StepState, str] = {
    StepState.WAITING: _OTHER,
    StepState.PENDING: _WAITS,
    StepState.HELD: _WAITS,
    StepState.STARTING: _GOES,
    StepState.RUNNING: _GOES,
    StepState.SUSPENDED: "#7a3e9d",
    StepState.SUCCEEDED: _ENDED,
    StepState.CACHED: "#12696b",
    StepState.SKIPPED: _OTHER,
    StepState.FAILED: "#b00020",
    StepState.KILLED: "#b00020",
    StepState.REJECTED: "#b00020",
    StepState.LOST: "#b00020",
}
"""White text on any of them has a contrast of 5 to 1 at least; those of a job's states are its badge's."""

Direction = Literal["right", "down"]
Links = Callable[[Standing], str | None]
"""The address of a box's page."""

_STYLE = (
    ".pj-dag{max-width:none;height:auto;font-family:system-ui,sans-serif;color:inherit}"
    ".pj-dag text{fill:currentColor;font-size:12px;font-family:inherit}"
    ".pj-dag .pj-name{font-size:13px;font-weight:600}"
    ".pj-dag .pj-word{fill:#fff;font-size:11px;font-weight:600;text-anchor:middle}"
    ".pj-dag .pj-quiet{opacity:.75}"
    ".pj-dag .pj-edge{fill:none;stroke:currentColor;stroke-width:1.4}"
    ".pj-dag .pj-box{stroke:currentColor;stroke-opacity:.4;fill-opacity:.1}"
    ".pj-dag .pj-yet{stroke-dasharray:4 3}"
    ".pj-dag a{text-decoration:none;color:inherit!important}"
    ".pj-dag a:hover .pj-box,.pj-dag a:focus-visible .pj-box{stroke-opacity:1;stroke-width:2}"
    ".pj-dag a:hover .pj-name{text-decoration:underline}"
)


def svg(
    graph: Graph,
    *,
    now: float,
    title: str,
    links: Links = lambda _: None,
    direction: Direction | None = None,
    plan: bool = False,
) -> str:
    """`graph` as SVG text. `now` is what the times of running steps are counted to.

    `plan`: nothing runs yet, so there are no states to show.
    """
    placed = layout(graph.needs)
    across = direction or _direction(placed)
    width, height = _size(placed, across)
    boxes = {box.name: box for box in graph.boxes}
    edges = [
        _edge(way, across, yet=not plan and boxes[source].done < boxes[source].total)
        for (source, _), way in placed.edges.items()
    ]
    linked = [(name, links(boxes[name])) for name in sorted(placed.boxes, key=lambda n: placed.boxes[n])]
    drawn = []
    for name, link in linked:
        inner = _planned(boxes[name]) if plan else _box(boxes[name], now)
        x, y = _corner(placed.boxes[name], across)
        if link:
            inner = f'<a href="{clean(link)}" aria-label="{clean(tooltip(boxes[name], now))}">{inner}</a>'
        drawn.append(f'<g transform="translate({x:.1f},{y:.1f})">{inner}</g>')
    states = sum((Counter(box.states) for box in graph.boxes), Counter[StepState]())
    sums = "" if plan else f"{sum_text(states)}. "
    # An image has no parts for a screen reader, and links are parts.
    role = "group" if any(link for _, link in linked) else "img"
    description = f"{len(graph.boxes)} boxes. {sums}{graph.note}".rstrip(". ") + "."
    label = clean(f"{title}: {description}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pj-dag" role="{role}" aria-label="{label}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{clean(title)}</title><desc>{clean(description)}</desc><style>{_STYLE}</style>"
        f'<g aria-hidden="true" opacity=".5">{"".join(edges)}</g>{"".join(drawn)}</svg>'
    )


def fits_a_phone(graph: Graph) -> bool:
    """Whether its picture is narrower from top to bottom, and then fits a narrow screen (or nearly)."""
    placed = layout(graph.needs)
    return _size(placed, "down")[0] <= min(PHONE, _size(placed, "right")[0] - 1)


def _direction(placed: Layout) -> Direction:
    right, down = _size(placed, "right")[0], _size(placed, "down")[0]
    return "right" if right <= max(WIDE, down) else "down"


def _size(placed: Layout, across: Direction) -> tuple[int, int]:
    layers, breadth = placed.layers, placed.breadth
    width: float
    height: float
    if across == "right":
        width = layers * (WIDTH + AHEAD) - AHEAD
        height = breadth * (HEIGHT + BESIDE) - BESIDE
    else:
        width = breadth * (WIDTH + BESIDE) - BESIDE
        height = layers * (HEIGHT + AHEAD) - AHEAD
    return round(width + 2 * MARGIN), round(height + 2 * MARGIN)


def _corner(place: Place, across: Direction) -> tuple[float, float]:
    layer, at = place
    if across == "right":
        return MARGIN + layer * (WIDTH + AHEAD), MARGIN + at * (HEIGHT + BESIDE)
    return MARGIN + at * (WIDTH + BESIDE), MARGIN + layer * (HEIGHT + AHEAD)


def _edge(way: list[Place], across: Direction, *, yet: bool) -> str:
    """A curve from box to box: across the gaps between layers it bends, along a layer it goes straight."""
    corners = [_corner(place, across) for place in way]
    if across == "right":
        ends = [(x, y + HEIGHT / 2, WIDTH) for x, y in corners]
    else:
        ends = [(y, x + WIDTH / 2, HEIGHT) for x, y in corners]
    first, last = ends[0], ends[-1]
    along, side = first[0] + first[2], first[1]
    parts = [_point("M", (along, side), across=across)]
    for start, beside, length in ends[1:]:
        tip = start - (6 if (start, beside, length) == last else 0)
        middle = (along + tip) / 2
        parts.append(_point("C", (middle, side), (middle, beside), (tip, beside), across=across))
        along, side = tip, beside
        if (start, beside, length) != last:
            along = start + length
            parts.append(_point("L", (along, side), across=across))
    head = [(last[0], last[1]), (last[0] - 7, last[1] - 4), (last[0] - 7, last[1] + 4)]
    return (
        f'<path class="pj-edge{" pj-yet" if yet else ""}" d="{"".join(parts)}"/>'
        f'<path fill="currentColor" d="{_point("M", head[0], across=across)}'
        f'{_point("L", head[1], head[2], across=across)}z"/>'
    )


def _point(letter: str, *points: tuple[float, float], across: Direction) -> str:
    turned = points if across == "right" else [(side, along) for along, side in points]
    return letter + " ".join(f"{x:.1f},{y:.1f}" for x, y in turned)


def _planned(box: Standing) -> str:
    said = f'<text class="pj-quiet" x="13" y="42">{clean(cut(box.said, 30))}</text>'
    return _frame(box, f"{box.label} ({box.kind}): {box.said}", _OTHER) + said


def _frame(box: Standing, tip: str, colour: str, more: str = "") -> str:
    room = COLUMNS - ceil(0.85 * columns(box.kind))
    return (
        f"<title>{clean(tip)}</title>"
        f'<rect class="pj-box{more}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}"/>'
        f'<path d="M6,0 a6,6 0 0 0 -6,6 v{HEIGHT - 12} a6,6 0 0 0 6,6z" fill="{colour}"/>'
        f'<text class="pj-name" x="13" y="20">{clean(cut(box.label, room))}</text>'
        f'<text class="pj-quiet" x="{WIDTH - 8}" y="20" text-anchor="end">{clean(box.kind)}</text>'
    )


def _box(box: Standing, now: float) -> str:
    state, colour = box.state, COLOURS[box.state]
    word = str(state)
    pill = 12 + 6.6 * len(word)
    yet = "" if state.ended or state is StepState.RUNNING else " pj-yet"
    return (
        f"{_frame(box, tooltip(box, now), colour, yet)}"
        f'<rect x="12" y="28" width="{pill:.0f}" height="17" rx="8.5" fill="{colour}"/>'
        f'<text class="pj-word" x="{12 + pill / 2:.1f}" y="40.5">{word}</text>'
        f'<text x="{18 + pill:.0f}" y="40.5">{clean(_fitting(detail(box, now), 29 - int(pill / 6)))}</text>'
        f"{_bar(box)}"
    )


def _fitting(text: str, room: int) -> str:
    """Its first part alone when both are too long: the time is in the tooltip and in the table."""
    return cut(text if columns(text) <= room else text.partition(", ")[0], room)


def _bar(box: Standing) -> str:
    """How far it is: of many a piece for each state, of one the part that it told of."""
    room = WIDTH - 24
    if box.many and box.total > 1:
        pieces, x = [], 12.0
        for state in ORDER:
            if count := box.states.get(state):
                width = room * count / box.total
                faint = ' fill-opacity=".3"' if state in {StepState.WAITING, StepState.PENDING} else ""
                place = f'x="{x:.2f}" y="50" width="{width:.2f}" height="5"'
                pieces.append(f'<rect {place} fill="{COLOURS[state]}"{faint}/>')
                x += width
        return "".join(pieces)
    if box.progress is None or box.state.ended:
        return ""
    filled = room * min(1.0, max(0.0, box.progress))
    return (
        f'<rect x="12" y="50" width="{room}" height="5" rx="2.5" fill="currentColor" fill-opacity=".15"/>'
        f'<rect x="12" y="50" width="{filled:.1f}" height="5" rx="2.5" fill="{COLOURS[box.state]}"/>'
    )


def detail(box: Standing, now: float) -> str:
    """What stands beside the state: how many or how far, and the time."""
    parts = []
    if box.many and box.total > 1:
        parts.append(f"{box.done:,} of {box.total:,}")
    elif box.progress is not None and not box.state.ended:
        parts.append(f"{100 * min(1.0, max(0.0, box.progress)):.0f} %")
    parts.append(box.time_text(now))
    if box.state is StepState.CACHED and not box.many:
        parts = [box.source]
    return ", ".join(filter(None, parts))


def tooltip(box: Standing, now: float) -> str:
    """All there is to say of a box."""
    first = f"{box.label} ({box.kind}): " if box.kind else f"{box.label}: "
    state = sum_text(box.states) if box.many and box.total > 1 else str(box.state)
    more = [detail(box, now) if not box.many else box.time_text(now), box.progress_text, box.said]
    return first + ". ".join([state, *dict.fromkeys(filter(None, more))])


_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """`text` as XML 1.0 (section 2.2) takes it, in elements and in attributes."""
    return escape(_NO_XML.sub("\ufffd", text), quote=True)


def columns(text: str) -> int:
    """Columns of a terminal that `text` takes: two for a wide character (UAX 11), none for combining."""
    wide = sum(1 for one in text if unicodedata.east_asian_width(one) in "WF")
    return len(text) + wide - sum(1 for one in text if unicodedata.combining(one))


def cut(text: str, most: int) -> str:
    """At most `most` columns of `text`, on one line; an ellipsis stands for the rest.

    What would act on a terminal instead of showing, or turn around the text beside it, is replaced.
    """
    text = "".join(one if one.isprintable() else "\ufffd" for one in " ".join(text.split()))
    if columns(text) <= most:
        return text
    kept, taken = 0, 1
    for one in text:
        taken += columns(one)
        if taken > most:
            break
        kept += 1
    return text[:kept] + "\u2026"


__all__ = ["COLOURS", "clean", "columns", "cut", "detail", "fits_a_phone", "svg", "tooltip"]
