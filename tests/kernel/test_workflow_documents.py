"""Workflows as YAML, JSON and version 1: nothing is lost, and what is wrong is named with its line."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.workflows import json_values, workflows

from perijove.documents import parse, to_json, to_yaml
from perijove.model import Workflow, parse_workflow
from perijove.version1 import from_version1, to_version1
from perijove.yaml12 import read, write


@settings(max_examples=40)
@given(workflows)
def test_yaml_and_json_lose_nothing(workflow: Workflow) -> None:
    assert parse(to_yaml(workflow)) == workflow
    assert parse(to_json(workflow), "x.json") == workflow
    assert parse_workflow(workflow.model_dump_json()) == workflow


@settings(max_examples=40)
@given(workflows)
def test_version_1_holds_every_workflow(workflow: Workflow) -> None:
    written = to_version1(workflow)
    assert from_version1(json.loads(json.dumps(written))) == workflow
    assert list(from_version1(written).steps) == list(workflow.steps)


@given(st.dictionaries(st.text(max_size=5).filter(str.isprintable), json_values, max_size=4))
def test_yaml_of_any_json_is_read_back(data: dict[str, Any]) -> None:
    text = write(data)
    assert read(text)[0] == data
    assert json.dumps(read(text)[0]) == json.dumps(data)
