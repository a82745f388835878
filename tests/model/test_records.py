"""Records: keys, labels, and reading what a newer service writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Attempt, Job, JobSpec, Outcome, ReasonCode, State, Stats

JOB = Job(id=12, owner="ada", name="n", state=State.PENDING, submitted=1.0, spec=JobSpec(command=["true"]))


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_an_attempt_and_its_key_are_one(job: int, number: int) -> None:
    assert Attempt.parse(str(Attempt(job, number))) == Attempt(job, number)


@pytest.mark.parametrize(
    "text", ["", "12", "12.", ".1", "a.b", "1.2.3", "01.1", "1_0.1", " 1.1", "-1.x", "\u0661.1"]
)
def test_no_other_text_is_a_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Attempt.parse(text)


def test_attempts_are_ordered_by_job_then_number() -> None:
    assert sorted([Attempt(2, 1), Attempt(1, 10), Attempt(1, 9)]) == [
        Attempt(1, 9),
        Attempt(1, 10),
        Attempt(2, 1),
    ]


@pytest.mark.parametrize("reason", [None, *ReasonCode])
def test_every_outcome_is_an_ended_state(reason: ReasonCode | None) -> None:
    state = Outcome(exit_code=1, reason=reason).state
    assert state.ended
    assert (state is State.SUCCEEDED) == (reason is None)
    assert (state is State.LOST) == (reason is ReasonCode.NODE_LOST)


def test_a_job_is_called_by_its_number_and_a_member_by_its_array() -> None:
    assert JOB.label == "12"
    assert JOB.model_copy(update={"array_id": 10, "array_task": 7}).label == "10_7"


def test_a_record_comes_back_from_json() -> None:
    assert Job.model_validate_json(JOB.model_dump_json()) == JOB


def test_fields_of_a_newer_service_are_dropped() -> None:
    assert Stats.model_validate({"cpu": 0.5, "joules": 3}) == Stats(cpu=0.5)
