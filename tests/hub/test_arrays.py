"""Arrays and gangs: one entry of the queue until their members start."""

from __future__ import annotations

from typing import Any

import pytest
from boards import board_of, node, submit
from waiting import becomes

from perijove.model import Attempt, BlockerKind, ConflictError, Outcome, ReasonCode, State
from perijove_hub.jobs import arrays, events, situation
from perijove_hub.jobs.effects import SendOrder, SendStop
from perijove_hub.settings import Settings

from .conftest import Service, SimulatedNode, running
from .conftest import node as described

FAILED = events.Ended(Outcome(exit_code=1, reason=ReasonCode.NON_ZERO_EXIT))
DONE = events.Ended(Outcome(exit_code=0))


async def ids(service: Service, **query: Any) -> list[int]:
    answer = await service.http.get("/jobs", params=query)
    return [job["id"] for job in answer.json()["jobs"]]


async def test_a_hundred_thousand_members_are_one_row_and_one_entry(service: Service) -> None:
    await service.submit(cpu=4)
    array = await service.submit(array="1:100000", cpu=4)
    assert array["tasks"] == {"pending": 100_000}
    assert service.controller.board.waiting == 100_000
    assert len(service.controller.board.queue) == 1
    assert await ids(service) == [2, 1]
    assert (await service.submit(cpu=4))["id"] == 100_003
    member = await service.show("2_77777")
    assert (member["id"], member["state"], member["attempt"]) == (2 + 77_777, "pending", 0)
    assert (await service.http.get("/jobs/2_100001")).status_code == 404
    assert service.controller.database.job(member["id"]) is None


async def test_a_member_acted_on_becomes_a_job_of_its_own(service: Service) -> None:
    await service.submit(cpu=4)
    await service.submit(array="0:9", cpu=4)
    assert (await service.http.post("/jobs/2_3/hold")).json()["state"] == "held"
    assert (await service.http.post("/jobs/2_4/kill")).json()["state"] == "killed"
    array = await service.show(2)
    assert array["state"] == "pending"
    assert array["tasks"] == {"pending": 8, "held": 1, "killed": 1}
    assert (await service.http.post("/jobs/2_3/release")).json()["state"] == "pending"
    assert (await service.http.post("/jobs/2_4/kill")).status_code == 409
    killed = (await service.http.post("/jobs/2/kill")).json()
    assert (killed["state"], killed["tasks"]) == ("killed", {"killed": 10})
    assert (await service.show("2_7"))["state"] == "killed"
    assert (await service.http.post("/jobs/2_7/kill")).status_code == 409


async def test_hold_and_release_of_an_array(service: Service) -> None:
    await service.submit(array="1:6", cpu=2)
    await service.until("1_2", "running")
    held = (await service.http.post("/jobs/1/hold")).json()
    assert held["tasks"] == {"running": 2, "held": 4}
    service.nodes["n1"].finish(Attempt(2, 1))
    await service.until("1_1", "succeeded")
    await service.settled()
    assert (await service.show(1))["tasks"] == {"succeeded": 1, "running": 1, "held": 4}
    await service.http.post("/jobs/1/release")
    await service.until("1_3", "running")


async def test_no_more_members_run_at_once_than_its_limit(service: Service) -> None:
    await service.submit(array="1:5%2", cpu=0.5, memory="64M")
    await service.until("1_2", "running")
    await service.settled()
    array = await service.show(1)
    assert array["tasks"] == {"running": 2, "pending": 3}
    service.nodes["n1"].finish(Attempt(2, 1))
    await service.until("1_3", "running")
    assert (await service.show(1))["tasks"] == {"running": 2, "pending": 2, "succeeded": 1}


async def test_a_new_service_finds_an_array_where_it_was(settings: Settings) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit(array="1:50", cpu=2)
        await service.until("1_2", "running")
        await service.http.post("/jobs/1_9/hold")
        agent.finish(Attempt(2, 1))
        await service.until("1_3", "running")
        await service.settled()
        before = await service.show(1)
    async with running(settings, [agent.restart()]) as service:
        after = await service.show(1)
        assert {**after, "reason": None} == {**before, "reason": None}
        assert (await service.show("1_9"))["state"] == "held"
        assert (await service.submit(cpu=4))["id"] == 52
        agent = service.nodes["n1"]
        for task in range(2, 51):
            if task == 9:
                continue
            await service.until(f"1_{task}", "running")
            agent.finish(Attempt(task + 1, 1))
        await service.http.post("/jobs/1_9/release")
        await service.until("1_9", "running")
        agent.finish(Attempt(10, 1))
        assert (await service.until(1, "succeeded"))["tasks"] == {"succeeded": 50}
        await service.settled()
        assert service.controller.board.standing.account("site", "", None).pending <= 1


