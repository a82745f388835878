"""A service that was stopped in the middle of runs goes on, and submits nothing twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from perijove_hub.settings import Settings

from .conftest import SimulatedNode, node, running
from .working import Flows, WorkingNode, flowing

LIST = {"command": ["make", json.dumps({"xs": [0, 1, 2]})], "outputs": {"xs": "record:xs"}}


class Site:
    """A service that can be stopped and started again over the same database and node."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.node = settings, WorkingNode()
        self._stack = AsyncExitStack()

    async def start(self) -> Flows:
        return await self._stack.enter_async_context(flowing(self.settings, self.node))

    async def stop(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    site = Site(settings)
    yield site
    await site.stop()


async def test_a_run_goes_on_where_it_was(site: Site) -> None:
    flows = await site.start()
    steps: dict[str, Any] = {
        "list": LIST,
        "each": {"command": ["wait", "${{ item }}"], "map": "jobs:list/xs", "outputs": {"y": "record:y"}},
        "odd": {"command": ["show"], "map": [1, 2], "when": "item == 1"},
        "sum": {"command": ["show", "${{ jobs:each/y }}"]},
    }
    number = await flows.begin(steps)
    await flows.until(number, "each[2]", "running")
    await flows.until(number, "odd[0]", "succeeded")
    orders = {order.title: order for order in site.node.orders.values()}
    await flows.service.settled()
    await site.stop()
    site.node.end(orders["each[1]"], {"y": 11})  # nobody hears of it now
    flows = await site.start()
    await flows.until(number, "each[1]", "succeeded")
    assert (await flows.states(number))["odd[1]"] == "skipped"
    site.node.end(orders["each[0]"], {"y": 10})
    await flows.until(number, "each[0]", "succeeded")
    await flows.service.settled()
    await site.stop()
    flows = await site.start()
    site.node.end(orders["each[2]"], {"y": 12})
    run = await flows.ended(number)
    assert run["state"] == "succeeded"
    assert run["steps"] == {"succeeded": 6, "skipped": 1}
    assert set(site.node.ran.values()) == {1}
    [last] = [order for order in site.node.orders.values() if order.title == "sum"]
    assert last.command == ("show", "[10, 11, 12]")
    before = await flows.steps(number)
    await site.stop()
    flows = await site.start()
    assert await flows.steps(number) == before, "an ended run is as it was"


async def test_what_was_wanted_of_a_run_is_remembered(site: Site) -> None:
    flows = await site.start()
    held = await flows.begin({"a": {"command": ["show"]}}, hold=True)
    steps = {
        "bad": {"command": ["wait"]},
        "long": {"command": ["wait"]},
        "x": {"command": ["show"], "after": ["long"]},
    }
    fast = await flows.begin(steps, fail_fast=True)
    killed = await flows.begin({"k": {"command": ["wait"]}, "l": {"command": ["show"], "after": ["k"]}})
    for number, label in ((fast, "bad"), (fast, "long"), (killed, "k")):
        await flows.until(number, label, "running")
    await flows.service.settled()
    await site.stop()
    site.node.finish(site.node.by_title["bad"], 1)
    flows = await site.start()
    assert (await flows.ended(fast))["state"] == "failed"
    assert await flows.states(fast) == {"bad": "failed", "long": "killed", "x": "killed"}
    assert (await flows.run(held))["state"] == "held"
    assert "a" not in site.node.ran
    await flows.act(held, "release")
    assert (await flows.ended(held))["state"] == "succeeded"
    await flows.act(killed, "kill")
    await site.stop()
    flows = await site.start()
    assert (await flows.ended(killed))["state"] == "killed"
    assert set((await flows.states(killed)).values()) == {"killed"}


async def test_equal_steps_wait_for_the_one_that_runs_also_after_a_restart(site: Site) -> None:
    flows = await site.start()
    step = {"command": ["wait"], "cache": True, "outputs": {"v": "record:v"}}
    number = await flows.begin({"a": step, "b": step})
    await flows.until(number, "a", "running")
    await flows.service.settled()
    await site.stop()
    flows = await site.start()
    await flows.service.settled()
    [order] = site.node.orders.values()
    site.node.end(order, {"v": 1})
    await flows.ended(number)
    assert await flows.states(number) == {"a": "succeeded", "b": "cached"}


async def test_a_key_of_a_submission_begins_one_run(site: Site) -> None:
    flows = await site.start()
    body = {"workflow": {"steps": {"a": {"command": ["show"]}}}}
    headers = {"Idempotency-Key": "k"}
    numbers = set()
    for _ in range(2):
        for _ in range(2):
            answer = await flows.service.http.post("/workflows", json=body, headers=headers)
            numbers.add(answer.json()["id"])
        await flows.ended(min(numbers))
        await site.stop()
        flows = await site.start()
    assert len(numbers) == 1
    assert site.node.ran == {"a": 1}


async def test_steps_wait_for_nodes_that_are_not_back_yet(site: Site) -> None:
    flows = await site.start()
    number = await flows.begin({"a": {"command": ["wait"]}, "b": {"command": ["show"], "after": ["a"]}})
    other = await flows.begin({"c": {"command": ["show"]}}, hold=True)
    await flows.until(number, "a", "running")
    await flows.service.settled()
    await site.stop()
    site.node.finish(site.node.by_title["a"])
    alone = SimulatedNode(node("n2", launchers=[], cpus=1.0))
    async with running(site.settings, [alone]) as service:  # without the node that has the launcher
        flows = Flows(service, site.node)
        await service.settled()
        assert (await flows.run(number))["state"] == "running"
        await flows.act(other, "kill")  # what waits in one run keeps no other from its end
        assert (await flows.ended(other))["state"] == "killed"
        assert (await flows.run(number))["state"] == "running"
    flows = await site.start()
    assert (await flows.ended(number))["state"] == "succeeded"
    assert site.node.ran == {"a": 1, "b": 1}


async def test_a_fault_in_one_run_ends_that_run_only(site: Site) -> None:
    flows = await site.start()
    broken = await flows.begin({"a": {"command": ["wait"]}, "b": {"command": ["show"], "after": ["a"]}})
    good = await flows.begin({"c": {"command": ["wait"]}})
    await flows.until(broken, "a", "running")
    await flows.until(good, "c", "running")
    flows.service.runs.live[broken].ended.append(None)  # type: ignore[arg-type]
    site.node.finish(site.node.by_title["a"])
    run = await flows.ended(broken)
    assert run["state"] == "failed"
    assert "could not go on with this run" in run["reason"]["message"]
    site.node.finish(site.node.by_title["c"])
    assert (await flows.ended(good))["state"] == "succeeded"
