"""Notebooks in jobs: kept whatever ends them, in any language, and wherever papermill can read and write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bucket import KEY, SECRET, s3_server
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import Service
from waiting import wait_until

import perijove
from perijove.handle import JobFailedError

pytestmark = pytest.mark.slow

PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook(*cells: str, kernel: dict[str, str] = PYTHON) -> str:
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    made[0].metadata["tags"] = ["parameters"]
    return str(nbformat.writes(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})))


class Run:
    """``python -m perijove.runner notebook`` in a job's directory."""

    def __init__(self, directory: Path, text: str | None, *words: str, **env: str) -> None:
        self.directory = directory
        (directory / "input").mkdir(exist_ok=True)
        if text is not None:
            (directory / "input" / "notebook.ipynb").write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perijove.runner", "notebook", *words],
            env={**os.environ, "PERIJOVE_JOB_DIR": str(directory), "HOME": str(directory), **env},
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, code: int = 0) -> str:
        _, log = self.process.communicate()
        assert self.process.returncode == code, log
        return log

    @property
    def executed(self) -> Any:
        return nbformat.read(self.directory / "output" / "notebook.ipynb", 4)

    @property
    def failure(self) -> str:
        path = self.directory / "output" / ".recorded.jsonl"
        return str(json.loads(path.read_text().splitlines()[-1]).get("failure"))


WAITS = "print('before', flush=True)\nopen('reached', 'w').close()\nimport time; time.sleep(600)"


def test_times_are_kept_and_the_slowest_named(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook("1", "import time; time.sleep(2)", "2", "3"))
    log = run.end()
    assert "[4 cells in" in log
    assert "the slowest: cell 2 (" in log
    assert run.executed.cells[1].metadata.papermill.duration >= 2


def test_a_failure_names_the_cell(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook("1", "raise ValueError('too\\nlarge')"))
    assert "ValueError: too" in run.end(1)
    assert run.failure == "cell 2: ValueError: too large"


def test_a_job_asked_to_end_keeps_what_the_unfinished_cell_printed(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook("print('first')", WAITS, "print('never')"))
    wait_until((tmp_path / "reached").exists, "cell 2", 60)
    run.process.send_signal(signal.SIGTERM)
    run.end(128 + signal.SIGTERM)
    first, second, third = run.executed.cells
    assert first.outputs[0].text == "first\n"
    assert [second.outputs[0].text, second.outputs[1].evalue] == [
        "before\n",
        "the job was asked to end (SIGTERM)",
    ]
    assert (second.metadata.papermill.status, third.outputs) == ("failed", [])
    kernels = [
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(tmp_path).encode() in _read(entry / "environ")
    ]
    wait_until(lambda: not any(_living(entry) for entry in kernels), "end of the kernel")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _living(entry: Path) -> bool:
    return b") Z " not in _read(entry / "stat") != b""


def test_what_a_killed_job_leaves_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook("print('first')", WAITS))
    wait_until((tmp_path / "reached").exists, "cell 2", 60)
    run.process.kill()
    run.end(-signal.SIGKILL)
    first, second = run.executed.cells
    assert first.outputs[0].text == "first\n"
    assert (first.metadata.papermill.status, second.metadata.papermill.status) == ("completed", "running")


def test_the_notebook_is_whole_at_any_time(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook(*["print('x' * 400_000)"] * 8))
    path = tmp_path / "output" / "notebook.ipynb"
    seen = set()
    while run.process.poll() is None:
        if path.exists():
            document = json.loads(path.read_text())
            seen.add(sum(bool(cell["outputs"]) for cell in document["cells"]))
    run.end()
    seen.add(sum(bool(cell["outputs"]) for cell in run.executed.cells))
    assert len(seen) > 1


def test_a_kernel_that_dies(tmp_path: Path) -> None:
    run = Run(tmp_path, notebook("print('first')", "import os; os.kill(os.getpid(), 9)", "print('never')"))
    assert "the kernel died; it may have run out of memory" in run.end(1)
    assert run.failure == "cell 2: the kernel died; it may have run out of memory"
    assert run.executed.cells[1].outputs[0].ename == "DeadKernelError"


