"""Runs of workflows in the real service, over a simulated node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perijove_hub.settings import Settings

from .working import Flows, flowing


@pytest.fixture
async def flows(settings: Settings) -> AsyncIterator[Flows]:
    async with flowing(settings) as found:
        yield found


def make(**values: Any) -> list[str]:
    return ["make", json.dumps(values)]


async def test_steps_run_after_those_they_need_and_take_what_they_made(flows: Flows) -> None:
    number = await flows.begin(
        {
            "list": {"command": make(xs=[1, "two"]), "outputs": {"xs": "record:xs"}},
            "each": {"command": ["show", "${{ item }}", "${{ index }}"], "map": "jobs:list/xs"},
            "last": {"command": ["show"], "after": ["each"]},
        }
    )
    run = await flows.ended(number)
    assert run["state"] == "succeeded"
    assert run["steps"] == {"succeeded": 4}
    assert list(await flows.steps(number)) == ["list", "each[0]", "each[1]", "last"]
    commands = {order.title: order.command for order in flows.node.orders.values()}
    assert commands["each[0]"] == ("show", "1", "0")
    assert commands["each[1]"] == ("show", "two", "1")
    jobs = [step["job"] for step in (await flows.steps(number)).values()]
    assert jobs == sorted(jobs)


async def test_what_several_made_is_a_list_and_an_empty_map_gives_an_empty_one(flows: Flows) -> None:
    both = {"outputs": {"y": "record:y"}}
    number = await flows.begin(
        {
            "some": {"command": ["make", '{"y": ${{ item }}}'], "map": [3, 4], **both},
            "none": {"command": ["make", '{"y": 1}'], "map": [], **both},
            "sum": {"command": ["show", "${{ jobs:some/y }}", "${{ jobs:none/y }}", "${{ jobs:some/y[1] }}"]},
        }
    )
    assert (await flows.ended(number))["state"] == "succeeded"
    [order] = [order for order in flows.node.orders.values() if order.title == "sum"]
    assert order.command == ("show", "[3, 4]", "[]", "4")


async def test_a_failure_rejects_what_depends_on_it_and_lets_the_rest_go_on(flows: Flows) -> None:
    number = await flows.begin(
        {
            "bad": {"command": ["fail"]},
            "after": {"command": ["show"], "after": ["bad"]},
            "far": {"command": ["show"], "after": ["after"]},
            "good": {"command": ["show"]},
            "next": {"command": ["show"], "after": ["good"]},
        }
    )
    run = await flows.ended(number)
    assert run["state"] == "failed"
    steps = await flows.steps(number)
    assert {label: step["state"] for label, step in steps.items()} == {
        "bad": "failed",
        "after": "rejected",
        "far": "rejected",
        "good": "succeeded",
        "next": "succeeded",
    }
    assert steps["far"]["reason"]["message"] == "upstream failed: step bad"
    assert steps["bad"]["reason"]["code"] == "NonZeroExitCode"


async def test_the_first_failure_stops_a_run_that_says_so(flows: Flows) -> None:
    steps = {
        "long": {"command": ["wait"]},
        "later": {"command": ["show"], "after": ["long"]},
        "bad": {"command": ["fail"]},
    }
    number = await flows.begin(steps, fail_fast=True)
    assert (await flows.ended(number))["state"] == "failed"
    found = await flows.steps(number)
    assert [found[name]["state"] for name in steps] == ["killed", "killed", "failed"]
    assert "step bad failed" in found["later"]["reason"]["message"]


async def test_conditions_skip_steps_and_elements(flows: Flows) -> None:
    number = await flows.begin(
        {
            "check": {
                "command": make(ok=False, loss=0.5),
                "outputs": {"ok": "record:ok", "loss": "record:loss"},
            },
            "then": {"command": ["show"], "when": "jobs:check/ok"},
            "after": {"command": ["show"], "after": ["then"]},
            "else": {"command": ["show"], "when": "not jobs:check/ok"},
            "low": {"command": ["show"], "when": "jobs:check/loss < 0.6"},
            "odd": {"command": ["show"], "map": [1, 2, 3], "when": "item != 2"},
            "gather": {"command": ["show"], "after": ["odd"]},
        }
    )
    assert (await flows.ended(number))["state"] == "succeeded"
    assert await flows.states(number) == {
        "check": "succeeded",
        "then": "skipped",
        "after": "skipped",
        "else": "succeeded",
        "low": "succeeded",
        "odd[0]": "succeeded",
        "odd[1]": "skipped",
        "odd[2]": "succeeded",
        "gather": "succeeded",
    }


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"map": "jobs:a/n"}, "map: takes a list, and jobs:a/n is 3"),
        ({"when": 'jobs:a/n < "x"'}, "cannot be compared"),
        ({"map": "jobs:a/o[xs]"}, "there is no xs; there are: k"),
        ({"command": ["show", "${{ jobs:a/missing }}"]}, "a made no missing"),
    ],
)
async def test_what_cannot_be_used_fails_the_step_with_a_sentence(
    flows: Flows, step: dict[str, Any], words: str
) -> None:
    outputs = {"n": "record:n", "o": "record:o", "missing": "record:missing"}
    steps = {"a": {"command": make(n=3, o={"k": 1}), "outputs": outputs}, "b": {"command": ["show"], **step}}
    number = await flows.begin({**steps, "c": {"command": ["show"], "after": ["b"]}})
    assert (await flows.ended(number))["state"] == "failed"
    found = await flows.steps(number)
    assert found["b"]["state"] == "failed"
    assert words in found["b"]["reason"]["message"]
    assert found["c"]["state"] == "rejected"


async def test_a_killed_run_ends_all_its_steps(flows: Flows) -> None:
    number = await flows.begin(
        {"a": {"command": ["wait"], "map": [1, 2]}, "b": {"command": ["show"], "after": ["a"]}}
    )
    await flows.until(number, "a[1]", "running")
    await flows.act(number, "kill")
    assert (await flows.ended(number))["state"] == "killed"
    assert set((await flows.states(number)).values()) == {"killed"}
    assert len(flows.node.stopped) == 2
    await flows.act(number, "kill", status=409)


async def test_a_held_run_begins_nothing_until_it_is_released(flows: Flows) -> None:
    steps = {"a": {"command": ["wait"]}, "b": {"command": ["show"], "after": ["a"]}}
    number = await flows.begin(steps, hold=True)
    await flows.service.settled()
    assert (await flows.run(number))["state"] == "held"
    assert not flows.node.ran
    await flows.act(number, "release")
    await flows.until(number, "a", "running")
    await flows.act(number, "hold")
    flows.node.finish(flows.node.by_title["a"])
    await flows.until(number, "a", "succeeded")
    await flows.service.settled()
    assert flows.node.ran == {"a": 1}
    await flows.act(number, "release")
    assert (await flows.ended(number))["state"] == "succeeded"


async def test_a_resumed_run_takes_over_what_came_out_well(flows: Flows) -> None:
    steps = {
        "good": {"command": make(v=1), "outputs": {"v": "record:v"}},
        "p": {"command": ["show", "${{ parameters:x }}"]},
        "bad": {"command": ["${{ parameters:how }}"], "after": ["good"]},
        "end": {"command": ["show", "${{ jobs:good/v }}"], "after": ["bad"]},
    }
    number = await flows.begin(steps, parameters_of={"x": 1, "how": "fail"})
    assert (await flows.ended(number))["state"] == "failed"
    again = await flows.act(number, "resume", {"parameters": {"how": "show"}}, 201)
    assert again["resumed_from"] == number
    assert (await flows.ended(again["id"]))["state"] == "succeeded"
    found = await flows.steps(again["id"])
    assert {label: (step["state"], step["cached_from"]) for label, step in found.items()} == {
        "good": ("cached", number),
        "p": ("cached", number),
        "bad": ("succeeded", None),
        "end": ("succeeded", None),
    }
    assert flows.node.ran == {"good": 1, "p": 1, "bad": 2, "end": 1}
    assert [cause["kind"] for cause in found["bad"]["causes"]] == ["uncached"]
    wrong = await flows.act(number, "resume", {"parameters": {"y": 1}}, 422)
    assert "there are: x, how" in wrong["detail"]


async def test_equal_cached_steps_run_once_also_at_once_and_across_runs(flows: Flows) -> None:
    step = {"command": ["wait"], "cache": True, "outputs": {"v": "record:v"}}
    steps = {"a": step, "b": step}
    first = await flows.begin(steps)
    second = await flows.begin(steps)
    await flows.until(first, "a", "running")
    await flows.service.settled()
    [(attempt, order)] = flows.node.orders.items()
    flows.node.end(order, {"v": 7})
    assert (await flows.ended(first))["state"] == "succeeded"
    assert (await flows.ended(second))["state"] == "succeeded"
    assert sum(flows.node.ran.values()) == 1
    found = await flows.steps(second)
    assert [(s["state"], s["cached_from"], s["outputs"]["v"]["value"]) for s in found.values()] == [
        ("cached", first, 7),
        ("cached", first, 7),
    ]
    assert attempt.number == 1


async def test_when_the_one_that_runs_fails_another_tries(flows: Flows) -> None:
    step = {"command": ["wait"], "cache": True}
    number = await flows.begin({"a": step, "b": step})
    await flows.until(number, "a", "running")
    await flows.service.settled()
    flows.node.finish(flows.node.by_title["a"], 1)
    await flows.until(number, "b", "running")
    flows.node.finish(flows.node.by_title["b"])
    await flows.ended(number)
    assert await flows.states(number) == {"a": "failed", "b": "succeeded"}


async def test_the_cache_is_refreshed_left_alone_or_used_as_asked(flows: Flows) -> None:
    steps = {"a": {"command": make(v=1), "outputs": {"v": "record:v"}, "cache": True}}
    runs = [await flows.begin(steps)]
    await flows.ended(runs[0])
    for cache in ("use", "refresh", "off", "use"):
        runs.append(await flows.begin(steps, cache=cache))
        await flows.ended(runs[-1])
    states = [(await flows.states(number))["a"] for number in runs]
    assert states == ["succeeded", "cached", "succeeded", "succeeded", "cached"]
    last = (await flows.steps(runs[-1]))["a"]
    assert last["cached_from"] == runs[2], "what a run without the cache makes is not kept"
    kinds = [[c["kind"] for c in (await flows.steps(number))["a"]["causes"]] for number in runs]
    assert kinds == [["first"], [], ["refreshed"], ["uncached"], []]


async def test_a_result_whose_content_is_gone_is_made_again(flows: Flows) -> None:
    flows.node.outputs["a"] = {"t": f"sha256:{'0' * 64}"}
    steps = {"a": {"command": ["show"], "outputs": {"t": "file:t"}, "cache": True}}
    first = await flows.begin(steps)
    await flows.ended(first)
    second = await flows.begin(steps)
    await flows.ended(second)
    found = (await flows.steps(second))["a"]
    assert found["state"] == "succeeded"
    assert [cause["kind"] for cause in found["causes"]] == ["expired"]
