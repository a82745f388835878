"""Suspended jobs: what they go on holding, what they are charged, and who makes them go on."""

from __future__ import annotations

from typing import Any

import pytest
from boards import board_of, node, submit

from perijove.model import Attempt, ConflictError, Outcome, ReasonCode, State
from perijove_hub.jobs import events
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import SendResume, SendStop, SendSuspend
from perijove_hub.settings import Settings
from perijove_spawners.launcher import UnsupportedError

from .conftest import Service, SimulatedNode, running


def run(board: Board, now: float = 0.0, **fields: Any) -> int:
    """A job that runs."""
    number = submit(board, now, **fields)
    board.place(now)
    board.apply(number, events.Started(now), now)
    assert board.jobs[number].state is State.RUNNING
    return number


def frozen(board: Board, number: int, now: float) -> None:
    board.apply(number, events.Suspend("u"), now)
    board.apply(number, events.Suspended(), now)


@pytest.mark.parametrize(
    ("keep", "cpu", "memory"), [("all", 2.0, 1), ("memory", 0.0, 1), ("nothing", 0.0, 0)]
)
def test_what_a_suspended_job_keeps_is_what_it_is_charged(keep: str, cpu: float, memory: int) -> None:
    board, record = board_of(node("a", 4, 4096), suspended_keep=keep)
    number = run(board, cpu=2, memory="1G")
    frozen(board, number, 10.0)
    [holding] = board.ledger.holdings("a")
    assert (holding.cpu, holding.memory) == (cpu, memory << 30)
    board.apply(number, events.Resume("u"), 30.0)
    board.apply(number, events.Resumed(), 30.0)
    board.apply(number, events.Kill("u"), 35.0)
    board.apply(number, events.Ended(Outcome(exit_code=0)), 35.0)
    record.take(board)
    spans = sorted((one.begin, one.end, one.cpu) for one in record.allocations.values())
    whole = [(0.0, 35.0, 2.0)]
    assert spans == (whole if keep == "all" else [(0.0, 10.0, 2.0), (10.0, 30.0, 0.0), (30.0, 35.0, 2.0)])


def test_suspended_time_is_no_run_time() -> None:
    board, _ = board_of(node("a"))
    number = run(board)
    frozen(board, number, 10.0)
    assert board.jobs[number].suspended_at == 10.0
    board.apply(number, events.Resume("u"), 30.0)
    board.apply(number, events.Resumed(), 30.0)
    frozen(board, number, 40.0)
    board.apply(number, events.Ended(Outcome(exit_code=0, ended=45.0)), 45.0)
    ended = board.recent[number]
    assert (ended.suspended_seconds, ended.suspended_at) == (25.0, None)


def test_a_job_that_gave_its_place_back_goes_on_when_it_is_free_again() -> None:
    board, record = board_of(node("a", 4, gpus=1), suspended_keep="nothing")
    first = run(board, cpu=4, gpus=1)
    frozen(board, first, 1.0)
    second = run(board, 2.0, cpu=4, gpus=1)
    record.take(board)
    board.apply(first, events.Resume("u"), 3.0)
    assert board.jobs[first].reason.code is ReasonCode.SUSPENDED_BY_SITE  # type: ignore[union-attr]
    third = submit(board, 3.0, cpu=4, priority=90)
    board.place(3.0)
    assert record.take(board) == []
    board.apply(second, events.Ended(Outcome(exit_code=0)), 4.0)
    board.place(4.0)
    assert SendResume("a", Attempt(first, 1)) in record.take(board)
    assert board.jobs[third].state is State.PENDING, "who was told to go on comes before the queue"
    board.ledger.check()
    board.apply(first, events.Resumed(), 5.0)
    assert board.jobs[first].reason is None


def test_a_refusal_changes_nothing() -> None:
    board, _ = board_of(node("a"), suspended_keep="nothing")
    number = run(board)
    before = board.jobs[number]
    board.apply(number, events.Suspend("u"), 1.0)
    board.apply(number, events.Refused("suspend", "no freezer"), 1.0)
    assert board.jobs[number] == before
    with pytest.raises(ConflictError, match="only a suspended job"):
        board.apply(number, events.Resume("u"), 2.0)


async def test_a_restart_keeps_what_was_given_back(settings: Settings) -> None:
    (settings.state / "policy.yaml").write_text("suspended_keep: nothing\n")
    agent = SimulatedNode()
    async with running(settings, [agent]) as service:
        await service.submit(cpu=4)
        await service.until(1, "running")
        assert (await service.http.post("/jobs/1/suspend")).json()["state"] == "suspended"
        await service.submit(cpu=4)
        await service.until(2, "running")
    again = agent.restart()
    again.frozen = {Attempt(1, 1)}
    async with running(settings, [again]) as service:
        await service.settled()
        assert (await service.show(1))["state"] == "suspended"
        waiting = (await service.http.post("/jobs/1/resume")).json()
        assert waiting["reason"]["code"] == "Suspended"
        again.finish(Attempt(2, 1))
        await service.until(1, "running")
        await service.settled()


