"""Workflow: a graph of steps, each a job. The document that Python, YAML and JSON all come down to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perijove.model.parameters import NO_JSON, Parameter, is_json, parameter
from perijove.model.places import (
    REFERENCE,
    STEP,
    Condition,
    ConditionText,
    OutputPlace,
    Reference,
    output_places,
    references,
    templates,
)
from perijove.model.spec import WHAT, JobOptions
from perijove.model.values import SCRIPT_BYTES, Argument, Digest, FileName, Identifier, ImageRef, Text, Title

STEP_NAME = rf"^({STEP}|#[0-9]{{1,9}})$"
"""``#2`` is a step without a name: nothing can refer to it."""
IMPLICIT = {"function": "result", "notebook": "notebook"}
"""The output that such a step has without declaring it: what the function returned, the executed notebook."""

StepName = Annotated[str, StringConstraints(pattern=STEP_NAME)]

_INPUT = re.compile(
    r"(file|dir|https?|s3):.+|sha256(-tree)?:[0-9a-f]{64}|jobs:.+|parameters:.+|item(:.+)?|index", re.S
)
REFERENCES = ("jobs:", "parameters:", "item", "index")
"""How references begin."""
INPUT = (
    "must be a file:PATH, dir:PATH, http(s) or s3 URL, digest, jobs:STEP/OUTPUT, parameters:NAME or item, "
    'a {"value": JSON}, or a list of those'
)


def _json(value: Any) -> Any:
    if not is_json(value):
        raise ValueError(NO_JSON)
    return value


def _template(text: str) -> str:
    if "${{" in text:
        for _ in templates(text):
            pass
    return text


def _argument(value: Any) -> Any:
    for _ in _of_argument(_json(value)):
        pass
    return value


def _items(value: Any) -> Any:
    if isinstance(value, list):
        return _json(value)
    try:
        return str(Reference.parse(value))
    except (TypeError, ValueError):
        raise ValueError(f"must be a list, or a reference to one: {REFERENCE[8:]}") from None


def _input(value: Any) -> Any:
    if isinstance(value, list):
        return [_input(part) for part in _json(value)]
    if isinstance(value, Mapping):
        if list(value) != ["value"]:
            raise ValueError(INPUT)
        return _json(value)
    if not isinstance(value, str) or not _INPUT.fullmatch(value):
        raise ValueError(INPUT)
    if value.startswith(REFERENCES):
        return str(Reference.parse(value))
    return value


Items = Annotated[Any, AfterValidator(_items)]
StepArgument = Annotated[Any, AfterValidator(_argument)]
"""JSON with marks, see :func:`perijove.model.places.references`."""
InputPlace = Annotated[Any, AfterValidator(_input)]
"""Where an input comes from: a text (``file:data.csv``, ``https://...``, ``sha256:...``,
``jobs:prep/table``), ``{"value": JSON}`` for a literal, or a list of those, which becomes a folder.

``file:``, ``dir:`` and URLs are imported by the client at submission; the service knows digests only.
A URL may end in ``#sha256=HEX``, and is checked against it.
"""


