"""Submitting, watching and ending jobs over REST, with the real board, controller and database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from waiting import becomes, until

from perijove.model import Attempt, Outcome, ReasonCode
from perijove_hub.settings import Settings

from .conftest import Service, SimulatedNode, node, running


async def test_a_job_runs_from_submission_to_its_end(service: Service) -> None:
    job = await service.submit(name="hello", cpus=2, memory="1G")
    assert job["id"] == 1
    running = await service.until(1, "running")
    assert running["node"] == "n1"
    assert running["attempt"] == 1
    service.nodes["n1"].finish(Attempt(1, 1), 0, memory_peak=123)
    ended = await service.until(1, "succeeded")
    assert ended["exit_code"] == 0
    assert ended["memory_peak"] == 123
    assert ended["reason"] is None
    await service.settled()
    assert service.nodes["n1"].forgotten == [Attempt(1, 1)]
    assert service.controller.ledger.jobs_on("n1") == []
    history = (await service.http.get("/jobs/1/events")).json()
    assert [event["event"] for event in history] == ["submitted", "placed", "started", "ended"]


async def test_a_failing_job_says_how_it_failed(service: Service) -> None:
    await service.submit()
    await service.until(1, "running")
    service.nodes["n1"].finish(Attempt(1, 1), 3)
    assert (await service.until(1, "failed"))["exit_code"] == 3


async def test_jobs_wait_for_room_and_say_so(service: Service) -> None:
    await service.submit(cpu=4)
    waiting = await service.submit(cpu=1)
    third = await service.submit(cpu=1)
    assert waiting["state"] == "pending"
    assert (await service.show(2))["reason"]["code"] == "Resources"
    assert "1 CPU (0 free) on n1" in (await service.show(2))["reason"]["message"]
    assert (await service.show(third["id"]))["reason"]["position"] == 2
    await service.until(1, "running")
    service.nodes["n1"].finish(Attempt(1, 1))
    await service.until(2, "running")
    await service.until(3, "running")


async def test_no_device_is_held_twice(service: Service) -> None:
    for _ in range(3):
        await service.submit(cpu=0.5, memory="64M", gpus=1)
    await service.until(2, "running")
    held = [(await service.show(i))["gpus"] for i in (1, 2, 3)]
    assert {gpu["uuid"] for gpus in held for gpu in gpus} == {"n1-gpu0", "n1-gpu1"}
    assert held[2] == []
    assert "1 GPU (0 free)" in (await service.show(3))["reason"]["message"]


async def test_kill_pending_running_and_ended(service: Service) -> None:
    await service.submit(cpu=4)
    await service.submit(cpu=4)
    assert (await service.http.post("/jobs/2/kill")).json()["state"] == "killed"
    await service.until(1, "running")
    assert (await service.http.post("/jobs/1/kill")).status_code == 200
    killed = await service.until(1, "killed")
    assert killed["reason"]["code"] == "KilledByUser"
    answer = await service.http.post("/jobs/1/kill")
    assert answer.status_code == 409
    assert answer.json()["code"] == "conflict"


async def test_hold_and_release(service: Service) -> None:
    job = await service.submit(hold=True)
    assert job["state"] == "held"
    assert (await service.http.post("/jobs/1/release")).status_code == 200
    await service.until(1, "running")
    assert (await service.http.post("/jobs/1/hold")).status_code == 409


async def test_suspend_and_resume(service: Service) -> None:
    await service.submit()
    await service.until(1, "running")
    assert (await service.http.post("/jobs/1/suspend")).json()["state"] == "suspended"
    assert (await service.http.post("/jobs/1/suspend")).status_code == 409
    assert (await service.http.post("/jobs/1/resume")).json()["state"] == "running"


async def test_retries_make_new_attempts(service: Service) -> None:
    await service.submit(retries=1)
    await service.until(1, "running")
    service.nodes["n1"].finish(Attempt(1, 1), 1)

    async def second() -> bool:
        return bool((await service.show(1))["attempt"] == 2)

    await becomes(second, "the second attempt")
    service.nodes["n1"].finish(Attempt(1, 2), 1)
    assert (await service.until(1, "failed"))["attempt"] == 2


async def test_a_start_that_reached_no_engine_queues_again(service: Service) -> None:
    agent = service.nodes["n1"]

    async def start(orders: Any) -> None:
        for order in orders:
            outcome = Outcome(reason=ReasonCode.LAUNCH_FAILED, message="engine down", transient=True)
            if order.attempt.number == 1:
                agent.finish(order.attempt, 1, reason=outcome.reason, transient=True)
            else:
                await SimulatedNode.start(agent, [order])

    agent.start = start  # type: ignore[method-assign]
    await service.submit()
    assert (await service.until(1, "running"))["attempt"] == 2


@pytest.mark.parametrize(
    ("condition", "exit_code", "state"),
    [
        ("afterok", 0, "running"),
        ("afterok", 1, "rejected"),
        ("afternotok", 1, "running"),
        ("afternotok", 0, "rejected"),
        ("afterany", 1, "running"),
    ],
)
async def test_dependencies(service: Service, condition: str, exit_code: int, state: str) -> None:
    await service.submit()
    waiting = await service.submit(depends_on=[f"{condition}:1"])
    assert waiting["reason"]["code"] == "Dependency"
    await service.until(1, "running")
    service.nodes["n1"].finish(Attempt(1, 1), exit_code)
    found = await service.until(2, state)
    assert state == "running" or found["reason"]["code"] == "DependencyNeverSatisfied"


async def test_an_array_is_one_job_with_members(service: Service) -> None:
    array = await service.submit(array="1:10:3", cpu=1)
    assert array["id"] == 1
    member = await service.show("1_7")
    assert member["array_task"] == 7
    await service.until(member["id"], "running")
    assert (await service.show(1))["state"] == "running"
    order = service.nodes["n1"].orders[Attempt(member["id"], 1)]
    assert order.env["PERIJOVE_TASK_ID"] == "7"
    assert order.env["PERIJOVE_TASK_LAST"] == "10"
    for i in range(2, 6):
        await service.until(i, "running")
        service.nodes["n1"].finish(Attempt(i, 1), 0)
    assert (await service.until(1, "succeeded"))["exit_code"] == 0
    await service.settled()
    assert not service.controller.board.jobs


async def test_killing_an_array_kills_its_members(service: Service) -> None:
    await service.submit(array="1:8")
    await service.until(2, "running")
    await service.http.post("/jobs/1/kill")
    await service.until(1, "killed")
    listed = (await service.http.get("/jobs", params={"array": 1})).json()["jobs"]
    assert {job["state"] for job in listed} == {"killed"}


async def test_a_repeated_submission_makes_one_job(service: Service) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = await service.http.post("/jobs", json={"command": ["true"]}, headers=headers)
    second = await service.http.post("/jobs", json={"command": ["true"]}, headers=headers)
    assert first.json()["id"] == second.json()["id"] == 1


async def test_the_same_submission_at_the_same_time_makes_one_job(service: Service) -> None:
    headers = {"Idempotency-Key": "abc"}
    answers = await asyncio.gather(
        *(service.http.post("/jobs", json={"command": ["true"]}, headers=headers) for _ in range(10))
    )
    assert {answer.json()["id"] for answer in answers} == {1}
    assert (await service.submit())["id"] == 2


async def test_what_no_database_takes_does_not_keep_the_rest_from_being_written(service: Service) -> None:
    await service.submit()
    await service.submit()
    await service.until(2, "running")
    node = service.nodes["n1"]
    node.finish(Attempt(1, 1), 10**30)  # more than an integer of SQLite
    node.finish(Attempt(2, 1), 0)
    await service.until(2, "succeeded")
    assert (await service.submit())["id"] == 3
    assert service.controller.database.job(2).state == "succeeded"  # type: ignore[union-attr]


async def test_bulk_is_all_or_none(service: Service) -> None:
    good = {"command": ["true"]}
    answer = await service.http.post("/jobs/bulk", json=[good, {**good, "gpus": 64}])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "1.gpus"
    answer = await service.http.post("/jobs/bulk", json=[good] * 100)
    assert [job["id"] for job in answer.json()] == list(range(1, 101))


async def test_listing_is_paged_and_filtered(service: Service) -> None:
    await service.http.post("/jobs/bulk", json=[{"command": ["true"], "cpu": 4}] * 5)
    first = (await service.http.get("/jobs", params={"limit": 2})).json()
    assert [job["id"] for job in first["jobs"]] == [5, 4]
    rest = (await service.http.get("/jobs", params={"limit": 5, "before": first["next"]})).json()
    assert [job["id"] for job in rest["jobs"]] == [3, 2, 1]
    await service.until(1, "running")
    pending = (await service.http.get("/jobs", params={"state": "pending"})).json()["jobs"]
    assert [job["id"] for job in pending] == [5, 4, 3, 2]
    assert (await service.http.get("/jobs", params={"state": "asleep"})).status_code == 400


async def test_listing_by_label(service: Service) -> None:
    await service.submit(labels={"run": "1", "a.b": "x"})
    await service.submit(labels={"run": "2"})
    for query, ids in (("run=1", [1]), ("run=2", [2]), ("a.b=x", [1]), ("a.b=y", [])):
        listed = (await service.http.get("/jobs", params={"label": query})).json()["jobs"]
        assert [job["id"] for job in listed] == ids
    assert (await service.http.get("/jobs", params={"label": 'x" or 1=1'})).status_code == 400


async def test_logs_once_and_followed(service: Service) -> None:
    await service.submit()
    await service.until(1, "running")
    piece = await service.http.get("/jobs/1/logs", params={"offset": 7})
    assert piece.text == "of 1.1 äöü\n"
    assert piece.headers["content-type"].startswith("text/plain")
    service.nodes["n1"].finish(Attempt(1, 1))
    await service.until(1, "succeeded")
    followed = await service.http.get("/jobs/1/logs", params={"follow": True})
    assert '"text": "stdout of 1.1 \\u00e4\\u00f6\\u00fc\\n"' in followed.text
    assert followed.text.rstrip().endswith('data: {"state": "succeeded"}')


async def test_a_new_service_finds_everything_where_it_was(tmp_path: Path, settings: Settings) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit(cpu=4)
        await service.submit(cpu=4)
        await service.submit(depends_on=["afterok:2"])
        await service.until(1, "running")
    agent.finish(Attempt(1, 1), 0)  # nobody hears it
    async with running(settings, [agent.restart()]) as service:
        await service.until(1, "succeeded")
        await service.until(2, "running")
        assert (await service.show(3))["reason"]["code"] == "Dependency"
        assert (await service.submit())["id"] == 4
        await service.settled()
        assert agent.received.count(Attempt(1, 1)) == 1


async def test_a_running_job_that_a_reachable_node_does_not_know_is_lost(settings: Settings) -> None:
    async with running(settings, [SimulatedNode()]) as service:
        await service.submit()
        await service.until(1, "running")
        await service.fabric.add(SimulatedNode(described=node(incarnation="2")))
        lost = await service.until(1, "lost")
        assert lost["reason"]["code"] == "NodeFail"


async def test_an_order_that_was_lost_is_sent_again(settings: Settings) -> None:
    agent = SimulatedNode()
    lost: list[Any] = []

    async def lose(orders: Any) -> None:
        lost.extend(orders)

    agent.start = lose  # type: ignore[method-assign]
    async with running(settings, [agent]) as service:
        await service.submit()
        await service.until(1, "starting")
        await until(lambda: lost, "the order")
        del agent.start
        await service.controller.reconcile("n1")
        await service.until(1, "running")


async def test_what_runs_without_a_job_is_stopped(settings: Settings) -> None:
    agent = SimulatedNode()
    agent.orders[Attempt(99, 1)] = None  # type: ignore[assignment]
    async with running(settings, [agent]) as service:
        await service.settled()
        await until(lambda: Attempt(99, 1) in agent.forgotten, "that it is forgotten")
        assert agent.stopped == [Attempt(99, 1)]


async def test_a_silent_node_keeps_its_jobs(service: Service) -> None:
    await service.submit()
    await service.until(1, "running")
    service.fabric.remove("n1")
    await service.settled()
    assert (await service.show(1))["state"] == "running"
    await service.submit(cpu=4)
    assert (await service.show(2))["reason"]["code"] == "NodeDown"


async def test_a_drained_node_lets_its_jobs_end_and_takes_no_more(service: Service) -> None:
    await service.submit()
    await service.until(1, "running")
    drained = await service.http.post("/nodes/n1/drain", json={"reason": "new disk"})
    assert drained.json()["node"]["state"] == "drain"
    await service.submit()
    await service.settled()
    assert (await service.show(2))["state"] == "pending"
    assert (await service.show(1))["state"] == "running"
    await service.http.post("/nodes/n1/undrain")
    await service.until(2, "running")
    assert (await service.http.post("/nodes/n9/drain", json={})).status_code == 404
