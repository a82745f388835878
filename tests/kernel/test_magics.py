"""The magics in a real IPython shell, against a service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output
from tests.kernel.conftest import Service

import perijove
from perijove.arguments import parameter_value
from perijove.display import CellOutput, LineReader, OutputList, carriage_returns
from perijove.model import State
from perijove.status import status_html
from perijove.sync import Job

pytestmark = pytest.mark.slow


class Shell:
    """Runs cells and keeps what they showed."""

    def __init__(self, ip: InteractiveShell) -> None:
        self.ip = ip
        self.ns: dict[str, Any] = ip.user_ns
        self.out = self.err = ""
        self.outputs: list[RichOutput] = []
        self.error: BaseException | None = None

    def run(self, code: str) -> Shell:
        with capture_output() as captured:
            result = self.ip.run_cell(code)
        self.out, self.err, self.outputs = captured.stdout, captured.stderr, captured.outputs
        self.error = result.error_before_exec or result.error_in_exec
        self.result = result.result
        return self

    @property
    def job(self) -> Job:
        job: Job = self.ns["job"]
        return job


@pytest.fixture
def shell(service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    monkeypatch.chdir(home)
    perijove.connect(service.url, service.token)
    InteractiveShell.clear_instance()
    ip = InteractiveShell.instance()
    ip.run_line_magic("load_ext", "perijove")
    yield Shell(ip)
    InteractiveShell.clear_instance()


def test_a_cell_becomes_a_job_and_its_output_comes_back(shell: Shell) -> None:
    shell.ns.update(X=[1, 2, 3], y=4)
    shell.run(
        "%%submit --cpus 0.5 --name sum --in X,y --out total\ntotal = sum(X) + y\nprint('summing')\ntotal"
    )
    assert shell.error is None, shell.out + shell.err
    assert shell.ns["total"] == 10
    assert "summing" in shell.out
    assert [output.data["text/plain"] for output in shell.outputs if output.data] == ["10"]
    assert (shell.job.state, shell.job.name) == (State.SUCCEEDED, "sum")
    assert shell.job.spec["cpu"] == 0.5


def test_rich_output_comes_back(shell: Shell) -> None:
    shell.run("%%submit\nimport pylab, pandas\npylab.plot([1, 2])\npandas.DataFrame({'a': [1]})")
    kinds = [set(output.data) for output in shell.outputs]
    assert any("image/png" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)


def test_an_error_in_the_job_is_the_cells_error(shell: Shell) -> None:
    shell.run("%%submit\ndef f():\n    return 1 / 0\nf()")
    assert isinstance(shell.error, perijove.JobFailedError)
    assert "ZeroDivisionError" in str(shell.error)
    assert "in f()" in perijove_plain(shell.out)


def perijove_plain(text: str) -> str:
    from perijove.display import plain

    return plain(text)


def test_a_shell_script(shell: Shell) -> None:
    shell.run("%%submit --shell -e WHO=world\necho hello $WHO\necho careful >&2")
    assert shell.error is None
    assert shell.out == "hello world\n"
    assert "careful" in shell.err
    assert isinstance(shell.run("%%submit --shell\nexit 5").error, perijove.JobFailedError)
    assert shell.job.exit_code == 5


def test_a_script_in_a_cell_carries_options_too(shell: Shell) -> None:
    shell.run("%%submit --shell --name mine\n#PERIJOVE --cpus 0.5 --name its\necho hello\n#PERIJOVE -c 1")
    assert shell.error is None, shell.err
    assert (shell.job.spec["cpu"], shell.job.name) == (0.5, "mine")
    assert "cell: #PERIJOVE after the first command is not read (line 4)" in shell.err
    shell.run("%%submit --shell\n#PERIJOVE --cpux 0.5\necho hello")
    assert "cell:2: " in str(shell.error)


def test_an_array_shows_its_counts(shell: Shell) -> None:
    shell.run("%%submit --shell --array 1:4%2\necho $PERIJOVE_TASK_ID")
    assert shell.error is None, shell.err
    assert shell.job.tasks == {State.SUCCEEDED: 4}
    assert "4/4 done" in repr(shell.run("%jobs -n 1").result)
    assert shell.job[3].logs() == "3\n"


def test_why(shell: Shell) -> None:
    shell.run("%%submit --shell --hold --background\ntrue")
    label = shell.job.label
    assert repr(shell.run("%why").result).startswith(f"job {label} held")
    assert repr(shell.run(f"%why {label}").result).startswith(f"job {label} held")
    shell.run("%kill")


def test_in_the_background(shell: Shell, home: Path) -> None:
    go = home / "go"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.02)"
    shell.run(f"%%submit --background --out z\n{wait}\nz = 5\nprint('later')")
    # The job cannot end before it is let go: that the cell has ended says that nobody waited for it.
    assert shell.error is None
    assert "z" not in shell.ns
    go.touch()
    assert shell.job.result(60) == {"z": 5}
    assert shell.ns["z"] == 5


def test_an_interrupt_leaves_the_job_running(shell: Shell) -> None:
    import _thread

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if getattr(shell.ns.get("job"), "state", None) is State.RUNNING:
                _thread.interrupt_main()
                return
            time.sleep(0.02)

    shell.ns.pop("job", None)
    threading.Thread(target=interrupt).start()
    shell.run("%%submit --shell\nsleep 60")
    assert isinstance(shell.error, KeyboardInterrupt)
    assert "which goes on" in str(shell.error)
    assert shell.job.refresh().state is State.RUNNING
    shell.run("%kill")
    assert shell.job.wait(30).state is State.KILLED


def test_a_notebook(shell: Shell, home: Path) -> None:
    cells = [nbformat.v4.new_code_cell("alpha = 1"), nbformat.v4.new_code_cell("print('alpha', alpha)")]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), home / "other.ipynb")
    shell.run("%submit --notebook other.ipynb -p alpha 0.1")
    assert shell.error is None, shell.err
    assert "alpha 0.1" in shell.out
    done = nbformat.read(home / f"other.{shell.job.label}.ipynb", 4)
    assert done.cells[2].outputs[0].text == "alpha 0.1\n"


def test_without_a_body(shell: Shell, home: Path) -> None:
    assert "--background" in shell.run("%%submit --help\n").out
    shell.run("%%submit --cpus 1\n\n")
    assert "nothing to run" in str(shell.error)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--bogus", "unrecognized arguments: --bogus"),
        ("--in nowhere", "--in nowhere: no such name in this notebook"),
        ("--shell --out x", "a shell script has none"),
        ("--out 1x", "must be Python names"),
        ("--memory 12X", "memory"),
        ("--env A", "must be written KEY=VALUE"),
        ("--priority high", "invalid int value"),
        ("--name 'open", "No closing quotation"),
    ],
)
def test_bad_options_are_told_in_a_line(shell: Shell, line: str, told: str) -> None:
    shell.run(f"%%submit {line}\n1")
    assert told in str(shell.error)
    assert "Traceback" not in shell.out + shell.err


def test_looking_at_jobs(shell: Shell) -> None:
    shell.run("%%submit --name looked-at\nprint('once')\n6 * 7")
    label = shell.job.label
    assert "looked-at" in repr(shell.run("%jobs -n 5").result)
    assert shell.run(f"%job {label}").result.name == "looked-at"
    assert shell.run(f"%logs {label}").out == "once\n"
    replayed = shell.run(f"%job {label} --output")
    assert replayed.out.endswith("once\n")
    assert [output.data["text/plain"] for output in replayed.outputs][-1] == "42"
    assert shell.run("%nodes").result[0]["node"]["name"]


def test_the_extension_can_be_unloaded(shell: Shell) -> None:
    shell.run("%unload_ext perijove")
    assert shell.ip.find_cell_magic("submit") is None
    shell.run("%load_ext perijove")
    assert shell.ip.find_cell_magic("submit") is not None


def test_options_are_completed(shell: Shell) -> None:
    _, found = shell.ip.complete("--net", "%%submit --net", len("%%submit --net"))
    assert "--network" in found


# what is shown


def test_names_of_jobs_are_escaped(shell: Shell) -> None:
    shell.run("%%submit --shell --name '<script>alert(1)</script>'\ntrue")
    html = status_html(shell.job)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_an_output_list_is_what_a_notebook_would_keep() -> None:
    outputs = OutputList()
    for line in (
        {"output_type": "stream", "name": "stdout", "text": "10%\r"},
        {"output_type": "stream", "name": "stdout", "text": "20%\n"},
        {"output_type": "display_data", "data": {"text/plain": "a"}, "transient": {"display_id": "x"}},
        {"output_type": "update_display_data", "data": {"text/plain": "b"}, "transient": {"display_id": "x"}},
        {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "pic"}},
    ):
        outputs.show(line)
    assert outputs.text() == "20%\nb\npic\n"
    assert "data:image/png;base64,AAAA" in outputs.html()
    outputs.show({"output_type": "clear_output", "wait": True})
    assert outputs.outputs
    outputs.show({"output_type": "stream", "name": "stderr", "text": "<b>"})
    assert outputs.html() == "<pre>&lt;b&gt;</pre>"


def test_lines_may_come_in_any_pieces() -> None:
    reader = LineReader()
    text = '{"a": "ü"}\nnot json\n[1]\n{"b": 2}\n'
    found = [line for piece in text for line in reader.feed(piece)]
    assert found == [{"a": "ü"}, {"b": 2}]


def test_display_ids_of_two_jobs_do_not_clash() -> None:
    line = {"output_type": "display_data", "data": {"text/plain": "a"}, "transient": {"display_id": "x"}}
    InteractiveShell.instance()
    with capture_output() as captured:
        CellOutput("12").show(line)
    assert captured.outputs[0].data == {"text/plain": "a"}
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("text", "left"), [("a\rb", "b"), ("x\r\ny\n", "x\ny\n"), ("1%\r2%\r", "2%"), ("é", "é")]
)
def test_carriage_returns(text: str, left: str) -> None:
    assert carriage_returns(text) == left


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", 0.1), ("3", 3), ("True", True), ("[1, 2]", [1, 2]), ("a b", "a b"), ("None", None)],
)
def test_parameters_are_python_values_or_text(text: str, value: object) -> None:
    assert parameter_value(text) == value
