"""Workflows as YAML, JSON and version 1: nothing is lost, and what is wrong is named with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_workflows import json_values, workflows

from perijove.documents import given_values, load, parse, to_json, to_yaml
from perijove.model import InvalidSpecError, Workflow, parse_workflow
from perijove.version1 import from_version1, to_version1
from perijove.yaml12 import read, write

PATIENT = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A workflow has a hundred parts, and a busy machine draws them slowly."""


@PATIENT
@given(workflows)
def test_yaml_and_json_lose_nothing(workflow: Workflow) -> None:
    assert parse(to_yaml(workflow)) == workflow
    assert parse(to_json(workflow), "x.json") == workflow
    assert parse_workflow(workflow.model_dump_json()) == workflow


@PATIENT
@given(workflows)
def test_version_1_holds_every_workflow(workflow: Workflow) -> None:
    written = to_version1(workflow)
    assert from_version1(json.loads(json.dumps(written))) == workflow
    assert list(from_version1(written).steps) == list(workflow.steps)


@PATIENT
@given(st.dictionaries(st.text(max_size=5).filter(str.isprintable), json_values, max_size=4))
def test_yaml_of_any_json_is_read_back(data: dict[str, Any]) -> None:
    text = write(data)
    assert read(text)[0] == data
    assert json.dumps(read(text)[0]) == json.dumps(data)


# What people write by hand


