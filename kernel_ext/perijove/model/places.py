"""Where content comes from and goes to: references of a workflow, places of inputs and outputs.

All are written as short text (``jobs:prep/table``, ``glob:plots/*.png``), which is their wire format.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, StringConstraints

STEP = r"[A-Za-z0-9_.-]{1,128}"
"""The name of a step, as version 1 has it for ids of jobs; ``.`` and ``..`` are none."""
_OUTPUT = r"[A-Za-z0-9_][\w.+-]{0,199}"
_REFERENCE = re.compile(
    rf"jobs:(?P<step>{STEP})/(?P<output>{_OUTPUT})(?:\[(?P<key>[^\[\]\x00-\x1f]{{1,400}})\])?"
    r"|parameters:(?P<parameter>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<item>item|index)(?::(?P<part>[^\x00-\x1f]{1,200}))?"
)
REFERENCE = "must be jobs:STEP/OUTPUT, jobs:STEP/OUTPUT[KEY], parameters:NAME, item, item:KEY or index"
OUTPUT = "must be file:PATH, dir:PATH, glob:PATTERN, fd:NUMBER or record:NAME"
_PLACES = ("file", "dir", "glob", "fd", "record")


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that is known only while a workflow runs; ``str()`` is its wire format.

    ``jobs:STEP/OUTPUT``: an output of another step; of a mapped step the list of all instances' outputs.
    ``[KEY]`` picks a file of a folder or glob, or a value of an object or list; ``[*]`` is the list of all.
    ``parameters:NAME``: a parameter of the workflow. ``item``, ``item:KEY``, ``index``: in a mapped step,
    the element of its list, a field of it, its number from 0.
    """

    kind: Literal["output", "parameter", "item", "index"]
    step: str = ""
    output: str = ""
    key: str | None = None
    parameter: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The inverse of ``str()``; ``ValueError`` says what would be accepted."""
        return _parsed(text)

    @classmethod
    def _parse(cls, text: str) -> Reference:
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise ValueError(REFERENCE)
        if match["step"]:
            return cls("output", step=match["step"], output=match["output"], key=match["key"])
        if match["parameter"]:
            return cls("parameter", parameter=match["parameter"])
        if match["item"] == "index":
            if match["part"]:
                raise ValueError(REFERENCE)
            return cls("index")
        return cls("item", key=match["part"])

    def __str__(self) -> str:
        if self.kind == "output":
            return f"jobs:{self.step}/{self.output}" + (f"[{self.key}]" if self.key is not None else "")
        if self.kind == "parameter":
            return f"parameters:{self.parameter}"
        return f"item:{self.key}" if self.key is not None else self.kind


@lru_cache(4096)
def _parsed(text: str) -> Reference:
    # The steps of a large workflow name the same few things over and over.
    return Reference._parse(text)


def _reference(text: str) -> str:
    return str(Reference.parse(text))


def _place(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind not in _PLACES or not rest:
        raise ValueError(OUTPUT)
    if kind == "fd" and not (rest.isascii() and rest.isdigit() and 1 <= int(rest) <= 9):
        raise ValueError("fd: takes a file descriptor from 1 (standard output) to 9")
    if kind == "record" and not re.fullmatch(_OUTPUT, rest):
        raise ValueError("record: takes the name of a recorded value")
    if kind in {"file", "dir", "glob"} and ".." in rest.split("/"):
        raise ValueError("must not contain ..")
    return text


_Line = StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")

ReferenceText = Annotated[str, _Line, AfterValidator(_reference)]
"""Text of a :class:`Reference`."""

OutputPlace = Annotated[str, _Line, AfterValidator(_place)]
"""Where a job leaves an output.

``file:PATH``, ``dir:PATH``, ``glob:PATTERN``: relative ones in ``$PERIJOVE_JOB_DIR/output``; absolute ones
(in containers) in a folder that is made writable for the job. A glob's files are kept as a folder, and
at least one must match. ``fd:1``, ``fd:2``: what it prints; ``fd:3`` to ``fd:9``: what it writes to that file
descriptor, open from its start. ``record:NAME``: a value that it recorded.
"""


def output_places(value: Any) -> Any:
    """A list of names stands for files of those names."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return {name: f"file:{name}" for name in value}
    return value


MARKS = ("from", "pickle", "value")
"""An object with one of these as its only key is no plain JSON; see :func:`references`."""


def mark(value: Any) -> str | None:
    """Which mark `value` is, an object such as ``{"from": "jobs:prep/table"}``; None for plain JSON."""
    if isinstance(value, Mapping) and len(value) == 1:
        [key] = value
        return key if key in MARKS else None
    return None


