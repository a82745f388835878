"""Workflows and runs as JSON, a step at a time: pydantic lets no other thread run while it writes a text."""

from __future__ import annotations

import json

from perijove.model import Run, Workflow


def workflow_json(workflow: Workflow, *, exclude_unset: bool = False) -> str:
    """``workflow.model_dump_json()``, with the steps at its end."""
    frame = workflow.model_dump_json(exclude={"steps"}, exclude_unset=exclude_unset)
    steps = ",".join(
        f"{json.dumps(name)}:{step.model_dump_json(exclude_unset=exclude_unset)}"
        for name, step in workflow.steps.items()
    )
    return _with(frame, "steps", f"{{{steps}}}")


def run_json(run: Run) -> str:
    """``run.model_dump_json()``, with the document at its end."""
    if run.workflow is None:
        return run.model_dump_json()
    return _with(run.model_dump_json(exclude={"workflow"}), "workflow", workflow_json(run.workflow))


def _with(fields: str, name: str, value: str) -> str:
    """The JSON object `fields` with one more field."""
    return f'{fields[:-1]}{"," if fields != "{}" else ""}"{name}":{value}}}'
