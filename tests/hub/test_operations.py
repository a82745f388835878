"""What outlives the service: drains, maintenance, policy; and how record and nodes are brought together."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from boards import board_of, node, submit
from waiting import until

from perijove.model import Attempt, Outcome, State
from perijove_hub.jobs import adopting, events
from perijove_hub.settings import Settings
from perijove_spawners.protocol import Report, ReportKind

from .conftest import Service, SimulatedNode, running
from .conftest import node as described


async def test_drains_and_maintenance_survive_a_restart(settings: Settings) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.http.post("/nodes/n1/drain", json={"reason": "new disk"})
        await service.controller.maintenance("the move", "root")
    async with running(settings, [agent.restart()]) as service:
        await service.submit()
        await service.settled()
        [view] = (await service.http.get("/nodes")).json()
        assert (view["node"]["state"], view["node"]["reason"]) == ("drain", "new disk")
        await service.http.post("/nodes/n1/undrain")
        await service.settled()
        waiting = await service.show(1)
        assert (waiting["state"], waiting["reason"]["code"]) == ("pending", "Maintenance")
        await service.controller.maintenance(None, "root")
        await service.until(1, "running")


async def test_a_policy_holds_from_the_next_pass_on_and_after_a_restart(settings: Settings) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.controller.set_policy("site: {running: 1}", "root")
        await service.submit(cpu=1)
        await service.submit(cpu=1)
        await service.until(1, "running")
        await service.settled()
        assert (await service.show(2))["reason"]["code"] == "Quota"
    async with running(settings, [agent.restart()]) as service:
        await service.settled()
        assert (await service.show(2))["state"] == "pending"
        await service.controller.set_policy("{}", "root")
        await service.until(2, "running")


async def test_an_end_that_was_forgotten_is_asked_for_before_a_job_is_called_lost(settings: Settings) -> None:
    """As after a restore: the record still has it running, the node was told to forget it long ago."""
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit()
        await service.until(1, "running")
    agent.ended[Attempt(1, 1)] = Outcome(exit_code=0, started=1.0, ended=2.0)
    agent.forgotten.append(Attempt(1, 1))
    async with running(settings, [agent.restart()]) as service:
        assert (await service.until(1, "succeeded", "lost"))["state"] == "succeeded"


async def test_a_restored_record_takes_over_what_is_newer(settings: Settings, tmp_path: Path) -> None:
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit(retries=3, cpu=1)
        await service.until(1, "running")
        await service.controller.committed()
        with sqlite3.connect(settings.database) as source, sqlite3.connect(tmp_path / "older.db") as copy:
            source.backup(copy)
        agent.finish(Attempt(1, 1), 1)
        await until(lambda: Attempt(1, 2) in agent.orders, "the second attempt")
        await service.submit(cpu=1)
        await service.until(2, "running")
    for part in ("perijove.db", "perijove.db-wal", "perijove.db-shm"):
        (settings.state / part).unlink(missing_ok=True)
    (tmp_path / "older.db").rename(settings.state / "perijove.db")
    async with running(settings, [agent.restart()]) as service:
        await service.settled()
        found = await service.show(1)
        assert (found["state"], found["attempt"]) == ("running", 2)
        await until(
            lambda: Attempt(2, 1) in service.nodes["n1"].stopped, "what nobody asked for to be stopped"
        )
        assert (await service.submit())["id"] == 3, "an id that was seen on a node is not given again"


async def test_what_a_taken_over_attempt_holds_is_given_to_nobody_else(
    settings: Settings, tmp_path: Path
) -> None:
    """The record has 1 on the first device and 2 waiting; since, 2 got the first device and 1 the second."""
    agent = SimulatedNode(described(slots={"port": [{}, {}]}))
    asked: dict[str, Any] = {"cpu": 1, "memory": "1G", "gpus": 1, "resources": {"port": 1}}
    async with running(settings, [agent]) as service:
        await service.submit(**asked, retries=1)
        await service.until(1, "running")
        await service.submit(**asked, hold=True)
        await service.settled()
        with sqlite3.connect(settings.database) as source, sqlite3.connect(tmp_path / "older.db") as copy:
            source.backup(copy)
        await service.http.post("/nodes/n1/drain", json={"reason": "a test"})
        agent.finish(Attempt(1, 1), 1)
        await service.until(1, "pending")
        await service.http.post("/jobs/1/hold")
        await service.http.post("/jobs/2/release")
        await service.http.post("/nodes/n1/undrain")
        await until(lambda: Attempt(2, 1) in agent.orders, "the other job")
        await service.http.post("/jobs/1/release")
        await until(lambda: Attempt(1, 2) in agent.orders, "the second attempt")
    for part in ("perijove.db", "perijove.db-wal", "perijove.db-shm"):
        (settings.state / part).unlink(missing_ok=True)
    (tmp_path / "older.db").rename(settings.state / "perijove.db")
    async with running(settings, [agent.restart()]) as service:
        await until(lambda: service.controller.board.jobs[2].state is State.RUNNING, "the other taken over")
        await service.settled()
        for number, attempt in ((1, Attempt(1, 2)), (2, Attempt(2, 1))):
            job, order = service.controller.board.jobs[number], agent.orders[attempt]
            assert job.attempt == attempt.number
            assert job.gpus == list(order.gpus)
            assert job.slots == {name: list(units) for name, units in order.slots.items()} != {}
        await service.submit(**asked)
        await service.settled()
        assert (await service.show(3))["state"] == "pending"


def test_an_attempt_that_was_not_on_record_is_adopted_with_its_number() -> None:
    board, record = board_of(node("a"), node("b"))
    number = submit(board)
    board.place(0.0)
    board.apply(number, events.Started(0.0), 0.0)
    report = Report("b", Attempt(number, 3), ReportKind.STARTED, 1.0)
    assert adopting.adopt(board, report.attempt, report, 1.0) is not None
    board.apply(number, events.Started(1.0), 1.0)
    job = board.jobs[number]
    assert (job.state, job.attempt, job.node) == (State.RUNNING, 3, "b")
    board.ledger.check()
    assert [one.node for one in board.allocations] == ["b"]
    record.take(board)
    assert sorted((one.node, one.end) for one in record.allocations.values()) == [("a", 1.0), ("b", None)]


def test_a_number_that_a_stranger_used_is_passed_over() -> None:
    board, _ = board_of(node("a"))
    number = submit(board)
    adopting.skip(board, number, 4, 0.0)
    board.place(0.0)
    assert board.jobs[number].attempt == 5


async def old(service: Service, **fields: Any) -> int:
    job = await service.submit(cpu=0.1, memory="16M", **fields)
    await service.until(job["id"], "running")
    service.nodes["n1"].finish(Attempt(job["id"], 1), ended=service.controller.clock() - 100.0)
    await service.until(job["id"], "succeeded")
    await service.controller.committed()
    return int(job["id"])


async def test_what_was_cleared_away_while_its_node_was_down_is_removed_later(service: Service) -> None:
    agent, controller = service.nodes["n1"], service.controller
    controller.housekeeping.leftovers.at_once = 2
    kept, archived, removed, runs = [await old(service) for _ in range(3)] + [(await service.submit())["id"]]
    await service.until(runs, "running")
    stranger = Attempt(10**6, 1)
    agent.orders[stranger] = agent.orders[Attempt(kept, 1)]
    await controller.housekeeping.round()
    service.fabric.remove("n1")
    await service.http.post(f"/jobs/{archived}/archive")
    assert (await service.http.delete(f"/jobs/{removed}")).status_code == 204
    await service.settled()
    await controller.housekeeping.round()
    assert {Attempt(archived, 1), Attempt(removed, 1)} <= agent.orders.keys(), "the node did not hear of it"
    await service.fabric.add(agent)
    await service.settled()
    await controller.housekeeping.round()
    assert agent.orders.keys() == {Attempt(kept, 1), Attempt(runs, 1), stranger}


async def test_what_is_old_is_archived_and_then_removed(service: Service) -> None:
    kept, gone = await old(service, labels={"keep": "yes"}), await old(service)
    await service.controller.set_policy("retention: {archive_after: 50s, keep: [keep=yes]}", "root")
    await service.controller.housekeeping.round()
    assert (await service.show(gone))["archived"] is True
    assert (await service.show(kept))["archived"] is False
    await until(lambda: Attempt(gone, 1) not in service.nodes["n1"].orders, "its directory to go")
    assert Attempt(kept, 1) in service.nodes["n1"].orders
    text = "retention: {archive_after: 50s, purge_after: 60s, keep: [keep=yes]}"
    await service.controller.set_policy(text, "root")
    await service.controller.housekeeping.round()
    assert (await service.http.get(f"/jobs/{gone}")).status_code == 404
    assert (await service.show(kept))["state"] == "succeeded"
    usage = service.controller.database.usage(["owner"], 0.0, service.controller.clock())
    assert sum(spent.jobs for spent in usage.values()) == 2, "what was used stays on the account"


@pytest.mark.parametrize("verb", ["archive"])
async def test_an_array_is_cleared_away_with_its_members(service: Service, verb: str) -> None:
    await service.submit(array="1:3", cpu=1)
    for member in (2, 3, 4):
        await service.until(member, "running")
        service.nodes["n1"].finish(Attempt(member, 1))
    await service.until(1, "succeeded")
    assert (await service.http.post(f"/jobs/1/{verb}")).json()["archived"] is True
    assert (await service.show("1_2"))["archived"] is True
    await until(lambda: not service.nodes["n1"].orders, "the directories to go")


async def test_job_directories_count_towards_a_limit_of_disk(service: Service) -> None:
    await service.controller.set_policy("default_user: {limits: {disk: 2M}}", "root")
    first = await old(service)
    owner = (await service.show(first))["owner"]
    await service.controller.housekeeping.round()
    assert service.controller.board.standing.disk(owner) == 1 << 20
    await old(service)
    await service.controller.housekeeping.round()
    answer = await service.http.post("/jobs", json={"command": ["true"]})
    assert answer.status_code == 422, "over the limit"
    await service.http.post(f"/jobs/{first}/archive")
    await service.submit()
