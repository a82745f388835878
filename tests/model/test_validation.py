"""Whatever is sent, the answer is a spec or an error that can be read, and secrets stay out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perijove.model import InvalidSpecError, JobSpec, field_errors, parse_spec, parse_specs
from perijove.model.validation import MAX_ERRORS, MAX_VALUE

SECRET = "hunter2-not-for-logs"

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
known = st.sampled_from([*JobSpec.model_fields, "cpus", "time", "depends", "nonsense"])
almost_specs = st.dictionaries(known, json_values, max_size=6).map(lambda d: {"command": ["true"]} | d)


def assert_readable(error: InvalidSpecError) -> None:
    assert error.errors
    for found in error.errors:
        assert found.message
        assert "Input should" not in found.message
        assert len(found.value) <= MAX_VALUE
        assert len(found.field) < 300


@given(json_values | almost_specs)
def test_any_json_is_a_spec_or_a_readable_error(value: Any) -> None:
    for data in (json.dumps(value), value if isinstance(value, dict) else {}):
        try:
            spec = parse_spec(data)
        except InvalidSpecError as error:
            assert_readable(error)
        else:
            assert parse_spec(spec.model_dump_json()) == spec


@given(st.lists(almost_specs, max_size=4))
def test_in_bulk_each_error_begins_with_the_place_of_its_job(values: list[dict[str, Any]]) -> None:
    data = json.dumps(values)
    try:
        one_by_one = [parse_spec(json.dumps(value)) for value in values]
    except InvalidSpecError:
        with pytest.raises(InvalidSpecError) as raised:
            parse_specs(data)
        assert_readable(raised.value)
        assert all(int(e.field.split(".")[0]) < len(values) for e in raised.value.errors if e.field)
        return
    assert parse_specs(data) == one_by_one


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_a_spec_or_a_readable_error(data: bytes | str) -> None:
    for parse in (parse_spec, parse_specs):
        try:
            assert parse(data) == []
        except InvalidSpecError as error:
            assert_readable(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no body"),
        (b'{"command": ["a"]', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"notebook": "n", "parameters": {"a": ' + b"[" * 10_000, "not valid JSON"),
        (b'{"cpu": 1' + b"0" * 10_000 + b', "command": ["a"]}', "finite|valid JSON"),
        (b"null", "an object with the fields of a job"),
        (b"[]", "an object with the fields of a job"),
    ],
)
def test_what_is_no_object_is_said_to_be_none(data: bytes, message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message) as raised:
        parse_spec(data)
    assert_readable(raised.value)


def test_deep_parameters_are_refused_and_do_not_exhaust_the_stack() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidSpecError, match="parameters"):
        parse_spec({"notebook": "a.ipynb", "parameters": {"x": deep}})


@pytest.mark.parametrize(
    "env",
    [
        {"TOKEN": [SECRET]},
        {"TOKEN": {"value": SECRET}},
        [f"TOKEN={SECRET}"],
        f"TOKEN={SECRET}",
        {"TOKEN": SECRET + "\0"},
        {"TOKEN": SECRET, "1BAD": "x"},
        {"TOKEN": SECRET + "x" * 200_000},
    ],
)
@pytest.mark.parametrize("field", ["env", "enviroment", "Env"])
@pytest.mark.parametrize("rest", [{}, {"script": "two things to run"}, {"memory": "lots"}])
def test_an_environments_values_are_in_no_error(env: Any, field: str, rest: dict[str, Any]) -> None:
    fields = {"command": ["true"], field: env} | rest
    for data in (fields, json.dumps(fields)):
        with pytest.raises(InvalidSpecError) as raised:
            parse_spec(data)
        assert SECRET not in json.dumps(raised.value.problem())
        with pytest.raises(ValidationError) as plain:
            JobSpec.model_validate(fields)
        assert SECRET not in str(plain.value)


def test_a_bulk_with_many_errors_tells_the_first_and_how_many_more() -> None:
    with pytest.raises(InvalidSpecError) as raised:
        parse_specs(json.dumps([{"command": ["a"], "memory": "x"}] * 200))
    assert len(raised.value.errors) == MAX_ERRORS + 1
    assert str(raised.value.errors[0]).startswith("0.memory: must be a size")
    assert raised.value.errors[-1].message == "and 150 more errors"


def test_the_nearest_field_is_suggested_also_by_its_other_names() -> None:
    for written, meant in {
        "cpuss": "cpus",
        "Memory": "memory",
        "time-limit": "time_limit",
        "volume": "volumes",
    }.items():
        with pytest.raises(InvalidSpecError, match=f"unknown field '{written}'; did you mean '{meant}'"):
            parse_spec({"command": ["a"], written: 1})


def test_nothing_near_means_no_suggestion() -> None:
    with pytest.raises(InvalidSpecError, match=r"unknown field 'qqqqqq'$"):
        parse_spec({"command": ["a"], "qqqqqq": None})


def test_errors_of_one_part_alone_are_told_too() -> None:
    from perijove.model import GpuRequest

    with pytest.raises(ValidationError) as raised:
        GpuRequest.model_validate("a:b")
    (error,) = field_errors(raised.value)
    assert error.message.startswith("must be a number, a model, or model:number")
