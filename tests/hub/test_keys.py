"""Keys: equal when, and only when, all is equal that determines a result; always in the form of RFC 8785."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from perijove.model.workflow import Step
from perijove_hub.workflows import keys
from perijove_hub.workflows.keys import canonical, exact, key_of

IMAGE = "sha256:" + "a" * 64
DATA = "sha256:" + "b" * 64
OTHER = "sha256:" + "c" * 64

_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
_names = st.text() | st.sampled_from(["value", "number", "from", "pickle", "é", "\U0001f600", "\ufb33"])
values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4)
)


def step(**changes: Any) -> Step:
    return Step.model_validate({"command": ["fit"], "image": "python:3.12", "sealed": True, **changes})


def parts(given: Step | None = None, **more: Any) -> keys.Ingredients:
    names = ("image_digest", "platform", "launcher", "code")
    fixed: dict[str, Any] = {"image_digest": IMAGE, "platform": "linux/amd64"}
    fixed |= {name: more.pop(name) for name in names if name in more}
    return keys.ingredients(keys.constant(given or step(), **fixed), **{"inputs": {"data": DATA}, **more})


def same(one: Any, other: Any) -> bool:
    """Equal as Python's JSON has it, in which 1, 1.0 and true are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(part, chance) for part in value] if isinstance(value, list) else value


@given(values)
@example({"\ufb33": 1, "\U0001f600": 2})  # whose order in UTF-16 is not that of their code points
@example([1e16, 1e-4, 9.9e-5, 1e21, 5e-324, -0.0, 1e15 + 0.5, 123456789012345.6])
@example({"\x7f\x00\u2028": '\\"/'})
def test_the_canonical_form_is_that_of_the_library(value: Any) -> None:
    assert canonical(exact(value)) == rfc8785.dumps(exact(value))


@given(st.dictionaries(st.text(max_size=3), values, max_size=3), st.lists(values, max_size=2), st.booleans())
@example({}, [], False)
def test_keys_of_a_step_are_those_of_its_instances(given: Any, args: list[Any], filled: bool) -> None:
    fixed = keys.constant(step(env={"A": "ä"}), image_digest=IMAGE, platform="linux/amd64")
    texts: dict[str, Any] = {"command": ["fit", "7"], "env": {}} if filled else {}
    whole = keys.ingredients(fixed, inputs={"data": DATA}, args=args, parameters=given, **texts)
    assert keys.Keys(fixed).key_of(whole) == key_of(whole)


@given(values, values)
@example(1, 1.0)
@example(1, True)
@example(0.0, -0.0)
@example(2**53, 2**53 + 1)
@example(2**60, float(2**60))
@example(1.0, {"number": "1.0"})
@example({"number": "1.0"}, {"value": {"number": "1.0"}})
@example({"value": {"value": 1}}, {"value": 1})
@example("1", 1)
@example([], {})
def test_values_have_the_same_form_when_they_are_the_same(one: Any, other: Any) -> None:
    assert (canonical(exact(one)) == canonical(exact(other))) == same(one, other)


