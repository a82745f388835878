"""What people read of why a job waits, and of an array."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.client import AsyncClient
from perijove.connection import Connection
from perijove.handle import AsyncJob
from perijove.model.quantities import parse_duration, parse_size
from perijove.model.states import State
from perijove.reading import tasks_text
from perijove.waiting import (
    Explanation,
    blocker_lines,
    exact_duration,
    exact_size,
    forecast_text,
    why_lines,
)

NOON = time.mktime((2026, 7, 31, 12, 0, 0, 0, 0, -1))


def job(**fields: Any) -> AsyncJob:
    document = {"id": 12, "name": "train", "state": "pending", "spec": {}, **fields}
    return AsyncJob(AsyncClient(connection=Connection("http://nowhere")), document)


@pytest.mark.parametrize(
    ("earliest", "likely", "latest", "text"),
    [
        (None, None, None, ""),
        (300, 600, 3600, "starts between 12:05 and 13:00, probably in 10m"),
        (300, None, None, "starts not before 12:05"),
        (300, 300, 320, "starts by 12:05, probably in 5m"),
        (0, 0, 0, "starts within a minute"),
        (0, 0, 120, "starts between 12:00 and 12:02, probably now"),
        (300, 600, 2 * 86400, "starts between 12:05 and 2026-08-02 12:00, probably in 10m"),
        (None, None, 3600, "starts by 13:00"),
    ],
)
def test_a_forecast_is_a_range(
    earliest: float | None, likely: float | None, latest: float | None, text: str
) -> None:
    def at(offset: float | None) -> float | None:
        return None if offset is None else NOON + offset

    forecast = {"earliest": at(earliest), "likely": at(likely), "latest": at(latest)}
    assert forecast_text(forecast, NOON) == text
    assert forecast_text(None) == ""


def test_all_that_is_known_is_told_a_line_each() -> None:
    answer = {
        "job": {"id": 12, "state": "pending"},
        "reason": {
            "code": "Resources",
            "message": "nodes that could run it are full",
            "position": 3,
            "blockers": [
                {"kind": "job", "name": str(i), "message": f"job {i} of ada runs on n1"} for i in range(7)
            ],
        },
        "forecast": {"earliest": NOON + 60, "likely": NOON + 120, "latest": NOON + 600},
        "hints": [{"changes": {"memory": 12 << 30}, "message": "with --memory 12G it would start now"}],
    }
    assert why_lines(answer, NOON) == [
        "job 12 pending: nodes that could run it are full (place 3 in the queue)",
        *(f"  job {i} of ada runs on n1" for i in range(5)),
        "  and 2 more",
        "  starts between 12:01 and 12:10, probably in 2m",
        "  with --memory 12G it would start now",
    ]
    assert repr(Explanation(answer)).startswith("job 12 pending: ")


def test_a_blocker_without_words_has_its_kind_and_name() -> None:
    assert blocker_lines([{"kind": "node", "name": "n1", "message": ""}]) == ["node n1"]


@given(st.integers(0, 1 << 60))
def test_a_size_that_is_shown_can_be_given_again(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@given(st.integers(1, 10**8))
def test_so_can_a_duration(seconds: int) -> None:
    assert parse_duration(exact_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, "0/1000 done"),
        ({"pending": 1000}, "0/1000 done"),
        (
            {"pending": 680, "running": 7, "starting": 1, "succeeded": 310, "failed": 2},
            "312/1000 done, 8 running, 2 failed",
        ),
        ({"held": 990, "suspended": 5, "killed": 5}, "5/1000 done, 5 suspended, 990 held, 5 killed"),
        ({"lost": 1, "failed": 1, "rejected": 998}, "1000/1000 done, 2 failed, 998 rejected"),
    ],
)
def test_an_array_says_where_its_members_stand(counts: dict[str, int], text: str) -> None:
    array = job(tasks=counts, spec={"array": {"start": 1, "end": 1000, "step": 1}})
    assert tasks_text(array) == text
    assert tasks_text(job()) == ""


def test_members_that_are_no_jobs_yet_stand_as_their_array_does() -> None:
    spec = {"array": {"start": 1, "end": 10, "step": 3}}
    cases: list[tuple[dict[str, Any], State]] = [
        ({"state": "pending"}, State.PENDING),
        ({"state": "running"}, State.PENDING),
        ({"state": "held"}, State.HELD),
        ({"state": "running", "reason": {"code": "JobHeldUser"}}, State.HELD),
        ({"state": "killed"}, State.KILLED),
        ({"state": "rejected"}, State.REJECTED),
    ]
    for fields, state in cases:
        array = job(spec=spec, **fields)
        member = AsyncJob(array.client, array.unstarted_member(7))
        assert (member.id, member.label, member.state) == (15, "12_7", state)
    assert list(job(spec={"nodes": 3}).task_numbers) == [0, 1, 2]


def test_suspended_time_is_no_run_time() -> None:
    assert job(started=100.0, ended=200.0, suspended_seconds=30.0).elapsed == 70.0
    assert job(started=100.0, suspended_at=150.0, suspended_seconds=10.0).elapsed == 40.0
