"""Nodes in the same process: the port that the service's tests and the simulation use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from waiting import until

from perijove.model import Attempt, State, UnavailableError
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.protocol import ReportKind

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench


async def test_orders_and_calls_reach_the_agent_and_reports_come_back(bench: Bench) -> None:
    fabric = DirectFabric([bench.agent], heartbeat=0.05)
    seen: list[str] = []
    fabric.on_report = bench.reports.extend
    fabric.on_node = lambda node: seen.append(node.incarnation)
    await fabric.open()
    assert [node.name for node in await fabric.nodes()] == ["n1"]
    fabric.start("n1", [bench.order(1, "echo", "x"), bench.order(2, "false")])
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert (await bench.outcome(2)).state is State.FAILED
    chunk = await fabric.call("n1", "logs", Attempt(1, 1), "stdout", 0, 10)
    assert chunk.data == b"x\n"
    await until(lambda: len(seen) >= 3, "three announcements")
    await fabric.close()


async def test_a_node_that_left_is_not_there(bench: Bench) -> None:
    fabric = DirectFabric([bench.agent])
    lost: list[str] = []
    fabric.on_node_lost = lost.append
    fabric.on_report = bench.reports.extend
    await fabric.open()
    fabric.start("n1", [bench.order(1, "sleep", "0.2")])
    await bench.report(1, ReportKind.STARTED)
    fabric.remove("n1")
    assert lost == ["n1"] and await fabric.nodes() == []
    with pytest.raises(UnavailableError, match="n1"):
        await fabric.call("n1", "describe")
    fabric.start("n1", [bench.order(2, "true")])

    joined: list[str] = []
    fabric.on_node = lambda node: joined.append(node.name)
    await fabric.add(bench.agent)
    assert joined == ["n1"]
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert bench.kinds(2) == []
    await fabric.close()
