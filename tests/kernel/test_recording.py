"""``perijove.record``: results of a job by name, as JSON, whatever the number of processes that record."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perijove
from perijove.model.places import Reference
from perijove.reporting import LARGEST, RECORDED


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERIJOVE_JOB_DIR", str(tmp_path))
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    return tmp_path


def recorded(job: Path) -> dict[str, Any]:
    lines = (job / "output" / RECORDED).read_text().splitlines()
    return {line["name"]: line["value"] for line in map(json.loads, lines)}


FRAME = pd.DataFrame({"a": [1, 2], 3: [0.5, np.nan]})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (0.1, 0.1),
        (math.nan, None),
        ((1, "é"), [1, "é"]),
        (range(3), [0, 1, 2]),
        ({"a": {"b": [math.inf]}}, {"a": {"b": [None]}}),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(1.5), 1.5),
        (np.str_("x"), "x"),
        (pd.Series([1.0, np.nan]), [1.0, None]),
        (FRAME, {"a": [1, 2], "3": [0.5, None]}),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (pd.NaT, None),
        (datetime.date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_what_json_has_a_form_for(job: Path, value: Any, plain: Any) -> None:
    perijove.record("x", value)
    assert recorded(job) == {"x": plain}
    assert type(recorded(job)["x"]) is type(plain)


def test_the_last_of_a_name_counts(job: Path) -> None:
    for value in range(3):
        perijove.record("loss", value)
    perijove.record("epochs", 3)
    assert recorded(job) == {"loss": 2, "epochs": 3}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "x is a object"),
        ({"a": [1, {2}]}, "x['a'][1] is a set"),
        (b"bytes", "x is a bytes"),
        (1j, "x is a complex"),
        (np.complex128(1), "x is a complex"),
        ({1: 2}, "x has the key 1; keys must be text"),
    ],
)
def test_what_json_has_no_form_for_is_named(job: Path, value: Any, place: str) -> None:
    with pytest.raises(TypeError) as caught:
        perijove.record("x", value)
    assert place in str(caught.value)
    assert not (job / "output").exists()


@pytest.mark.parametrize("name", ["", "a b", ".hidden", "a/b", "-x", "x" * 201, 3])
def test_a_name_that_is_none(job: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="the name must be"):
        perijove.record(name, 1)


@given(st.text(max_size=12))
def test_names_are_those_of_outputs(name: str) -> None:
    from perijove.reporting import _NAME

    try:
        Reference.parse(f"jobs:a/{name}")
        accepted = "[" not in name
    except ValueError:
        accepted = False
    assert bool(_NAME.fullmatch(name)) == accepted


@pytest.mark.parametrize("value", [1 << 63, "a\0b", "\udc80", {"k\0": 1}])
def test_what_no_database_holds_is_refused(job: Path, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"record: (a key of )?x"):
        perijove.record("x", value)


def test_what_holds_itself_is_refused(job: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="too deep"):
        perijove.record("x", endless)


def test_recording_for_ever_stays_small(job: Path) -> None:
    for value in range(60):
        perijove.record("curve", ["x" * 100] * 100)
        perijove.record("epoch", value)
    assert (job / "output" / RECORDED).stat().st_size <= LARGEST
    assert recorded(job)["epoch"] == 59


def test_too_much_is_refused_and_what_was_there_stays(job: Path) -> None:
    perijove.record("a", "x" * (LARGEST // 2 - 1500))
    with pytest.raises(ValueError, match="256 KiB are the limit"):
        perijove.record("b", "x" * (LARGEST // 2 - 1500))
    assert list(recorded(job)) == ["a"]
    perijove.record("a", 1)
    perijove.record("b", "x" * (LARGEST // 2 - 1500))
    assert recorded(job)["a"] == 1


def test_several_processes_record_at_once(job: Path) -> None:
    code = "import sys, perijove\nfor i in range(50): perijove.record(f'{sys.argv[1]}-{i}', i)"
    several = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [process.wait() for process in several] == [0, 0, 0]
    assert len(recorded(job)) == 150


def test_half_a_line_of_a_killed_process_is_passed_over(job: Path) -> None:
    perijove.record("a", 1)
    with (job / "output" / RECORDED).open("ab") as file:
        file.write(b'{"name": "b"')
    perijove.record("c", 2)
    assert recorded(job) == {"a": 1, "c": 2}


def test_outside_a_job_it_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("PERIJOVE_JOB_DIR", raising=False)
    perijove.record("loss", np.float64(0.25))
    assert capsys.readouterr().out == "loss = 0.25\n"


def test_in_a_notebook_server_it_prints(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    perijove.record("loss", 0.25)
    assert capsys.readouterr().out == "loss = 0.25\n"
    assert not list(job.iterdir())
