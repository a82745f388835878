"""A workflow in its shortest form: without what would be so anyway, values as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from perijove.model.parameters import Parameter, parameter
from perijove.model.spec import SIZES
from perijove.model.workflow import Step, Workflow


def document(workflow: Workflow) -> dict[str, Any]:
    """The shortest form: what is as it would be anyway is left out, and values are as people write them."""
    found: dict[str, Any] = {"name": workflow.name}
    if workflow.description:
        found["description"] = workflow.description
    if workflow.parameters:
        found["parameters"] = {name: _parameter(each) for name, each in workflow.parameters.items()}
    if workflow.defaults:
        found["defaults"] = workflow.defaults
    if workflow.fail_fast:
        found["fail_fast"] = True
    laid = laid_fields(workflow.defaults)
    found["steps"] = {name: step_document(step, laid) for name, step in workflow.steps.items()}
    return found


def step_document(step: Step, laid: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `step` that say more than what is `laid` under it and the fields' own defaults do."""
    found: dict[str, Any] = {}
    for name in Step.model_fields:
        value = getattr(step, name)
        if value != laid.get(name, _own_default(name)) and not (name == "volumes" and step.sealed):
            found[name] = short(name, value)
    return dict(sorted(found.items(), key=lambda pair: _ORDER.get(pair[0], len(_ORDER))))


def laid_fields(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a workflow's `defaults` set in each step, checked and typed."""
    steps = [Step.model_validate({"command": ["true"], name: value}) for name, value in defaults.items()]
    return {
        name: getattr(step, name) for step in steps for name in step.model_fields_set if name != "command"
    }


def _own_default(name: str) -> Any:
    field = Step.model_fields[name]
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def short(name: str, value: Any) -> Any:
    """A field's value as people write it: ``8G``, ``a100:2``, ``data:ro``; plain JSON in any case."""
    if name in SIZES and isinstance(value, int):
        return _size(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value


def _size(size: int) -> int | str:
    """Exact, unlike what people are shown elsewhere."""
    for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def _parameter(known: Parameter) -> Any:
    if known.default is not None and not isinstance(known.default, Mapping):
        alone = Parameter.model_validate(parameter(known.default))
        if alone == known:
            return known.default
    fields = known.model_dump(mode="json", exclude_defaults=True)
    return fields if known.required else {**fields, "default": known.default}


_ORDER = {
    name: place
    for place, name in enumerate(
        (
            "command",
            "script",
            "notebook",
            "function",
            "args",
            "parameters",
            "image",
            "entrypoint",
            "map",
            "when",
            "after",
            "inputs",
            "stdin",
            "outputs",
            "sealed",
            "cache",
        )
    )
}
"""What comes first in a step."""
