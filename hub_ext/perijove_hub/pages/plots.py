"""Plots as inline SVG: nothing is loaded, nothing runs, and colours follow the page's scheme."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from markupsafe import Markup

WIDTH = 720
BAR = 16
GAP = 10
NAME = 170
"""Pixels for names before horizontal bars."""
MOST = 30
"""Characters of a name that are shown."""


def short(name: str) -> str:
    """A name that fits beside its bar."""
    return name if len(name) <= MOST else f"{name[: MOST - 1]}\u2026"


def figure(value: float) -> str:
    """A number with as many digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ceiling(value: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    if value < 1e-9:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(float(step * power) for step in (1, 2, 5, 10) if step * power >= value * 0.999999)


def columns(points: Sequence[tuple[str, float]], unit: str) -> Markup:
    """A column for each point, in time's order, against a scale."""
    height, left, bottom = 180, 56, 24
    top = ceiling(max((value for _, value in points), default=0.0))
    step = (WIDTH - left) / max(1, len(points))
    width = max(1.0, min(24.0, step - 2))
    parts = []
    for part in (0.0, 0.5, 1.0):
        y = height - bottom - part * (height - bottom - 12)
        parts.append(
            Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" stroke="var(--line)"/>').format(
                left, WIDTH, y, y
            )
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                left - 6, y + 4, f"{top * part:g}"
            )
        )
    for i, (name, value) in enumerate(points):
        tall = value / top * (height - bottom - 12)
        x = left + i * step + (step - width) / 2
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2" fill="var(--blue)">'
                "<title>{}: {} {}</title></rect>"
            ).format(x, height - bottom - tall, width, tall, name, figure(value), unit)
        )
    for i in sorted({0, len(points) // 2, len(points) - 1}) if points else ():
        anchor = "start" if i == 0 else "end" if i == len(points) - 1 else "middle"
        x = left + (i + 0.5) * step
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                x, height - 6, anchor, points[i][0]
            )
        )
    total = sum(value for _, value in points)
    return _svg(height, parts, f"{unit} for each of {len(points)} days, {figure(total)} in all")


def bars(rows: Sequence[tuple[str, float]], unit: str) -> Markup:
    """A bar for each name, the values beside them."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    room = WIDTH - NAME - 90
    parts = []
    for i, (name, value) in enumerate(rows):
        y = i * (BAR + GAP) + 4
        width = max(1.0, value / most * room)
        parts.append(_name(name, y))
        parts.append(
            Markup(
                '<rect x="{}" y="{}" width="{:.1f}" height="{}" rx="3" fill="var(--blue)"/>'
                '<text x="{:.1f}" y="{}">{}</text>'
            ).format(NAME, y, width, BAR, NAME + width + 6, y + 13, figure(value))
        )
    return _svg(len(rows) * (BAR + GAP) + 4, parts, f"{unit} by name; the table below has the figures")


def targets(rows: Sequence[tuple[str, float, float]]) -> Markup:
    """(name, due, had) each, parts of 1: a bar for what was had, with a mark at what is due."""
    most = max((max(due, had) for _, due, had in rows), default=0.0) or 1.0
    room = WIDTH - NAME - 130
    parts = []
    for i, (name, due, had) in enumerate(rows):
        y = i * (BAR + GAP) + 4
        over = "var(--amber)" if had > due * 1.05 else "var(--blue)"
        mark = NAME + due / most * room
        parts.append(_name(name, y))
        parts.append(
            Markup(
                '<rect x="{}" y="{}" width="{}" height="{}" rx="3" fill="var(--soft)"/>'
                '<rect x="{}" y="{}" width="{:.1f}" height="{}" rx="3" fill="{}"/>'
                '<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}" stroke="currentColor" stroke-width="2"/>'
                '<text x="{}" y="{}">{}</text>'
            ).format(
                NAME, y, room, BAR,
                NAME, y + 3, max(1.0, had / most * room), BAR - 6, over,
                mark, mark, y - 2, y + BAR + 2,
                NAME + room + 8, y + 13, f"{100 * had:.1f} of {100 * due:.1f} %",
            )
        )  # fmt: skip
    label = "what each has had, a bar, against what is due to them, a line; the table below has the figures"
    return _svg(len(rows) * (BAR + GAP) + 6, parts, label)


def fractions(rows: Sequence[tuple[str, float | None, str]]) -> Markup:
    """(name, fraction, words) each: how much of the whole bar is filled; None: there is no whole."""
    room = WIDTH - NAME - 250
    parts = []
    for i, (name, fraction, words) in enumerate(rows):
        y = i * (BAR + GAP) + 4
        filled = min(1.0, max(0.0, fraction or 0.0)) * room
        colour = "var(--red)" if (fraction or 0) > 1.02 else "var(--green)"
        parts.append(_name(name, y))
        parts.append(
            Markup(
                '<rect x="{}" y="{}" width="{}" height="{}" rx="3" fill="var(--soft)"/>'
                '<rect x="{}" y="{}" width="{:.1f}" height="{}" rx="3" fill="{}"/>'
                '<text x="{}" y="{}">{}</text>'
            ).format(NAME, y, room, BAR, NAME, y, filled, BAR, colour, NAME + room + 8, y + 13, words)
        )
    label = "; ".join(f"{name}: {words}" for name, _, words in rows)
    return _svg(len(rows) * (BAR + GAP) + 4, parts, label)


def _name(name: str, y: float) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="end"><title>{}</title>{}</text>').format(
        NAME - 10, y + 13, name, short(name)
    )


def _svg(height: float, parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, WIDTH, label, Markup("").join(parts)
    )
