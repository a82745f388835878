"""The runner inside a job, run for real: what it writes to the display log, the log and the outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import nbformat
import pytest

pytestmark = pytest.mark.slow


class Ran:
    """One run of ``python -m perijove.runner``."""

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        env = {**os.environ, "PERIJOVE_JOB_DIR": str(directory)}
        done = subprocess.run(
            [sys.executable, "-m", "perijove.runner", *arguments], env=env, cwd=directory, capture_output=True
        )
        self.code, self.stdout, self.stderr = done.returncode, done.stdout.decode(), done.stderr.decode()
        self.directory = directory
        log = directory / "display.jsonl"
        self.lines: list[dict[str, Any]] = [json.loads(x) for x in log.open()] if log.exists() else []

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("output_type") == kind]

    def text(self, name: str = "stdout") -> str:
        return "".join(line["text"] for line in self.of("stream") if line["name"] == name)

    def result(self, name: str) -> Any:
        return cloudpickle.loads((self.directory / "output" / f"{name}.pkl").read_bytes())


def run_cell(directory: Path, code: str, *outputs: str, **inputs: Any) -> Ran:
    (directory / "input").mkdir()
    (directory / "input" / "cell.py").write_text(code, encoding="utf-8")
    for name, value in inputs.items():
        (directory / "input" / f"{name}.pkl").write_bytes(cloudpickle.dumps(value))
    return Ran(directory, ["cell", *(word for name in outputs for word in ("--out", name))])


def test_names_travel_in_and_out(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "total = sum(X)\nclass K:\n    x = 3\nk = K()", "total", "k", X=[1, 2, 3])
    assert ran.code == 0, ran.stderr
    assert ran.result("total") == 6
    assert ran.result("k").x == 3


def test_text_goes_to_the_log_and_the_display_in_order(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "import sys\nprint('hällo ✓')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (ran.stdout, ran.stderr) == ("hällo ✓\n", "err\n")
    assert ran.text() == "hällo ✓\n"
    (result,) = ran.of("execute_result")
    assert result["data"]["text/plain"] == "42"
    assert ran.lines.index(result) == len(ran.lines) - 1


def test_lone_surrogates_do_not_break_it(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, r"print('\udc80')")
    assert ran.code == 0
    assert ran.text() == "\udc80\n"


def test_images_tables_and_html(tmp_path: Path) -> None:
    code = """
import matplotlib.pyplot as plt, pandas as pd
from IPython.display import HTML, display
plt.plot([1, 2])
display(HTML("<b>bold</b>"))
pd.DataFrame({"a": [1]})
"""
    ran = run_cell(tmp_path, code)
    assert ran.code == 0, ran.stderr
    html, image = ran.of("display_data")
    assert html["data"]["text/html"] == "<b>bold</b>"
    assert image["data"]["image/png"].startswith("iVBOR")
    assert "<table" in ran.of("execute_result")[0]["data"]["text/html"]


def test_updates_and_clearing(tmp_path: Path) -> None:
    code = """
