"""Parameters of a workflow: what may be given to a run of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from perijove.model.errors import FieldError, InvalidSpecError

ParameterType = Literal["text", "integer", "number", "boolean", "list", "object", "any"]

_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda v: isinstance(v, str), "text"),
    "integer": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "number": (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number"),
    "boolean": (lambda v: isinstance(v, bool), "true or false"),
    "list": (lambda v: isinstance(v, list), "a list"),
    "object": (lambda v: isinstance(v, Mapping), "an object of names and values"),
    "any": (lambda _: True, "JSON"),
}
"""Type -> whether a value is of it, and what it is called."""
_OF_JSON: dict[type, ParameterType] = {
    str: "text",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "list",
    dict: "object",
}
_repr = Repr()
_repr.maxstring = _repr.maxother = 80


class Parameter(BaseModel):
    """A parameter of a workflow. Written as its default value, or as an object with these fields.

    A default that is itself an object is written ``{"default": {...}}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: ParameterType = "any"
    default: Any = None
    """What it is when it is not given; without one it must be given."""
    required: bool = False
    """It has no default."""
    choices: list[Any] | None = None
    """The only values it may have."""
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _required(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not {"default", "required"} & value.keys():
            return {**value, "required": True}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.required and self.default is not None:
            raise _rule("required", "it has a default, so it need not be given; leave out one of the two")
        if not is_json([self.default, self.choices]):
            raise _rule("default", NO_JSON)
        if self.default is not None and (wrong := self.trouble(self.default)):
            raise _rule("default", wrong)
        return self

    def trouble(self, value: Any) -> str:
        """What would be accepted instead of `value`; empty when that fits."""
        fits, words = _TYPES[self.type]
        if not fits(value):
            return f"must be {words}"
        if self.choices is not None and not any(_same(value, choice) for choice in self.choices):
            return f"must be one of {', '.join(json.dumps(choice) for choice in self.choices)}"
        return ""


DEEPEST = 100
"""Lists and objects in each other. JSON writers end at a depth of their own."""
NO_JSON = f"must be JSON, at most {DEEPEST} deep: text, finite numbers, true, false, null, lists and objects"


def _rule(field: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{message}", {"field": field, "message": message})


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def is_json(value: Any) -> bool:
    """Whether `value` can be written as JSON and read back."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return text.count("[") + text.count("{") <= DEEPEST or _depth(value) <= DEEPEST


def _depth(value: Any) -> int:
    """How many lists and objects are in each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | tuple | Mapping)]:
        depth += 1
        level = [part for one in level for part in (one.values() if isinstance(one, Mapping) else one)]
    return depth


def parameter(given: Any) -> Any:
    """`given` as the fields of a parameter: a default alone stands for a parameter of its type."""
    if isinstance(given, Parameter | Mapping):
        return given
    return {"type": _OF_JSON.get(type(given), "any"), "default": given}


def parameter_values(parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each parameter in a run that was `given` some of them.

    :class:`InvalidSpecError` names each that is missing, unknown or of the wrong type.
    """
    errors = []
    for name in given.keys() - parameters.keys():
        near = get_close_matches(name, parameters, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(parameters) or 'none'}"
        errors.append(FieldError(f"parameters.{name}", "", f"no such parameter; {hint}"))
    values = {}
    for name, known_one in parameters.items():
        if name not in given:
            if known_one.required:
                errors.append(FieldError(f"parameters.{name}", "", f"must be given: {_wanted(known_one)}"))
            values[name] = known_one.default
            continue
        value = values[name] = given[name]
        if value is None and not known_one.required and known_one.default is None:
            continue
        if wrong := known_one.trouble(value) or ("" if is_json(value) else NO_JSON):
            errors.append(FieldError(f"parameters.{name}", _repr.repr(value), wrong))
    if errors:
        raise InvalidSpecError(errors=sorted(errors, key=lambda error: error.field))
    return values


def _wanted(wanted: Parameter) -> str:
    words = _TYPES[wanted.type][1]
    return f"{words} ({wanted.description})" if wanted.description else words
