"""Workflows written in Python: what they come to as documents, and what is refused where it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from perijove import InvalidSpecError, Workflow
from perijove.documents import parse
from perijove.pickling import pickled
from perijove.version1 import from_version1


def squares(number: int, k: int = 1) -> int:
    return number * number * k


def total(numbers: list[int], *, bonus: int) -> int:
    return sum(numbers) + bonus


def whole() -> Workflow:
    """Every kind of step, and every way to refer to another."""
    with Workflow("fit", lr=0.1, config={"a": 1}, defaults={"memory": "2G"}) as w:
        prep = w.notebook("prep.ipynb", p=1, name="prep")
        run = w.run(
            "python",
            Path("x.py"),
            f"--lr={w.parameters.lr}",
            3,
            inputs={"seeds": prep["seeds"], "here": Path(__file__), "all": [prep["seeds"], "file:b"]},
            outputs={"table": "file:t.csv", "ok": "record:ok"},
            env={"SEEDS": prep["seeds"]},
            cpus=2,
        )
        each = w.map(squares, prep["seeds"], k=3)
        summed = w.call(total, each, bonus=each.result[0], after=run)
        w.map("fit.ipynb", [{"lr": 1}, {"lr": 2}], lr=w.item["lr"], number=w.index)
        w.notebook("report.ipynb", sums={"total": summed, "config": w.parameters.config}, when=run["ok"])
        w.run("true", when=~(prep["loss"] < 0.1), name="poor", after=[summed, "prep"])
        w.run(image="busybox", sealed=True)
        w.run("arg", script="echo $1\n", image=w.run("build", outputs=["img"], name="build")["img"])
    return w


def test_it_comes_to_a_document_and_back_again() -> None:
    w = whole()
    model = w.model
    assert parse(w.to_yaml()) == model == parse(w.to_json(), "x.json") == from_version1(w.to_v1())
    steps = w.document["steps"]
    assert steps["python"] == {
        "command": ["python", "x.py", "--lr=${{ parameters:lr }}", "3"],
        "inputs": {
            "seeds": "jobs:prep/seeds",
            "here": f"file:{__file__}",
            "all": ["jobs:prep/seeds", "file:b"],
        },
        "outputs": {"table": "file:t.csv", "ok": "record:ok"},
        "cpu": 2,
        "env": {"SEEDS": "${{ jobs:prep/seeds }}"},
    }
    assert steps["prep"]["outputs"] == {"seeds": "record:seeds", "loss": "record:loss"}
    assert steps["squares"]["args"] == [{"from": "item"}]
    assert steps["squares"]["map"] == "jobs:prep/seeds"
    assert steps["squares"]["parameters"] == {"k": 3}
    assert steps["total"]["parameters"] == {"bonus": {"from": "jobs:squares/result[0]"}}
    assert steps["total"]["after"] == ["python"]
    assert steps["fit"]["parameters"] == {"lr": {"from": "item:lr"}, "number": {"from": "index"}}
    assert steps["report"]["parameters"]["sums"]["total"] == {"from": "jobs:total/result"}
    assert steps["report"]["when"] == "jobs:python/ok"
    assert steps["poor"]["when"] == "not jobs:prep/loss < 0.1"
    assert steps["poor"]["after"] == ["total", "prep"]
    assert steps["busybox"] == {"entrypoint": "image", "image": "busybox", "sealed": True}
    assert steps["script"]["image"] == "jobs:build/img"
    assert model.steps["python"].memory == 2 << 30


def test_functions_and_what_is_no_json_travel_as_pickles() -> None:
    w = Workflow()
    w.call(squares, (1, 2), k={1, 2})
    step = w.model.steps["squares"]
    assert list(step.args[0]) == ["pickle"]
    assert cloudpickle.loads(w.contents[step.args[0]["pickle"]]) == (1, 2)
    assert cloudpickle.loads(w.contents[step.parameters["k"]["pickle"]]) == {1, 2}
    assert cloudpickle.loads(w.contents[str(step.function)])(3) == 9


def test_data_that_looks_like_a_mark_is_data() -> None:
    w = Workflow()
    w.call(squares, {"from": "jobs:a/b"})
    assert w.model.steps["squares"].args == [{"value": {"from": "jobs:a/b"}}]


def test_options_that_the_function_takes_itself_are_its_own() -> None:
    def timed(time: int, memory: str = "") -> None: ...

    w = Workflow()
    w.call(timed, time=3, options={"time": "2h"}, cpus=2)
    step = w.model.steps["timed"]
    assert (step.parameters, step.time_limit, step.cpu) == ({"time": 3}, 7200, 2)


def test_a_decorated_function_is_a_step_when_it_is_called() -> None:
    w = Workflow()

    @w.step(cpus=4)
    def doubled(x: int) -> int:
        return 2 * x

    first = doubled(2)
    second = doubled(first)
    assert w.model.steps["doubled-2"].args == [{"from": "jobs:doubled/result"}]
    assert (first.name, second.name, w.model.steps["doubled-2"].cpu) == ("doubled", "doubled-2", 4)


def refused(build: Any) -> str:
    w = Workflow("fit", lr=0.1)
    step = w.notebook("prep.ipynb", name="prep")
    with pytest.raises((InvalidSpecError, TypeError, AttributeError, KeyError)) as raised:
        build(w, step)
    return str(raised.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda w, _: w.call(total, [1]), ["bonus", "total("]),
        (lambda w, _: w.call(squares, 1, 2, 3), ["too many positional arguments"]),
        (lambda w, _: w.run("x", memry="8G"), ["memry", "did you mean 'memory'"]),
        (lambda w, _: w.run("x", cpus="many"), ["steps.x.cpus", "number"]),
        (lambda w, _: w.run("x", outputs={"a": "nowhere"}), ["steps.x.outputs.a", "file:PATH"]),
        (lambda w, _: w.run("x", outputs=["a"])["b"], ["step x has no output b; it has: a"]),
        (lambda w, _: w.run("x", object()), ["command", "must be a text"]),
        (lambda w, _: w.run("x", name="prep"), ["steps.prep", "of this name"]),
        (lambda w, _: w.run("x", name="a b"), ["a b"]),
        (lambda w, _: w.run("x", after=["later"]), ["there is no step later"]),
        (lambda w, _: w.run("x", w.item), ["item", "map only"]),
        (lambda w, _: w.parameters.rl, ["no parameter rl; there are: lr"]),
        (lambda w, s: w.notebook("y.ipynb", p={1, 2}), ["parameters.p", "JSON"]),
        (lambda w, s: w.notebook("y.ipynb", p=float("nan")), ["parameters.p", "JSON"]),
        (lambda w, s: w.call(squares, (x for x in [1])), ["args.0", "cannot be pickled"]),
        (lambda w, s: w.map(squares, [object()]), ["map", "JSON"]),
        (lambda w, s: bool(s["ok"]), ["jobs:prep/ok is known only when", "when="]),
        (lambda w, s: bool(s["ok"] == 1), ["when="]),
        (lambda w, s: list(s["xs"]), ["map"]),
        (lambda w, s: list(s), ["map"]),
        (lambda w, s: w.call(squares, s), ["say which output of prep"]),
        (lambda w, s: s["a"]["b"]["c"], ["parts of parts"]),
        (lambda w, s: w.run("x", when=s["loss"] < object()), ["JSON"]),
    ],
)
def test_mistakes_are_told_where_they_are_made(build: Any, words: list[str]) -> None:
    def checked(w: Workflow, step: Any) -> None:
        build(w, step)
        w.check()

    message = refused(checked)
    assert all(word in message for word in words), message


PROGRAM = """
import sys
from perijove.pickling import digest_of, pickled
source = '''
SIZES = {"a": 1, "b": [1, 2]}
class Scale:
    factor = 3
    def by(self, x: int = 1): return self.factor * x
def known(word): return word in {"alpha", "beta", "gamma", "delta"}
def fit(x, sizes=SIZES):
    "What is fitted."
    class Inner(Scale): pass
    add = lambda y: y + 1
    return [Inner().by(add(x)) for _ in range(2)], known("beta"), {*sizes}
'''
import __main__
space = vars(__main__)
space["__file__"] = sys.argv[1]
exec(compile(int(sys.argv[2]) * "\\n" + source, sys.argv[1], "exec"), space)
print(digest_of(pickled("fit", fit)), digest_of(pickled("scale", (Scale, known))))
"""


def digests(path: str, lines: int, seed: str) -> str:
    """What another process pickles of the same source."""
    command = [sys.executable, "-c", PROGRAM, path, str(lines)]
    env = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_the_same_source_has_the_same_digest_after_a_restart() -> None:
    assert digests("/tmp/ipykernel_1/1.py", 0, "1") == digests("/tmp/ipykernel_2/7.py", 4, "2")


def test_what_differs_has_another_digest() -> None:
    def made(factor: int) -> Any:
        class Own:
            def by(self, x: int) -> int:
                return factor * x

        return Own

    assert pickled("a", made(1)) == pickled("b", made(1))
    assert pickled("a", made(1)) != pickled("a", made(2))
    assert cloudpickle.loads(pickled("a", made(3)))().by(2) == 6
