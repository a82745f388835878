"""Steps as handles while a workflow is built, and the options that a step is given."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.places import Reference, output_places
from perijove.model.spec import JobOptions
from perijove.model.workflow import IMPLICIT
from perijove.promises import Makes, Promise, When, argument, input_place, reference_of, text

if TYPE_CHECKING:
    from perijove.building import Workflow

OPTIONS = frozenset(
    {
        *JobOptions.model_fields,
        "cpus",
        "time",
        "name",
        "image",
        "isolation",
        "entrypoint",
        "inputs",
        "outputs",
    }
    | {"stdin", "after", "when", "map", "cache"}
)
"""Keywords that say how a step runs; others are parameters of the notebook or function."""


class Parameters:
    """The parameters of a workflow: ``w.parameters.lr``."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = tuple(names)

    def __getattr__(self, name: str) -> Promise:
        if name.startswith("__") or name not in self._names:
            raise AttributeError(f"no parameter {name}; there are: {', '.join(self._names) or 'none'}")
        return Promise(Reference("parameter", parameter=name))

    __getitem__ = __getattr__

    def __dir__(self) -> list[str]:
        return list(self._names)


class StepHandle(Makes):
    """A step, for others to refer to: ``prep["table"]`` is its output, the handle itself what it returns."""

    def __init__(self, workflow: Workflow, name: str) -> None:
        self._workflow = workflow
        self.name = name

    @property
    def _fields(self) -> dict[str, Any]:
        return self._workflow.fields[self.name]

    @property
    def _kind(self) -> str:
        return next((kind for kind in ("script", "notebook", "function") if kind in self._fields), "command")

    def __getitem__(self, output: str | int) -> Promise:
        """An output by its name; of a function also a part of what it returns."""
        declared = output_places(self._fields.get("outputs", {}))
        if output in declared or output == IMPLICIT.get(self._kind):
            return Promise(Reference("output", step=self.name, output=str(output)))
        if self._kind == "function":
            return Promise(Reference("output", step=self.name, output="result", key=str(output)))
        if self._kind == "notebook" and isinstance(output, str):
            fields = {**self._fields, "outputs": {**declared, output: f"record:{output}"}}
            self._workflow.check_step(self.name, fields)
            self._workflow.fields[self.name] = fields
            return Promise(Reference("output", step=self.name, output=output))
        known = ", ".join(declared) or "none"
        raise KeyError(f"step {self.name} has no output {output}; it has: {known}; declare it with outputs=")

    def __iter__(self) -> Any:
        raise TypeError(f"what {self.name} makes is known only when the workflow runs; run over it with map")

    @property
    def result(self) -> Promise:
        """What the function returns."""
        if self._kind != "function":
            raise AttributeError(f"only functions return something; name an output: {self.name}[...]")
        return self["result"]

    @property
    def promise(self) -> Promise:
        """What the handle itself stands for: what the function returns, or its only output."""
        outputs = list(output_places(self._fields.get("outputs", {})))
        if self._kind == "function":
            return self.result
        if len(outputs) == 1:
            return self[outputs[0]]
        known = ", ".join(outputs) or "none"
        raise TypeError(f"say which output of {self.name} is meant; it has: {known}")

    def __repr__(self) -> str:
        return f"<Step {self.name}>"


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a step's document has them."""
    for name in options:
        if name not in OPTIONS:
            near = get_close_matches(name, OPTIONS, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise InvalidSpecError(errors=[FieldError(name, "", f"is no option of a step{meant}")])
    found = {name: value for name, value in options.items() if value is not None}
    if "inputs" in found:
        found["inputs"] = {name: input_place(place) for name, place in found["inputs"].items()}
    if "outputs" in found:
        found["outputs"] = output_places(found["outputs"])
    if "env" in found:
        found["env"] = {name: text(value) for name, value in found["env"].items()}
    if "after" in found:
        after = found["after"] if isinstance(found["after"], list | tuple) else [found["after"]]
        found["after"] = [one.name if isinstance(one, StepHandle) else one for one in after]
    if "map" in found:
        found["map"] = _over(found["map"])
    if "when" in found and not isinstance(found["when"], str):
        given = found["when"]
        found["when"] = str(given) if isinstance(given, When) else reference_of(given)
    if "image" in found and (made := reference_of(found["image"])) is not None:
        found["image"] = made
    return found


def _over(value: Any) -> Any:
    if (reference := reference_of(value)) is not None:
        return reference
    if isinstance(value, str):
        return value
    try:
        return argument(list(value))
    except TypeError as error:
        raise InvalidSpecError(errors=[FieldError("map", "", f"takes a list of JSON: {error}")]) from None