@given(st.dictionaries(st.text(), values, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(parameters: dict[str, Any], chance: random.Random) -> None:
    again = shuffled(parameters, chance)
    assert key_of(parts(parameters=parameters)) == key_of(parts(parameters=again))


@given(st.dictionaries(st.text(), values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
def test_keys_are_equal_when_parameters_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key_of(parts(parameters=one)) == key_of(parts(parameters=other))) == same(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, [b"bytes"], {1: 2}])
def test_what_is_no_json_has_no_key(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_of(parts(parameters={"x": value}))


MATTERS: dict[str, keys.Ingredients] = {
    "nothing": parts(),
    "image": parts(image_digest=OTHER),
    "no image": parts(image_digest=None, launcher="process"),
    "launcher without image": parts(image_digest=None, launcher="other"),
    "platform": parts(platform="linux/arm64"),
    "command": parts(step(command=["fit", "-v"])),
    "command in other parts": parts(step(command=["fit -v"])),
    "command, filled": parts(command=["fit", "x"]),
    "script": parts(step(command=None, script="fit")),
    "script's arguments": parts(step(command=None, script="fit", args=["1"]), args=["1"]),
    "function": parts(step(command=None, function=DATA)),
    "other function": parts(step(command=None, function=OTHER)),
    "function's argument": parts(step(command=None, function=DATA), args=[{"value": 1}]),
    "function's argument, a float": parts(step(command=None, function=DATA), args=[{"value": 1.0}]),
    "function's argument, a pickle": parts(step(command=None, function=DATA), args=[{"pickle": OTHER}]),
    "function's argument, a file": parts(step(command=None, function=DATA), args=[{"path": OTHER}]),
    "code": parts(step(command=None, notebook=DATA), code={"kernel": "python3", "cells": [{"code": "1"}]}),
    "other code": parts(
        step(command=None, notebook=DATA), code={"kernel": "python3", "cells": [{"code": "2"}]}
    ),
    "kernel": parts(step(command=None, notebook=DATA), code={"kernel": "ir", "cells": [{"code": "1"}]}),
    "parameter": parts(parameters={"x": 1}),
    "other parameter": parts(parameters={"y": 1}),
    "parameter, a text": parts(parameters={"x": "1"}),
    "entrypoint": parts(step(entrypoint=["sh", "-c"])),
    "entrypoint of the image": parts(step(entrypoint="image")),
    "cwd": parts(step(cwd="/tmp")),
    "env": parts(step(env={"A": "1"})),
    "env, filled": parts(env={"A": "2"}),
    "input": parts(inputs={"data": OTHER}),
    "input's name": parts(inputs={"table": DATA}),
    "another input": parts(inputs={"data": DATA, "table": DATA}),
    "input, a value": parts(inputs={"data": {"value": 1}}),
    "input, another value": parts(inputs={"data": {"value": 1.0}}),
    "input, a text that looks like a digest": parts(inputs={"data": {"value": DATA}}),
    "stdin": parts(step(inputs={"data": DATA}, stdin="data")),
    "outputs": parts(step(outputs=["table.csv"])),
    "output's place": parts(step(outputs={"table.csv": "file:other.csv"})),
    "sealed": parts(step(sealed=False, volumes=[])),
    "volumes": parts(step(sealed=False)),
    "network": parts(step(sealed=False, volumes=[], network="none")),
    "user": parts(step(user="root")),
}


def test_each_ingredient_alone_makes_another_key() -> None:
    found: dict[str, str] = {}
    for name, one in MATTERS.items():
        twin = found.setdefault(key_of(one), name)
        assert twin == name, f"{name} has the key of {twin}"


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu": 4},
        {"memory": "8G"},
        {"gpus": 1},
        {"time_limit": "1h"},
        {"priority": 90},
        {"retries": 3},
        {"labels": {"a": "b"}},
        {"node": "n1"},
        {"launcher": "docker"},
        {"partition": "gpu"},
        {"image": "python:3.12-slim"},
        {"cache": True},
        {"after": ["prep"]},
        {"preemptible": True},
        {"network": "none"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_determine_the_result_leaves_the_key(changes: dict[str, Any]) -> None:
    assert key_of(parts(step(**changes))) == key_of(parts())


def test_a_key_stays_what_it_was() -> None:
    """Else all that is cached anywhere is lost: then `VERSION` changes, and this."""
    assert key_of(parts()) == "sha256:f15f7e26b54cd9aec543b571c5b1c81e5ca08b2840b17b72e9e50f4944198d74"


def test_secrets_count_by_name_and_keep_a_result_to_its_owner() -> None:
    plain, secret = step(), step(secrets={"token": "env"})
    assert "secrets" not in parts(plain), "keys of steps without any are as they were"
    assert key_of(parts(plain)) != key_of(parts(secret))
    assert key_of(parts(secret)) == key_of(parts(step(secrets={"token": "env"})))
    assert key_of(parts(secret)) != key_of(parts(step(secrets={"token": "file"})))
    assert keys.for_all(plain)
    assert not keys.for_all(secret)
    assert not keys.for_all(step(sealed=False))
