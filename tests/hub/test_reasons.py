"""Blockers that are named are the ones: without all of them the job starts, without fewer it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placing import Open, job, ledger_of, node, placed, spec

from perijove.model import BlockerKind, Job, NodeState, ReasonCode
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry, Placement
from perijove_hub.placement.plan import Rules, plan
from perijove_hub.placement.reasons import EVERYBODY, explain
from perijove_hub.placement.situation import Situation
from perijove_hub.policy.document import Policy
from perijove_hub.policy.standing import Standing

NOW = 1000.0


def situation(
    ledger: Ledger,
    queue: list[Entry],
    policy: Policy | None = None,
    standing: Standing | None = None,
    **rules: Any,
) -> Situation:
    policy = policy or Policy(scheduler="fifo")

    def gate() -> Any:
        return standing.gate(NOW, standing.shares(NOW)) if standing else Open()

    return Situation(
        lambda: iter(queue), ledger.table, Rules(policy, holdings=ledger.holdings, **rules), gate, NOW
    )


def start(ledger: Ledger, one: Job, where: str) -> Job:
    running = placed(one, Placement(one.id, where), NOW - 100)
    ledger.hold(running, now=NOW - 100)
    return running


def blockers(found: Any) -> list[tuple[str, str]]:
    return sorted((str(blocker.kind), blocker.name) for blocker in found.blockers)


def test_a_job_that_starts_has_no_reason() -> None:
    ledger, entry = ledger_of(node("n")), Entry(job(1))
    assert explain(entry, situation(ledger, [entry])) is None


def test_the_smallest_set_of_running_jobs_is_named() -> None:
    ledger = ledger_of(node("n", cpus=4))
    for number, cpu in ((1, 1.0), (2, 3.0)):
        start(ledger, job(number, spec(cpu=cpu)), "n")
    entry = Entry(job(9, spec(cpu=3)))
    found = explain(entry, situation(ledger, [entry]))
    assert found is not None
    assert (found.code, blockers(found)) == (ReasonCode.RESOURCES, [("job", "2")])
    assert "3 CPUs" in found.message


def test_jobs_before_it_are_named() -> None:
    ledger = ledger_of(node("n", cpus=4))
    start(ledger, job(1, spec(cpu=2)), "n")
    first, second = Entry(job(5, spec(cpu=2))), Entry(job(6, spec(cpu=2)))
    found = explain(second, situation(ledger, [first, second]))
    assert found is not None
    assert blockers(found) == [("ahead", "5")]


def test_too_many_before_it_are_one_blocker() -> None:
    ledger = ledger_of(node("n", cpus=4))
    queue = [Entry(job(i, spec(cpu=4))) for i in range(1, 200)]
    found = explain(queue[150], situation(ledger, queue))
    assert found is not None
    assert blockers(found) == [("ahead", EVERYBODY)]


def test_a_node_that_is_down_is_named() -> None:
    ledger = ledger_of(node("n", state=NodeState.DRAIN, reason="memory error"))
    entry = Entry(job(1))
    found = explain(entry, situation(ledger, [entry]))
    assert found is not None
    assert (found.code, blockers(found)) == (ReasonCode.NODE_DOWN, [("node", "n")])


def test_quotas_maintenance_and_reservations_are_named() -> None:
    ledger = ledger_of(node("n", cpus=4))
    policy = Policy.model_validate(
        {
            "scheduler": "fifo",
            "users": {"alice": {"limits": {"running": 1}}},
            "reservations": {
                "course": {
                    "nodes": ["n"],
                    "start": "1970-01-01T00:00:00Z",
                    "end": "2999-01-01T00:00:00Z",
                    "users": ["bob"],
                }
            },
        }
    )
    standing = Standing(policy)
    running = start(ledger, job(1), "n")
    standing.holds(running, NOW - 100)
    entry = Entry(job(2))
    found = explain(entry, situation(ledger, [entry], policy, standing, maintenance="new kernel"))
    assert found is not None
    assert blockers(found) == [
        ("maintenance", "maintenance"),
        ("quota", "user alice: running"),
        ("reservation", "course"),
    ]


def test_what_nothing_can_mend_has_no_blockers() -> None:
    ledger, entry = ledger_of(node("n", cpus=2)), Entry(job(1, spec(cpu=8)))
    found = explain(entry, situation(ledger, [entry]))
    assert found is not None
    assert (found.blockers, bool(found.message)) == ([], True)


def test_gangs_need_several_nodes() -> None:
    ledger = ledger_of(*(node(f"n{i}", cpus=2) for i in range(3)))
    for i in range(3):
        start(ledger, job(i + 1, spec(cpu=1 + i % 2)), f"n{i}")
    entry = Entry(job(9, spec(cpu=2, nodes=2)), 2)
    found = explain(entry, situation(ledger, [entry]))
    assert found is not None
    assert len(found.blockers) == 2
    assert {blocker.kind for blocker in found.blockers} == {BlockerKind.JOB}


# ---- the property, over generated sites

sizes = st.tuples(st.integers(1, 4), st.integers(64, 512), st.integers(0, 2))
limits = st.one_of(st.none(), st.integers(50, 5000))


@st.composite
def sites(draw: st.DrawFn) -> tuple[Ledger, list[Entry]]:
    count = draw(st.integers(1, 3))
    nodes = [
        node(f"n{i}", cpus=draw(st.integers(2, 6)), memory=1024, gpus=draw(st.integers(0, 2)))
        for i in range(count)
    ]
    ledger = ledger_of(*nodes)
    for number in range(1, draw(st.integers(1, 8))):
        cpu, memory, gpus = draw(sizes)
        wanted = spec(cpu=cpu, memory=memory << 20, gpus=gpus, time_limit=draw(limits))
        entry = Entry(job(number, wanted))
        decided = plan(
            [entry], ledger.table.copy(), Rules(Policy(), holdings=ledger.holdings), Open(), NOW - 100
        )
        for placement in decided.placements:
            ledger.hold(placed(entry.job, placement, NOW - 100), now=NOW - 100)
    if count > 1 and draw(st.booleans()):
        ledger.mark("n0", NodeState.DOWN)
    queue = []
    for number in range(20, 20 + draw(st.integers(1, 5))):
        cpu, memory, gpus = draw(sizes)
        wanted = spec(cpu=cpu, memory=memory << 20, gpus=gpus, time_limit=draw(limits))
        queue.append(Entry(job(number, wanted)))
    return ledger, queue


def started(ledger: Ledger, queue: list[Entry], wanted: int, without: list[tuple[str, str]]) -> bool:
    """Take the blockers away for real, in the ledger and the queue, and run the next pass."""
    copy = Ledger()
    for one in ledger.nodes:
        up = ("node", one.name) in without
        copy.announce(one.model_copy(update={"state": NodeState.UP}) if up else one)
        for held in ledger.jobs_on(one.name):
            if ("job", held.label) not in without:
                copy.hold(held, now=NOW - 100)
    left = [entry for entry in queue if ("ahead", entry.job.label) not in without]
    decided = plan(left, copy.table.copy(), Rules(Policy(), holdings=copy.holdings), Open(), NOW)
    return any(placement.job == wanted for placement in decided.placements)


def queues(site: tuple[Ledger, list[Entry]]) -> Iterator[tuple[Entry, list[tuple[str, str]] | None]]:
    ledger, queue = site
    for entry in queue:
        found = explain(entry, situation(ledger, queue, Policy()))
        yield entry, None if found is None else blockers(found)


@settings(max_examples=150, deadline=None)
@given(sites())
def test_exactly_the_blockers_keep_it_waiting(site: tuple[Ledger, list[Entry]]) -> None:
    ledger, queue = site
    for entry, named in queues(site):
        if named is None:
            assert started(ledger, queue, entry.job.id, [])
        elif named:
            assert started(ledger, queue, entry.job.id, named)
            for one in named:
                assert not started(ledger, queue, entry.job.id, [other for other in named if other != one])
        else:
            # Nothing that is there is to blame: it starts on no empty node either.
            alone = [Entry(entry.job)]
            empty = ledger_of(*(n.model_copy(update={"state": NodeState.UP}) for n in ledger.nodes))
            assert not started(empty, alone, entry.job.id, [])


def test_an_array_is_asked_about_by_its_next_member() -> None:
    ledger = ledger_of(node("n", cpus=2))
    start(ledger, job(1, spec(cpu=2)), "n")
    array = replace(Entry(job(3, spec(cpu=1, array="1:100"))), count=100)
    found = explain(array, situation(ledger, [array]))
    assert found is not None
    assert blockers(found) == [("job", "1")]


@pytest.mark.parametrize("count", [1, 7])
def test_fewest_is_minimal_whatever_the_order(count: int) -> None:
    ledger = ledger_of(node("n", cpus=8))
    for number in range(1, 9):
        start(ledger, job(number, spec(cpu=1)), "n")
    entry = Entry(job(50, spec(cpu=count)))
    found = explain(entry, situation(ledger, [entry]))
    assert found is not None
    assert len(found.blockers) == count
