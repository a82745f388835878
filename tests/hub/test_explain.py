"""Why a step ran, in words: what differs from its latest result, before and after."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Cause, CauseKind
from perijove.model.workflow import Step
from perijove_hub.settings import Settings
from perijove_hub.workflows import keys
from perijove_hub.workflows.cells import code_of
from perijove_hub.workflows.explain import causes

from .test_cells import CELLS, notebook
from .test_keys import DATA, IMAGE, MATTERS, OTHER, parts, step
from .working import Flows, flowing


def one(after: keys.Ingredients, before: keys.Ingredients, **more: Any) -> Cause:
    [cause] = causes(after, before, **more)
    return cause


def notebook_parts(cells: list[str], **more: Any) -> keys.Ingredients:
    fit = Step.model_validate({"notebook": DATA, "sealed": True})
    fixed = keys.constant(fit, image_digest=IMAGE, platform="linux/amd64", code=code_of(notebook(cells)))
    return keys.ingredients(fixed, inputs={}, **more)


def test_a_parameter() -> None:
    cause = one(parts(parameters={"x": 0.2, "y": 1}), parts(parameters={"x": 0.1, "y": 1}))
    assert (cause.kind, cause.name, cause.before, cause.after) == (CauseKind.PARAMETER, "x", "0.1", "0.2")
    assert cause.message == "parameter x changed: 0.1 -> 0.2"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"x": 1}, "parameter x is new: 1"),
        ({"x": "a b"}, {}, "parameter x is gone; it was a b"),
        ({"x": 1}, {"x": 1.0}, "parameter x changed: 1 -> 1.0"),
        ({"x": 1}, {"x": True}, "parameter x changed: 1 -> true"),
        ({"x": {"value": 0.001}}, {"x": {"value": 2.0}}, "parameter x changed: 0.001 -> 2.0"),
        ({"x": {"number": 1}}, {"x": {"a": 1.0}}, 'parameter x changed: {"number": 1} -> {"a": 1.0}'),
        ({"x": ""}, {"x": None}, 'parameter x changed: "" -> null'),
        ({"x": 2**70}, {"x": [1.0, {"a": 2.0}]}, f'parameter x changed: {2**70} -> [1.0, {{"a": 2.0}}]'),
        (
            {"x": {"path": DATA}},
            {"x": {"path": OTHER}},
            f'{{"path": "{DATA[:19]}"}} -> {{"path": "{OTHER[:19]}"}}',
        ),
    ],
)
def test_parameters_are_shown_as_json(before: Any, after: Any, message: str) -> None:
    assert one(parts(parameters=after), parts(parameters=before)).message.endswith(message)


def test_a_file_is_shown_with_its_size() -> None:
    sizes = {DATA: 1_200, OTHER: 1_300_000}
    cause = one(parts(inputs={"f.csv": OTHER}), parts(inputs={"f.csv": DATA}), size_of=sizes.get)
    assert (cause.kind, cause.name) == (CauseKind.INPUT, "f.csv")
    assert cause.message == (
        f"input f.csv changed: {DATA[:19]} (1,200 bytes) -> {OTHER[:19]} (1,300,000 bytes)"
    )


def test_a_cell_is_shown_by_the_lines_that_differ() -> None:
    edited = [*CELLS[:2], CELLS[2].replace("total = 0", "total = 1"), *CELLS[3:]]
    cause = one(notebook_parts(edited), notebook_parts(CELLS))
    assert (cause.kind, cause.name, cause.message) == (
        CauseKind.CELL,
        "3",
        "cell 3 changed: total = 0 -> total = 1",
    )
    assert (cause.before, cause.after) == ("    total = 0", "    total = 1")


def test_magics_are_shown_as_they_were_written() -> None:
    edited = [CELLS[0].replace("inline", "agg"), *CELLS[1:6], CELLS[6].replace("start", "stop"), *CELLS[7:]]
    [first, second] = causes(notebook_parts(edited), notebook_parts(CELLS))
    assert (first.name, first.before, first.after) == ("1", "%matplotlib inline", "%matplotlib agg")
    assert (second.name, second.before, second.after) == ("7", "!echo start", "!echo stop")


def test_cells_that_came_and_went() -> None:
    [new] = causes(notebook_parts([*CELLS[:4], "extra = 1", *CELLS[4:]]), notebook_parts(CELLS))
    assert (new.name, new.before, new.after, new.message) == (
        "5",
        None,
        "extra = 1",
        "cell 5 is new: extra = 1",
    )
    [gone] = causes(notebook_parts([*CELLS[:4], *CELLS[5:]]), notebook_parts(CELLS))
    assert (gone.name, gone.after, gone.message) == ("5", None, "cell 5 was removed")


def test_a_script_is_shown_by_the_lines_that_differ() -> None:
    before, after = (step(command=None, script=f"set -e\nfit {i}\necho done\n") for i in (1, 2))
    cause = one(parts(after), parts(before))
    assert (cause.kind, cause.before, cause.after) == (CauseKind.COMMAND, "fit 1", "fit 2")


def test_a_long_cell_is_cut() -> None:
    before, after = ("\n".join(f"x{i} = {i + k}" for i in range(500)) for k in (0, 1))
    cause = one(notebook_parts([after]), notebook_parts([before]))
    assert cause.before is not None
    assert cause.before.splitlines()[-1] == "... 480 lines more"


def test_values_of_variables_that_look_secret_are_not_shown() -> None:
    before, after = (
        step(env={"API_TOKEN": f"s3cret{i}", "AWS_SECRET_ACCESS_KEY": f"s3cret{i}", "LEVEL": f"{i}"})
        for i in (1, 2)
    )
    found = causes(parts(after), parts(before))
    assert [(cause.kind, cause.name) for cause in found] == [
        (CauseKind.ENVIRONMENT, name) for name in ("API_TOKEN", "AWS_SECRET_ACCESS_KEY", "LEVEL")
    ]
    assert "s3cret" not in str(found)
    assert found[2].message == "variable LEVEL changed: 1 -> 2"


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ({"before": None}, [CauseKind.FIRST]),
        ({"before": None, "equal": "failed"}, [CauseKind.FAILED]),
        ({"before": None, "equal": "expired"}, [CauseKind.EXPIRED]),
        ({}, [CauseKind.EXPIRED]),
        ({"equal": "failed"}, [CauseKind.FAILED]),
        ({"cached": False}, [CauseKind.UNCACHED]),
        ({"cached": False, "before": None}, [CauseKind.UNCACHED]),
        ({"mode": "off"}, [CauseKind.UNCACHED]),
        ({"mode": "refresh"}, [CauseKind.REFRESHED]),
        ({"mode": "refresh", "before": parts(image_digest=OTHER)}, [CauseKind.REFRESHED, CauseKind.IMAGE]),
        ({"before": parts(image_digest=OTHER), "equal": "failed"}, [CauseKind.IMAGE]),
        ({"before": {**parts(), "version": 0}}, [CauseKind.PLATFORM]),
        ({"before": {}}, [CauseKind.IMAGE, CauseKind.PLATFORM]),
    ],
)
def test_other_reasons_than_a_difference(arguments: dict[str, Any], kinds: list[CauseKind]) -> None:
    found = causes(parts(), **{"before": parts(), **arguments})
    assert [cause.kind for cause in found][: len(kinds)] == kinds
    assert all(cause.message for cause in found)


@pytest.mark.parametrize("name", [name for name in MATTERS if name != "nothing"])
def test_whatever_changes_a_key_has_a_cause(name: str) -> None:
    for after, before in ((MATTERS[name], parts()), (parts(), MATTERS[name])):
        found = causes(after, before)
        assert found
        assert CauseKind.EXPIRED not in {cause.kind for cause in found}


_edits = st.lists(st.sampled_from([*CELLS, "x = 1", "x = 2"]), max_size=8)


@given(_edits, _edits)
def test_cells_have_a_cause_when_their_keys_differ(before: list[str], after: list[str]) -> None:
    old, new = notebook_parts(before), notebook_parts(after)
    differs = keys.key_of(old) != keys.key_of(new)
    assert (CauseKind.CELL in {cause.kind for cause in causes(new, old)}) == differs


@pytest.fixture
async def flows(settings: Settings) -> AsyncIterator[Flows]:
    async with flowing(settings) as found:
        yield found


async def test_runs_say_why_their_steps_ran(flows: Flows) -> None:
    """A notebook that is edited, in ways that matter and in ways that do not."""
    document = notebook()
    cosmetic = notebook([*CELLS[:2], "# noted\n" + CELLS[2].replace("total = 0", "total  =  0"), *CELLS[3:]])
    semantic = notebook([*CELLS[:2], CELLS[2].replace("total = 0", "total = 1"), *CELLS[3:]])

    async def ran(code: Any, lr: float, data: bytes = b"a", **more: Any) -> tuple[str, list[str]]:
        files = [
            (await flows.service.http.post("/files", content=one)).json()["digest"]
            for one in (json.dumps(code).encode(), data, b"executed")
        ]
        flows.node.outputs = {"fit": {"notebook": files[2]}}
        step = {"notebook": files[0], "parameters": {"lr": lr}, "inputs": {"f.csv": files[1]}, "cache": True}
        number = await flows.begin({"fit": step}, name="fit", **more)
        assert (await flows.ended(number))["state"] == "succeeded"
        answer = await flows.service.http.get(f"/workflows/{number}/explain")
        [told] = answer.json()["steps"]
        return told["state"], [cause["message"].partition(": sha")[0] for cause in told["causes"]]

    assert await ran(document, 0.1) == ("succeeded", ["nothing like it has run before"])
    assert await ran(document, 0.1) == ("cached", [])
    assert await ran(cosmetic, 0.1) == ("cached", [])
    assert await ran(semantic, 0.1) == ("succeeded", ["cell 3 changed: total = 0 -> total = 1"])
    assert await ran(semantic, 0.2) == ("succeeded", ["parameter lr changed: 0.1 -> 0.2"])
    assert await ran(semantic, 0.2, b"b") == ("succeeded", ["input f.csv changed"])
    state, told = await ran(semantic, 0.2, b"b", cache="refresh")
    assert (state, told) == ("succeeded", ["the workflow was started to run everything again"])
    assert await ran(semantic, 0.2, b"b") == ("cached", [])
