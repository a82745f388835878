"""``%%workflow`` in a real kernel, as a front end drives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.conftest import Service
from tests.kernel.fake_runs import FakeRuns
from tests.kernel.test_widgets import WIDGET, FrontEnd, front_end_in

from perijove.model import Run, StepRun
from perijove.run_display import pages_of, run_bundle, run_html, workflow_bundle

pytestmark = pytest.mark.slow

DOCUMENT = """\
name: digits
parameters: {lr: 0.1, title: {type: text, default: none}}
steps:
  prep: {command: [echo, prep], outputs: [table]}
  train:
    command: [python, train.py, "${{ item }}"]
    map: [1, 2, 3]
    after: [prep]
  report: {script: "cat /in/x", after: [train]}
"""


@pytest.fixture
def runs(fake_service: Service) -> FakeRuns:
    assert fake_service.fake is not None
    return fake_service.fake.runs


@pytest.fixture
def front_end(fake_service: Service, home: Path) -> Iterator[FrontEnd]:
    with front_end_in(home, fake_service.env | {"JUPYTERHUB_USER": ""}) as made:
        yield made


def test_a_run_is_watched_paused_and_stays_in_the_notebook(front_end: FrontEnd, runs: FakeRuns) -> None:
    cell = front_end.start(f"%%workflow '<i>fit' -p lr=0.5 -p title=1\n{DOCUMENT}")
    front_end.listen(lambda: bool(front_end.shown) and "<svg" in front_end.values())
    [number] = runs.runs
    assert runs.runs[number]["parameters"] == {"lr": 0.5, "title": "1"}
    assert WIDGET in front_end.shown[0]["content"]["data"]
    assert "&lt;i&gt;fit" in front_end.values()
    assert "<i>fit" not in front_end.values()
    runs.move(number, "prep", "running", progress=0.5, progress_text="cell 7 of 14")
    front_end.listen(lambda: "cell 7 of 14" in front_end.values())
    pause, go_on = front_end.button("Pause"), front_end.button("Continue")
    assert pause
    assert go_on
    front_end.click(pause)
    front_end.listen(lambda: ">held</span>" in front_end.values())
    front_end.click(go_on)
    front_end.listen(lambda: ">held</span>" not in front_end.values())
    runs.move(number, "prep", "succeeded")
    for i in range(3):
        runs.move(number, f"train[{i}]", "succeeded")
    front_end.listen(lambda: "3 of 3" in front_end.values())
    runs.move(number, "report", "succeeded")
    front_end.listen(lambda: front_end.idle == cell)
    assert not front_end.errors
    last = front_end.shown[-1]["content"]
    assert WIDGET not in last["data"], "a saved notebook must not need the kernel that made it"
    assert "<svg" in last["data"]["text/html"]
    assert "run 100" in last["data"]["text/plain"]
    assert last["metadata"]["perijove"] == {"run": number}
    assert "5 succeeded" in last["data"]["text/plain"]


def test_a_run_is_killed_by_its_button_and_says_how_to_go_on(front_end: FrontEnd, runs: FakeRuns) -> None:
    cell = front_end.start(f"%%workflow\n{DOCUMENT}")
    front_end.listen(lambda: front_end.button("Kill") is not None and "<svg" in front_end.values())
    [number] = runs.runs
    runs.move(number, "prep", "failed", reason={"code": "NonZeroExitCode", "message": "exit code 3"})
    kill = front_end.button("Kill")
    assert kill
    front_end.click(kill)
    front_end.listen(lambda: front_end.idle == cell)
    assert front_end.errors[0]["ename"] == "JobFailedError"
    assert "exit code 3" in "".join(front_end.errors[0]["traceback"])
    html = front_end.shown[-1]["content"]["data"]["text/html"]
    assert f"%workflow {number} --resume" in html

    front_end.run("%workflow --resume -p lr=2 --background")
    assert runs.runs[number + 1]["resumed_from"] == number
    assert runs.runs[number + 1]["parameters"]["lr"] == 2
    front_end.run("print(run.id)")
    assert str(number + 1) in front_end.text
    for label in ("prep", "train", "report"):
        runs.move(number + 1, label, "cached", cached_from=number)
    front_end.listen(lambda: f"result of run {number} taken" in str(front_end.shown[-1]["content"]["data"]))


def test_what_cannot_be_a_workflow_is_said_in_a_line(front_end: FrontEnd, runs: FakeRuns) -> None:
    for cell, said in (
        ("%%workflow\nsteps: {a: {command: [x], after: [b]}}", "there is no step b"),
        ("%%workflow\nsteps: [", "cell"),
        ("%%workflow -p lr\nsteps: {a: {command: [x]}}", "NAME=VALUE"),
        ("%%workflow -p y=1\nsteps: {a: {command: [x]}}", "no such parameter"),
        ("%%workflow -p x=@none.json\nsteps: {a: {command: [x]}}", "none.json"),
        ("%%workflow\n# nothing", "steps"),
        ("%workflow 99", "99"),
        ("%workflow", "no workflow was started here yet"),
        ("%workflow nothing.yaml", "nothing.yaml"),
    ):
        front_end.errors.clear()
        front_end.run(cell)
        text = "".join(front_end.errors[0]["traceback"]) if front_end.errors else front_end.text
        assert said in text, cell
        assert "site-packages" not in text
    assert not runs.runs


def test_a_workflow_in_a_file_and_the_list(front_end: FrontEnd, runs: FakeRuns, home: Path) -> None:
    (home / "flow.yaml").write_text(DOCUMENT)
    front_end.run("%workflow flow.yaml --background --hold")
    [number] = runs.runs
    assert runs.runs[number]["state"] == "held"
    front_end.run(f"%workflow {number} --release")
    assert runs.runs[number]["state"] == "running"
    front_end.run("print(repr(get_ipython().run_line_magic('workflows', '')))")
    assert f'run {number} "digits" running' in front_end.text
    front_end.run("%workflow --help")
    assert "--fail-fast" in front_end.text


HOSTILE = "<script>alert(1)</script>"


def test_nothing_in_a_run_becomes_markup() -> None:
    flow = {"name": HOSTILE, "steps": {"a": {"command": [HOSTILE]}, "b": {"script": HOSTILE, "after": ["a"]}}}
    reason = {"code": "NonZeroExitCode", "message": HOSTILE}
    run = Run.model_validate(
        {
            "id": 3,
            "owner": "a",
            "name": HOSTILE,
            "state": "failed",
            "submitted": 0,
            "reason": reason,
            "workflow": flow,
        }
    )
    step = StepRun.model_validate({"step": "a", "state": "failed", "reason": reason, "job": 4})
    shown = run_bundle(run, [step], pages=f"http://h/{HOSTILE}/", now=9.0)
    assert "<script" not in shown["text/html"]
    assert run.workflow is not None
    planned = workflow_bundle(run.workflow)
    assert "<script" not in planned["text/html"]
    assert "<script" not in planned["image/svg+xml"]


def test_a_run_without_its_document_is_one_line() -> None:
    run = Run.model_validate({"id": 3, "owner": "a", "name": "x", "state": "running", "submitted": 0})
    assert run_bundle(run, [], now=9.0)["text/plain"] == 'run 3 "x" running for 9s'
    assert "<svg" not in run_html(run, [], pages="", now=9.0)


@pytest.mark.parametrize(
    ("url", "user", "found"),
    [
        ("http://10.0.0.1:8081/services/perijove", "ada", "/services/perijove/"),
        ("http://10.0.0.1:8081/services/perijove", "", "http://10.0.0.1:8081/services/perijove/"),
        ("http://127.0.0.1:9000", "ada", "http://127.0.0.1:9000/"),
    ],
)
def test_where_a_browser_finds_the_pages(url: str, user: str, found: str) -> None:
    assert pages_of(url, {"JUPYTERHUB_USER": user}) == found
    if user and found.startswith("/"):
        public = {"JUPYTERHUB_USER": user, "JUPYTERHUB_HOST": "https://hub.example.org"}
        assert pages_of(url, public) == f"https://hub.example.org{found}"
