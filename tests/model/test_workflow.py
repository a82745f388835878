"""Workflows as data: round trips, defaults, and every kind of bad input with the field named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))

from random_workflows import json_values, workflows

from perijove.model import InvalidSpecError, Parameter, Step, Workflow, parameter_values, parse_workflow
from perijove.model.validation import MAX_VALUE
from perijove.model.workflow import cycle_in

SECRET = "hunter2-not-for-logs"

PATIENT = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A workflow has a hundred parts, and a busy machine draws them slowly."""


@PATIENT
@given(workflows)
def test_a_workflow_is_read_back_from_its_json(workflow: Workflow) -> None:
    assert parse_workflow(workflow.model_dump_json()) == workflow
    assert parse_workflow(workflow.model_dump(mode="json", exclude_unset=True)) == workflow


@PATIENT
@given(workflows)
def test_what_a_step_needs_is_what_it_refers_to(workflow: Workflow) -> None:
    for step in workflow.steps.values():
        assert set(step.needs()) == {one.step for _, one in step.references() if one.step} | set(step.after)


def errors(data: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpecError) as raised:
        parse_workflow(data)
    for error in raised.value.errors:
        assert "Input should" not in error.message
        assert len(error.value) <= MAX_VALUE
    return {error.field: error.message for error in raised.value.errors}


