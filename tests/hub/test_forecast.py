"""Forecasts come true when jobs run as expected, and whoever follows a hint starts in the next pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placing import Open, job, ledger_of, node, placed, spec

from perijove.model import Job, JobSpec
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry, Placement
from perijove_hub.placement.forecast import forecast
from perijove_hub.placement.hints import hints
from perijove_hub.placement.plan import Rules, plan
from perijove_hub.placement.runtimes import Range, Runtimes
from perijove_hub.placement.situation import Situation
from perijove_hub.policy.document import Policy

NOW = 10_000.0


def situation(ledger: Ledger, queue: list[Entry]) -> Situation:
    rules = Rules(Policy(scheduler="fifo"), holdings=ledger.holdings)
    return Situation(lambda: iter(queue), ledger.table, rules, Open, NOW)


def start(ledger: Ledger, number: int, since: float, **fields: Any) -> Job:
    running = placed(job(number, spec(**fields)), Placement(number, "n"), since)
    ledger.hold(running, now=since)
    return running


def exactly(one: Job) -> Range:
    """Each job runs for its time limit."""
    limit = one.spec.time_limit or 100.0
    return Range(limit / 2, limit, limit)


def test_the_first_in_line_starts_when_enough_has_ended() -> None:
    ledger = ledger_of(node("n", cpus=2))
    running = {
        1: start(ledger, 1, NOW - 40, cpu=1, time_limit=100),
        2: start(ledger, 2, NOW, cpu=1, time_limit=500),
    }
    entry = Entry(job(5, spec(cpu=2, time_limit=10)))
    found = forecast(entry, situation(ledger, [entry]), exactly, running.get)
    assert found.likely == found.latest == NOW + 500
    assert found.earliest == NOW + 250


def test_those_before_it_run_first() -> None:
    ledger = ledger_of(node("n", cpus=1))
    queue = [Entry(job(i, spec(cpu=1, time_limit=100))) for i in range(1, 6)]
    found = forecast(queue[4], situation(ledger, queue), exactly, lambda _: None)
    assert (found.earliest, found.likely) == (NOW + 200, NOW + 400)


def test_far_behind_it_is_estimated_from_the_work_before_it() -> None:
    ledger = ledger_of(node("n", cpus=10))
    queue = [Entry(job(i, spec(cpu=1, time_limit=100))) for i in range(1, 2002)]
    found = forecast(queue[2000], situation(ledger, queue), exactly, lambda _: None, waiting=2001)
    assert found.likely == pytest.approx(NOW + 2001 * 100 / 10, rel=0.05)


def test_what_nobody_knows_is_not_invented() -> None:
    ledger = ledger_of(node("n", cpus=1))
    running = {1: start(ledger, 1, NOW, cpu=1)}
    entry = Entry(job(2))
    found = forecast(entry, situation(ledger, [entry]), Runtimes().expected, running.get)
    assert (found.likely, found.latest) == (None, None)


def test_runtimes_learn_from_jobs_of_the_same_name() -> None:
    runtimes = Runtimes()
    for took in (10.0, 20.0, 30.0, 40.0):
        runtimes.note(job(1, spec(time_limit=1000), name="fit", started=0.0, ended=took))
    assert runtimes.expected(job(2, spec(time_limit=1000), name="fit")) == Range(10, 20, 40)
    assert runtimes.expected(job(2, spec(time_limit=15), name="fit")).long == 15
    other = runtimes.expected(job(3, spec(time_limit=100), name="other"))
    assert other == Range(1, 2, 100)


def test_the_mildest_hint_comes_first() -> None:
    ledger = ledger_of(node("n", cpus=8, memory=8192))
    start(ledger, 1, NOW, cpu=2, memory="3G")
    entry = Entry(job(2, spec(cpu=1, memory="7G")))
    [hint] = hints(entry, situation(ledger, [entry]))
    assert hint.changes == {"memory": 5 << 30}
    assert "--memory 5G" in hint.message


def test_a_shorter_job_may_go_before_one_that_waits_for_its_node() -> None:
    ledger = ledger_of(node("n", cpus=4))
    start(ledger, 1, NOW, cpu=3, time_limit=7200)
    big, small = Entry(job(2, spec(cpu=4, time_limit=100))), Entry(job(3, spec(cpu=1)))
    found = hints(small, situation(ledger, [big, small]))
    assert found[0].changes == {"time_limit": 3600.0}


def test_who_would_start_anyway_gets_no_hint() -> None:
    ledger, entry = ledger_of(node("n")), Entry(job(1))
    assert hints(entry, situation(ledger, [entry])) == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(64, 4096), st.integers(0, 2)), min_size=2, max_size=8),
    st.lists(st.one_of(st.none(), st.integers(100, 100_000)), min_size=8, max_size=8),
)
def test_following_a_hint_starts_the_job(sizes: list[tuple[int, int, int]], limits: list[int | None]) -> None:
    ledger = ledger_of(node("n0", cpus=6, gpus=2, memory=4096), node("n1", cpus=4, memory=4096))
    queue = []
    for number, ((cpu, memory, gpus), limit) in enumerate(zip(sizes, limits, strict=False), start=1):
        entry = Entry(job(number, spec(cpu=cpu, memory=memory << 20, gpus=gpus, time_limit=limit)))
        decided = plan([entry], ledger.table.copy(), Rules(Policy(), holdings=ledger.holdings), Open(), NOW)
        if decided.placements and number < len(sizes) - 2:
            ledger.hold(placed(entry.job, decided.placements[0], NOW), now=NOW)
        else:
            queue.append(entry)
    for place, entry in enumerate(queue):
        for hint in hints(entry, situation(ledger, queue)):
            fields = {**entry.job.spec.model_dump(mode="json", exclude_unset=True), **hint.changes}
            smaller = entry.job.model_copy(update={"spec": JobSpec.model_validate(fields)})
            line = [*queue[:place], Entry(smaller), *queue[place + 1 :]]
            decided = plan(line, ledger.table.copy(), Rules(Policy(), holdings=ledger.holdings), Open(), NOW)
            assert any(placement.job == smaller.id for placement in decided.placements), hint
