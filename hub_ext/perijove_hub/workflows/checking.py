"""What can be known to be wrong with a workflow before anything of it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perijove.model import FieldError, InvalidSpecError, JobSpec, NotFoundError, Step, Workflow
from perijove.model.places import Reference, mark
from perijove.model.validation import parse_spec
from perijove_hub.admission import admit
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.jobs.controller import Controller
from perijove_hub.workflows import notebook_parameters
from perijove_hub.workflows.cells import LARGEST
from perijove_hub.workflows.filling import base_of
from perijove_spawners.store import CorruptError, Store

MOST_ERRORS = 50
STEPS = 1_000_000
_DIGEST = re.compile(r"sha256(-tree)?:[0-9a-f]{64}")
_LOCAL = re.compile(r"(file|dir|https?|s3):")
IMPORTED = "is imported by the client: submit with `perijove run` or perijove.Workflow, or upload it yourself"


def local_errors(workflow: Workflow) -> list[FieldError]:
    """Places that only a client can read."""
    errors = []
    for name, step in workflow.steps.items():
        for field, place in _places(step):
            if _LOCAL.match(place) or (field == "notebook" and not _DIGEST.fullmatch(place)):
                errors.append(FieldError(f"steps.{name}.{field}", place[:80], IMPORTED))
    return errors


def digests_of(workflow: Workflow, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Digests that are written in a workflow and its parameters -> the field of the first place."""
    found: dict[str, str] = {}
    for name, step in workflow.steps.items():
        for field, place in _places(step):
            if _DIGEST.fullmatch(place):
                found.setdefault(place, f"steps.{name}.{field}")
    for name, value in parameters.items():
        if isinstance(value, str) and _DIGEST.fullmatch(value):
            found.setdefault(value, f"parameters.{name}")
    return found


def map_errors(workflow: Workflow, parameters: Mapping[str, Any]) -> list[FieldError]:
    """Parameters that steps are mapped over, and that are no list in this run."""
    found = {}
    for name, step in workflow.steps.items():
        over = Reference.parse(step.map).parameter if isinstance(step.map, str) else ""
        if over and not isinstance(value := parameters[over], list):
            text = f"must be a list: step {name} runs once for each element"
            found[over] = FieldError(f"parameters.{over}", json.dumps(value)[:80], text)
    return list(found.values())


def _places(step: Step) -> Iterator[tuple[str, str]]:
    """(field, text) of all places of content that a step names by itself."""
    for name, place in step.inputs.items():
        yield from ((f"inputs.{name}", text) for text in _texts(place))
    if step.function is not None:
        yield "function", step.function
    if step.notebook is not None:
        yield "notebook", step.notebook
    for i, argument in enumerate(step.args):
        yield from ((f"args.{i}", digest) for digest in _pickles(argument))
    for name, argument in step.parameters.items():
        yield from ((f"parameters.{name}", digest) for digest in _pickles(argument))


def _texts(place: Any) -> Iterator[str]:
    if isinstance(place, list):
        for part in place:
            yield from _texts(part)
    elif isinstance(place, str):
        yield place


def _pickles(argument: Any) -> Iterator[str]:
    kind = mark(argument)
    if kind == "pickle":
        yield argument["pickle"]
    elif kind is None:
        parts = argument.values() if isinstance(argument, Mapping) else argument
        if isinstance(parts, str) or not hasattr(parts, "__iter__"):
            return
        for part in parts:
            yield from _pickles(part)


def notebook_errors(store: Store, workflow: Workflow) -> list[FieldError]:
    """Parameters that the steps' notebooks do not have, or not of that type. Reads the notebooks."""
    errors = []
    for name, step in workflow.steps.items():
        if step.notebook is None:
            continue
        try:
            with store.open(step.notebook) as file:
                found = notebook_parameters.notebook_errors(file.read(LARGEST + 1), step.parameters)
        except (ValueError, NotFoundError, CorruptError) as error:
            found = [FieldError("notebook", step.notebook, str(error))]
        errors += [FieldError(f"steps.{name}.{one.field}", one.value, one.message) for one in found]
    return errors


def shapes_of(workflow: Workflow) -> dict[str, list[str]]:
    """Names of steps by what admission looks at: of thousands that are alike one is enough."""
    shapes: dict[str, list[str]] = {}
    for name, step in workflow.steps.items():
        shape = step.model_copy(update={"after": [], "when": None, "map": None, "inputs": {}, "args": []})
        shapes.setdefault(shape.model_dump_json(exclude_unset=True), []).append(name)
    return shapes


def admission_errors(
    controller: Controller,
    owner: str,
    workflow: Workflow,
    shapes: Mapping[str, Sequence[str]],
    project: str | None,
) -> list[FieldError]:
    """What admission says of each step as far as it is known: image, launcher, resources, volumes.

    `shapes`: see :func:`shapes_of`.
    """
    identity, asker, site = controller.identify(owner), asker_of(controller, owner), site_of(controller)
    errors: list[FieldError] = []
    now = controller.clock()
    for names in shapes.values():
        try:
            spec = _spec(workflow.steps[names[0]], project)
            admit(spec, asker, identity, site, now=now, known={})
            told = controller.board.standing.refusals(owner, [(spec, 1)], now)
        except InvalidSpecError as error:
            told = list(error.errors)
        room = MOST_ERRORS - len(errors)
        errors += [
            FieldError(f"steps.{name}.{e.field}".rstrip("."), e.value, e.message)
            for name in (names[:room] if told else ())
            for e in told
        ]
        if len(errors) >= MOST_ERRORS:
            break
    return errors[:MOST_ERRORS]


def _spec(step: Step, project: str | None) -> JobSpec:
    """The job of a step as far as it is known, without its inputs and an image that is yet to be built."""
    fields = base_of(step)
    fields.pop("stdin", None)
    if step.image is not None and not step.image.startswith("jobs:"):
        fields["image"] = step.image
    if project is not None:
        fields["project"] = project
    return parse_spec(fields)
