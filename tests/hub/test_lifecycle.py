"""The transition rules as properties: whatever is said in whatever order, a job never leaves the table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import ConflictError, Job, JobSpec, Outcome, Reason, ReasonCode, State
from perijove_hub.jobs import lifecycle
from perijove_hub.jobs.lifecycle import SendForget, SendOrder, SendStop, decide

OUTCOMES = st.builds(
    Outcome,
    exit_code=st.sampled_from([None, 0, 1, 137]),
    reason=st.sampled_from([None, *ReasonCode]),
    transient=st.booleans(),
)
EVENTS = st.one_of(
    st.builds(lifecycle.Placed, st.sampled_from(["n1", "n2"])),
    st.builds(lifecycle.Launching, st.just("pulling")),
    st.builds(lifecycle.Started, st.floats(0, 100)),
    st.builds(lifecycle.Suspended),
    st.builds(lifecycle.Resumed),
    st.builds(lifecycle.Progressed, st.floats(0, 1), st.just("")),
    st.builds(lifecycle.Ended, OUTCOMES),
    st.builds(lifecycle.Kill, st.just("alice")),
    st.builds(lifecycle.Hold),
    st.builds(lifecycle.Release),
    st.builds(lifecycle.Reject, st.just(Reason(code=ReasonCode.DEPENDENCY))),
)


def job(**changes: Any) -> Job:
    fields = {"id": 1, "owner": "alice", "name": "j", "state": State.PENDING, "submitted": 0.0}
    return Job.model_validate({**fields, "spec": JobSpec(command=["true"], retries=1), **changes})


@given(st.lists(EVENTS, max_size=30))
def test_any_history_keeps_the_rules(events: list[lifecycle.Event]) -> None:
    current, started, ordered = job(), 0, 0
    for event in events:
        if isinstance(event, lifecycle.Placed) and current.state is not State.PENDING:
            continue  # placement offers only what is pending
        try:
            decision = decide(current, event, 1.0)
        except ConflictError:
            continue
        ordered += sum(isinstance(effect, SendOrder) for effect in decision.effects)
        if decision.job.state.on_node:
            assert decision.job.node is not None
        if decision.job.state is State.STARTING and current.state is State.PENDING:
            started += 1
            assert decision.job.attempt == current.attempt + 1
        if current.state.ended:
            assert decision.job == current, "what has ended stays as it is"
        if decision.job.state.ended and not current.state.ended:
            assert decision.job.ended is not None or decision.job.state is State.REJECTED
            assert not decision.job.kill_requested or decision.job.state in {State.KILLED, State.SUCCEEDED}
        current = decision.job
    assert ordered == started == current.attempt, "one order for each attempt"


@given(OUTCOMES)
def test_every_end_on_a_node_is_forgotten_there(outcome: Outcome) -> None:
    running = job(state=State.RUNNING, node="n1", attempt=2)
    decision = decide(running, lifecycle.Ended(outcome), 5.0)
    assert [type(effect) for effect in decision.effects] == [SendForget]


def test_killing_twice_sends_the_stop_again() -> None:
    running = job(state=State.RUNNING, node="n1", attempt=1)
    once = decide(running, lifecycle.Kill("alice"), 1.0)
    again = decide(once.job, lifecycle.Kill("alice"), 2.0)
    assert [type(e) for e in (*once.effects, *again.effects)] == [SendStop, SendStop]
    assert again.event is None


def test_a_killed_job_is_not_tried_again() -> None:
    asked = job(state=State.RUNNING, node="n1", attempt=1, kill_requested=True)
    outcome = Outcome(exit_code=143, reason=ReasonCode.SIGNALLED)
    assert decide(asked, lifecycle.Ended(outcome), 1.0).job.state is State.KILLED


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.SUSPENDED])
def test_an_end_may_be_heard_in_any_state_on_a_node(state: State) -> None:
    there = job(state=state, node="n1", attempt=1)
    assert decide(there, lifecycle.Ended(Outcome(exit_code=0)), 1.0).job.state is State.SUCCEEDED
