"""Workflows as documents: YAML and JSON, natively and in version 1 of the container build system."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.parameters import Parameter
from perijove.model.validation import parse_json, parse_workflow
from perijove.model.workflow import Workflow
from perijove.shortform import document
from perijove.version1 import from_version1, is_version1, to_version1
from perijove.yaml12 import Lines, read, write

MAX_BYTES = 64 << 20
"""Of a document."""


def load(path: str | os.PathLike[str]) -> Workflow:
    """The workflow in a file: ``.json`` is JSON, everything else YAML.

    :class:`InvalidSpecError` names each wrong field, and in YAML its line.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidSpecError(f"{path} is too large for a workflow")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpecError(f"{path} cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str = "workflow.yaml") -> Workflow:
    """The workflow in `text`; `name` is what errors call it, and JSON when it ends in ``.json``."""
    if Path(name).suffix == ".json":
        return _checked(_json(text, name), None, name)
    data, lines = read(text, name)
    return _checked(data, lines, name)


def _json(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except InvalidSpecError as error:
        raise InvalidSpecError(errors=[FieldError(name, "", str(error))]) from None


def _checked(data: Any, lines: Lines | None, name: str) -> Workflow:
    try:
        if not isinstance(data, Mapping):
            text = "must have steps (or be version 1, with jobs), such as {steps: {a: {command: [date]}}}"
            raise InvalidSpecError(errors=[FieldError("", "", text)])
        return from_version1(data) if is_version1(data) else parse_workflow(data)
    except InvalidSpecError as error:
        raise InvalidSpecError(errors=[_placed(each, lines, name) for each in error.errors]) from None


def _placed(error: FieldError, lines: Lines | None, name: str) -> FieldError:
    place = lines.place(error.field) if lines else name
    field = f"{place}: {error.field}" if error.field else place
    return FieldError(field, error.value, error.message)


def to_yaml(workflow: Workflow) -> str:
    """As YAML that :func:`parse` reads back."""
    return write(document(workflow))


def to_json(workflow: Workflow) -> str:
    """As JSON that :func:`parse` reads back."""
    return json.dumps(document(workflow), indent=2, ensure_ascii=False) + "\n"


def written(workflow: Workflow, form: Literal["yaml", "json", "v1"]) -> str:
    """As text in one of the forms; ``v1`` is JSON."""
    if form == "v1":
        return json.dumps(to_version1(workflow), indent=2, ensure_ascii=False) + "\n"
    return to_yaml(workflow) if form == "yaml" else to_json(workflow)


def given_values(
    parameters: Mapping[str, Parameter], given: Sequence[str], folder: str | os.PathLike[str] = "."
) -> dict[str, Any]:
    """Parameters as people type them: ``lr=0.1``, ``name=x``, ``xs=[1,2]``, ``xs=@list.json``.

    A parameter of the type text is taken as it stands; others are read as JSON, and as text where that fails.
    ``@FILE`` is what the file says, JSON or YAML by its name, relative to `folder`.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidSpecError(errors=[FieldError("-p", text, "must be written NAME=VALUE")])
        if name in values:
            raise InvalidSpecError(errors=[FieldError(f"parameters.{name}", "", "is given twice")])
        known = parameters.get(name)
        values[name] = _given_value(name, value, known.type if known else "any", Path(folder))
    return values


def _given_value(name: str, text: str, kind: str, folder: Path) -> Any:
    source = ""
    if text.startswith("@"):
        path = folder / text[1:]
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSpecError(
                errors=[FieldError(f"parameters.{name}", source, f"cannot be read: {error}")]
            ) from None
    if kind == "text":
        return text
    if source and Path(source).suffix in {".yaml", ".yml"}:
        return read(text, source)[0]
    try:
        return parse_json(text)
    except InvalidSpecError as error:
        if source and Path(source).suffix == ".json":
            raise InvalidSpecError(errors=[FieldError(source, "", str(error))]) from None
        return text
