"""Which ends are tried again, where and with how much; and what is made of jobs that have ended."""

from __future__ import annotations

from typing import Any

import pytest
from boards import MIB, board_of, node, submit
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Attempt, ConflictError, Job, JobSpec, Outcome, ReasonCode, State
from perijove_hub.jobs import events, retries
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import SendStop, SendUpdate

from .conftest import Service

LOST = Outcome(reason=ReasonCode.NODE_LOST, message="gone")
OOM = Outcome(exit_code=137, reason=ReasonCode.OUT_OF_MEMORY)
LATE = Outcome(exit_code=143, reason=ReasonCode.TIME_LIMIT)


def failed(code: int) -> Outcome:
    return Outcome(exit_code=code, reason=ReasonCode.NON_ZERO_EXIT)


@pytest.mark.parametrize(
    ("retry_on", "outcome", "again"),
    [
        ([], failed(1), True),
        ([], LOST, True),
        (["node"], LOST, True),
        (["node"], failed(1), False),
        (["exit:75"], failed(75), True),
        (["exit:75"], failed(76), False),
        (["time"], LATE, True),
        (["oom"], OOM, True),
        (["oom", "time"], failed(1), False),
        (["failure"], OOM, True),
        ([], Outcome(reason=ReasonCode.KILLED_BY_USER), False),
        ([], Outcome(exit_code=0), False),
    ],
)
def test_by_cause(retry_on: list[str], outcome: Outcome, again: bool) -> None:
    spec = JobSpec.model_validate({"command": ["true"], "retries": 2, "retry_on": retry_on})
    assert retries.may_retry(spec, 1, outcome) is again
    assert not retries.may_retry(spec, 2, outcome)


def started(board: Board, now: float = 0.0, **fields: Any) -> int:
    number = submit(board, now, **fields)
    board.place(now)
    board.apply(number, events.Started(now), now)
    return number


def the(board: Board, number: int) -> Job:
    found = board.find(number)
    assert found is not None
    return found


def test_more_memory_after_it_ran_out_of_it_up_to_the_largest_node() -> None:
    board, record = board_of(node("small", memory=1000), node("large", memory=3000))
    number = started(board, memory=800 * MIB, oom_retry="2x")
    asked = []
    for now in range(1, 10):
        if the(board, number).state.ended:
            break
        board.apply(number, events.Ended(OOM), float(now))
        board.place(float(now))
        asked.append(the(board, number).spec.memory // MIB)
    assert asked == [1600, 3000, 3000]
    assert the(board, number).state is State.FAILED
    record.take(board)
    assert record.jobs[number].spec.memory == 3000 * MIB
    changes = [event.detail["memory"] for event in record.events if "memory" in event.detail]
    assert changes[0] == {"from": 800 * MIB, "to": 1600 * MIB}


def test_a_node_that_failed_it_is_avoided_while_there_are_others() -> None:
    board, _ = board_of(node("a"), node("b"))
    number = started(board, retries=5)
    first = the(board, number).node
    board.apply(number, events.Ended(failed(1)), 1.0)
    board.place(1.0)
    second = the(board, number).node
    assert {first, second} == {"a", "b"}
    assert the(board, number).failed_nodes == [first]
    board.apply(number, events.Ended(failed(1)), 2.0)
    board.place(2.0)
    assert the(board, number).state is State.STARTING, "with none left it starts where it can"


def test_running_out_of_time_or_memory_is_not_the_nodes_fault() -> None:
    board, _ = board_of(node("a"))
    number = started(board, retries=5)
    board.apply(number, events.Ended(LATE), 1.0)
    assert the(board, number).failed_nodes == []


def test_rescheduling_is_a_new_attempt_that_costs_no_retry() -> None:
    board, record = board_of(node("a"))
    number = started(board)
    record.take(board)
    board.apply(number, events.Reschedule("u"), 1.0)
    assert record.take(board) == [SendStop("a", Attempt(number, 1))]
    board.apply(number, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 2.0)
    board.place(2.0)
    again = the(board, number)
    assert (again.state, again.attempt, again.failures) == (State.STARTING, 2, 0)
    names = [event.event for event in [*record.events, *board.pending.batch.events] if event.job == number]
    assert names == ["submitted", "placed", "started", "reschedule", "requeued", "placed"]
    with pytest.raises(ConflictError):
        board.apply(submit(board, 3.0, hold=True), events.Reschedule("u"), 3.0)


def test_a_kill_outweighs_a_reschedule() -> None:
    board, _ = board_of(node("a"))
    number = started(board, retries=3)
    board.apply(number, events.Reschedule("u"), 1.0)
    board.apply(number, events.Kill("u"), 1.0)
    board.apply(number, events.Ended(Outcome(reason=ReasonCode.KILLED_BY_USER)), 2.0)
    assert the(board, number).state is State.KILLED


def test_a_change_moves_a_job_in_its_line_and_tells_the_node_of_a_running_one() -> None:
    board, record = board_of(node("a", cpus=1))
    running = started(board, time_limit=60)
    first, second = submit(board, 0.0), submit(board, 0.0)
    assert [board.queue.position(number) for number in (first, second)] == [1, 2]
    board.apply(second, events.Change({"priority": 80}, "u"), 1.0)
    assert [board.queue.position(number) for number in (first, second)] == [2, 1]
    record.take(board)
    board.apply(running, events.Change({"time_limit": 120.0}, "u"), 1.0)
    assert record.take(board) == [SendUpdate("a", Attempt(running, 1), 120.0)]
    assert board.ledger.holding(running).until == 120.0  # type: ignore[union-attr]
    assert record.jobs[running].spec.time_limit == 120.0
    with pytest.raises(ConflictError, match="cannot be changed any more"):
        board.apply(running, events.Change({"cpu": 2.0}, "u"), 1.0)


@given(st.lists(st.sampled_from([failed(1), failed(75), LOST, OOM, LATE]), max_size=12), st.integers(0, 4))
def test_no_job_is_run_more_often_than_it_may(ends: list[Outcome], times: int) -> None:
    board, _ = board_of(node("a"))
    number = started(board, retries=times)
    for now, outcome in enumerate(ends, 1):
        board.apply(number, events.Ended(outcome), float(now))
        board.place(float(now))
    job = the(board, number)
    assert job.attempt == min(len(ends), times) + 1
    assert job.state.ended is (len(ends) > times)


async def test_running_again_what_has_ended(service: Service) -> None:
    await service.submit(array="1:3", name="again", cpu=1)
    await service.until("1_2", "running")
    assert (await service.http.post("/jobs/1_2/rerun")).status_code == 409
    for member in (2, 3, 4):
        service.nodes["n1"].finish(Attempt(member, 1), int(member == 3))
    await service.until(1, "failed")
    made = (await service.http.post("/jobs/1_2/rerun")).json()
    assert (made["id"], made["rerun_of"], made["name"]) == (5, 3, "again")
    await service.until(made["id"] + 1, "running")
    order = service.nodes["n1"].orders[Attempt(6, 1)]
    assert order.env["PERIJOVE_TASK_ID"] == "2"


async def test_a_changed_time_limit_reaches_the_node(service: Service) -> None:
    await service.submit(time_limit=3600)
    await service.until(1, "running")
    changed = await service.http.patch("/jobs/1", json={"time_limit": "30m"})
    assert changed.json()["spec"]["time_limit"] == 1800
    await service.settled()
    assert service.nodes["n1"].limits == {Attempt(1, 1): 1800.0}
