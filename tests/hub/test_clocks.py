"""The service's clock is set, by hand or by a time service, while jobs run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from boards import board_of, node, submit
from waiting import until

from perijove.model import Attempt, NodeState, Outcome, ReasonCode
from perijove_hub.jobs import events
from perijove_hub.jobs.ending import LONGEST_DELAY
from perijove_hub.settings import Settings

from .conftest import Service, SimulatedNode, running

HOUR = 3600.0


@dataclass
class Clock:
    """A clock that can be set."""

    off: float = 0.0
    steadily: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.off

    def steady(self) -> float:
        return time.monotonic() + self.steadily


def state_of(service: Service) -> NodeState:
    found = service.controller.ledger.node("n1")
    assert found is not None
    return found.state


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_jobs_go_on_when_the_clock_is_set(settings: Settings, jump: float) -> None:
    clock, agent = Clock(), SimulatedNode()
    async with running(settings, [agent], clock=clock, steady=clock.steady) as service:
        await service.submit(cpu=4)
        await service.submit(cpu=4)
        await service.until(1, "running")
        clock.off = jump
        service.controller.nodes.look_around()
        assert state_of(service) is NodeState.UP, "the node was heard of a moment ago"
        agent.finish(Attempt(1, 1), started=time.time(), ended=time.time() + jump)
        assert (await service.until(1, "succeeded"))["state"] == "succeeded"
        await service.until(2, "running")
        third = await service.submit(cpu=4)
        await service.http.post("/jobs/2/suspend")
        clock.off = 0.0
        await service.http.post("/jobs/2/resume")
        agent.finish(Attempt(2, 1), started=time.time(), ended=time.time())
        ended = await service.until(2, "succeeded")
        assert ended["suspended_seconds"] >= 0
        await service.until(third["id"], "running")
        await service.settled()
        for answer in ("/usage?by=owner,day", "/share", "/jobs/1/usage", f"/jobs/{third['id']}/why", "/top"):
            assert (await service.http.get(answer)).status_code == 200, answer
        held = service.controller.database.allocations(0.0)
        assert len({one.job for one in held}) == 3
        assert all(one.end is None or one.end >= one.begin for one in held)
        [sums] = service.controller.database.usage(["owner"], 0.0, time.time() + 2 * HOUR).values()
        assert min(sums.cpu_seconds, sums.memory_byte_seconds, sums.gpu_seconds) >= 0


async def test_a_silent_node_is_down_whatever_the_clock_says(settings: Settings) -> None:
    clock = Clock()
    async with running(settings, [SimulatedNode()], clock=clock, steady=clock.steady) as service:
        await until(lambda: state_of(service) is NodeState.UP, "the node")
        clock.off, clock.steadily = -HOUR, 16.0
        service.controller.nodes.look_around()
        assert state_of(service) is NodeState.DOWN


async def test_a_service_that_starts_with_an_earlier_clock_goes_on(settings: Settings) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit(cpu=1)
        await service.until(1, "running")
    agent = agent.restart()
    async with running(settings, [agent], clock=Clock(-HOUR)) as service:
        await service.submit(cpu=1)
        await service.until(2, "running")
        agent.finish(Attempt(1, 1))
        await service.until(1, "succeeded")
        await service.settled()
        [one] = [one for one in service.controller.database.allocations(0.0) if one.job == 1]
        assert one.end == one.begin


def test_what_is_to_be_tried_again_does_not_wait_for_the_clock_to_catch_up() -> None:
    board, _ = board_of(node("a"))
    number = submit(board)
    board.place(HOUR)
    down = Outcome(reason=ReasonCode.LAUNCH_FAILED, message="the engine is down", transient=True)
    board.apply(number, events.Ended(down), HOUR)
    assert not board.end_delays(HOUR), "it waits a little"
    assert board.end_delays(HOUR - LONGEST_DELAY - 1)
    board.place(0.0)
    assert board.jobs[number].attempt == 2
