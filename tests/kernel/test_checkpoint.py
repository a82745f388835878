"""Checkpoints of notebooks: what is restored, when it is used, and that a kill anywhere changes no output."""

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
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from perijove.runner.checkpoint import Checkpoint, Checkpoints, UnsafeError, keys
from perijove.runner.names import needed

pytestmark = pytest.mark.slow

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


Cell = str | tuple[str, str]


class Attempts:
    """Attempts of one job with a notebook: each has a directory of its own, all have one home."""

    def __init__(self, root: Path) -> None:
        self.root, self.number = root, 0
        self.home = root / "home"
        self.home.mkdir()
        self.parameters: dict[str, Any] = {}
        self.inputs: dict[str, str] = {}
        self.env: dict[str, str] = {}

    def start(self, *cells: Cell) -> subprocess.Popen[str]:
        self.number += 1
        directory = self.directory / "input"
        directory.mkdir(parents=True)
        (directory / "notebook.ipynb").write_text(notebook(*cells))
        (directory / "parameters.json").write_text(json.dumps(self.parameters))
        for name, text in self.inputs.items():
            (directory / name).write_text(text)
        env = {**os.environ, "HOME": str(self.home), "PERIJOVE_JOB_DIR": str(self.directory), **self.env}
        env.pop("XDG_CACHE_HOME", None)
        return subprocess.Popen(
            [sys.executable, "-m", "perijove.runner", "notebook"],
            env=env,
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *cells: Cell, code: int = 0) -> str:
        process = self.start(*cells)
        _, log = process.communicate()
        assert process.returncode == code, log
        return log

    @property
    def directory(self) -> Path:
        return self.root / f"attempt-{self.number}"

    @property
    def executed(self) -> Any:
        return nbformat.read(self.directory / "output" / "notebook.ipynb", 4)

    @property
    def texts(self) -> list[str]:
        return [output_text(cell) for cell in self.executed.cells]

    @property
    def store(self) -> Path:
        return self.home / ".cache" / "perijove" / "checkpoints"


def notebook(*cells: Cell) -> str:
    made = []
    for cell in cells:
        source, tag = cell if isinstance(cell, tuple) else (cell, "")
        made.append(nbformat.v4.new_code_cell(source, metadata={"tags": tag.split()}))
    return str(nbformat.writes(nbformat.v4.new_notebook(cells=made, metadata=KERNEL)))


def output_text(cell: Any) -> str:
    return "".join(
        output.get("text") or output.get("evalue") or output["data"].get("text/plain", "")
        for output in cell.get("outputs", [])
    )


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path)


RAN = "open('ran', 'a').write('{}');"
"""A cell that leaves a trace of having run."""


def traces(attempts: Attempts) -> str:
    path = attempts.home / "ran"
    return path.read_text() if path.exists() else ""


FAILS = "import os\nassert os.path.exists('repaired'), 'not yet'"


def test_a_later_attempt_begins_behind_the_checkpoint(attempts: Attempts) -> None:
    cells: list[Cell] = [
        RAN.format("a") + "\nimport math, random\nrandom.seed(7)\nscale = 2\ndef f(x):\n    return x * scale",
        (
            RAN.format("b") + "\nclass P:\n    def m(self):\n        return f(21)\np = P(); print('made')",
            "checkpoint",
        ),
        FAILS,
        "scale = 10\n(p.m(), math.pi, isinstance(p, P), random.random())",
    ]
    attempts.run(*cells, code=1)
    assert traces(attempts) == "ab"
    (attempts.home / "repaired").touch()
    log = attempts.run(*cells)
    assert traces(attempts) == "ab"
    assert "cells 1 to 2 are from the checkpoint of" in log
    resumed = attempts.executed
    assert [bool(cell.metadata.get("perijove", {}).get("restored")) for cell in resumed.cells] == [1, 1, 0, 0]
    assert [cell.metadata.papermill.status for cell in resumed.cells] == ["completed"] * 4
    attempts.env = {"PERIJOVE_CHECKPOINTS": "off"}
    attempts.run(*cells)
    assert traces(attempts) == "abab"
    assert [output_text(cell) for cell in resumed.cells] == attempts.texts
    counts = [cell.execution_count for cell in attempts.executed.cells]
    assert [cell.execution_count for cell in resumed.cells] == counts


