"""Workflows from the command line and from Python, against a whole Perijove of one user."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from installation import Installation, installed
from typer.testing import CliRunner

from perijove import AsyncClient, InvalidSpecError
from perijove.cli.app import app
from perijove.connection import Connection
from perijove.importing import frozen
from perijove.model import Workflow, parse_workflow

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
FLOW = """
name: sums
parameters:
  xs: [1, 2]
  factor: {type: integer, default: 1}
defaults: {cache: true, memory: 100M}
steps:
  list:
    command: [sh, -c, 'echo "${{ parameters:xs }}" > "$PERIJOVE_JOB_DIR/output/xs.json"; cat "$INPUT_more"']
    inputs: {more: file:more.txt, all: dir:folder}
    outputs: {xs: file:xs.json, said: fd:1}
  power:
    map: jobs:list/xs
    command: [sh, -c, 'echo $(( ${{ item }} * ${{ item }} * ${{ parameters:factor }} ))']
    outputs: {value: fd:1}
  sum:
    script: |
      #!/bin/sh
      total=0
      for file in "$INPUT_values"/*; do total=$(( total + $(cat "$file") )); done
      echo "{\\"name\\": \\"total\\", \\"value\\": $total}" >> "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
    inputs: {values: "jobs:power/value"}
    outputs: {total: record:total}
  big:
    command: [cat, '${{ jobs:list/said }}']
    when: jobs:sum/total > 100
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    state = tmp_path_factory.mktemp("state")
    with installed(state, "--no-hub", "--launcher", "process", "--port", "0") as installation:
        yield installation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flow.yaml").write_text(FLOW)
    (tmp_path / "more.txt").write_text("more\n")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "a.txt").write_text("a\n")
    return tmp_path


def started(site: Installation, folder: Path, *words: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERIJOVE_")}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("perijove")), *words],
        env={**env, "PERIJOVE_STATE": str(site.state), "COLUMNS": "200"},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def perijove(site: Installation, folder: Path, *words: str, code: int = 0) -> str:
    """What the command prints; on standard error too when it is to fail."""
    process = started(site, folder, *words)
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, (out, err)
    return out + err if code else out


def states(site: Installation, folder: Path, run: str) -> dict[str, str]:
    shown = json.loads(perijove(site, folder, "show", run, "--json"))
    return {
        each["step"] + ("" if each["index"] is None else f"[{each['index']}]"): each["state"]
        for each in shown["step_runs"]
    }


def latest(site: Installation, folder: Path) -> str:
    return str(json.loads(perijove(site, folder, "workflows", "-n", "1", "--json"))[0]["id"])


def test_a_workflow_runs_is_explained_and_taken_from_the_cache(site: Installation, folder: Path) -> None:
    assert "4 steps, 2 parameters" in perijove(site, folder, "workflow", "check", "flow.yaml")
    out = perijove(site, folder, "run", "flow.yaml")
    first = out.split()[1]
    assert f"run {first} succeeded" in out
    assert states(site, folder, first) == {
        "list": "succeeded",
        "power[0]": "succeeded",
        "power[1]": "succeeded",
        "sum": "succeeded",
        "big": "skipped",
    }
    assert perijove(site, folder, "logs", first, "--step", "list") == "more\n"
    assert perijove(site, folder, "logs", first) == "more\n1\n4\n"
    (folder / "more.txt").write_text("other\n")
    again = json.loads(perijove(site, folder, "run", "-p", "xs=[2,20]", "flow.yaml", "--json"))
    by_label = {(each["step"], each["index"]): each for each in again["step_runs"]}
    assert by_label["power", 0]["cached_from"] == int(first)
    assert by_label["sum", None]["outputs"]["total"]["value"] == 404
    assert by_label["big", None]["state"] == "succeeded"
    explained = perijove(site, folder, "explain", str(again["id"]))
    assert f"the result of run {first}" in explained
    assert "more" in explained
    dry = perijove(site, folder, "run", "flow.yaml", "-p", "xs=[2,20]", "--dry-run")
    assert f"the result of run {again['id']}" in dry
    assert perijove(site, folder, "wait", first) == f"{first} succeeded\n"
    assert json.loads(perijove(site, folder, "record", first))["records"]


def test_what_failed_is_resumed_with_other_parameters(site: Installation, folder: Path) -> None:
    flow = {
        "parameters": {"code": {"type": "integer", "default": 3}},
        "steps": {
            "good": {"command": ["echo", "good"], "outputs": {"out": "fd:1"}},
            "bad": {
                "command": ["sh", "-c", "echo oh no >&2; exit ${{ parameters:code }}"],
                "after": ["good"],
            },
            "last": {"command": ["true"], "after": ["bad"]},
        },
    }
    (folder / "bad.json").write_text(json.dumps(flow))
    told = perijove(site, folder, "run", "bad.json", code=1)
    assert "oh no" in told
    run = latest(site, folder)
    assert states(site, folder, run) == {"good": "succeeded", "bad": "failed", "last": "rejected"}
    again = perijove(site, folder, "resume", run, "-p", "code=0")
    assert "run" in again
    assert states(site, folder, latest(site, folder)) == {
        "good": "cached",
        "bad": "succeeded",
        "last": "succeeded",
    }


def test_who_leaves_by_ctrl_c_leaves_it_running_and_may_kill_it(site: Installation, folder: Path) -> None:
    (folder / "long.yaml").write_text("steps: {long: {command: [sleep, '1000']}}\n")
    process = started(site, folder, "run", "long.yaml")
    assert process.stdout is not None
    run = process.stdout.readline().split()[1]
    assert any("running" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"left run {run}, which goes on" in err
    assert states(site, folder, run) == {"long": "running"}
    perijove(site, folder, "kill", run)
    assert perijove(site, folder, "wait", run, code=1).split()[:2] == [run, "killed"]


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        (
            "steps: {a: {command: [x], memry: 1G}}",
            [],
            ["flow.yaml:1: steps.a.memry", "did you mean 'memory'?"],
        ),
        ("steps:\n  a: {command: [x]}\n  a: {command: [y]}\n", [], ["flow.yaml:3", "'a' stands twice"]),
        ("steps:\n  a: {after: [b], command: [x]}\n  b: {after: [a], command: [x]}", [], ["a -> b -> a"]),
        (
            "steps: {a: {command: [x], inputs: {d: 'file:none.csv'}}}",
            [],
            ["steps.a.inputs.d", "No such file"],
        ),
        ("steps: {a: {command: [x], inputs: {d: 'dir:flow.yaml'}}}", [], ["steps.a.inputs.d", "no folder"]),
        ("steps: {a: {notebook: none.ipynb}}", [], ["steps.a.notebook", "No such file"]),
        ("parameters: {n: 1}\nsteps: {a: {command: [x]}}", ["-p", "n=x"], ["parameters.n", "whole number"]),
        (
            "parameters: {n: 1}\nsteps: {a: {command: [x]}}",
            ["-p", "m=1"],
            ["parameters.m", "there are: n"],
        ),
        ("parameters: {n: 1}\nsteps: {a: {command: [x]}}", ["-p", "n"], ["NAME=VALUE"]),
        (
            "parameters: {n: 1}\nsteps: {a: {command: [x]}}",
            ["-p", "n=@none.json"],
            ["parameters.n", "none.json"],
        ),
    ],
)
def test_bad_input_is_told_before_anything_runs(
    site: Installation, folder: Path, text: str, words: list[str], told: list[str]
) -> None:
    (folder / "flow.yaml").write_text(text)
    env = {"PERIJOVE_URL": site.url, "PERIJOVE_TOKEN": site.token}
    words = [word.replace("@none", f"@{folder}/none") for word in words]
    done = CliRunner().invoke(app, ["run", str(folder / "flow.yaml"), *words], env=env)
    assert done.exit_code == 1
    assert all(word in done.output for word in told), done.output


def test_what_a_workflow_names_is_sent_along_once_and_checked(site: Installation, folder: Path) -> None:
    content = (folder / "more.txt").read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with served(folder) as url:
        step = {"command": ["x"], "inputs": {"a": "file:more.txt", "b": ["file:./more.txt", digest]}}
        other = {"command": ["x"], "inputs": {"u": f"{url}/more.txt#sha256={digest[7:]}"}, "sealed": True}
        tree = {"command": ["x"], "inputs": {"d": "dir:folder"}, "cwd": "/"}
        document = asyncio.run(
            frozen_by(site, parse_workflow({"steps": {"s": step, "o": other, "t": tree}}), folder)
        )
        wrong = {"command": ["x"], "inputs": {"u": f"{url}/more.txt#sha256={'0' * 64}", "n": f"{url}/none"}}
        with pytest.raises(InvalidSpecError) as raised:
            asyncio.run(frozen_by(site, parse_workflow({"steps": {"w": wrong, "s": step}}), folder))
    steps = document["steps"]
    assert steps["s"]["inputs"] == {"a": digest, "b": [digest, digest]}
    assert steps["s"]["cwd"] == str(folder)
    assert steps["o"]["inputs"] == {"u": digest}
    assert "cwd" not in steps["o"]
    assert steps["t"]["inputs"]["d"].startswith("sha256-tree:")
    assert steps["t"]["cwd"] == "/"
    assert {error.field for error in raised.value.errors} == {"steps.w.inputs.u", "steps.w.inputs.n"}


async def frozen_by(site: Installation, workflow: Workflow, folder: Path) -> dict[str, Any]:
    connection = Connection(site.url, site.token, launchers=("process",))
    async with AsyncClient(connection=connection) as client:
        return await frozen(client, workflow, folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server of the files in `folder`."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ALTERNATING = """
steps:
  one: {command: [sh, -c, 'echo early; echo wrong >&2']}
  second: {command: [echo, late], after: [one]}
  lines: {command: [printf, 'a\\nb'], after: [second]}
"""


def test_steps_are_followed_under_their_labels_and_their_calls_shown(
    site: Installation, tmp_path: Path
) -> None:
    (tmp_path / "flow.yaml").write_text(ALTERNATING)
    process = started(site, tmp_path, "run", "-v", "flow.yaml")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "lines succeeded" in out
    told = [re.split("  +", line) for line in err.splitlines()]
    assert {(words[0], words[2], words[3]) for words in told} == {
        ("one", "process", "execve sh -c 'echo early; echo wrong >&2'"),
        ("second", "process", "execve echo late"),
        ("lines", "process", "execve printf 'a\\nb'"),
    }
    process = started(site, tmp_path, "logs", "-f", latest(site, tmp_path))
    out, err = process.communicate(timeout=200)
    assert sorted(out.splitlines()) == ["lines  | a", "lines  | b", "one    | early", "second | late"]
    assert err == "one    | wrong\n"
    one = perijove(site, tmp_path, "logs", "-f", latest(site, tmp_path), "--step", "lines")
    assert one == "a\nb", "alone, a step's output is as it was written"


def test_the_example_of_the_documentation(site: Installation, tmp_path: Path) -> None:
    """Digits: prepared, fitted by a notebook for each gamma, reported with a plot."""
    for name in ("flow.yaml", "prepare.ipynb", "fit.ipynb", "report.ipynb"):
        shutil.copy(ROOT / "binder" / name, tmp_path)
    run = json.loads(perijove(site, tmp_path, "run", "flow.yaml", "-p", "gammas=[0.0001,0.001]", "--json"))
    assert run["state"] == "succeeded"
    outputs: dict[Any, Any] = {}
    for each in run["step_runs"]:
        outputs |= {(each["step"], each["index"], name): out for name, out in each["outputs"].items()}
    assert outputs["fit", 0, "score"]["value"] > 0.9
    assert outputs["report", None, "best"]["value"]["gamma"] == 0.001
    assert outputs["report", None, "plot"]["size"] > 5000

    number, jobs = str(run["id"]), {each["step"]: str(each["job"]) for each in run["step_runs"]}
    assert "choose one by --step: prepare, fit[0]" in perijove(site, tmp_path, "report", number, code=1)
    page = perijove(site, tmp_path, "report", number, "--step", "fit[1]").strip()
    assert page == f"fit[1].{number}.html" and "<title>fit[1]</title>" in (tmp_path / page).read_text()
    assert perijove(site, tmp_path, "report", jobs["report"], "-o", "report.html") == "report.html\n"


BUILT = """
import perijove

def square(x):
    return x * x

def total(xs, *, add):
    return {"sum": sum(xs) + add, "set": frozenset(xs)}

def shown(found, word):
    return f"{found['sum']} {sorted(found['set'])} {word}"

with perijove.Workflow("built", word="hello", add=0.5) as w:
    numbers = w.run("echo", "[1, 2, 3]", name="numbers", outputs={"xs": "fd:1"})
    squares = w.map(square, numbers["xs"])
    found = w.call(total, squares, add=w.parameters.add)
    w.call(shown, found, w.parameters.word)
run = w.submit(word="bye")
print(run.result())
print(run.result("square"), run.step("square[2]").job.state, run.result("total")["sum"])
print(perijove.workflow(run.id).state, len(w.explain()))
"""


def test_a_workflow_built_in_python_gives_what_its_functions_return(site: Installation, folder: Path) -> None:
    env = {**os.environ, "PERIJOVE_STATE": str(site.state)}
    for name in ("PERIJOVE_URL", "PERIJOVE_TOKEN"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", BUILT],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["14.5 [1, 4, 9] bye", "[1, 4, 9] succeeded 14.5", "succeeded 4"]