from IPython.display import clear_output, display
handle = display("a", display_id="x")
handle.update("b")
clear_output(wait=True)
"""
    ran = run_cell(tmp_path, code)
    (shown,), (updated,) = ran.of("display_data"), ran.of("update_display_data")
    assert shown["transient"] == updated["transient"] == {"display_id": "x"}
    assert ran.of("clear_output") == [{"output_type": "clear_output", "wait": True}]


def test_an_error_has_its_traceback_and_ends_with_1(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "def f():\n    return 1 / 0\nf()\nprint('never')")
    assert ran.code == 1
    (error,) = ran.of("error")
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "in f()" in ran.stderr
    assert "\x1b" not in ran.stderr
    assert "never" not in ran.stdout


def test_a_syntax_error(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "1 +")
    assert ran.code == 1
    assert ran.of("error")[0]["ename"] == "SyntaxError"


@pytest.mark.parametrize(("leave", "code"), [("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('why')", 1)])
def test_leaving_gives_the_exit_code(tmp_path: Path, leave: str, code: int) -> None:
    ran = run_cell(tmp_path, f"import sys\n{leave}")
    assert ran.code == code
    assert ran.of("error") == []
    assert "To exit" not in ran.stderr


def test_a_name_the_cell_did_not_make(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "x = 1", "x", "y")
    assert ran.code == 1
    assert ran.of("error")[0]["evalue"] == "--out y: the cell ran, and defined no such name"


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "import threading\nlock = threading.Lock()", "lock")
    assert ran.code == 1
    assert "lock (lock) cannot be pickled" in ran.of("error")[0]["evalue"]


def test_an_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "cell.py").write_text("X")
    (tmp_path / "input" / "X.pkl").write_bytes(b"not a pickle")
    ran = Ran(tmp_path, ["cell"])
    assert ran.code == 1
    assert "X cannot be unpickled" in ran.of("error")[0]["evalue"]


def test_magics_shell_commands_and_await(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "!echo from the shell\nimport asyncio\nawait asyncio.sleep(0)\n%env HOME")
    assert ran.code == 0, ran.stderr
    assert "from the shell" in ran.text()


def test_much_output_is_few_lines(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "for i in range(20000): print(i)")
    assert ran.text() == ran.stdout == "".join(f"{i}\n" for i in range(20000))
    assert len(ran.lines) < 200


def test_an_output_that_is_too_large_is_replaced_by_a_note(tmp_path: Path) -> None:
    ran = run_cell(tmp_path, "from IPython.display import HTML\nHTML('x' * (17 << 20))")
    assert ran.code == 0
    assert "was not kept; the limit is 16 MiB" in ran.text("stderr")


def test_progress(tmp_path: Path) -> None:
    code = "import perijove\nperijove.progress(0.25, 'epoch 3')\nprint('x')\nperijove.progress(7)"
    ran = run_cell(tmp_path, code)
    told = [line for line in ran.lines if "progress" in line]
    assert told == [{"progress": 0.25, "text": "epoch 3"}, {"progress": 1.0, "text": ""}]


def test_progress_outside_a_job_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import perijove

    monkeypatch.delenv("PERIJOVE_JOB_DIR", raising=False)
    assert perijove.progress(0.5) is None  # type: ignore[func-returns-value]


def test_outside_a_job_the_runner_says_so() -> None:
    env = {key: value for key, value in os.environ.items() if key != "PERIJOVE_JOB_DIR"}
    done = subprocess.run(
        [sys.executable, "-m", "perijove.runner", "cell"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "inside a job only" in done.stderr


def test_a_function(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    call = (lambda a, *, b: (print("working"), a * b)[1], (6,), {"b": 7})
    (tmp_path / "input" / "function.pkl").write_bytes(cloudpickle.dumps(call))
    ran = Ran(tmp_path, ["function"])
    assert (ran.code, ran.result("result"), ran.text()) == (0, 42, "working\n")


def notebook(*sources: str) -> str:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return str(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)))


def test_a_notebook_with_parameters(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "notebook.ipynb").write_text(notebook("alpha = 1", "print('alpha is', alpha)"))
    (tmp_path / "input" / "parameters.json").write_text('{"alpha": 0.5}')
    ran = Ran(tmp_path, ["notebook"])
    assert ran.code == 0, ran.stderr
    assert "alpha is 0.5\n" in ran.stdout
    assert "cell 2 of 3" in [line.get("text") for line in ran.lines]
    (said,) = ran.of("stream")
    assert said["cell"] == 2
    executed = nbformat.read(tmp_path / "output" / "notebook.ipynb", 4)
    assert executed.cells[2].outputs[0].text == "alpha is 0.5\n"


def test_a_notebook_that_fails_is_kept(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "notebook.ipynb").write_text(notebook("x = 1", "1 / 0", "print('never')"))
    ran = Ran(tmp_path, ["notebook"])
    assert ran.code == 1
    assert "ZeroDivisionError" in ran.stderr
    assert ran.of("error")[0]["cell"] == 1
    text = (tmp_path / "output" / "notebook.ipynb").read_text()
    assert "division by zero" in text
    assert "never\\n" not in text


def test_a_notebook_by_path_with_another_kernel_name(tmp_path: Path) -> None:
    source = notebook("print('ran')").replace('"name": "python3"', '"name": "conda-env-lab-py"')
    (tmp_path / "study.ipynb").write_text(source)
    ran = Ran(tmp_path, ["notebook", "study.ipynb", "--output", "done.ipynb"])
    assert ran.code == 0, ran.stderr
    assert "no kernel 'conda-env-lab-py' is installed here; python3 is used" in ran.stderr
    assert "ran" in (tmp_path / "done.ipynb").read_text()


def test_a_notebook_that_is_not_there(tmp_path: Path) -> None:
    ran = Ran(tmp_path, ["notebook", "absent.ipynb"])
    assert ran.code == 1
    assert "there is no notebook 'absent.ipynb'" in ran.of("error")[0]["evalue"]