async def test_a_launcher_that_cannot_says_so(service: Service) -> None:
    async def refuse(_: Attempt) -> None:
        raise UnsupportedError("this launcher cannot suspend")

    service.nodes["n1"].suspend = refuse  # type: ignore[assignment,method-assign]
    await service.submit()
    await service.until(1, "running")
    answer = await service.http.post("/jobs/1/suspend")
    assert answer.status_code == 409
    assert "cannot suspend" in answer.json()["detail"]
    assert (await service.show(1))["state"] == "running"


# ---- preemption


def preempting(mode: str, **more: Any) -> tuple[Board, Any, int, int]:
    """A preemptible job that runs, and one that needs its place."""
    preemption = {"mode": mode, "notice": 20}
    board, record = board_of(node("a"), preemption=preemption, **more)
    victim = run(board, cpu=4, preemptible=True, retries=0)
    record.take(board)
    urgent = submit(board, 1.0, owner="bob", cpu=4)
    board.place(1.0)
    return board, record, victim, urgent


def test_a_preempted_job_waits_again_and_has_lost_no_retry() -> None:
    board, record, victim, urgent = preempting("requeue")
    assert record.take(board) == [SendStop("a", Attempt(victim, 1), 20.0)]
    board.place(2.0)
    assert record.take(board) == [], "one notice is enough"
    board.apply(victim, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 3.0)
    assert board.jobs[victim].state is State.PENDING
    assert board.jobs[victim].failures == 0
    board.place(3.0)
    assert board.jobs[urgent].state is State.STARTING
    board.apply(urgent, events.Ended(Outcome(exit_code=0)), 4.0)
    board.place(4.0)
    assert (board.jobs[victim].state, board.jobs[victim].attempt) == (State.STARTING, 2)


@pytest.mark.parametrize("scheduler", ["fifo", "fairshare", "multifactor", "fairshare-godocker"])
def test_who_had_to_leave_does_not_take_the_room_that_was_made(scheduler: str) -> None:
    board, _ = board_of(node("a"), preemption={"mode": "requeue", "notice": 20}, scheduler=scheduler)
    victim = run(board, cpu=4, preemptible=True, priority=90)
    urgent = submit(board, 1.0, cpu=4, priority=10)
    board.place(1.0)
    board.apply(victim, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 3.0)
    board.place(3.0)
    assert (board.jobs[victim].state, board.jobs[urgent].state) == (State.PENDING, State.STARTING)


def test_a_place_made_for_one_member_brings_the_array_no_more_than_that() -> None:
    board, _ = board_of(node("a"), preemption={"mode": "requeue"}, scheduler="fifo")
    victim = run(board, cpu=2, preemptible=True)
    other = run(board, cpu=2)
    first = submit(board, 1.0, cpu=2, priority=60)
    array = submit(board, 2.0, cpu=2, array="1:9", priority=70)
    board.place(2.0)
    board.apply(victim, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 3.0)
    board.apply(other, events.Ended(Outcome(exit_code=0)), 3.0)
    board.place(3.0)
    assert board.groups[array].rest == 7
    assert board.jobs[first].state is State.PENDING


def test_who_killed_a_running_job_is_told_while_it_ends_and_afterwards() -> None:
    board, _ = board_of(node("a"))
    number = run(board)
    board.apply(number, events.Kill("ada"), 1.0)
    assert board.jobs[number].reason.message == "killed by ada"  # type: ignore[union-attr]
    board.apply(number, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER, message="stopped")), 2.0)
    assert board.recent[number].reason.message == "killed by ada"  # type: ignore[union-attr]


def test_a_preempted_job_may_be_ended() -> None:
    board, record, victim, urgent = preempting("kill")
    assert record.take(board) == [SendStop("a", Attempt(victim, 1), 20.0)]
    board.apply(victim, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 3.0)
    assert board.recent[victim].state is State.KILLED
    assert board.recent[victim].reason.code is ReasonCode.PREEMPTED  # type: ignore[union-attr]
    board.place(3.0)
    assert board.jobs[urgent].state is State.STARTING


def test_a_preempted_job_may_be_suspended_and_goes_on_afterwards() -> None:
    board, record, victim, urgent = preempting("suspend", suspended_keep="nothing")
    assert record.take(board) == [SendSuspend("a", Attempt(victim, 1))]
    board.apply(victim, events.Suspended(), 2.0)
    board.place(2.0)
    assert board.jobs[urgent].state is State.STARTING
    assert board.jobs[victim].state is State.SUSPENDED
    record.take(board)
    board.apply(urgent, events.Ended(Outcome(exit_code=0)), 3.0)
    board.place(3.0)
    assert SendResume("a", Attempt(victim, 1)) in record.take(board)
    board.apply(victim, events.Resumed(), 4.0)
    assert board.jobs[victim].state is State.RUNNING
    board.ledger.check()
