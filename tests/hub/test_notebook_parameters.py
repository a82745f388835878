"""Parameters of a notebook, checked before anything runs: unknown names and wrong types, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perijove_hub.workflows.notebook_parameters import notebook_errors

CELL = """# the defaults
%load_ext autoreload
import os
lr = 0.1  # learning rate
epochs: int = 10
name = "digits"
verbose = False
sizes = [1, 2]
options = dict(a=1, b=2)
table = {"a": 1}
nothing = None
offset = -1
home = os.environ["HOME"]
maybe: "int | None" = None
either: Union[str, List[int]] = ""
declared: float
other: Path = Path("x")
a, b = 1, 2
if verbose:
    late = 1
def function(inner=1):
    local = 2
"""


def notebook(cell: str | None = CELL, **metadata: Any) -> bytes:
    cells: list[Any] = [{"cell_type": "code", "metadata": {}, "source": "before = 1"}]
    if cell is not None:
        cells.append({"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": cell})
        cells.append({"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "second = 1"})
    kernel = {"kernelspec": {"name": "python3", "language": "python"}, **metadata}
    return json.dumps({"nbformat": 4, "metadata": kernel, "cells": cells}).encode()


GOOD: list[dict[str, Any]] = [
    {"lr": 0.2},
    {"lr": 1},
    {"epochs": 5},
    {"epochs": 5.0},
    {"name": ""},
    {"verbose": True},
    {"sizes": []},
    {"options": {"c": 1}},
    {"options": "computed: anything goes"},
    {"table": {}},
    {"nothing": [1]},
    {"offset": 3},
    {"home": "/"},
    {"maybe": None, "either": [1], "declared": 1, "other": "x"},
    {"a": 1, "b": "x", "late": 2},
    {"epochs": {"from": "jobs:prep/n"}},
    {"epochs": {"value": 3}},
    {"epochs": "${{ parameters:n }}"},
    {"table": {"value": {"from": "x"}}},
    {},
]


@pytest.mark.parametrize("parameters", GOOD, ids=str)
def test_what_the_notebook_takes(parameters: dict[str, Any]) -> None:
    assert notebook_errors(notebook(), parameters) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lr": "0.2"}, "must be a number"),
        ({"lr": True}, "must be a number"),
        ({"lr": None}, "must be a number"),
        ({"epochs": 0.5}, "must be an integer"),
        ({"epochs": {"value": "3"}}, "must be an integer"),
        ({"name": 1}, "must be a text"),
        ({"verbose": 1}, "must be true or false"),
        ({"sizes": {}}, "must be a list"),
        ({"table": []}, "must be an object"),
        ({"maybe": "x"}, "must be an integer or null"),
        ({"either": 1}, "must be a text or a list"),
        ({"declared": "x"}, "must be a number"),
    ],
    ids=str,
)
def test_values_of_the_wrong_type(parameters: dict[str, Any], message: str) -> None:
    [error] = notebook_errors(notebook(), parameters)
    assert error.field == f"parameters.{next(iter(parameters))}"
    assert error.message == f"{message}, as the notebook's cell parameters has it"


@pytest.mark.parametrize("name", ["rate", "inner", "local", "function", "before", "second", "os"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    [error] = notebook_errors(notebook(), {name: 1})
    assert error.field == f"parameters.{name}"
    assert error.message.startswith(
        f"the notebook has no parameter {name}; it has: lr, epochs, name, verbose, sizes, options, table"
    )


def test_all_errors_come_at_once() -> None:
    assert [
        error.field for error in notebook_errors(notebook(), {"x": 1, "lr": "a", "y": {"from": "item"}})
    ] == [
        "parameters.x",
        "parameters.lr",
        "parameters.y",
    ]


def test_a_notebook_without_such_a_cell_has_no_parameters() -> None:
    [error] = notebook_errors(notebook(None), {"x": 1})
    assert error.message == "the notebook has no parameter x; it has no cell tagged parameters that sets any"


@pytest.mark.parametrize(
    "given",
    [
        notebook(kernelspec={"name": "ir", "language": "R"}),
        notebook("x = ("),
        notebook("x = " + "(" * 300),
        b'{"nbformat": 3, "worksheets": []}',
    ],
)
def test_what_cannot_be_read_is_not_checked(given: bytes) -> None:
    assert notebook_errors(given, {"x": 1}) == []


@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("given", [b"PK", b"{}", b"[1]", b'{"nbformat": "4"}'])
def test_what_is_no_notebook_is_said_so(given: bytes, parameters: bool) -> None:
    with pytest.raises(ValueError, match="must be a notebook"):
        notebook_errors(given, {"x": 1} if parameters else {})
