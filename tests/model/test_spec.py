"""JobSpec: short forms, round trips through JSON, and every listed kind of bad input."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perijove.model import (
    ArrayRange,
    Dependency,
    DependencyType,
    GpuRequest,
    InvalidSpecError,
    JobSpec,
    Kind,
    RetryCause,
    SignalRequest,
    VolumeRequest,
    parse_spec,
)
from perijove.model.spec import FEATURES
from perijove.model.values import ARRAY_SIZE, MAX_GPUS, MAX_ID, MAX_TASK, WARNINGS

LETTERS = "abcXYZ019"
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
lines = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).map(str.strip)
paths = lines.filter(bool)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
places = st.sampled_from(["file:a/b", "dir:/x", "glob:*.png", "fd:1", "record:loss"])
sizes = st.integers(4 << 20, 1 << 45) | st.sampled_from(["8G", "512MiB", "1.5T"])
durations = st.integers(1, 10**6) | st.sampled_from(["1d12h30m", "90s", "1:30:00"])
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def lists(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=3)


def tables(keys: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(keys, values, max_size=3)


arrays = st.builds(
    "{}:{}:{}{}".format,
    st.integers(0, 1000),
    st.integers(1000, 50_000),
    st.integers(1, 500),
    st.sampled_from(["", "%1", "%5"]),
)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "name": lines,
    "kind": st.sampled_from([kind.value for kind in Kind]),
    "image": st.sampled_from(["python:3.12", "registry.example:5000/lab/img@sha256:" + "0" * 64]),
    "runenv": words,
    "require": lists(lines),
    "launcher": words,
    "node": words,
    "constraints": tables(words, lines),
    "os": words,
    "partition": words,
    "reservation": words,
    "nodes": st.integers(1, 10_000),
    "exclusive": st.booleans(),
    "cpu": st.floats(0.01, 1000) | st.integers(1, 100),
    "memory": sizes,
    "gpus": st.integers(0, 8) | st.sampled_from(["a100:2", "h100", "4", "rtx-4090:1"]),
    "resources": tables(words, st.integers(1, 100)),
    "time_limit": durations,
    "signal": st.sampled_from(["USR1@5m", "SIGTERM@90", "HUP@1-00:00:00"]),
    "shm_size": sizes,
    "tmp_disk": sizes,
    "volumes": lists(st.builds("{}{}".format, words, st.sampled_from(["", ":ro", ":rw"]))),
    "storage": tables(identifiers, paths),
    "inputs": tables(identifiers, digests),
    "outputs": lists(identifiers) | tables(identifiers, places),
    "cwd": paths,
    "env": tables(identifiers, texts),
    "stdout": paths,
    "stderr": paths,
    "array": arrays,
    "depends_on": lists(
        st.integers(1, MAX_ID) | st.sampled_from(["afterok:1", "after:2", "afterany:3", "7"])
    ),
    "priority": st.integers(0, 100),
    "project": words,
    "network": st.sampled_from(["none", "bridge", "host", "user", "project"]),
    "secrets": tables(words, st.sampled_from(["file", "env", "env:TOKEN"])),
    "ports": lists(st.integers(1, 65535)),
    "interactive": st.booleans(),
    "user": st.sampled_from(["self", "root"]),
    "ipc": st.sampled_from(["private", "host"]),
    "gui": st.booleans(),
    "hold": st.booleans(),
    "preemptible": st.booleans(),
    "retries": st.integers(0, 100),
    "retry_on": lists(st.sampled_from(["failure", "node", "oom", "time", "exit:75"])),
    "oom_retry": st.sampled_from(["2x", "1.5", 3]),
    "cache": st.booleans(),
    "notify": lists(lines),
    "labels": tables(words, lines),
}
WHAT = [
    st.fixed_dictionaries({"command": st.lists(texts, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"script": texts.filter(bool)}, optional={"args": lists(texts)}),
    st.fixed_dictionaries(
        {"notebook": paths},
        optional={"output_notebook": paths, "parameters": tables(identifiers, json_values)},
    ),
    st.fixed_dictionaries({"function": digests}),
]


def fitting(what: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """A spec in which no field contradicts another."""
    if rest.get("nodes", 1) > 1:
        rest = {name: value for name, value in rest.items() if name not in {"array", "node"}}
    if "signal" in rest and "time_limit" in rest:
        rest = rest | {"time_limit": "2d"}
    return what | rest


specs = st.builds(fitting, st.one_of(WHAT), st.fixed_dictionaries({}, optional=OPTIONAL))


def test_the_strategy_covers_every_field() -> None:
    drawn = set(OPTIONAL) | {
        "command",
        "script",
        "args",
        "notebook",
        "output_notebook",
        "parameters",
        "function",
        "entrypoint",
        "stdin",
        "sealed",
    }
    assert drawn == set(JobSpec.model_fields)


@given(specs)
def test_a_spec_comes_back_from_its_json(fields: dict[str, Any]) -> None:
    spec = parse_spec(fields)
    for text in (spec.model_dump_json(exclude_unset=True), spec.model_dump_json()):
        assert parse_spec(text) == spec
    again = parse_spec(spec.model_dump_json(exclude_unset=True))
    assert again.model_fields_set == spec.model_fields_set == set(fields)
    assert again.model_dump_json() == spec.model_dump_json()


@given(specs)
def test_json_text_and_fields_mean_the_same(fields: dict[str, Any]) -> None:
    assert parse_spec(json.dumps(fields)) == parse_spec(fields)


@given(specs)
def test_every_spec_has_a_title_of_one_line_or_its_program(fields: dict[str, Any]) -> None:
    spec = parse_spec(fields)
    assert len(spec.title) <= 200
    assert spec.title == spec.name or not spec.name


def test_defaults_are_not_shared_between_specs() -> None:
    one, other = JobSpec(command=["a"]), JobSpec(command=["a"])
    for field in JobSpec.model_fields:
        if isinstance(value := getattr(one, field), list | dict):
            assert value is not getattr(other, field)


def test_names_that_other_tools_use_are_taken_too() -> None:
    spec = parse_spec({"command": ["a"], "cpus": 2, "time": "1h", "depends": ["afterany:3"]})
    assert (spec.cpu, spec.time_limit, str(spec.depends_on[0])) == (2.0, 3600.0, "afterany:3")


# arrays


@given(st.integers(0, 10**6), st.integers(0, ARRAY_SIZE - 1), st.integers(1, 10**4))
def test_an_array_steps_from_start_to_end_and_never_past_it(start: int, length: int, step: int) -> None:
    array = ArrayRange(start=start, end=start + length, step=step)
    tasks = list(array.tasks)
    assert tasks[0] == start
    assert all(b - a == step for a, b in pairwise(tasks))
    assert tasks[-1] <= array.end < tasks[-1] + step
    assert (tasks[-1] == array.end) == (length % step == 0)
    assert ArrayRange.model_validate(str(array)) == array


@pytest.mark.parametrize(
    ("text", "tasks"), [("1:3", [1, 2, 3]), ("0-4:2", [0, 2, 4]), ("1:10:4", [1, 5, 9]), ("7:7", [7])]
)
def test_arrays_people_write(text: str, tasks: list[int]) -> None:
    assert list(ArrayRange.model_validate(text).tasks) == tasks


def test_an_array_may_have_as_many_tasks_as_the_limit_says() -> None:
    assert len(ArrayRange(start=1, end=ARRAY_SIZE).tasks) == ARRAY_SIZE
    with pytest.raises(ValidationError, match="at most 100000 tasks, has 100001"):
        ArrayRange(start=0, end=ARRAY_SIZE)


# short forms


@pytest.mark.parametrize("type_", DependencyType)
@given(job=st.integers(1, 10**18 - 1))
def test_a_dependency_is_read_as_it_is_written(type_: DependencyType, job: int) -> None:
    assert Dependency.model_validate(f"{type_}:{job}") == Dependency(type=type_, job=job)
    assert Dependency.model_validate(str(Dependency(type=type_, job=job))) == Dependency(type=type_, job=job)
    assert Dependency.model_validate(job) == Dependency.model_validate(str(job)) == Dependency(job=job)


@given(words.filter(lambda w: not w.isdecimal()), st.integers(0, MAX_GPUS))
def test_gpus_are_asked_for_by_number_model_or_both(model: str, count: int) -> None:
    assert (
        GpuRequest.model_validate(count) == GpuRequest.model_validate(f" {count} ") == GpuRequest(count=count)
    )
    assert GpuRequest.model_validate(model) == GpuRequest(count=1, model=model)
    assert GpuRequest.model_validate(f"{model}:{count}") == GpuRequest(count=count, model=model)


@given(words)
def test_a_volume_is_writable_unless_it_says_ro(name: str) -> None:
    assert VolumeRequest.model_validate(f"{name}:ro") == VolumeRequest(name=name, read_only=True)
    assert VolumeRequest.model_validate(f"{name}:rw") == VolumeRequest.model_validate(name)
    assert not VolumeRequest.model_validate(name).read_only


whole = st.integers(0, MAX_TASK)
some = st.integers(1, MAX_TASK)


@given(
    st.one_of(
        st.builds(
            lambda start, length, step, limit: ArrayRange(
                start=start, end=start + length * step, step=step, limit=limit
            ),
            st.integers(0, 10**6),
            st.integers(0, ARRAY_SIZE - 1),
            st.integers(1, 10**4),
            st.none() | some,
        ),
        st.builds(
            Dependency,
            type=st.sampled_from(DependencyType),
            job=st.integers(1, MAX_ID),
            task=st.none() | whole,
        ),
        st.builds(
            GpuRequest,
            count=st.integers(0, MAX_GPUS),
            model=st.none() | words,
            memory=st.none() | st.integers(0, 1 << 60),
        ),
        st.builds(SignalRequest, signal=st.sampled_from(WARNINGS), before=st.floats(1, 3e8)),
        st.builds(RetryCause, cause=st.sampled_from(["failure", "node", "oom", "time"])),
        st.builds(RetryCause, cause=st.just("exit"), code=st.integers(1, 255)),
        st.builds(VolumeRequest, name=words, read_only=st.booleans()),
    )
)
def test_whatever_has_a_short_form_is_read_back_from_it(value: Any) -> None:
    assert type(value).model_validate(str(value)) == value
    assert type(value).model_validate(f" {value} ") == value


@pytest.mark.parametrize(
    ("text", "count", "model", "memory"),
    [("2@40G", 2, None, 40 << 30), ("a100@40G", 1, "a100", 40 << 30), ("a100:2@1.5T", 2, "a100", 1536 << 30)],
)
def test_gpus_are_asked_for_by_memory_too(text: str, count: int, model: str | None, memory: int) -> None:
    assert GpuRequest.model_validate(text) == GpuRequest(count=count, model=model, memory=memory)


def test_features_that_are_fields_are_named_as_the_fields() -> None:
    assert set(FEATURES) - {"suspend", "devices", "archives", "root"} <= set(JobSpec.model_fields)


# bad input: fields beside `command` -> the field named, the value shown, what would be accepted

BAD: list[tuple[dict[str, Any], str, str, str]] = [
    # images
    ({"image": "a b"}, "image", "'a b'", "name of a container image"),
    ({"image": ""}, "image", "''", "name of a container image"),
    ({"image": "-x"}, "image", "'-x'", "name of a container image"),
    ({"image": 3}, "image", "3", "must be text"),
    # negative or absurd resources
    ({"cpus": -1}, "cpus", "-1", "at least 0.01"),
    ({"cpu": 0}, "cpu", "0", "at least 0.01"),
    ({"cpu": 1e9}, "cpu", "1000000000.0", "at most 100000"),
    ({"cpu": float("inf")}, "cpu", "inf", "finite"),
    ({"cpu": float("nan")}, "cpu", "nan", "finite"),
    ({"cpu": True}, "cpu", "True", "must be a number"),
    ({"cpu": "many"}, "cpu", "'many'", "must be a number"),
    ({"memory": "lots"}, "memory", "'lots'", "512M, 8G"),
    ({"memory": "1K"}, "memory", "'1K'", "at least 4M"),
    ({"memory": -1}, "memory", "-1", "between 0 and 1024P"),
    ({"memory": "2000P"}, "memory", "'2000P'", "between 0 and 1024P"),
    ({"memory": 10**400}, "memory", "a very large number", "between 0 and 1024P"),
    ({"shm_size": "x"}, "shm_size", "'x'", "512M, 8G"),
    ({"gpus": -1}, "gpus", "-1", "between 0 and 1024"),
    ({"gpus": 4096}, "gpus", "4096", "between 0 and 1024"),
    ({"gpus": "a100:2000"}, "gpus", "'a100:2000'", "between 0 and 1024"),
    ({"gpus": "a:b"}, "gpus", "'a:b'", "model:number"),
    ({"gpus": True}, "gpus", "True", "model:number"),
    ({"gpus": 1.5}, "gpus", "1.5", "model:number"),
    ({"resources": {"licence": 0}}, "resources.licence", "0", "at least 1"),
    ({"time": "soon"}, "time", "'soon'", "15m, 1d12h"),
    ({"time_limit": 0}, "time_limit", "0", "longer than 0 s"),
    ({"time_limit": "100000d"}, "time_limit", "'100000d'", "ten years"),
    ({"priority": 101}, "priority", "101", "at most 100"),
    ({"priority": 1.5}, "priority", "1.5", "whole number"),
    ({"retries": -1}, "retries", "-1", "at least 0"),
    ({"nodes": 0}, "nodes", "0", "at least 1"),
    ({"nodes": 2, "array": "1:2"}, "nodes", "", "one node"),
    ({"nodes": 2, "node": "n1"}, "node", "", "one was named"),
    ({"signal": "USR1"}, "signal", "'USR1'", "USR1@5m"),
    ({"signal": "KILL@5m"}, "signal", "'KILL@5m'", "one of USR1, USR2, TERM, INT, HUP"),
    ({"signal": "USR1@soon"}, "signal.before", "'soon'", "15m, 1d12h"),
    ({"signal": "USR1@0.5s"}, "signal.before", "'0.5s'", "at least 1"),
    ({"signal": "USR1@5m", "time": "5m"}, "signal", "", "before the start"),
    ({"retry_on": ["never"]}, "retry_on.0", "'never'", "exit:CODE"),
    ({"retry_on": ["exit:0"]}, "retry_on.0.code", "0", "at least 1"),
    ({"retry_on": ["exit:256"]}, "retry_on.0.code", "256", "at most 255"),
    ({"retry_on": [{"cause": "exit"}]}, "retry_on.0", "", "exit:CODE"),
    ({"retry_on": [{"cause": "oom", "code": 3}]}, "retry_on.0", "", "exit:CODE"),
    ({"oom_retry": "1x"}, "oom_retry", "'1x'", "more than 1"),
    ({"oom_retry": "twice"}, "oom_retry", "'twice'", "2x or 1.5"),
    ({"partition": "a b"}, "partition", "'a b'", "letters, digits"),
    # arrays
    ({"array": "1:9%0"}, "array", "'1:9%0'", "%N for at most N at once"),
    ({"array": "5"}, "array", "'5'", "start:end or start:end:step"),
    ({"array": "1:x"}, "array", "'1:x'", "start:end or start:end:step"),
    ({"array": "9:1"}, "array", "'9:1'", "must not be before"),
    ({"array": "1:9:0"}, "array", "'1:9:0'", "start:end or start:end:step"),
    ({"array": "0:999999999999"}, "array", "'0:999999999999'", "at most 100000 tasks"),
    ({"array": {"start": 0, "end": 10**30}}, "array.end", "1000000000", "at most"),
    ({"array": {"start": 1}}, "array.end", "", "is required"),
    # paths, volumes, files
    ({"volumes": ["home", "data:xx"]}, "volumes.1", "'data:xx'", "NAME:ro or NAME:rw"),
    ({"volumes": ["../etc"]}, "volumes.0", "'../etc'", "from the site's list"),
    ({"volumes": "home"}, "volumes", "'home'", "must be a list"),
    ({"cwd": "a\0b"}, "cwd", r"'a\x00b'", "control characters"),
    ({"cwd": ""}, "cwd", "''", "must not be empty"),
    ({"stdout": "x" * 5000}, "stdout", "'xxx", "at most 4096 characters"),
    ({"outputs": {"../x": "file:x"}}, "outputs.../x", "'../x'", "plain file name"),
    ({"outputs": {"é" * 200: "file:x"}}, "outputs." + "é" * 61 + "...", "'éé", "at most 255 bytes"),
    ({"inputs": {"x": "md5:1"}}, "inputs.x", "'md5:1'", "sha256:"),
    ({"inputs": {"a/b": "sha256:" + "0" * 64}}, "inputs.a/b", "'a/b'", "plain file name"),
    # names
    ({"name": "x" * 201}, "name", "'xxx", "at most 200 characters"),
    ({"name": 12}, "name", "12", "must be text"),
    ({"name": None}, "name", "None", "must be text"),
    ({"name": "a\nb"}, "name", r"'a\nb'", "control characters"),
    ({"name": "a\x1b[2J"}, "name", r"\x1b", "control characters"),
    ({"labels": {"a b": "c"}}, "labels.a b", "'a b'", "letters, digits"),
    # the rest
    ({"env": {"1A": "x"}}, "env.1A", "'1A'", "not begin with a digit"),
    ({"env": {"A": "x" * 140_000}}, "env", "", "below 128 KiB"),
    ({"depends_on": ["finish:1"]}, "depends_on.0", "'finish:1'", "afterok:ID"),
    ({"depends": [0]}, "depends.0", "0", "afterok:ID"),
    ({"depends_on": ["9" * 19]}, "depends_on.0.job", "9" * 19, "at most 9223372036854775807"),
    ({"depends_on": ["12_x"]}, "depends_on.0", "'12_x'", "12_7 is a member"),
    ({"depends_on": [2**63]}, "depends_on.0", "9223372036854775808", "afterok:ID"),
    ({"ports": [80, 70_000]}, "ports.1", "70000", "at most 65535"),
    ({"network": "hsot"}, "network", "'hsot'", "none, bridge, host, user, project; did you mean 'host'?"),
    ({"kind": "job"}, "kind", "'job'", "one of batch, interactive"),
    ({"interactive": "perhaps"}, "interactive", "'perhaps'", "true or false"),
    ({"memmory": "8G"}, "memmory", "", "unknown field 'memmory'; did you mean 'memory'?"),
    ({"array": {"start": 1, "end": 2, "stpe": 1}}, "array.stpe", "1", "did you mean 'step'?"),
    ({"parameters": {"x": 1}}, "parameters", "", "only a notebook takes parameters"),
    ({"args": ["x"]}, "args", "", "only a script takes args"),
    ({"script": "true"}, "command", "", "exactly one of command, script, notebook, function"),
]


@pytest.mark.parametrize(("fields", "field", "value", "message"), BAD)
@pytest.mark.parametrize("form", ["fields", "json"])
def test_bad_input_names_field_value_and_what_would_be_accepted(
    form: str, fields: dict[str, Any], field: str, value: str, message: str
) -> None:
    spec = {"command": ["true"]} | fields
    with pytest.raises(InvalidSpecError) as raised:
        parse_spec(json.dumps(spec) if form == "json" else spec)
    (error,) = raised.value.errors
    assert error.field == field
    assert value in error.value
    assert message in error.message


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "command", "exactly one of"),
        ({"command": []}, "command", "must not be empty"),
        ({"command": "ls"}, "command", 'must be a list, for example ["a", "b"]'),
        ({"command": ["a\0"]}, "command.0", "NUL"),
        ({"command": ["x" * 200_000]}, "command.0", "at most 131071 characters"),
        ({"command": ["x"] * 10_001}, "command", "at most 10000 items, has 10001"),
        ({"script": ""}, "script", "must not be empty"),
        ({"function": "x"}, "function", "sha256:"),
        ({"notebook": "a.ipynb", "parameters": {"x": float("nan")}}, "parameters", "must be JSON"),
        ({"notebook": "a.ipynb", "parameters": {"x": object()}}, "parameters", "must be JSON"),
        ({"notebook": "a.ipynb", "parameters": {"x y": 1}}, "parameters.x y", "not begin with a digit"),
    ],
)
def test_what_to_run_must_be_said_once_and_well(spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        parse_spec(spec)
    assert [error.field for error in raised.value.errors] == [field]
    assert message in str(raised.value)
