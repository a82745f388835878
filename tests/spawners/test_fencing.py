"""A service that was replaced without noticing changes nothing on a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Attempt
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.launcher import StaleFenceError
from perijove_spawners.node.fencing import FenceKeeper
from perijove_spawners.protocol import ReportKind

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

ONE = Attempt(1, 1)


@given(fences=st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_the_highest_is_kept_and_lower_ones_are_refused(
    tmp_path_factory: pytest.TempPathFactory, fences: list[int]
) -> None:
    path = tmp_path_factory.mktemp("node") / "fence"
    highest = 0
    for fence in fences:
        keeper = FenceKeeper(path)  # each time another agent
        if 0 < fence < highest:
            with pytest.raises(StaleFenceError, match=f"fence {highest}, this came with {fence}"):
                keeper.meet(fence)
        else:
            keeper.meet(fence)
        highest = max(highest, fence)
        assert keeper.highest == highest


def test_the_file_is_written_only_when_it_rises(tmp_path: Path) -> None:
    keeper = FenceKeeper(tmp_path / "fence")
    keeper.meet(7)
    written = (tmp_path / "fence").stat()
    keeper.meet(7)
    keeper.meet(0)
    assert (tmp_path / "fence").stat().st_ino == written.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["fence"]


async def test_an_order_of_a_replaced_leader_starts_nothing(bench: Bench) -> None:
    await bench.run(bench.order(1, "true", fence=5))
    with pytest.raises(StaleFenceError):
        await bench.agent.start([bench.order(2, "append", "ran", "x", fence=4)])
    await bench.replace()
    with pytest.raises(StaleFenceError):
        await bench.agent.start([bench.order(2, "append", "ran", "x", fence=4)])
    assert await bench.agent.known([Attempt(2, 1)]) == []
    await bench.run(bench.order(2, "append", "ran", "x", fence=6))


async def test_a_call_of_a_replaced_leader_changes_nothing(bench: Bench) -> None:
    stale, leader = DirectFabric([bench.agent]), DirectFabric([bench.agent])
    stale.fence, leader.fence = 1, 2
    bench.send(bench.order(1, "sleep", "60", fence=1))
    await bench.report(1, ReportKind.STARTED)
    await stale.call("n1", "suspend", ONE)
    await leader.call("n1", "resume", ONE)
    for method, *arguments in (
        ("stop", [ONE]),
        ("suspend", ONE),
        ("forget", [ONE]),
        ("purge", [ONE]),
        ("known",),
    ):
        with pytest.raises(StaleFenceError):
            await stale.call("n1", method, *arguments)
    assert (await bench.agent.known([ONE]))[0].kind is ReportKind.STARTED
    await leader.call("n1", "stop", [ONE], 0.0)
    await bench.outcome(1)
