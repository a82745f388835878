"""``--engine perijove``: papermill here, the kernel in a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from tests.kernel.conftest import Service

import perijove
from perijove.model import InvalidSpecError
from perijove.papermill import requested

pytestmark = pytest.mark.slow


@pytest.fixture
def study(service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    perijove.connect(service.url, service.token)
    cells = [
        nbformat.v4.new_code_cell("alpha = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("# A study"),
        nbformat.v4.new_code_cell("import os\nprint('alpha', alpha)\nos.environ['PERIJOVE_JOB_ID']"),
        nbformat.v4.new_code_cell("assert alpha < 5, 'too large'"),
        nbformat.v4.new_code_cell("print('end')"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), home / "study.ipynb")
    return home / "study.ipynb"


def test_a_study_runs_in_a_job(study: Path) -> None:
    target = study.with_name("out.ipynb")
    options: dict[str, Any] = {"engine_name": "perijove", "progress_bar": False}
    papermill.execute_notebook(study, target, parameters={"alpha": 2}, memory="256M", **options)
    done = nbformat.read(target, 4)
    printed, job_id = done.cells[3].outputs
    assert printed.text == "alpha 2\n"
    job = perijove.job(job_id.data["text/plain"].strip("'"))
    assert (job.name, job.spec["memory"], job.spec["kind"]) == ("study.ipynb", 256 << 20, "notebook")
    assert done.metadata.papermill.exception is None
    assert [cell.metadata.papermill.status for cell in done.cells] == ["completed"] * 6
    assert done.cells[-1].execution_count == 5


def test_a_failure_is_papermills_own(study: Path) -> None:
    target = study.with_name("out.ipynb")
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            study, target, parameters={"alpha": 7}, engine_name="perijove", progress_bar=False
        )
    assert (caught.value.ename, caught.value.evalue) == ("AssertionError", "too large")
    text = target.read_text()
    assert "alpha 7" in text
    assert '"end\\n"' not in text


def test_a_job_that_dies_is_an_error_in_the_cell_that_ran(study: Path) -> None:
    notebook = nbformat.read(study, 4)
    notebook.cells[
        2
    ].source = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(5)"
    nbformat.write(notebook, study)
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            study, study.with_name("out.ipynb"), engine_name="perijove", progress_bar=False
        )
    assert caught.value.ename == "JobFailedError"


def test_the_command_line(study: Path, service: Service) -> None:
    env = {**service.env, "PERIJOVE_SUBMIT": "--name from-env --cpus 0.5"}
    words = ["study.ipynb", "out.ipynb", "-p", "alpha", "0.1", "--engine", "perijove", "--no-progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words], env=env, cwd=study.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\bjob \d+ running", done.stderr), done.stderr
    assert "alpha 0.1" in study.with_name("out.ipynb").read_text()
    assert perijove.jobs(name="from-env")[0].spec["cpu"] == 0.5


def test_the_progress_bar_is_papermills_own(study: Path, service: Service) -> None:
    words = ["study.ipynb", "out.ipynb", "--engine", "perijove", "--progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words],
        env=service.env,
        cwd=study.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Executing: 100%" in done.stderr


def test_an_absent_service_is_told(study: Path) -> None:
    env = {**os.environ, "PERIJOVE_URL": "http://127.0.0.1:9", "PERIJOVE_TOKEN": "x"}
    words = ["study.ipynb", "out.ipynb", "--engine", "perijove"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words], env=env, cwd=study.parent, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr.splitlines()[-1]


def test_the_strongest_wish_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIJOVE_SUBMIT", "--memory 2G --cpus 2")
    fields = requested(
        {"perijove": {"memory": "1G", "cpus": 1, "project": "p"}}, {"cpus": 4, "input_path": "x"}
    )
    assert fields == {"memory": "2G", "cpu": 4.0, "project": "p"}


def test_an_unknown_wish_in_the_metadata_is_named() -> None:
    with pytest.raises(InvalidSpecError, match=r"metadata\.perijove\.cores"):
        requested({"perijove": {"cores": 4}}, {})
