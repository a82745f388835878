"""What is charged is what was held: sums, days, efficiency."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import ended, running, waiting

from perijove.model import Job, State
from perijove_hub.accounting import (
    AXES,
    DAY,
    GIB,
    HOUR,
    Allocation,
    Axis,
    Held,
    Spent,
    day_of,
    efficiency,
    held_by,
    opened,
    run_time,
    total,
    usage,
)

NOW = 1_790_000_000.0

ALLOCATIONS = st.lists(
    st.builds(
        lambda job, owner, project, image, node, cpu, memory, gpus, begin, length: Allocation(
            job=job,
            attempt=1,
            owner=owner,
            project=project,
            kind="batch",
            image=image,
            partition=None,
            node=node,
            cpu=cpu,
            memory=memory,
            gpus=gpus,
            begin=NOW - begin,
            end=None if length is None else NOW - begin + length,
            label=str(job),
        ),
        st.integers(1, 5),
        st.sampled_from(["alice", "bob"]),
        st.sampled_from([None, "sun"]),
        st.sampled_from([None, "python:3.12"]),
        st.sampled_from(["n1", "n2"]),
        st.sampled_from([0.5, 1.0, 16.0]),
        st.integers(0, 1 << 36),
        st.integers(0, 8),
        st.floats(0, 30 * DAY),
        st.none() | st.floats(0, 30 * DAY),
    ),
    max_size=12,
)


def held_over_time(allocations: list[Allocation], now: float) -> tuple[float, float, float]:
    """The integral of what is held, going from change to change."""
    moves = [(one.begin, 1, one) for one in allocations if one.begin < now]
    moves += [
        (now if one.end is None else min(one.end, now), -1, one) for one in allocations if one.begin < now
    ]
    at, held, sums = 0.0, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for when, sign, one in sorted(moves, key=lambda move: move[:2]):
        sums = [sum_ + amount * (when - at) for sum_, amount in zip(sums, held, strict=True)]
        at = when
        for i, amount in enumerate((one.cpu, one.memory, one.gpus)):
            held[i] += sign * amount
    return sums[0], sums[1], sums[2]


@given(ALLOCATIONS, st.lists(st.sampled_from(AXES), unique=True, max_size=4))
def test_the_charges_are_what_was_held_over_time_however_they_are_told_apart(
    allocations: list[Allocation], by: list[Axis]
) -> None:
    groups = usage(allocations, by, now=NOW)
    cpu, memory, gpu = held_over_time(allocations, NOW)
    assert sum(spent.cpu_seconds for spent in groups.values()) == pytest.approx(cpu, rel=1e-6, abs=0.1)
    assert sum(spent.memory_byte_seconds for spent in groups.values()) == pytest.approx(
        memory, rel=1e-6, abs=GIB
    )
    assert sum(spent.gpu_seconds for spent in groups.values()) == pytest.approx(gpu, rel=1e-6, abs=0.1)


@given(ALLOCATIONS, st.floats(0, 30 * DAY))
def test_two_periods_add_up_to_both(allocations: list[Allocation], ago: float) -> None:
    border = NOW - ago
    first = usage(allocations, ["owner"], now=NOW, until=border)
    second = usage(allocations, ["owner"], now=NOW, since=border)
    for key, whole in usage(allocations, ["owner"], now=NOW).items():
        parts = first.get(key, Spent()) + second.get(key, Spent())
        assert parts.cpu_seconds == pytest.approx(whole.cpu_seconds, rel=1e-6, abs=0.1)


def one(begin: float, end: float | None, **changes: object) -> Allocation:
    fields = {"job": 1, "attempt": 1, "owner": "a", "project": None, "kind": "batch", "label": "1"}
    fields |= {"image": None, "partition": None, "node": "n", "cpu": 2.0, "memory": 1 << 30, "gpus": 1}
    fields |= {"begin": begin, "end": end}
    return Allocation(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_night_is_charged_to_both_days() -> None:
    midnight = NOW // DAY * DAY
    by_day = usage([one(midnight - 2 * HOUR, midnight + 6 * HOUR)], ["day"], now=NOW)
    assert by_day == {
        (day_of(midnight - 1),): Spent(4 * HOUR, 2 * HOUR * GIB, 2 * HOUR, 1),
        (day_of(midnight),): Spent(12 * HOUR, 6 * HOUR * GIB, 6 * HOUR, 1),
    }


def test_a_day_that_ends_at_midnight_has_no_piece_of_the_next() -> None:
    midnight = NOW // DAY * DAY
    assert list(usage([one(midnight - DAY, midnight)], ["day"], now=NOW)) == [(day_of(midnight - 1),)]


def test_a_job_counts_once_though_it_was_held_in_pieces() -> None:
    pieces = [one(NOW - 300, NOW - 200), one(NOW - 200, NOW - 100, cpu=0.0), one(NOW - 100, None)]
    assert total(pieces, now=NOW) == Spent(400.0, 300 * GIB, 300.0, 1)
    assert total([], now=NOW) == Spent()


def test_what_lasted_no_time_is_a_job_all_the_same() -> None:
    assert total([one(NOW - 5, NOW - 5)], now=NOW) == Spent(0.0, 0.0, 0.0, 1)


def test_an_end_before_the_begin_is_no_negative_charge() -> None:
    """A clock was turned back."""
    assert total([one(NOW, NOW - HOUR)], now=NOW) == Spent()


def test_hours_are_in_hours() -> None:
    spent = Spent(7200.0, 3 * GIB * HOUR, 1800.0, 1)
    assert (spent.cpu_hours, spent.memory_hours, spent.gpu_hours) == (2.0, 3.0, 0.5)


def test_an_allocation_says_what_the_job_holds() -> None:
    job = running(waiting("alice", "sun", cpu=2, memory="3G", gpus=1, image="python:3.12"), NOW, "n7")
    found = opened(job, NOW)
    assert (found.owner, found.project, found.node, found.image) == ("alice", "sun", "n7", "python:3.12")
    assert (found.cpu, found.memory, found.gpus, found.begin, found.end) == (2.0, 3 << 30, 1, NOW, None)
    assert opened(job, NOW, Held(64.0, 1 << 40, 8)).cpu == 64.0, "an exclusive job's node"


@pytest.mark.parametrize(("keep", "left"), [("all", (2, 1)), ("memory", (0, 1)), ("nothing", (0, 0))])
def test_what_a_suspended_job_keeps(keep: str, left: tuple[int, int]) -> None:
    job = running(waiting("alice", cpu=2, gpus=1), NOW).model_copy(update={"state": State.SUSPENDED})
    held = held_by(job, keep)  # type: ignore[arg-type]
    assert (held.cpu, held.gpus) == left


# Efficiency


def done(**changes: object) -> Job:
    job = running(waiting("alice", cpu=4, memory="8G", gpus=2, time_limit="2h"), NOW)
    return ended(job.model_copy(update=changes), NOW + HOUR)


def test_efficiency_sets_used_against_asked() -> None:
    found = efficiency(done(cpu_seconds=2 * HOUR, memory_peak=2 << 30, gpu_seconds=HOUR), NOW + 9 * HOUR)
    assert {name: one.efficiency for name, one in found.items()} == {
        "cpu": 0.5,
        "memory": 0.25,
        "gpu": 0.5,
        "time": 0.5,
    }
    assert found["cpu"].asked == 4 * HOUR


def test_suspended_time_is_no_run_time() -> None:
    assert run_time(done(suspended_seconds=600.0), NOW + DAY) == HOUR - 600
    job = running(waiting("alice"), NOW)
    stopped = job.model_copy(
        update={"state": State.SUSPENDED, "suspended_at": NOW + 60, "suspended_seconds": 10.0}
    )
    assert run_time(stopped, NOW + HOUR) == 50


def test_what_was_not_asked_for_has_no_efficiency() -> None:
    job = running(waiting("alice"), NOW)
    found = efficiency(job, NOW)
    assert [found[name].efficiency for name in ("cpu", "gpu", "time")] == [None, None, None]
    assert efficiency(waiting("alice"), NOW)["cpu"].asked == 0