def refused(text: str, name: str = "flow.yaml") -> str:
    with pytest.raises(InvalidSpecError) as raised:
        parse(text, name)
    return "; ".join(str(error) for error in raised.value.errors)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("True", True),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}\n")[0]["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["x:3", "'a' stands twice"]),
        ("a: &x [1]\nb: *x\n", ["x:1", "alias"]),
        ("a: !!python/object:os.system x\n", ["x:1", "tag"]),
        ("a:\n  b: .nan\n", ["x:2", "finite"]),
        ("a:\n  b: -.INF\n", ["x:2", "finite"]),
        ("a: [1, 2\nb: 3\n", ["x:2", "is not valid YAML"]),
        ("\ta: 1", ["x:1", "is not valid YAML"]),
        ("? [a]\n: 1\n", ["x:1", "must be text"]),
        ("[" * 5000, ["nested too deeply"]),
        ("a: " + "9" * 5000, ["too many digits"]),
        ("a: 1\n---\nb: 2\n", ["is not valid YAML"]),
        ("a: \x07", ["is not valid YAML"]),
    ],
)
def test_yaml_that_cannot_be_read_is_refused_with_its_line(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        read(text, "x")
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_an_error_has_the_line_of_what_is_wrong() -> None:
    text = (
        "name: x\nsteps:\n  a.b:\n    command: [x]\n    env:\n      A: ok\n    memry: 8G\n  c: {script: ''}\n"
    )
    found = refused(text)
    assert "flow.yaml:7: steps.a.b.memry: unknown field 'memry'; did you mean 'memory'?" in found
    assert "flow.yaml:8: steps.c.script: must not be empty" in found


@pytest.mark.parametrize("text", ["", "a", "[1]", "3", "null"])
def test_what_is_no_workflow_says_what_one_is(text: str) -> None:
    assert "must have steps" in refused(text)
    assert refused(text or "null", "x.json")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Any) -> None:
    with pytest.raises(InvalidSpecError, match=r"none\.yaml cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSpecError, match=r"binary\.yaml cannot be read"):
        load(tmp_path / "binary.yaml")


# Version 1


def job(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "container": "busybox", "command": ["true"], **fields}


def first(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "jobs": list(jobs), **more}


SAMPLE = first(
    {
        "id": "j1",
        "container": "sha256:" + "1" * 64,
        "command": ["sh", "-c", "echo ${{ x }}"],
        "entrypoint": [],
        "cwd": "/data",
        "env": ["A=b=c", "E="],
        "inputs": {"t": "sha256:" + "2" * 64, "u": "https://host/x#sha256=" + "3" * 64},
        "outputs": {"out": "fd:1", "img": "file:/out/image.tar", "all": "glob:/out/*.png"},
        "stdin": "t",
        "requires": {
            "cores": 2.0,
            "memory_bytes": 1 << 31,
            "gpu": 1,
            "tmpdisk_bytes": 1 << 20,
            "arch": "arm64",
        },
        "supervisor": {"timeout_s": 60.0},
        "cache": False,
    },
    {"container": "jobs:j1/img", "inputs": {"all": "jobs:j1/all[*]"}, "net": True},
    {"id": "j3", "container": "busybox", "command": ["x"], "entrypoint": ["sh"], "outputs": {"d": "dir:/o"}},
)


def test_a_document_of_version_1_is_read_and_written_as_it_was() -> None:
    workflow = parse(json.dumps(SAMPLE), "dag.json")
    assert to_version1(workflow) == SAMPLE
    assert parse(to_yaml(workflow)) == workflow
    j1, unnamed, j3 = workflow.steps.values()
    assert list(workflow.steps) == ["j1", "#1", "j3"]
    assert (j1.sealed, j1.cached, j1.image) == (True, False, "archive:sha256:" + "1" * 64)
    assert j1.command == ["sh", "-c", "echo $${{ x }}"]
    assert (unnamed.sealed, unnamed.cached, unnamed.volumes, unnamed.entrypoint) == (
        False,
        False,
        [],
        "image",
    )
    assert (j3.cached, j3.entrypoint, j3.command) == (True, ["sh"], ["x"])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"container": st.sampled_from(["busybox", "sha256:" + "0" * 64])},
            optional={
                "id": st.uuids().map(str),
                "command": st.lists(st.text("a${} /", max_size=9), min_size=1, max_size=3),
                "entrypoint": st.just(["sh", "-c"]),
                "env": st.dictionaries(st.sampled_from("ABC"), st.text("=a${}", max_size=6), min_size=1).map(
                    lambda env: [f"{name}={value}" for name, value in env.items()]
                ),
                "outputs": st.just({"a": "fd:5"}),
                "net": st.just(True),
                "cache": st.booleans(),
                "requires": st.just({"cores": 3.0}),
            },
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each.get("id", id(each)),
    )
)
def test_version_1_survives_the_way_through_a_workflow(jobs: list[dict[str, Any]]) -> None:
    for each in jobs:
        if "command" not in each:
            each.pop("entrypoint", None)  # an entrypoint alone is written as a command
    document = first(*jobs)
    assert to_version1(from_version1(document)) == document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (first(job(kind="vm")), ["jobs.0.kind", "not supported"]),
        (first(job(kind="x")), ["jobs.0.kind", "must be one of container, vm, baremetal"]),
        (first(job(), job()), ["jobs.1.id", "another job has this id"]),
        (first(job(colour="red")), ["jobs.0.colour", "unknown field"]),
        (first(job(requires={"core": 1})), ["jobs.0.requires.core", "did you mean 'cores'?"]),
        (first(job(requires={"mpi": {"ranks": 2}})), ["jobs.0.requires.mpi", "not supported"]),
        (first(job(runtime={"seccomp": {}})), ["jobs.0.runtime.seccomp", "not supported"]),
        (first(job(env=["A"])), ["jobs.0.env.0", "NAME=VALUE"]),
        (first(job(env=["A=1", "A=2"])), ["jobs.0.env.1", "another one"]),
        (first(job(outputs={"a": "fd:0"})), ["jobs.0.outputs.a", "fd:NUMBER"]),
        (first(job(outputs={"a": "file:b"})), ["jobs.0.outputs.a", "file:/PATH"]),
        (first(job(inputs={"a": "https://x/y"})), ["jobs.0.inputs.a", "#sha256="]),
        (first(job(inputs={"a": "jobs:b/c"})), ["jobs.0.inputs.a", "there is no step b"]),
        (first(job(inputs={"a b": "file:x"})), ["jobs.0.inputs.a b"]),
        (first(job(inputs={"t": "jobs:a/o"}, outputs={"o": "fd:1"})), ["jobs.0", "a -> a"]),
        (first(job(stdin="x")), ["jobs.0.stdin", "no input x"]),
        (first({"id": "a", "command": ["x"]}), ["jobs.0.container", "is required"]),
        (first(job(command=[], entrypoint=[])), ["jobs.0.command", "is required"]),
        (first(job(id="a b")), ["jobs.0.id"]),
        (first(job(requires={"cores": 0})), ["jobs.0.requires.cores"]),
        (first(), ["jobs", "must not be empty"]),
        ({"version": 2, "jobs": [job()]}, ["version", "1"]),
        ({"jobs": [job()]}, ["version", "is required"]),
        (first(job(), more=1), ["more", "unknown field"]),
        (first(job(), perijove={"steps": {}}), ["perijove.steps"]),
        (first(job(perijove={"memry": 1})), ["jobs.0.memry", "did you mean 'memory'?"]),
        (first(job(inputs={"a": "jobs:#1/x"}), {"container": "x"}), ["jobs.0.inputs.a", "must be jobs:"]),
    ],
)
def test_version_1_is_checked_as_strictly(document: dict[str, Any], words: list[str]) -> None:
    message = refused(json.dumps(document), "dag.json")
    assert all(word in message for word in words), message


def test_version_1_takes_an_empty_list_for_no_inputs() -> None:
    assert from_version1(first(job(inputs=[], outputs=[]))).steps["a"].inputs == {}


# Parameters as people type them


def test_parameters_are_read_by_their_types(tmp_path: Any) -> None:
    (tmp_path / "xs.json").write_text("[1, 2]")
    (tmp_path / "xs.yaml").write_text("- no\n- 1e3\n")
    (tmp_path / "text").write_text("1")
    known = parse("parameters: {t: x, n: 1, any: null, l: []}\nsteps: {a: {command: [x]}}").parameters
    given = ["t=1", "n=2", "any=x=y", "l=@xs.json", "other=@xs.yaml", "more=true"]
    assert given_values(known, given, tmp_path) == {
        "t": "1",
        "n": 2,
        "any": "x=y",
        "l": [1, 2],
        "other": ["no", 1000.0],
        "more": True,
    }
    assert given_values(known, ["t=@text"], tmp_path) == {"t": "1"}
    for wrong in (["t"], ["=1"], ["t=1", "t=2"], ["l=@none.json"]):
        with pytest.raises(InvalidSpecError):
            given_values(known, wrong, tmp_path)