async def test_a_repeated_submission_answers_with_arrays_and_jobs(service: Service) -> None:
    headers = {"Idempotency-Key": "k"}
    specs = [
        {"command": ["true"], "array": "1:1000"},
        {"command": ["true"]},
        {"command": ["true"], "array": "1:3"},
    ]
    first = (await service.http.post("/jobs/bulk", json=specs, headers=headers)).json()
    again = (await service.http.post("/jobs/bulk", json=specs, headers=headers)).json()
    assert [job["id"] for job in first] == [job["id"] for job in again] == [1, 1002, 1003]


async def test_what_waits_for_a_member_and_for_the_array(service: Service) -> None:
    await service.submit(array="1:2", cpu=2)
    await service.submit(depends_on=["afterok:1_1"], cpu=0.5)
    await service.submit(depends_on=["afterok:1"], cpu=0.5)
    await service.submit(depends_on=["afternotok:1_2"], cpu=0.5)
    await service.until("1_2", "running")
    service.nodes["n1"].finish(Attempt(2, 1))
    await service.until(4, "running")
    assert (await service.show(5))["state"] == "pending"
    service.nodes["n1"].finish(Attempt(3, 1), 1)
    await service.until(5, "rejected")
    await service.until(6, "running")
    answer = await service.http.post("/jobs", json={"command": ["true"], "depends_on": ["1_3"]})
    assert answer.status_code == 422


async def test_killing_with_those_that_wait_for_it(service: Service) -> None:
    await service.submit(cpu=4)
    await service.submit(depends_on=["afterany:1"], array="1:10")
    await service.submit(depends_on=["afterany:2"])
    await service.submit()
    await service.http.post("/jobs/1/kill", params={"dependants": True})
    for job in (1, 2, 3):
        await service.until(job, "killed")
    await service.until(14, "running")


@pytest.fixture
def pair(settings: Settings) -> list[SimulatedNode]:
    return [SimulatedNode(described("n1")), SimulatedNode(described("n2"))]


async def test_a_gang_knows_its_nodes(settings: Settings, pair: list[SimulatedNode]) -> None:
    async with running(settings, pair) as service:
        gang = await service.submit(nodes=2, cpu=4)
        await service.until("1_0", "running")
        await service.until("1_1", "running")
        orders = [agent.orders[attempt] for agent in pair for attempt in agent.received]
        assert {order.env["PERIJOVE_NODE_RANK"] for order in orders} == {"0", "1"}
        assert {order.env["PERIJOVE_NODE_LIST"] for order in orders} == {"n1,n2"} or {
            order.env["PERIJOVE_NODE_LIST"] for order in orders
        } == {"n2,n1"}
        assert {order.env["PERIJOVE_NODE_COUNT"] for order in orders} == {"2"}
        first = await service.show("1_0")
        agents = {agent.name: agent for agent in pair}
        agents[first["node"]].finish(Attempt(2, 1))
        await service.settled()
        assert (await service.show("1_0"))["state"] == "running", "its success waits for the others"
        other = await service.show("1_1")
        agents[other["node"]].finish(Attempt(3, 1))
        assert (await service.until(1, "succeeded"))["tasks"] == {"succeeded": 2}
        assert gang["id"] == 1


async def test_a_gang_falls_together_and_is_tried_again_together(
    settings: Settings, pair: list[SimulatedNode]
) -> None:
    async with running(settings, pair) as service:
        await service.submit(nodes=2, cpu=4, retries=1)
        await service.until(1, "running")
        agents = {agent.name: agent for agent in pair}
        agents[(await service.show("1_0"))["node"]].finish(Attempt(2, 1))  # a success that does not count
        agents[(await service.show("1_1"))["node"]].finish(Attempt(3, 1), 1)

        async def again() -> bool:
            return all([(await service.show(f"1_{rank}"))["attempt"] == 2 for rank in (0, 1)])

        await becomes(again, "both ranks to start anew")
        await service.until(1, "running")
        agents[(await service.show("1_1"))["node"]].finish(Attempt(3, 2), 1)
        fallen = await service.until(1, "failed")
        assert fallen["tasks"] == {"failed": 1, "killed": 1}
        assert (await service.show("1_0"))["reason"]["code"] == "GangFailed"
        await service.settled()
        assert not service.controller.board.jobs


