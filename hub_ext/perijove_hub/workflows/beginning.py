"""From a request to a run: checked as far as it can be, then begun."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perijove.model import ConflictError, FieldError, InvalidSpecError, Run, State, Workflow
from perijove.model.parameters import parameter_values
from perijove.model.validation import parse_workflow
from perijove.model.values import Title, Whole, Word
from perijove_hub.api.desk import asker_of
from perijove_hub.workflows.checking import (
    STEPS,
    admission_errors,
    digests_of,
    local_errors,
    map_errors,
    notebook_errors,
    shapes_of,
)
from perijove_hub.workflows.runs import Runs
from perijove_hub.workflows.text import workflow_json


class Wanted(BaseModel):
    """What ``POST /workflows`` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    workflow: dict[str, Any]
    """The document of a :class:`perijove.model.Workflow`."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    cache: Literal["use", "refresh", "off"] = "use"
    """``refresh``: run all steps, and keep what they make; ``off``: take nothing."""
    hold: bool = False
    """Begin nothing until it is released."""
    priority: Annotated[Whole, Field(ge=0, le=100)] = 50
    """Above 50 all steps are before what they would be, below after."""
    project: Word | None = None
    fail_fast: bool | None = None
    """A failed step stops all others; otherwise as the workflow says."""
    labels: dict[Word, Title] = Field(default_factory=dict)


async def checked(runs: Runs, owner: str, wanted: Wanted) -> tuple[Workflow, dict[str, Any]]:
    """The workflow and the values of all its parameters. :class:`InvalidSpecError` says all that is wrong."""
    workflow = await asyncio.to_thread(parse_workflow, wanted.workflow)
    values = parameter_values(workflow.parameters, wanted.parameters)
    errors = local_errors(workflow) + map_errors(workflow, values)
    if len(workflow.steps) > STEPS:
        errors.append(FieldError("steps", str(len(workflow.steps)), f"at most {STEPS} steps"))
    digests = digests_of(workflow, values)
    owned = await asyncio.to_thread(runs.reading.owned, owner, digests)
    owned -= await runs.controller.keeper.hold(owned)
    errors += [
        FieldError(field, digest, "no such file was uploaded by you; POST it to /files first")
        for digest, field in digests.items()
        if digest not in owned
    ]
    if not errors:
        shapes = await asyncio.to_thread(shapes_of, workflow)
        errors = admission_errors(runs.controller, owner, workflow, shapes, wanted.project)
        errors += await asyncio.to_thread(notebook_errors, runs.store, workflow)
    if errors:
        raise InvalidSpecError(errors=errors[:50])
    return workflow, values


def again(run: Run, parameters: dict[str, Any], cache: Literal["use", "refresh", "off"] | None) -> Wanted:
    """The request for a run like this one, with other values of some parameters."""
    assert run.workflow is not None
    document = run.workflow.model_dump(mode="json", exclude_unset=True)
    return Wanted.model_construct(
        workflow=document,
        parameters={**run.parameters, **parameters},
        cache=cache or run.cache,
        hold=False,
        priority=run.priority,
        project=run.project,
        fail_fast=run.fail_fast,
        labels=run.labels,
    )


async def begin(
    runs: Runs,
    owner: str,
    wanted: Wanted,
    *,
    resumed_from: int | None = None,
    submission: dict[str, Any] | None = None,
) -> Run:
    """Check and begin a run; returns when it is durable."""
    workflow, values = await checked(runs, owner, wanted)
    controller = runs.controller
    if controller.board.waiting >= controller.settings.max_pending:
        raise ConflictError(
            f"{controller.board.waiting} jobs wait already; at most {controller.settings.max_pending} may"
        )
    document = await asyncio.to_thread(workflow_json, workflow, exclude_unset=True)
    [number] = controller.board.new_ids([0])
    run = Run(
        id=number,
        owner=owner,
        name=workflow.name,
        project=wanted.project or asker_of(controller, owner).default_project,
        state=State.HELD if wanted.hold else State.RUNNING,
        parameters=values,
        priority=wanted.priority,
        submitted=controller.clock(),
        resumed_from=resumed_from,
        fail_fast=workflow.fail_fast if wanted.fail_fast is None else wanted.fail_fast,
        cache=wanted.cache,
        labels=wanted.labels,
    )
    return await runs.start(run, workflow, document, submission=submission)