def test_values_recorded_and_files_made_above_are_there_again(attempts: Attempts) -> None:
    cells: list[Cell] = [
        (
            "import perijove, os\nfrom pathlib import Path\n"
            "out = Path(os.environ['PERIJOVE_JOB_DIR']) / 'output'\n"
            "(out / 'plots').mkdir()\n(out / 'plots' / 'a.txt').write_text('plot')\n"
            "perijove.record('loss', 0.5)",
            "checkpoint",
        ),
        FAILS,
        "(out / 'plots' / 'a.txt').read_text(), (out / 'b.txt').write_text('b'), perijove.record('end', 1)",
    ]
    attempts.run(*cells, code=1)
    (attempts.home / "repaired").touch()
    attempts.run(*cells)
    output = attempts.directory / "output"
    assert (output / "plots" / "a.txt").read_text() == "plot"
    assert (output / "b.txt").exists()
    lines = [json.loads(line) for line in (output / ".recorded.jsonl").read_text().splitlines()]
    assert lines == [{"name": "loss", "value": 0.5}, {"name": "end", "value": 1}]


@pytest.mark.parametrize("change", ["cell", "parameter", "input", "image", "file", "module"])
def test_what_is_changed_above_runs_again(attempts: Attempts, change: str) -> None:
    (attempts.home / "data.csv").write_text("1")
    (attempts.home / "own.py").write_text("x = 1")
    attempts.parameters, attempts.inputs = {"alpha": 1}, {"table": "1"}
    above = RAN.format("a") + "import own; text = open('data.csv').read()"
    attempts.run((above, "checkpoint"), FAILS, code=1)
    match change:
        case "cell":
            above += "; more = 1"
        case "parameter":
            attempts.parameters = {"alpha": 2}
        case "input":
            attempts.inputs = {"table": "2"}
        case "image":
            attempts.env = {"PERIJOVE_IMAGE": "another"}
        case "file":
            (attempts.home / "data.csv").write_text("22")
        case "module":
            (attempts.home / "own.py").write_text("x = 22")
    (attempts.home / "repaired").touch()
    attempts.run((above, "checkpoint"), FAILS)
    assert traces(attempts) == "aa"


