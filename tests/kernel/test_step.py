"""A function step as a job: its arguments, what it returns, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.runner.step import VALUE_BYTES, Inputs, json_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def run_step(
    directory: Path, function: Callable[..., Any], call: Any, **pickles: Any
) -> tuple[int, str, dict[str, Any]]:
    """(exit code, standard error, recorded values)."""
    folder = directory / "input"
    folder.mkdir()
    (folder / "function.pkl").write_bytes(cloudpickle.dumps(function))
    (folder / "call.json").write_text(call if isinstance(call, str) else json.dumps(call))
    for name, value in pickles.items():
        (folder / name).write_bytes(cloudpickle.dumps(value))
    env = {**os.environ, "PERIJOVE_JOB_DIR": str(directory)}
    done = subprocess.run(
        [sys.executable, "-m", "perijove.runner", "step"],
        env=env,
        cwd=directory,
        capture_output=True,
        text=True,
    )
    recorded = directory / "output" / ".recorded.jsonl"
    lines = recorded.read_text().splitlines() if recorded.exists() else []
    values = [line for line in map(json.loads, lines) if "name" in line]
    return done.returncode, done.stderr, {line["name"]: line["value"] for line in values}


def result(directory: Path) -> Any:
    return cloudpickle.loads((directory / "output" / "result.pkl").read_bytes())


def test_values_pickles_and_paths_are_given_to_the_function(tmp_path: Path) -> None:
    def show(number: int, data: Any, *, where: str, parts: Any) -> list[Any]:
        return [number, data.sum().item(), Path(where).name, parts]

    call = {
        "args": [3, {"pickle": "data"}],
        "kwargs": {
            "where": {"path": "data"},
            "parts": [{"value": {"pickle": "no mark"}}, {"a": {"value": 1}, "b": [2]}],
        },
    }
    code, errors, recorded = run_step(tmp_path, show, call, data=numpy.arange(4))
    assert code == 0, errors
    assert result(tmp_path) == [3, 6, "data", [{"pickle": "no mark"}, {"a": 1, "b": [2]}]]
    assert recorded == {"result": result(tmp_path)}


def test_what_is_not_json_is_a_pickle_only(tmp_path: Path) -> None:
    code, errors, recorded = run_step(tmp_path, lambda: (1, 2), {"args": [], "kwargs": {}})
    assert (code, recorded, result(tmp_path)) == (0, {}, (1, 2)), errors


def test_an_exception_is_told_from_the_functions_own_frame(tmp_path: Path) -> None:
    def divide(by: int) -> float:
        return 1 / by

    code, errors, recorded = run_step(tmp_path, divide, {"args": [0]})
    assert (code, recorded) == (1, {})
    assert "ZeroDivisionError" in errors
    assert "runner" not in errors
    assert not (tmp_path / "output" / "result.pkl").exists()


def test_leaving_with_a_code_is_that_code(tmp_path: Path) -> None:
    assert run_step(tmp_path, sys.exit, {"args": [7]})[0] == 7


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("{", "call.json is not JSON"),
        ("[]", "must be an object"),
        ({"args": [{"pickle": "nowhere"}]}, "came without its input 'nowhere'"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(tmp_path: Path, call: Any, said: str) -> None:
    code, errors, _ = run_step(tmp_path, abs, call)
    assert code == 1
    assert said in errors
    assert "Traceback" not in errors


@given(JSON)
def test_what_is_recorded_reads_back_the_same(value: Any) -> None:
    text = json_of(value)
    if text is not None:
        assert json.loads(text) == value
        assert text.encode("ascii")


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: 2},
        float("nan"),
        float("inf"),
        1 << 60,
        numpy.float64(1.5),
        "\udc80",
        "a\0b",
        b"bytes",
        [[(1,)]],
        "x" * VALUE_BYTES,
    ],
)
def test_what_json_would_change_is_not_recorded(value: Any) -> None:
    assert json_of(value) is None


def test_depth_is_no_trouble() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert json_of(value) is None


@given(JSON)
def test_a_value_is_never_taken_for_a_mark(value: Any) -> None:
    def never(_: str) -> Any:
        raise AssertionError

    found = Inputs(never, never).argument({"value": value})
    assert found is value