def test_a_kernel_that_is_not_pythons(tmp_path: Path) -> None:
    spec = tmp_path / "kernels" / "bash"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Bash", "language": "bash", "env": {"PS1": "$"}})
    )
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "parameters.json").write_text('{"who": "the moon"}')
    kernel = {"name": "bash", "display_name": "Bash", "language": "bash"}
    text = notebook("who=world", "echo hello $who", "false", kernel=kernel).replace(
        '"metadata": {},\n   "outputs": [],\n   "source": [\n    "echo',
        '"metadata": {"tags": ["checkpoint"]},\n   "outputs": [],\n   "source": [\n    "echo',
    )
    run = Run(tmp_path, text, JUPYTER_PATH=str(tmp_path))
    log = run.end(1)
    texts = [
        "".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in run.executed.cells
    ]
    assert "hello the moon\n" in texts
    assert run.failure.startswith("cell 4: ")
    assert "no checkpoints: the kernel is no Python with perijove in it" in log


def test_a_kernel_that_is_not_there(tmp_path: Path) -> None:
    kernel = {"name": "ir", "display_name": "R", "language": "R"}
    run = Run(tmp_path, notebook("1", kernel=kernel))
    assert "no kernel 'ir' is installed in this job; there are:" in run.end(1)
    assert "no kernel 'ir'" in run.failure


def test_parameters_that_are_inputs(tmp_path: Path) -> None:
    (tmp_path / "input" / "folder").mkdir(parents=True)
    (tmp_path / "input" / "table").write_text("1,2")
    parameters = {"table": {"path": "table"}, "more": [{"path": "folder"}], "plain": {"path": "nowhere"}}
    (tmp_path / "input" / "parameters.json").write_text(json.dumps(parameters))
    run = Run(tmp_path, notebook("table = more = plain = None", "print(table, more, plain)"))
    run.end()
    there = tmp_path / "input"
    said = f"{there}/table ['{there}/folder'] {{'path': 'nowhere'}}\n"
    assert run.executed.cells[2].outputs[0].text == said


@given(st.text(max_size=20))
def test_only_inputs_are_paths(name: str) -> None:
    from perijove.runner.directory import JobDirectory

    staged = JobDirectory(Path("/")).staged(name)
    assert staged is None


def test_a_member_of_a_sweep(tmp_path: Path) -> None:
    grid = '{"alpha": [1, 2], "beta": ["x", "y"]}'
    text = notebook("alpha = beta = None", "print(alpha, beta)")
    run = Run(tmp_path, text, "--sweep", grid, PERIJOVE_TASK_ID="3")
    run.end()
    assert run.executed.cells[2].outputs[0].text == "2 x\n"
    run = Run(tmp_path, text, "--sweep", grid, PERIJOVE_TASK_ID="5")
    assert "PERIJOVE_TASK_ID is '5'; the sweep has points 1 to 4" in run.end(1)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, dict[str, str]]]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        name = server.bucket()
        access = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield name, server.folder / name, {**access, "AWS_ENDPOINT_URL": server.endpoint}


def test_notebooks_in_buckets(tmp_path: Path, bucket: tuple[str, Path, dict[str, str]]) -> None:
    name, folder, env = bucket
    (folder / "in.ipynb").write_text(notebook("alpha = 1", "print(alpha)", "1 / 0"))
    words = [f"s3://{name}/in.ipynb", "--output", f"s3://{name}/out.ipynb", "--parameters", '{"alpha": 5}']
    run = Run(tmp_path, None, *words, **env)
    run.end(1)
    assert run.failure == "cell 4: ZeroDivisionError: division by zero"
    texts = (folder / "out.ipynb").read_text()
    assert '"5\\n"' in texts
    assert "ZeroDivisionError" in texts


def test_a_notebook_that_is_not_in_the_bucket(
    tmp_path: Path, bucket: tuple[str, Path, dict[str, str]]
) -> None:
    name, _, env = bucket
    run = Run(tmp_path, None, f"s3://{name}/absent.ipynb", **env)
    assert f"the notebook s3://{name}/absent.ipynb cannot be read: " in run.end(1)


def test_the_jobs_reason_and_the_clients_error_name_the_cell(
    service: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    client = perijove.connect(service.url, service.token)
    from perijove.payload import notebook_content_payload
    from perijove.sync import LOOP, Job

    payload = notebook_content_payload(notebook("1", "int('x')").encode(), {}, "n.ipynb")
    job = Job(LOOP.run(payload.submit(client.async_client, {})))
    with pytest.raises(JobFailedError) as caught:
        job.result()
    assert job.reason.startswith("cell 2: ValueError: invalid literal")
    assert "cell 2: ValueError" in str(caught.value)
    assert any("int('x')" in line for line in map(perijove_plain, caught.value.traceback))
    assert "ValueError" in job.logs("stderr")
    assert b"invalid literal" in job.output("notebook.ipynb")


def perijove_plain(text: str) -> str:
    from perijove.display import plain

    return plain(text)