def references(value: Any) -> Iterator[Reference]:
    """All references in an argument.

    An argument is JSON in which ``{"from": REFERENCE}`` stands for what is known later, ``{"pickle":
    DIGEST}`` for a cloudpickled object in the store, and ``{"value": JSON}`` for just that JSON (so that
    data that looks like a mark can be given too). Raises ``ValueError`` for a mark that is malformed.
    """
    match mark(value):
        case "from":
            if not isinstance(value["from"], str):
                raise ValueError(REFERENCE)
            yield Reference.parse(value["from"])
        case "pickle":
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(value["pickle"])):
                raise ValueError("pickle: takes the digest of an uploaded file")
        case "value":
            return
        case _:
            parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
            for part in parts:
                yield from references(part)


# Up to the next beginning and no further: a script of a mebibyte may hold nothing but beginnings. No
# possessive quantifier after a group: Python before 3.11.4 matches too little there.
_TEMPLATE = re.compile(
    r"(?P<escape>\$?)\$\{\{(?:(?P<reference>[^}$]*+(?:(?:\}(?!\})|\$(?!\{\{))[^}$]*+)*)\}\})?"
)


def templates(text: str) -> Iterator[Reference]:
    """The references in ``${{ REFERENCE }}`` of a text. Raises ``ValueError`` for one that is malformed.

    ``$${{ ... }}`` is none: it stands for the characters ``${{ ... }}``.
    """
    for match in _TEMPLATE.finditer(text):
        if not match["escape"]:
            yield _template(match)


def filled(text: str, value_of: Callable[[Reference], Any]) -> str:
    """`text` with each ``${{ REFERENCE }}`` replaced by ``value_of(reference)``, as text."""
    return _TEMPLATE.sub(
        lambda match: match[0][1:] if match["escape"] else str(value_of(_template(match))), text
    )


def literal(text: str) -> str:
    """The text that :func:`filled` makes `text` of, whatever that holds."""
    return text.replace("${{", "$${{")


def _template(match: re.Match[str]) -> Reference:
    if match["reference"] is None:
        raise ValueError("${{ has no }} after it ; $${{ stands for the characters themselves")
    try:
        return Reference.parse(match["reference"].strip())
    except ValueError as error:
        shown = match[0] if len(match[0]) <= 80 else f"{match[0][:77]}..."
        raise ValueError(f"{shown} {error}; $${{{{ }}}} stands for the characters themselves") from None


_CONDITION = re.compile(
    r"(?P<negated>not +)?(?P<reference>[^ ]+)(?: +(?P<operator>==|!=|<=|>=|<|>) +(?P<value>.+))?"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """When a step runs: ``jobs:check/ok``, ``not jobs:check/ok``, ``jobs:fit/loss < 0.1``.

    Without an operator the value's truth counts, as Python has it. `value` is JSON.
    """

    reference: Reference
    operator: Literal["", "==", "!=", "<", "<=", ">", ">="] = ""
    value: Any = None
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> Condition:
        """From its text; ``ValueError`` says what would be accepted."""
        match = _CONDITION.fullmatch(text.strip(" "))
        if match is None:
            raise ValueError(CONDITION)
        value = None
        if match["operator"]:
            try:
                value = json.loads(match["value"])
            except ValueError:
                raise ValueError(f"{CONDITION}; {match['value']} is not JSON") from None
        operator: Any = match["operator"] or ""
        return cls(Reference.parse(match["reference"]), operator, value, bool(match["negated"]))

    def __str__(self) -> str:
        compared = f" {self.operator} {json.dumps(self.value)}" if self.operator else ""
        return f"{'not ' if self.negated else ''}{self.reference}{compared}"

    def holds(self, value: Any) -> bool:
        """Whether it holds, `value` being what the reference names.

        ``TypeError`` when the two cannot be compared.
        """
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "": lambda one, _: bool(one),
            "==": operator.eq,
            "!=": operator.ne,
            "<": operator.lt,
            "<=": operator.le,
            ">": operator.gt,
            ">=": operator.ge,
        }
        return bool(compare[self.operator](value, self.value)) != self.negated


CONDITION = "must be REFERENCE, not REFERENCE, or REFERENCE and one of == != < <= > >= and a JSON value"


def _condition(text: str) -> str:
    return str(Condition.parse(text))


ConditionText = Annotated[str, _Line, AfterValidator(_condition)]
"""Text of a :class:`Condition`."""
