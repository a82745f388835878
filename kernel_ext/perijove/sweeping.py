"""The points of a sweep: all combinations of some values of a notebook's parameters.

Pure, and used on both sides: by who submits a sweep, and by the runner in each of its jobs.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from perijove.model.errors import FieldError, InvalidSpecError

LARGEST = 100_000
"""Points of a sweep: as many as an array may have members."""
_RANGE = re.compile(
    r"([+-]?[\d.]+(?:[eE][+-]?\d+)?):([+-]?[\d.]+(?:[eE][+-]?\d+)?)(?::([+-]?[\d.]+(?:[eE][+-]?\d+)?))?"
)
SYNTAX = (
    "must be values with commas (0.1,0.01), a range START:END[:STEP] with both ends (1:5), or @FILE with a"
    " JSON list"
)


class Grid(Sequence[dict[str, Any]]):
    """Lists of values by parameter. As a sequence: the combinations, the last parameter changing fastest.

    :class:`InvalidSpecError` names a parameter without values, or whose values are no JSON.
    """

    def __init__(self, axes: Mapping[str, Any]) -> None:
        self.axes = {name: _values(name, given) for name, given in axes.items()}
        if len(self) > LARGEST:
            sizes = " x ".join(str(len(values)) for values in self.axes.values())
            raise _error("-p", sizes, f"a sweep has at most {LARGEST} points, and this one {len(self)}")

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Grid:
        """From what was typed: ``["lr=0.1,0.01", "seed=1:5"]``."""
        axes: dict[str, Any] = {}
        for text in texts:
            name, equals, rest = text.partition("=")
            if not equals or not name.isidentifier():
                raise _error("-p", text, "must be written NAME=VALUES, such as lr=0.1,0.01 or seed=1:5")
            if name in axes:
                raise _error(name, rest, "is given twice; write its values with commas")
            axes[name] = parsed(name, rest)
        return cls(axes)

    @property
    def varied(self) -> list[str]:
        """Parameters with more than one value."""
        return [name for name, values in self.axes.items() if len(values) > 1]

    def to_json(self) -> str:
        """What :class:`Grid` takes, as JSON."""
        return json.dumps(self.axes)

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"a sweep of {len(self)} points has no point {index}")
        rest, point = index % len(self), {}
        for name, values in reversed(self.axes.items()):
            rest, place = divmod(rest, len(values))
            point[name] = values[place]
        return {name: point[name] for name in self.axes}


def _values(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        given = [given]
    values = [item() if callable(item := getattr(each, "item", None)) else each for each in given]
    if not values:
        raise _error(name, "", "has no values")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _error(name, repr(given)[:80], f"its values must be JSON: {error}") from None
    return values


def parsed(name: str, text: str) -> list[Any]:
    """The values of one parameter, as they were typed; :class:`InvalidSpecError` names it."""
    if text.startswith("@"):
        return _from_file(name, text)
    if match := _RANGE.fullmatch(text.strip()):
        return _range(name, text, *match.groups())
    parts = [part.strip() for part in _split(name, text)]
    if not all(parts):
        raise _error(name, text, f"an empty value; {SYNTAX}")
    return [_value(part) for part in parts]


def _from_file(name: str, text: str) -> list[Any]:
    try:
        values = json.loads(Path(text[1:]).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise _error(name, text, f"cannot be read as JSON: {error}") from error
    if not isinstance(values, list) or not values:
        raise _error(name, text, "the file must hold a JSON list with at least one value")
    return values


def _range(name: str, text: str, first: str, last: str, step: str | None) -> list[Any]:
    try:
        # 0:1:0.1 has eleven values, which binary fractions would not give.
        start, end, by = Decimal(first), Decimal(last), Decimal(step or "1")
    except ArithmeticError:
        raise _error(name, text, SYNTAX) from None
    if by == 0 or (end - start) * by < 0:
        raise _error(name, text, "the range is empty: START:END:STEP must lead from START to END")
    count = int((end - start) / by) + 1
    if count > LARGEST:
        raise _error(name, text, f"the range has {count} values; a sweep has at most {LARGEST} points")
    whole = all(number == number.to_integral_value() for number in (start, by)) and "." not in first
    return [int(start + by * n) if whole else float(start + by * n) for n in range(count)]


def _split(name: str, text: str) -> list[str]:
    """At commas outside quotes and brackets."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    if quote or depth:
        raise _error(name, text, "a quote or bracket is left open")
    return parts


def _value(text: str) -> Any:
    """Numbers, True, None, lists and the like as Python or JSON has them, else text."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _error(field: str, value: str, message: str) -> InvalidSpecError:
    return InvalidSpecError(errors=[FieldError(field, value, message)])
