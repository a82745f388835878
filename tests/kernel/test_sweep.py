"""Sweeps: their grids as typed, their jobs, and the table of what these recorded."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import Service

import perijove
from perijove.model import InvalidSpecError, UserError
from perijove.sweeping import Grid, parsed
from perijove.sweeps import Point, Sweep, failure_lines, flat, grid_of, known_parameters, table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.01", [0.1, 0.01]),
        ("1:5", [1, 2, 3, 4, 5]),
        ("5:1:-2", [5, 3, 1]),
        ("0:1:0.25", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0:0.3:0.1", [0.0, 0.1, 0.2, 0.3]),
        ("1e-3:3e-3:1e-3", [0.001, 0.002, 0.003]),
        ("adam,sgd", ["adam", "sgd"]),
        ("'1:5'", ["1:5"]),
        ('"a,b",c', ["a,b", "c"]),
        ("[1,2],[3,4]", [[1, 2], [3, 4]]),
        ('{"a": 1},{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("True,None,false,null", [True, None, False, None]),
        ("10:30am", ["10:30am"]),
        ("-1,+2", [-1, 2]),
    ],
)
def test_values_as_typed(text: str, values: list[Any]) -> None:
    assert parsed("x", text) == values
    assert [type(value) for value in parsed("x", text)] == [type(value) for value in values]


def test_values_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "xs.json").write_text('["a", {"b": 1}]')
    assert parsed("xs", f"@{tmp_path}/xs.json") == ["a", {"b": 1}]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lr"], "-p: must be written NAME=VALUES"),
        (["1x=3"], "-p: must be written NAME=VALUES"),
        (["lr=1", "lr=2"], "lr: is given twice"),
        (["seed=5:1"], "seed: the range is empty"),
        (["seed=1:5:0"], "seed: the range is empty"),
        (["seed=1:1e9"], "seed: the range has 1000000000 values"),
        (["seed=1..2:3"], "seed: must be values with commas"),
        (["lr=1,,2"], "lr: an empty value"),
        (["lr="], "lr: an empty value"),
        (["lr=[1,2"], "lr: a quote or bracket is left open"),
        (["lr='a"], "lr: a quote or bracket is left open"),
        (["lr=@/absent.json"], "lr: cannot be read as JSON"),
        (["a=1:1000", "b=1:1000"], "-p: a sweep has at most 100000 points, and this one 1000000"),
        (["lr={1,2}"], "lr: its values must be JSON"),
    ],
)
def test_errors_name_the_parameter(texts: list[str], said: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        Grid.parse(texts)
    assert str(caught.value).startswith(said)


def test_values_in_python_may_be_numpys() -> None:
    import numpy as np

    assert Grid({"lr": np.array([0.5, 1.0]), "seed": range(2), "name": "x"}).axes == {
        "lr": [0.5, 1.0],
        "seed": [0, 1],
        "name": ["x"],
    }


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, max_size=4), max_size=4))
def test_the_points_are_all_combinations_and_the_last_changes_fastest(axes: dict[str, list[int]]) -> None:
    grid = Grid(axes)
    wanted = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    assert list(grid) == wanted == grid[:]
    assert list(Grid(json.loads(grid.to_json()))) == wanted


@given(st.text(max_size=30))
def test_whatever_is_typed_gives_values_or_an_error(text: str) -> None:
    try:
        grid = Grid.parse([f"x={text}"])
    except InvalidSpecError as error:
        assert error.errors[0].field == "x"  # noqa: PT017
    else:
        assert len(grid) >= 1


POINTS = [
    Point("7_1", "succeeded", {"lr": 0.1}, {"loss": 0.123456789, "curve": list(range(99))}),
    Point("7_2", "failed", {"lr": 1.0}, {}, "cell 2: ValueError: too large"),
    Point("7_3", "failed", {"lr": 2.0}, {"loss": 3.0}, "cell 2: ValueError: too large"),
    Point("7_4", "running", {"lr": 3.0}),
]


def test_the_table_and_the_errors() -> None:
    titles, rows = table(POINTS)
    assert titles == ["lr", "loss", "curve", "state", "job"]
    assert rows[0][:2] == ["0.1", "0.123457"]
    assert len(rows[0][2]) == 40
    assert rows[1] == ["1", "", "", "failed", "7_2"]
    assert failure_lines(POINTS) == ["2 x cell 2: ValueError: too large (7_2, 7_3)"]
    assert flat(POINTS)[1]["loss"] is None


def notebook(path: Path, *cells: str, parameters: str = "lr = 1.0\nseed = 0") -> Path:
    made = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    made += [nbformat.v4.new_code_cell(source) for source in cells]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), path)
    return path


def test_known_parameters(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", parameters="a: int = 1\nb, c = 1, 2")
    assert known_parameters(path.read_bytes()) == ["a", "b", "c"]
    other = path.read_text().replace('"language": "python"', '"language": "R"')
    assert known_parameters(other.encode()) == []
    assert known_parameters(b"no notebook") == []


@pytest.fixture
def study(service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    perijove.connect(service.url, service.token)
    return notebook(
        home / "study.ipynb",
        "import perijove\nif seed == 3: raise ValueError('three')\nperijove.record('loss', lr * seed)",
    )


def test_a_sweep_in_python(study: Path) -> None:
    sweep = perijove.sweep(study, lr=[0.5, 2], seed=[1, 3], options={"cpus": 1}, max_running=2).wait()
    assert [(point.parameters, point.values) for point in sweep.results] == [
        ({"lr": 0.5, "seed": 1}, {"loss": 0.5}),
        ({"lr": 0.5, "seed": 3}, {}),
        ({"lr": 2, "seed": 1}, {"loss": 2}),
        ({"lr": 2, "seed": 3}, {}),
    ]
    label = sweep.job.label
    assert sweep.failures == {"cell 3: ValueError: three": [f"{label}_2", f"{label}_4"]}
    assert sweep.job.spec["array"]["limit"] == 2
    frame = sweep.table()
    assert list(frame.columns) == ["lr", "seed", "loss", "state", "job", "error", "seconds"]
    assert frame[frame.state == "succeeded"].loss.tolist() == [0.5, 2.0]
    assert f"sweep {label} failed: 4/4 done, 2 failed" in repr(sweep)
    assert "<td>0.5</td>" in sweep._repr_html_()
    assert list(Sweep(perijove.job(label)).grid) == list(sweep.grid)
    axes = sweep.plot()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "loss")
    assert axes.lines[0].get_xydata().tolist() == [[0.5, 0.5], [2, 2]]
    with pytest.raises(InvalidSpecError, match="must be one of loss"):
        sweep.plot(y="los")


def test_a_parameter_that_the_notebook_does_not_have(study: Path) -> None:
    with pytest.raises(
        InvalidSpecError, match="learning: the notebook has no such parameter; it has: lr, seed"
    ):
        perijove.sweep(study, learning=[1])
    assert perijove.jobs(name="study.ipynb", state="pending") == []


def test_a_job_that_is_no_sweep(study: Path) -> None:
    with pytest.raises(UserError, match="is no sweep"):
        grid_of(perijove.submit("true").wait())


def command(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("perijove"), *words], env=service.env, capture_output=True, text=True
    )


def test_the_command_line(study: Path, service: Service, tmp_path: Path) -> None:
    picture = tmp_path / "loss.svg"
    done = command(service, "sweep", "study.ipynb", "-p", "lr=0.5", "-p", "seed=1:3", "--plot", str(picture))
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["lr", "seed", "loss", "state", "job"]
    label = lines[1][-1].partition("_")[0]
    assert lines[1:] == [
        ["0.5", "1", "0.5", "succeeded", f"{label}_1"],
        ["0.5", "2", "1", "succeeded", f"{label}_2"],
        ["0.5", "3", "failed", f"{label}_3"],
    ]
    assert done.stderr == f"perijove: 1 x cell 3: ValueError: three ({label}_3)\n"
    assert picture.read_text().startswith("<?xml")
    read = list(csv.DictReader(io.StringIO(command(service, "sweep", "--of", label, "--csv").stdout)))
    assert [(row["seed"], row["loss"]) for row in read] == [("1", "0.5"), ("2", "1.0"), ("3", "")]
    told = json.loads(command(service, "sweep", "--of", label, "--json").stdout)
    assert [row["state"] for row in told["results"]] == ["succeeded", "succeeded", "failed"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.ipynb"], "a sweep needs values of at least one parameter"),
        (["-p", "lr=1"], "name a notebook, or an earlier sweep"),
        (["study.ipynb", "-p", "lr=5:1"], "lr: the range is empty"),
        (["study.ipynb", "-p", "rate=1"], "it has: lr, seed"),
        (["absent.ipynb", "-p", "lr=1"], "cannot be read"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    study: Path, service: Service, words: list[str], said: str
) -> None:
    done = command(service, "sweep", *words)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_a_page_of_a_notebook_that_ran(study: Path, service: Service) -> None:
    sweep = perijove.sweep(study, seed=[3]).wait()
    done = command(service, "report", f"{sweep.job.label}_1", "-o", "page.html")
    assert (done.returncode, done.stdout) == (0, "page.html\n"), done.stderr
    text = Path("page.html").read_text()
    assert "ValueError" in text
    assert "<title>study.ipynb</title>" in text
    command(service, "report", f"{sweep.job.label}_1", "--no-code")
    assert "import perijove" not in Path(f"study.{sweep.job.label}_1.html").read_text()
    done = command(service, "report", perijove.submit("true").wait().label)
    assert done.returncode == 1
