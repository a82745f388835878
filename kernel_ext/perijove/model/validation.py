"""From what a user wrote to a :class:`JobSpec`, or to errors a user can act on.

pydantic reports what its types wanted ("Input should be a valid list"); here that becomes which field, as
the user wrote it, what was given, and what would be accepted. Values that may be secrets are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.quantities import format_size
from perijove.model.spec import SIZES, JobSpec
from perijove.model.values import FORMS, PATTERNS
from perijove.model.workflow import STEP_NAME, Workflow

MAX_ERRORS = 50
"""Errors told at once; a bulk of broken specs has more than anyone reads."""
MAX_VALUE = 80
"""Characters of a value in an error."""
MAX_PART = 64
"""Characters of one part of a field's path: keys of ``env`` and ``labels`` are the user's text."""

_JOBS: TypeAdapter[list[JobSpec]] = TypeAdapter(list[JobSpec])

_PATTERNS = {
    **PATTERNS,
    STEP_NAME: "must be the name of a step: letters, digits and . _ -, at most 128 characters",
}

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = MAX_VALUE
_repr.maxdict = 0  # what is inside may be an environment
_repr.maxlist = _repr.maxtuple = 3
_repr.maxlevel = 1


def parse_spec(data: bytes | str | Mapping[str, Any]) -> JobSpec:
    """The spec in `data`: JSON text, or its fields. :class:`InvalidSpecError` names each wrong field."""
    try:
        if isinstance(data, bytes | str):
            return JobSpec.model_validate_json(data)
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error)) from None


def parse_specs(data: bytes | str) -> list[JobSpec]:
    """The specs in a JSON array. Paths of errors begin with the index: ``3.memory``."""
    try:
        return _JOBS.validate_json(data)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error)) from None


def parse_workflow(data: bytes | str | Mapping[str, Any]) -> Workflow:
    """The workflow in `data`: JSON text, or its fields. :class:`InvalidSpecError` names each wrong field.

    A name that stands twice in an object is refused: JSON would take one of the two (RFC 8259, section 4).
    """
    if isinstance(data, bytes | str):
        data = parse_json(data)
    try:
        return Workflow.model_validate(data)
    except ValidationError as error:
        raise InvalidSpecError(errors=_once(field_errors(error, Workflow), data)) from None


def parse_json(data: bytes | str) -> Any:
    """JSON text of people: duplicate names, NaN and what is nested too deeply are refused."""
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidSpecError(errors=[FieldError("", "", "the document is nested too deeply")]) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError too
        raise InvalidSpecError(errors=[FieldError("", "", f"is not valid JSON: {error}")]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        text = f"the name {_shorten(repr(twice), MAX_PART)} stands twice in one object"
        raise InvalidSpecError(errors=[FieldError("", "", text)])
    return found


def _no_constant(name: str) -> Any:
    raise InvalidSpecError(errors=[FieldError("", name, "JSON has finite numbers only")])


def _once(errors: list[FieldError], data: Any) -> list[FieldError]:
    """Errors of `defaults`, which every step has, told once and where they were written."""
    defaults = data.get("defaults") if isinstance(data, Mapping) else None
    steps = data.get("steps") if isinstance(data, Mapping) else None
    if not isinstance(defaults, Mapping) or not isinstance(steps, Mapping):
        return errors
    told: dict[FieldError, None] = {}
    for error in errors:
        for name, step in steps.items():
            rest = error.field.removeprefix(f"steps.{name}.")
            field = rest.partition(".")[0]
            if rest != error.field and field in defaults and field not in (step or ()):
                error = replace(error, field=f"defaults.{rest}")
                break
        told[error] = None
    return list(told)


def field_errors(error: ValidationError, model: type[BaseModel] = JobSpec) -> list[FieldError]:
    """What is wrong with a spec, a list of specs or another `model`, at most :data:`MAX_ERRORS` errors."""
    return errors_of(error.errors(include_url=False), model)


def errors_of(details: Sequence[Any], model: type[BaseModel] = JobSpec) -> list[FieldError]:
    """The same, of what pydantic said."""
    found = [_field_error(detail, model) for detail in details[:MAX_ERRORS]]
    if len(details) > MAX_ERRORS:
        found.append(FieldError("", "", f"and {len(details) - MAX_ERRORS} more errors"))
    return found


def _field_error(detail: ErrorDetails, model: type[BaseModel]) -> FieldError:
    place = [part for part in detail["loc"] if part != "[key]"]
    context = detail.get("ctx", {})
    if "field" in context:  # a rule about several fields names the one to change
        place.append(context["field"])
    return FieldError(_path(place), _value(detail, place), _message(detail, place, model))


def _path(place: Sequence[int | str]) -> str:
    return ".".join(_shorten(str(part), MAX_PART) for part in place)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _value(detail: ErrorDetails, place: Sequence[int | str]) -> str:
    """What was given; empty where it says nothing or may be a secret."""
    value, names = detail["input"], [part for part in place if isinstance(part, str)]
    if detail["type"] in {"json_invalid", "missing"} or "field" in detail.get("ctx", {}):
        return ""
    if "env" in {*names[:1], *names[2:3]} and detail["loc"][-1] != "[key]":  # of a job, of a step
        return ""
    if detail["type"] == "extra_forbidden" and not isinstance(value, int | float):
        return ""  # a misspelt `env` is one too
    if isinstance(value, int) and value.bit_length() > 256:
        return "a very large number"  # repr() of some raises
    return _shorten(_repr.repr(value), MAX_VALUE)


def _message(detail: ErrorDetails, place: Sequence[int | str], model: type[BaseModel]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(place, model)
    if kind in {"model_type", "model_attributes_type"}:
        return FORMS.get(context.get("class_name", ""), _OBJECT if model is JobSpec else _NAMES)
    if kind in {"enum", "literal_error"}:
        return _choice(detail["input"], context["expected"])
    if kind in {"value_error", "rule", "assertion_error"}:
        return detail["msg"].removeprefix("Value error, ")
    if kind == "list_type" and not place:
        return "must be a list of jobs"
    if words := _MESSAGES.get(kind):
        return words(_words(context, place))
    return detail["msg"].removeprefix("Value error, ")


def _words(context: Mapping[str, Any], place: Sequence[int | str]) -> dict[str, Any]:
    """The error's context, with bounds of sizes written as sizes."""
    name = next((part for part in reversed(place) if isinstance(part, str)), "")
    return {k: format_size(v) if name in SIZES and k in {"ge", "le"} else v for k, v in context.items()}


