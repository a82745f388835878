"""The table of transitions holds what the rest of the system relies on."""

from __future__ import annotations

from itertools import product

import pytest

from perijove.model import ENDED, TRANSITIONS, InvalidTransitionError, State, check_transition
from perijove.model.states import ON_NODE

ALIVE = set(State) - ENDED


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = TRANSITIONS[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_no_state_follows_itself() -> None:
    assert not [state for state, after in TRANSITIONS.items() if state in after]


def test_every_state_can_be_reached_by_a_new_job() -> None:
    assert reachable(State.PENDING) == set(State)
    assert reachable(State.HELD) == set(State)


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_every_job_that_has_not_ended_can_be_killed(state: State) -> None:
    assert State.KILLED in TRANSITIONS[state]


@pytest.mark.parametrize("state", sorted(ENDED))
def test_after_an_end_there_is_at_most_a_new_attempt(state: State) -> None:
    assert TRANSITIONS[state] <= {State.PENDING}
    assert state.ended


def test_what_succeeded_was_killed_or_rejected_never_runs_again() -> None:
    for state in (State.SUCCEEDED, State.KILLED, State.REJECTED):
        assert TRANSITIONS[state] == frozenset()


def test_only_a_start_puts_a_job_on_a_node() -> None:
    assert {s for s in set(State) - ON_NODE if TRANSITIONS[s] & ON_NODE} == {State.PENDING}
    assert TRANSITIONS[State.PENDING] & ON_NODE == {State.STARTING}


def test_a_job_holds_resources_from_its_start_to_its_end() -> None:
    assert {s for s in State if s.on_node} == ON_NODE
    assert ON_NODE.isdisjoint(ENDED)


@pytest.mark.parametrize(("start", "finish"), list(product(State, State)))
def test_the_table_is_what_is_checked(start: State, finish: State) -> None:
    if finish in TRANSITIONS[start]:
        check_transition(7, start, finish)
        return
    with pytest.raises(InvalidTransitionError, match=f"job 7 cannot go from {start} to {finish}") as raised:
        check_transition(7, start, finish)
    assert (raised.value.job, raised.value.start, raised.value.finish) == (7, start, finish)