def steps(**given: Any) -> dict[str, Any]:
    return {"steps": {name: {"command": ["x"], **fields} for name, fields in given.items()}}


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
CALLS_B = {"command": ["${{ jobs:b/out }}"], "outputs": ["out"]}
CALLS_A = {"command": ["${{ jobs:a/out }}"], "outputs": ["out"]}


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        # the graph
        (steps(a=CALLS_B, b=CALLS_A), "steps.a", "a -> b -> a"),
        (steps(a={"after": ["a"]}), "steps.a", "a -> a"),
        (
            steps(**{f"s{i}": {"after": [f"s{(i + 1) % 5000}"]} for i in range(5000)}),
            "steps.s0",
            "s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> s6 -> s7 -> ... (4990 more) -> s4998 -> s4999 -> s0",
        ),
        (steps(**{"..": {}}), "steps...", "paths have them"),
        (steps(a={"map": "parameters:n"}) | {"parameters": {"n": 7}}, "steps.a.map", "is of type integer"),
        (steps(a={"command": ["${{ item }"], "map": [1]}), "steps.a.command.0", "has no }} after it"),
        (steps(a={}) | {"parameters": {"p": {"default": DEEP}}}, "parameters.p.default", "at most 100 deep"),
        (steps(a={"map": [DEEP]}), "steps.a.map", "at most 100 deep"),
        (steps(a={"inputs": {"i": DEEP}}), "steps.a.inputs.i", "at most 100 deep"),
        (steps(x={}, a={"after": ["b"]}, b={"after": ["c"]}, c={"after": ["b"]}), "steps.b", "b -> c -> b"),
        (steps(a={"command": ["${{ jobs:b/out }}"]}), "steps.a.command.0", "no step b"),
        (steps(a={"after": ["b"]}), "steps.a.after", "no step b"),
        (steps(a={"image": "jobs:b/img"}), "steps.a.image", "no step b"),
        (steps(a={"when": "jobs:b/ok"}), "steps.a.when", "no step b"),
        (steps(a={"map": "jobs:b/xs"}), "steps.a.map", "no step b"),
        (steps(a={"env": {"X": "${{ jobs:b/x }}"}}), "steps.a.env.X", "no step b"),
        (steps(a={"inputs": {"t": "jobs:b/x"}}), "steps.a.inputs.t", "no step b"),
        (steps(a={"inputs": {"t": ["jobs:b/x"]}}), "steps.a.inputs.t", "no step b"),
        (
            steps(b={"outputs": ["t"]}, a={"inputs": {"t": "jobs:b/x"}}),
            "steps.a.inputs.t",
            "no output x; it has: t",
        ),
        (steps(b={}, a={"inputs": {"t": "jobs:b/x"}}), "steps.a.inputs.t", "it has: none"),
        (
            steps(a={"command": ["${{ parameters:lr }}"]}),
            "steps.a.command.0",
            "no parameter lr; there are: none",
        ),
        (steps(a={"command": ["${{ item }}"]}), "steps.a.command.0", "in a step with map only"),
        # one step
        ({"steps": {}}, "steps", "must not be empty"),
        ({}, "steps", "is required"),
        ({"step": {}}, "step", "did you mean 'steps'?"),
        ({"steps": []}, "steps", "object of names and values"),
        ({"steps": {"a": 1}}, "steps.a", "object of names and values"),
        (steps(**{"a b": {}}), "steps.a b", "name of a step"),
        (steps(**{"a" * 129: {}}), f"steps.{'a' * 61}...", "name of a step"),
        (steps(a={"memry": "8G"}), "steps.a.memry", "did you mean 'memory'?"),
        (steps(volumes={"memry": "8G"}), "steps.volumes.memry", "did you mean 'memory'?"),
        (steps(a={"script": "x"}), "steps.a.command", "not command and script"),
        ({"steps": {"a": {}}}, "steps.a.command", "not none"),
        (steps(a={"parameters": {"p": 1}}), "steps.a.parameters", "only a notebook or a function"),
        (steps(a={"args": ["p"]}), "steps.a.args", "put them into command"),
        (steps(a={"stdin": "x"}), "steps.a.stdin", "no input x"),
        (steps(a={"isolation": "shared"}), "steps.a.isolation", "only functions"),
        (steps(a={"sealed": True, "network": "host"}), "steps.a.network", "sealed"),
        (steps(a={"sealed": True, "volumes": ["home"]}), "steps.a.volumes", "sealed"),
        (steps(a={"cpus": "many"}), "steps.a.cpus", "must be a number"),
        (steps(a={"memory": "8Q"}), "steps.a.memory", "must be a size"),
        (steps(a={"outputs": {"t": "x"}}), "steps.a.outputs.t", "must be file:PATH"),
        (steps(a={"outputs": {"t": "fd:0"}}), "steps.a.outputs.t", "from 1"),
        (steps(a={"inputs": {"t": "x.csv"}}), "steps.a.inputs.t", "must be a file:PATH"),
        (steps(a={"inputs": {"t": {"from": "item"}}}), "steps.a.inputs.t", '{"value": JSON}'),
        (steps(a={"map": "xs"}), "steps.a.map", "must be a list, or a reference"),
        (steps(a={"map": 3}), "steps.a.map", "must be a list, or a reference"),
        (steps(a={"map": [float("nan")]}), "steps.a.map", "must be JSON"),
        (steps(a={"when": "x > 1"}), "steps.a.when", "must be jobs:"),
        (steps(a={"command": ["${{ prep }}"]}), "steps.a.command.0", "${{ prep }} must be jobs:"),
        (steps(a={"env": {"A": "${{ prep }}"}}), "steps.a.env.A", "must be jobs:"),
        (
            {"steps": {"a": {"notebook": "n.ipynb", "parameters": {"p": {"from": "x"}}}}},
            "steps.a.parameters.p",
            "jobs:",
        ),
        ({"steps": {"a": {"function": "f"}}}, "steps.a.function", "sha256:"),
        ({"steps": {"a": {"notebook": "n", "outputs": ["notebook"]}}}, "steps.a.outputs", "already"),
        # all steps
        ({**steps(a={}, b={}), "defaults": {"cpu": "many"}}, "defaults.cpu", "must be a number"),
        ({**steps(a={}), "defaults": {"command": ["x"]}}, "defaults.command", "all steps could have"),
        (
            {**steps(a={}), "parameters": {"p": {"type": "int"}}},
            "parameters.p.type",
            "did you mean 'integer'?",
        ),
        ({**steps(a={}), "parameters": {"p": {"typ": "text"}}}, "parameters.p.typ", "did you mean 'type'?"),
        (
            {**steps(a={}), "parameters": {"p": {"type": "text", "default": 1}}},
            "parameters.p.default",
            "must be text",
        ),
        ({**steps(a={}), "parameters": {"p q": 1}}, "parameters.p q", "letters, digits and _"),
    ],
)
def test_bad_input_is_named(data: dict[str, Any], field: str, words: str) -> None:
    found = errors(data)
    assert field in found, found
    assert words in found[field]
    if "nan" not in repr(data):
        assert field in errors(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"steps": {"a": {"command": ["x"]}, "a": {"command": ["y"]}}}', "'a' stands twice"),
        ('{"steps": {"a": {"command": ["x"], "env": {"A": "1", "A": "2"}}}}', "'A' stands twice"),
        ('{"steps": ', "is not valid JSON"),
        ('{"steps": {"a": {"map": [NaN]}}}', "finite"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe\xfa", "is not valid JSON"),
        ("[]", "object of names"),
    ],
)
def test_bad_json_is_refused(text: Any, words: str) -> None:
    assert any(words in message for message in errors(text).values())