def test_what_is_changed_below_or_only_looks_different_runs_nothing_again(attempts: Attempts) -> None:
    attempts.run((RAN.format("a"), "checkpoint"), FAILS, code=1)
    attempts.run(("\n" + RAN.format("a") + "   \n", "checkpoint"), "print('another end')")
    assert traces(attempts) == "a"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(attempts: Attempts) -> None:
    cells: list[Cell] = [
        (RAN.format("a") + "x = 1", "checkpoint"),
        (RAN.format("b") + "y = 2", "checkpoint"),
        FAILS,
    ]
    attempts.run(*cells, code=1)
    newest = max(attempts.store.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    session = json.loads(newest.read_bytes().partition(b"\n")[2])["session"]
    blob = attempts.store / "blobs" / session
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    log = attempts.run(*cells, code=1)
    assert "the checkpoint behind cell 2 is not used: it is damaged" in log
    assert traces(attempts) == "abb"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert "it is damaged" in attempts.run(*cells, code=1)


def test_values_that_cannot_be_unpickled_any_more(attempts: Attempts) -> None:
    (attempts.home / "own.py").write_text("class A: pass")
    cells: list[Cell] = [("import own\na = own.A()", "checkpoint"), FAILS, "a"]
    attempts.run(*cells, code=1)
    stamp = (attempts.home / "own.py").stat()
    (attempts.home / "own.py").write_text("class B: pass")
    os.utime(attempts.home / "own.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    log = attempts.run(*cells, code=1)
    assert "the checkpoint behind cell 1 is not used: AttributeError" in log
    assert "has no attribute 'A'" in "".join(attempts.texts)


def test_only_what_later_cells_do_not_need_may_be_left_out(attempts: Attempts) -> None:
    lock = "import threading\nlock = threading.Lock()\nwith open('data') as file: file.read()"
    (attempts.home / "data").touch()
    log = attempts.run((lock, "checkpoint"), "with open('data') as file: file.read()")
    assert "no checkpoint" not in log
    log = attempts.run((lock, "checkpoint"), "with lock: pass")
    assert "the checkpoint behind cell 1 is not used: it left out lock" in log
    assert "no checkpoint behind cell 1: cells below use lock (lock), which cannot be pickled" in log


def test_a_line_names_what_is_saved(attempts: Attempts) -> None:
    above = ("# save: model\nimport math\nraw = list(range(10**6)); model = 3", "checkpoint")
    attempts.run(above, FAILS, code=1)
    assert sum(path.stat().st_size for path in (attempts.store / "blobs").iterdir()) < 100_000
    log = attempts.run(above, "print(model, math.pi, 'raw' in globals())")
    assert "from the checkpoint" in log
    assert attempts.texts[1].endswith("False\n")
    log = attempts.run(above, "print(len(raw))")
    assert "the checkpoint behind cell 1 is not used: it left out raw" in log
    log = attempts.run(("# save: model\nraw, model = 1, 3", "checkpoint"), "print(raw)")
    assert "cells below use raw (int), which the line # save: leaves out" in log
    log = attempts.run(("# save: absent\nx = 1", "checkpoint"), "print(x)")
    assert "# save: absent: there is no such name" in log


def test_cells_tagged_always_run_in_each_attempt(attempts: Attempts) -> None:
    cells: list[Cell] = [
        ("import threading\nlock = threading.Lock()" + "\n" + RAN.format("a"), "always"),
        (RAN.format("b") + "x = 1", "checkpoint"),
        FAILS,
        "with lock: print(x)",
    ]
    attempts.run(*cells, code=1)
    (attempts.home / "repaired").touch()
    attempts.run(*cells)
    assert (traces(attempts), attempts.texts[3]) == ("aba", "1\n")


def test_surroundings_are_as_they_were(attempts: Attempts) -> None:
    above = """
import os, sys, warnings
import numpy as np, pandas as pd
np.random.seed(3); np.set_printoptions(precision=2); pd.set_option("display.max_rows", 4)
warnings.filterwarnings("ignore", category=UserWarning)
os.makedirs("inner", exist_ok=True); os.chdir("inner"); sys.path.append("/own"); os.environ["MINE"] = "1"
%load_ext autoreload
"""
    below = """
warnings.warn("unseen")
print(os.path.basename(os.getcwd()), sys.path[-1], os.environ["MINE"], end=" ")
print([x for x in get_ipython().extension_manager.loaded if "autoreload" in x])
print(np.random.random(3), pd.Series(range(9)))
"""
    cells: list[Cell] = [(above, "checkpoint"), "import os\nassert os.path.exists('../repaired')", below]
    attempts.run(*cells, code=1)
    (attempts.home / "repaired").touch()
    assert "from the checkpoint" in attempts.run(*cells)
    resumed = attempts.texts
    attempts.env = {"PERIJOVE_CHECKPOINTS": "refresh"}
    assert "from the checkpoint" not in attempts.run(*cells)
    assert resumed == attempts.texts
    assert resumed[2].startswith("inner /own 1 ['IPython")


def test_paths_of_the_attempt_are_those_of_the_next(attempts: Attempts) -> None:
    attempts.inputs, attempts.parameters = {"table": "data"}, {"table": {"path": "table"}}
    cells: list[Cell] = [
        ("from pathlib import Path\nother = Path(table).with_name('x')", "checkpoint"),
        FAILS,
        "print(table, other)",
    ]
    attempts.run(*cells, code=1)
    (attempts.home / "repaired").touch()
    assert "from the checkpoint" in attempts.run(*cells)
    here = attempts.directory / "input"
    assert attempts.texts[-1] == f"{here}/table {here}/x\n"


# kills


def processes_of(directory: Path) -> list[int]:
    """Those of an attempt, the kernel's too, which has a session of its own."""
    mark = f"PERIJOVE_JOB_DIR={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def kill_all(directory: Path) -> None:
    def gone() -> bool:
        living = processes_of(directory)
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not living

    wait_until(gone, "end of the attempt")


@pytest.fixture
def study() -> list[Cell]:
    """36 cells that build on each other; every third is a checkpoint, and each may be made to wait."""
    first = "import os, random\nrandom.seed(1)\ntotal, history = 0, []\n"
    first += "def grow(x):\n    global total\n    total += x"
    gate = """
if os.path.exists("gate-{n}"):
    open("reached-{n}", "w").close()
    import time; time.sleep(600)
"""
    cells: list[Cell] = [first]
    for n in range(2, 37):
        source = (
            f"open('ran', 'a').write('{n} ')\n{gate.format(n=n)}\n"
            f"grow(random.randrange(100)); history.append(total); print({n}, total, history[-3:])"
        )
        cells.append((source, "checkpoint") if n % 3 == 0 else source)
    return cells


def killed_at(attempts: Attempts, cells: list[Any], gate: int) -> None:
    (attempts.home / f"gate-{gate}").touch()
    process = attempts.start(*cells)
    reached = attempts.home / f"reached-{gate}"
    try:
        wait_until(lambda: reached.exists() or process.poll() is not None, f"cell {gate}", 120)
    finally:
        kill_all(attempts.directory)
        _, log = process.communicate()
        (attempts.home / f"gate-{gate}").unlink()
    assert reached.exists(), log


def steps(attempts: Attempts) -> list[int]:
    path = attempts.home / "ran"
    ran = [int(word) for word in path.read_text().split()]
    path.unlink()
    return ran


def shown(cell: Any) -> list[dict[str, Any]]:
    """Its outputs; how a kernel cuts a stream in pieces depends on when it was flushed."""
    found: list[dict[str, Any]] = []
    for output in cell.get("outputs", []):
        last = found[-1] if found else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            found[-1] = {**last, "text": last["text"] + output["text"]}
        else:
            found.append(dict(output))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_each_cell_the_outputs_are_those_of_an_uninterrupted_run(
    attempts: Attempts, study: list[Any]
) -> None:
    attempts.env = {"PERIJOVE_CHECKPOINTS": "off"}
    attempts.run(*study)
    uninterrupted = attempts.executed
    attempts.env = {}
    (attempts.home / "ran").unlink()
    for gate in range(2, 37):
        killed_at(attempts, study, gate)
        # Each attempt began behind the checkpoint before the cell in which the last one was killed.
        last = (gate - 2) // 3 * 3
        assert steps(attempts) == list(range(last + 1 if last else 2, gate + 1))
        unfinished = attempts.executed
        assert [output_text(cell) for cell in unfinished.cells[: gate - 1]] == [
            output_text(cell) for cell in uninterrupted.cells[: gate - 1]
        ]
    attempts.run(*study)
    assert steps(attempts) == [34, 35, 36]
    finished = attempts.executed
    for one, other in zip(finished.cells, uninterrupted.cells, strict=True):
        assert (one.source, one.execution_count) == (other.source, other.execution_count)
        assert shown(one) == shown(other)


def test_killed_between_two_checkpoints(attempts: Attempts, study: list[Any]) -> None:
    killed_at(attempts, study[:9], 8)
    assert steps(attempts) == list(range(2, 9))
    attempts.run(*study[:9])
    assert steps(attempts) == [7, 8, 9]


# the store


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def blob(store: Checkpoints, text: str) -> str:
    path = store.folder / "new"
    path.write_text(text)
    return store.keep_file(path)


def test_a_checkpoint_comes_back_as_it_was(store: Checkpoints) -> None:
    kept = Checkpoint(3, 1.5, blob(store, "s"), "/job", [{"outputs": []}], ["lock"], {}, "x")
    store.keep("k", kept)
    assert store.find("k") == kept
    assert store.find("other") is None


def test_a_place_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir(mode=0o777)
    (tmp_path / "checkpoints").chmod(0o777)
    with pytest.raises(UnsafeError, match="can be written by others"):
        Checkpoints(tmp_path / "checkpoints")


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeError):
        Checkpoints(tmp_path / "checkpoints")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_what_somebody_else_left_is_not_read(store: Checkpoints) -> None:
    store.keep("k", Checkpoint(3, 1.5, blob(store, "s"), "/job", []))
    os.chown(store.folder / "k.json", 12345, -1)
    with pytest.raises(ValueError, match="belongs to somebody else"):
        store.find("k")


def test_old_ones_are_removed(store: Checkpoints) -> None:
    old, new = (Checkpoint(0, 0.0, blob(store, text), "", []) for text in ("old", "new"))
    store.keep("old", old)
    store.keep("new", new)
    for path in (store.folder / "old.json", store.blobs / old.session):
        os.utime(path, (0, 0))
    store.prune((store.folder / "new.json").stat().st_mtime)
    assert store.find("old") is None
    assert store.find("new") == new


# pure


def test_a_key_depends_on_all_above_and_on_nothing_below() -> None:
    one, other = keys(["a", "b", "c"], {}), keys(["a", "B", "c"], {})
    assert [x == y for x, y in zip(one, other, strict=True)] == [True, False, False]
    assert keys(["a"], {"parameters": {"x": 1}}) != keys(["a"], {"parameters": {"x": 2}})
    assert keys(["a", "b"], {}) != keys(["ab", ""], {})


def mutants() -> Iterator[tuple[str, set[str]]]:
    yield "print(a)", {"print", "a"}
    yield "a = 1\nprint(a)", {"print"}
    yield "a += 1", {"a"}
    yield "with open(p) as f: f.read()", {"open", "p"}
    yield "for i in range(3): print(i)\ni", {"range", "print", "i"}
    yield "if x: a = 1\na", {"x", "a"}
    yield "def f(): return g(a)\nf()", {"g", "a"}
    yield "import numpy as np\nnp.zeros(n)", {"n"}
    yield "a.b = 1", {"a"}
    yield "a[i] = 1", {"a", "i"}
    yield "(a, *b), c = d", {"d"}
    yield "%timeit f(x)", {"get_ipython", "f", "x", "timeit"}
    yield "x: int = y", {"int", "y"}
    yield "this is no Python", {"this", "is", "no", "Python"}
    yield "del a", {"a"}


@pytest.mark.parametrize(("source", "wanted"), list(mutants()))
def test_names_that_a_cell_may_read(source: str, wanted: set[str]) -> None:
    assert needed([source]) == wanted


def test_what_an_earlier_cell_binds_a_later_one_does_not_need() -> None:
    assert needed(["a = 1", "b = a", "c"]) == {"c"}


@given(st.text(max_size=60))
def test_any_text_has_needs(source: str) -> None:
    assert isinstance(needed([source]), set)
