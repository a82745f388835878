"""A picture of a sweep, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.sweeps import Point, columns, shown


def plot(points: Sequence[Point], varied: Sequence[str], x: str | None, y: str | None, by: str | None) -> Any:
    """Axes with the recorded number `y` of each point over its parameter `x`, and lines through the means.

    :class:`InvalidSpecError` names what is neither.
    """
    from matplotlib import pyplot

    parameters, _ = columns(points)
    numbers = _numbers(points)
    x = _one_of("x", x, varied or parameters, parameters)
    y = _one_of("y", y, numbers, numbers)
    if by is not None:
        _one_of("by", by, parameters, parameters)
    _, axes = pyplot.subplots()
    wanted = [point for point in points if _is_number(point.values.get(y))]
    for name, group in _groups(wanted, by).items():
        _draw(axes, group, x, y, name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if by is not None:
        axes.legend(title=by)
    return axes


def _draw(axes: Any, points: Sequence[Point], x: str, y: str, label: str) -> None:
    places = [point.parameters[x] for point in points]
    if not all(map(_is_number, places)):
        places = [shown(place) for place in places]
    values = [point.values[y] for point in points]
    over: dict[Any, list[float]] = {}
    for place, value in zip(places, values, strict=True):
        over.setdefault(place, []).append(value)
    order = sorted(over) if all(map(_is_number, over)) else list(over)
    [line] = axes.plot(order, [fmean(over[place]) for place in order], label=label)
    axes.scatter(places, values, color=line.get_color(), s=16)


def _groups(points: Sequence[Point], by: str | None) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault("" if by is None else shown(point.parameters[by]), []).append(point)
    return found


def _numbers(points: Sequence[Point]) -> list[str]:
    _, values = columns(points)
    return [name for name in values if any(_is_number(point.values.get(name)) for point in points)]


def _one_of(option: str, given: str | None, first: Sequence[str], known: Sequence[str]) -> str:
    if given is None and first:
        return first[0]
    if given is None or given not in known:
        text = f"must be one of {', '.join(known)}" if known else "no member has recorded a number"
        raise InvalidSpecError(errors=[FieldError(option, given or "", text)])
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