def _choice(value: Any, expected: str) -> str:
    choices = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    return f"must be one of {', '.join(choices)}{_meant(value, choices)}"


def _unknown(place: Sequence[int | str], root: type[BaseModel]) -> str:
    """The message for a field that does not exist, with the nearest that does."""
    *parents, field = [part for part in place if isinstance(part, str)]
    model, chosen = root, False
    for parent in parents:
        if chosen:  # a key that users chose
            chosen = False
            continue
        model, chosen = _inside(model, parent)
    return f"unknown field '{_shorten(field, MAX_PART)}'{_meant(field, _names(model))}"


def _meant(given: Any, known: Sequence[str]) -> str:
    near = get_close_matches(given[:MAX_PART].lower(), known, n=1) if isinstance(given, str) else []
    return f"; did you mean '{near[0]}'?" if near else ""


def _names(model: type[BaseModel]) -> list[str]:
    """The names a user may write, aliases included."""
    names = list(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names += [alias for alias in field.validation_alias.choices if isinstance(alias, str)]
    return list(dict.fromkeys(names))


def _inside(model: type[BaseModel], name: str) -> tuple[type[BaseModel], bool]:
    """The model that a field of `model` holds, and whether it holds several by names that users choose."""
    for field_name, field in model.model_fields.items():
        alias = field.validation_alias
        if name == field_name or (isinstance(alias, AliasChoices) and name in alias.choices):
            return _model_in(field.annotation) or model, get_origin(field.annotation) is dict
    return model, False


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _at_most(context: Mapping[str, Any]) -> str:
    return f"must have at most {context['max_length']} items, has {context['actual_length']}"


def _whole(_: Mapping[str, Any]) -> str:
    return "must be a whole number"


def _number(_: Mapping[str, Any]) -> str:
    return "must be a number"


def _boolean(_: Mapping[str, Any]) -> str:
    return "must be true or false"


def _moment(_: Mapping[str, Any]) -> str:
    return "must be a date and time, for example 2026-01-31T08:00"


_OBJECT, _NAMES = "must be an object with the fields of a job", "must be an object of names and values"
_MESSAGES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_parsing": _boolean,
    "bool_type": _boolean,
    "date_from_datetime_parsing": _moment,
    "datetime_from_date_parsing": _moment,
    "datetime_parsing": _moment,
    "datetime_type": _moment,
    "dict_type": lambda _: _NAMES,
    "finite_number": lambda _: "must be a finite number",
    "float_parsing": _number,
    "float_type": _number,
    "greater_than": lambda c: f"must be more than {c['gt']:g}",
    "greater_than_equal": lambda c: f"must be at least {c['ge']}",
    "int_from_float": _whole,
    "int_parsing": _whole,
    "int_parsing_size": _whole,
    "int_type": _whole,
    "json_invalid": lambda c: (
        "the request has no body; it takes a JSON object"
        if c["error"] == "EOF while parsing a value at line 1 column 0"
        else f"the request is not valid JSON: {c['error']}"
    ),
    "less_than_equal": lambda c: f"must be at most {c['le']}",
    "list_type": lambda _: 'must be a list, for example ["a", "b"]',
    "missing": lambda _: "is required",
    "string_pattern_mismatch": lambda c: _PATTERNS.get(c["pattern"], f"must match {c['pattern']}"),
    "string_too_long": lambda c: f"must have at most {c['max_length']} characters",
    "string_too_short": lambda _: "must not be empty",
    "string_type": lambda _: "must be text",
    "string_unicode": lambda _: "must be text in Unicode without lone surrogates",
    "too_long": _at_most,
    "too_short": lambda _: "must not be empty",
    "tuple_type": lambda _: 'must be a list, for example ["a", "b"]',
}
"""pydantic's error type -> what to say of it."""