def _rule(field: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{message}", {"field": field, "message": message})


class Step(JobOptions):
    """One step: a job (of a mapped step, a job for each element) with references for what is not known yet.

    Exactly one of ``command``, ``script``, ``notebook``, ``function`` says what to run; a step with
    ``entrypoint: image`` may leave ``command`` out. Texts of ``command``, ``args``, ``script`` and ``env``
    may hold ``${{ REFERENCE }}``: a value as text, a file as the path where the step finds it.
    """

    # what to run
    command: (
        Annotated[
            list[Annotated[Argument, AfterValidator(_template)]], Field(min_length=1, max_length=10_000)
        ]
        | None
    ) = None
    script: (
        Annotated[Text, StringConstraints(min_length=1, max_length=SCRIPT_BYTES), AfterValidator(_template)]
        | None
    ) = None
    notebook: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """A path, which the client imports, or a digest."""
    function: Digest | None = None
    """A cloudpickled function in the store; called with ``args`` and, by name, ``parameters``."""
    args: list[StepArgument] = Field(default_factory=list)
    """Arguments of ``script`` (texts) or ``function``."""
    parameters: dict[Identifier, StepArgument] = Field(default_factory=dict)
    """Of the notebook, or of the function by name."""
    image: ImageRef | None = None
    """A reference, or ``jobs:STEP/OUTPUT``: a Docker or OCI archive that another step made."""
    entrypoint: list[Argument] | Literal["image"] | None = None
    """Put before ``command``; ``image``: keep the image's. Otherwise ``command`` stands alone."""
    isolation: Literal["job", "shared"] = "job"
    """``shared``: a function may run in a warm job beside others of the same user, image and node."""

    # what goes in and out
    env: dict[Identifier, Annotated[Text, AfterValidator(_template)]] = Field(default_factory=dict)
    inputs: dict[FileName, InputPlace] = Field(default_factory=dict)
    outputs: dict[FileName, OutputPlace] = Field(default_factory=dict)
    stdin: FileName | None = None
    """The name of the input that is its standard input."""

    # how
    after: list[StepName] = Field(default_factory=list)
    """Steps that must have succeeded, beside those whose outputs it takes."""
    when: ConditionText | None = None
    """Else it is skipped, and what depends on it too."""
    map: Items | None = None
    """Run it for each element of this list, which may be known only when an earlier step has ended."""
    cache: bool | None = None
    """Take an equal step's result; by default only when sealed."""

    @field_validator("outputs", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return output_places(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        what = [name for name in WHAT if getattr(self, name) is not None]
        if len(what) != 1 and not (not what and self.entrypoint == "image"):
            given = " and ".join(what) or "none"
            raise _rule("command", f"exactly one of {', '.join(WHAT)} must be given, not {given}")
        kind = self.what
        if self.parameters and kind not in {"notebook", "function"}:
            raise _rule("parameters", "only a notebook or a function takes parameters")
        if self.args and kind not in {"script", "function"}:
            raise _rule("args", "only a script or a function takes args; put them into command instead")
        if kind == "script" and not all(isinstance(arg, str) for arg in self.args):
            raise _rule("args", "a script's arguments are texts")
        if self.entrypoint is not None and kind != "command":
            raise _rule("entrypoint", "only a command has one")
        if self.isolation == "shared" and kind != "function":
            raise _rule("isolation", "only functions can share a job")
        if self.isolation == "shared" and self.sealed:
            raise _rule("isolation", "a sealed step has its container for itself")
        if self.sealed and self.network not in {None, "none"}:
            raise _rule("network", "a sealed step has none; leave out network or sealed")
        if self.sealed and "volumes" in self.model_fields_set and self.volumes:
            raise _rule("volumes", "a sealed step has none: declare what it reads as inputs")
        if self.stdin is not None and self.stdin not in self.inputs:
            raise _rule("stdin", f"there is no input {self.stdin}")
        if (implicit := IMPLICIT.get(kind)) in self.outputs:
            raise _rule("outputs", f"a {kind} has the output {implicit} already")
        if self.image is not None and self.image.startswith("jobs:"):
            Reference.parse(self.image)
        if self.sealed:
            self.__dict__["volumes"] = []  # so that what is written out in full can be read back
        return self

    @property
    def what(self) -> str:
        """``command``, ``script``, ``notebook`` or ``function``."""
        for name in ("script", "notebook", "function"):
            if getattr(self, name) is not None:
                return name
        return "command"

    @property
    def output_names(self) -> set[str]:
        """Every output that may be referred to."""
        implicit = IMPLICIT.get(self.what)
        return {*self.outputs, implicit} if implicit else set(self.outputs)

    @property
    def cached(self) -> bool:
        """Whether results of equal steps are taken."""
        return self.sealed if self.cache is None else self.cache

    def references(self) -> Iterator[tuple[str, Reference]]:
        """(field, reference) for all that it refers to."""
        for name in ("command", "args"):
            for i, text in enumerate(getattr(self, name) or ()):
                yield from ((f"{name}.{i}", one) for one in _of_argument(text))
        if self.script is not None:
            yield from (("script", one) for one in templates(self.script))
        for name, text in self.env.items():
            yield from ((f"env.{name}", one) for one in templates(text))
        for name, value in self.parameters.items():
            yield from ((f"parameters.{name}", one) for one in _of_argument(value))
        for name, place in self.inputs.items():
            yield from ((f"inputs.{name}", one) for one in _of_input(place))
        if self.image is not None and self.image.startswith("jobs:"):
            yield "image", Reference.parse(self.image)
        if self.when is not None:
            yield "when", Condition.parse(self.when).reference
        if isinstance(self.map, str):
            yield "map", Reference.parse(self.map)

    def needs(self) -> list[str]:
        """Names of the steps that must come before it, each once."""
        return list(dict.fromkeys([*(one.step for _, one in self.references() if one.step), *self.after]))


def _of_argument(value: Any) -> Iterator[Reference]:
    if not isinstance(value, str):
        yield from references(value)
    elif "${{" in value:
        yield from templates(value)


def _of_input(place: Any) -> Iterator[Reference]:
    if isinstance(place, list):
        for part in place:
            yield from _of_input(part)
    elif isinstance(place, str) and place.startswith(REFERENCES):
        yield Reference.parse(place)


class Workflow(BaseModel):
    """Steps by name, with the parameters they take."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[Title, Field(min_length=1)] = "workflow"
    description: str = ""
    parameters: dict[Identifier, Parameter] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Fields of :class:`JobOptions`, ``image``, ``cache``, for each step that does not give them itself."""
    fail_fast: bool = False
    """A failed step stops all others."""
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]

    @field_validator("parameters", mode="before")
    @classmethod
    def _parameters(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: parameter(given) for name, given in value.items()}

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        """Lay ``defaults`` under each step, which is checked as a whole then."""
        if not isinstance(value, Mapping) or not value.get("defaults"):
            return value
        defaults, steps = value["defaults"], value.get("steps")
        if not isinstance(defaults, Mapping) or not isinstance(steps, Mapping):
            return value
        known = {*JobOptions.model_fields, "image", "cache", "cpus", "time"}
        for name in defaults:
            if name not in known:
                raise _rule(f"defaults.{name}", "is no option of a job that all steps could have")
        laid = {
            name: laid_under(defaults, step) if isinstance(step, Mapping) else step
            for name, step in steps.items()
        }
        return {**value, "steps": laid}

    @model_validator(mode="after")
    def _check(self) -> Self:
        needs: dict[str, list[str]] = {}
        for name, step in self.steps.items():
            needs[name] = list(step.after)
            if name in {".", ".."}:
                raise _rule(
                    f"steps.{name}", "must be the name of a step, which . and .. are not: paths have them"
                )
            for field, reference in step.references():
                if trouble := self._trouble(step, reference) or self._no_list(field, reference):
                    raise _rule(f"steps.{name}.{field}", trouble)
                if reference.step:
                    needs[name].append(reference.step)
            for other in step.after:
                if other not in self.steps:
                    raise _rule(f"steps.{name}.after", f"there is no step {other}")
        if cycle := cycle_in(needs):
            raise _rule(f"steps.{cycle[0]}", f"steps wait for each other: {cycle_text(cycle)}")
        return self

    def _no_list(self, field: str, reference: Reference) -> str:
        if field != "map" or reference.kind != "parameter":
            return ""
        kind = self.parameters[reference.parameter].type
        return "" if kind in {"list", "any"} else f"takes a list, and {reference} is of type {kind}"

    def _trouble(self, step: Step, reference: Reference) -> str:
        if reference.kind in {"item", "index"}:
            return "" if step.map is not None else f"{reference} is known in a step with map only"
        if reference.kind == "parameter":
            known = ", ".join(self.parameters) or "none"
            there = reference.parameter in self.parameters
            return "" if there else f"there is no parameter {reference.parameter}; there are: {known}"
        other = self.steps.get(reference.step)
        if other is None:
            return f"there is no step {reference.step}"
        if reference.output not in other.output_names:
            known = ", ".join(sorted(other.output_names)) or "none"
            return f"step {reference.step} has no output {reference.output}; it has: {known}"
        return ""


_ALIASES = {"cpus": "cpu", "time": "time_limit"}


def laid_under(defaults: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a step with the `defaults` that it does not give itself; volumes only if not sealed."""
    given = {_ALIASES.get(name, name) for name in step}
    if step.get("sealed", defaults.get("sealed")) is True:
        given.add("volumes")
    wanted = {name: value for name, value in defaults.items() if _ALIASES.get(name, name) not in given}
    return {**wanted, **step}


def cycle_text(cycle: Sequence[str]) -> str:
    """``a -> b -> a``; of a long one its begin and its end."""
    shown = cycle if len(cycle) <= 12 else [*cycle[:8], f"... ({len(cycle) - 11} more)", *cycle[-3:]]
    return " -> ".join(shown)


def cycle_in(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """A cycle, its first name repeated at the end; empty when there is none. Time is linear in the edges."""
    done: set[str] = set()
    for start in needs:
        if start in done:
            continue
        path: dict[str, Iterator[str]] = {start: iter(needs[start])}
        while path:
            name = next(reversed(path))
            following = next((one for one in path[name] if one not in done), None)
            if following is None:
                done.add(name)
                path.popitem()
            elif following in path:
                names = list(path)
                return [*names[names.index(following) :], following]
            else:
                path[following] = iter(needs.get(following, ()))
    return []