@pytest.mark.parametrize("env", [{"A": SECRET, "B": 1}, {"A": f"{SECRET}\0"}, SECRET, [SECRET]])
def test_an_environments_values_are_in_no_error(env: Any) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        parse_workflow(steps(a={"env": env}))
    assert SECRET not in str(raised.value)


def test_a_long_cycle_is_found_without_recursion() -> None:
    many = 50_000
    assert cycle_in({str(n): [str(n + 1)] for n in range(many)}) == []
    assert len(cycle_in({str(n): [str((n + 1) % many)] for n in range(many)})) == many + 1


def test_defaults_lie_under_what_steps_say() -> None:
    data = steps(a={}, b={"cpus": 1, "memory": "2G"}, c={"sealed": True})
    found = parse_workflow({**data, "defaults": {"cpu": 4, "volumes": ["home", "data"], "image": "x"}}).steps
    assert [step.cpu for step in found.values()] == [4, 1, 4]
    assert [len(step.volumes) for step in found.values()] == [2, 2, 0]
    assert {step.image for step in found.values()} == {"x"}


def test_a_step_is_cached_when_it_is_sealed_or_asks_for_it() -> None:
    assert [
        Step(command=["x"], sealed=sealed, cache=cache).cached
        for sealed, cache in [(False, None), (True, None), (False, True), (True, False)]
    ] == [False, True, True, False]


# parameters


def known(**given: Any) -> dict[str, Parameter]:
    return dict(parse_workflow({**steps(a={}), "parameters": given}).parameters)


def test_a_default_says_the_type() -> None:
    found = known(a="x", b=1, c=1.5, d=True, e=[1], f=None, g={"default": {"x": 1}}, h={"type": "text"})
    types = [each.type for each in found.values()]
    assert types == ["text", "integer", "number", "boolean", "list", "any", "any", "text"]
    assert [name for name, each in found.items() if each.required] == ["h"]


@given(st.dictionaries(st.sampled_from(["a", "b", "zz"]), json_values))
def test_values_are_those_given_or_the_defaults(given_values: dict[str, Any]) -> None:
    parameters = known(a={"type": "integer"}, b="x")
    good = type(given_values.get("a")) is int and isinstance(given_values.get("b", ""), str)
    if good and "zz" not in given_values:
        assert parameter_values(parameters, given_values) == {"b": "x"} | given_values
        return
    with pytest.raises(InvalidSpecError) as raised:
        parameter_values(parameters, given_values)
    assert raised.value.errors
    assert all(each.field.startswith("parameters.") for each in raised.value.errors)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ({"type": "integer"}, "1", "whole number"),
        ({"type": "integer"}, 1.5, "whole number"),
        ({"type": "integer"}, True, "whole number"),
        ({"type": "number"}, "x", "a number"),
        ({"type": "number"}, float("nan"), "JSON"),
        ({"type": "text"}, 1, "must be text"),
        ({"type": "boolean"}, 1, "true or false"),
        ({"type": "list"}, {}, "a list"),
        ({"type": "object"}, [], "an object"),
        ({"type": "any"}, {1}, "JSON"),
        ({"choices": [1, 2]}, True, "one of 1, 2"),
        (0.1, None, "a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(parameter: Any, value: Any, words: str) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        parameter_values(known(p=parameter), {"p": value})
    [error] = raised.value.errors
    assert error.field == "parameters.p"
    assert words in error.message


def test_missing_and_unknown_parameters_are_named_together() -> None:
    with pytest.raises(InvalidSpecError) as raised:
        parameter_values(known(rate={"type": "number", "description": "of learning"}), {"rat": 1, "q": 2})
    assert [str(error) for error in raised.value.errors] == [
        "parameters.q: no such parameter; there are: rate",
        "parameters.rat: no such parameter; did you mean 'rate'?",
        "parameters.rate: must be given: a number (of learning)",
    ]