def test_a_gang_starts_on_all_nodes_or_none() -> None:
    board, record = board_of(node("a"), node("b"))
    blocker = submit(board, cpu=4)
    gang = submit(board, nodes=2, cpu=4)
    board.place(0.0)
    assert [type(e) for e in record.take(board)] == [SendOrder]
    board.apply(blocker, DONE, 1.0)
    board.place(1.0)
    assert [e.job for e in record.take(board) if isinstance(e, SendOrder)] == [gang + 1, gang + 2]
    assert board.nodes_of_gang(board.jobs[gang + 1]) in (["a", "b"], ["b", "a"])


def test_a_large_gang_falls_without_looking_at_each_pair() -> None:
    """Ten thousand ranks: what one end costs must not grow with their number squared."""
    board, record = board_of(*(node(f"n{i}") for i in range(2000)))
    gang = submit(board, nodes=2000, cpu=4)
    board.place(0.0)
    board.apply(gang + 5, FAILED, 1.0)
    stops = [e for e in record.take(board) if isinstance(e, SendStop)]
    assert len(stops) == 1999
    for stop in stops:
        board.apply(stop.attempt.job, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 2.0)
    found = board.find(gang)
    assert found is not None
    assert found.state is State.FAILED
    assert found.tasks == {State.FAILED: 1, State.KILLED: 1999}


def test_suspending_an_array_starts_no_more_members() -> None:
    board, _ = board_of(node("a", cpus=2), suspended_keep="nothing")
    array = submit(board, array="1:6")
    with pytest.raises(ConflictError, match="no member of job 1 is running"):
        board.apply(array, events.Suspend("u"), 0.0)
    board.place(0.0)
    for member in (array + 1, array + 2):
        board.apply(member, events.Started(0.0), 0.0)
    board.apply(array, events.Suspend("u"), 1.0)
    for member in (array + 1, array + 2):
        board.apply(member, events.Suspended(), 1.0)
    board.place(2.0)
    found = board.find(array)
    assert found is not None
    assert found.state is State.SUSPENDED
    assert found.tasks == {State.SUSPENDED: 2, State.HELD: 4}
    board.apply(array, events.Resume("u"), 3.0)
    board.apply(array + 1, events.Resumed(), 3.0)
    found = board.find(array)
    assert found is not None
    assert found.tasks == {State.RUNNING: 1, State.SUSPENDED: 1, State.PENDING: 4}


def test_a_member_is_derived_as_its_group_is() -> None:
    board, _ = board_of(node("a", cpus=1))
    array = submit(board, array="5:50:5", hold=True)
    assert board.find(array + 3).state is State.HELD  # type: ignore[union-attr]
    assert board.find(array + 3).array_task == 15  # type: ignore[union-attr]
    assert board.find(array + 3).label == "1_15"  # type: ignore[union-attr]
    group = board.jobs[array]
    assert arrays.index_of(group, 15) == 2
    assert arrays.index_of(group, 16) is None
    board.apply(array, events.Kill("u"), 1.0)
    ended = board.recent[array]
    assert arrays.member(ended, 2).state is State.KILLED


def test_of_an_array_at_its_limit_that_limit_is_the_only_blocker_when_there_is_room() -> None:
    board, _ = board_of(node("a", 4))
    array = submit(board, cpu=1, array="1:9%2")
    board.place(0.0)
    behind = submit(board, 1.0, cpu=1, priority=10)
    found = situation.why(board, board.jobs[array], 1.0)
    assert [blocker.kind for blocker in found.reason.blockers] == [BlockerKind.LIMIT]  # type: ignore[union-attr]
    assert behind in board.queue


async def test_a_chain_that_is_killed_with_its_head_was_killed_and_did_not_wait_in_vain(
    service: Service,
) -> None:
    await service.submit()
    await service.submit(depends_on=["afterok:1"])
    await service.submit(depends_on=["afterok:2"])
    await service.http.post("/jobs/1/kill", params={"dependants": True})
    assert [(await service.until(job, "killed"))["state"] for job in (3, 2, 1)] == ["killed"] * 3


async def test_an_array_begins_with_its_first_member_and_says_how_many_failed(service: Service) -> None:
    await service.submit(array="1:3", cpu=1, memory="64M")
    await service.until("1_3", "running")
    assert (await service.show(1))["started"] is not None
    service.nodes["n1"].finish(Attempt(2, 1), 1)
    for job in (3, 4):
        service.nodes["n1"].finish(Attempt(job, 1))
    array = await service.until(1, "failed")
    assert array["reason"]["message"] == "1 of 3 members failed"
