"""A workflow that is written a step at a time is the same text to whoever reads it."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from random_workflows import workflows

from perijove.model import Run, State, Workflow
from perijove_hub.workflows.text import run_json, workflow_json


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workflows)
def test_nothing_of_a_workflow_is_lost(workflow: Workflow) -> None:
    whole = json.loads(workflow.model_dump_json(exclude_unset=True))
    assert json.loads(workflow_json(workflow, exclude_unset=True)) == whole
    run = Run(id=1, owner="a", name="n", state=State.RUNNING, submitted=1.0, workflow=workflow)
    assert json.loads(run_json(run)) == json.loads(run.model_dump_json())
    bare = run.model_copy(update={"workflow": None})
    assert run_json(bare) == bare.model_dump_json()
