"""Placement over random queues and nodes: what holds whatever waits and whatever runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from placing import MIB, decide, job, ledger_of, node, placed, spec

from perijove.model import Job, JobSpec, Node, ReasonCode
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry, Placement
from perijove_hub.placement.plan import Plan
from perijove_hub.placement.request import Request
from perijove_hub.policy.document import Policy

LIMITS = st.one_of(st.none(), st.sampled_from([10, 60, 300, 3600]))


def wanted(**more: Any) -> st.SearchStrategy[JobSpec]:
    return st.builds(
        lambda cpu, memory, gpus, limit, licence, exclusive, **rest: spec(
            cpu=cpu,
            memory=memory * MIB,
            gpus=gpus,
            time_limit=limit,
            resources={"licence": licence} if licence else {},
            exclusive=exclusive == 0,
            **rest,
        ),
        cpu=st.sampled_from([0.01, 0.3, 0.5, 1, 2, 3.7, 8]),
        memory=st.integers(64, 4096),
        gpus=st.sampled_from([0, 0, 1, 2, "h100:1", "a100:2"]),
        limit=LIMITS,
        licence=st.sampled_from([0, 0, 0, 1, 2]),
        exclusive=st.integers(0, 9),
        **more,
    )


SPECS = wanted(nodes=st.sampled_from([1, 1, 1, 1, 2, 3]))
SINGLE = wanted()


@st.composite
def sites(draw: st.DrawFn) -> list[Node]:
    found = []
    for i in range(draw(st.integers(1, 5))):
        name = f"n{i}"
        fields: dict[str, Any] = {"resources": {}, "slots": {}}
        if draw(st.booleans()):
            fields["resources"] = {"licence": draw(st.integers(0, 3))}
        elif draw(st.booleans()):
            fields["slots"] = {"licence": [{} for _ in range(draw(st.integers(1, 3)))]}
        cpus, memory, gpus = draw(st.integers(1, 8)), draw(st.integers(512, 8192)), draw(st.integers(0, 4))
        found.append(node(name, cpus, memory, gpus, **fields))
    return found


def start(ledger: Ledger, queue: dict[int, Job], decided: Plan, now: float = 0.0) -> list[Job]:
    """Each placement holds its resources, each member of it under a number of its own."""
    started = []
    for number, one in enumerate(decided.placements):
        for i in range(one.count):
            each = {name: len(some) // one.count for name, some in one.slots.items()}
            gpus = len(one.gpus) // one.count
            share = Placement(
                one.job,
                one.node,
                1,
                one.gpus[i * gpus : (i + 1) * gpus],
                {name: some[i * each[name] : (i + 1) * each[name]] for name, some in one.slots.items()},
            )
            member = queue[one.job]
            plain = member.spec.array is None and member.spec.nodes == 1
            number_of = one.job if plain else one.job * 100_000 + number * 1000 + i
            held = placed(member.model_copy(update={"id": number_of}), share, now)
            ledger.hold(held, now=now)
            started.append(held)
    return started


@settings(max_examples=200, deadline=None)
@given(st.lists(SPECS, max_size=25), sites(), st.booleans())
def test_no_plan_takes_more_than_there_is(specs: list[JobSpec], nodes: list[Node], spread: bool) -> None:
    ledger = ledger_of(*nodes)
    queue = {i: job(i, one) for i, one in enumerate(specs, 1)}
    decided = decide(ledger, [Entry(one, one.spec.nodes) for one in queue.values()], spread=spread)
    started = start(ledger, queue, decided)
    ledger.check()
    for one in started:
        assert len(one.gpus) == one.spec.gpus.count
        model = one.spec.gpus.model
        assert all(model is None or model in gpu.model.casefold() for gpu in one.gpus)
        for name, numbers in one.slots.items():
            assert len(numbers) == one.spec.resources[name]
    counts = Counter(one.job for one in decided.placements)
    for number, count in counts.items():
        assert count == queue[number].spec.nodes, "all of a gang or nothing"
        assert len({one.node for one in decided.placements if one.job == number}) == count
    assert not counts.keys() & decided.reasons.keys()
    assert counts.keys() | decided.reasons.keys() == queue.keys(), "each that was looked at is accounted for"


@settings(max_examples=150, deadline=None)
@given(st.lists(SINGLE, min_size=1, max_size=25), sites(), st.booleans())
def test_nothing_that_suits_is_left_idle(specs: list[JobSpec], nodes: list[Node], spread: bool) -> None:
    """Of those that wait, each fits nowhere, but for what is kept for others before it."""
    ledger = ledger_of(*nodes)
    queue = {i: job(i, one) for i, one in enumerate(specs, 1)}
    decided = decide(ledger, list(queue.values()), spread=spread)
    start(ledger, queue, decided)
    left = ledger.table
    for number, reason in decided.reasons.items():
        fits = left.fits(Request.of(queue[number].spec)) & left.up
        if reason.code is ReasonCode.RESOURCES:
            assert not fits.any(), f"{queue[number].spec} would fit on {left.names}, but {reason.message}"
        else:
            assert reason.code is ReasonCode.PRIORITY


@settings(max_examples=150, deadline=None)
@given(st.lists(SINGLE, min_size=1, max_size=10), sites())
def test_the_first_that_fits_an_empty_site_starts(specs: list[JobSpec], nodes: list[Node]) -> None:
    ledger = ledger_of(*nodes)
    possible = bool(ledger.table.able(Request.of(specs[0])).any())
    decided = decide(ledger, [job(i, one) for i, one in enumerate(specs, 1)])
    assert (1 in {one.job for one in decided.placements}) == possible


@settings(max_examples=150, deadline=None)
@given(
    st.lists(SINGLE, max_size=4),
    SINGLE,
    st.integers(1, 120),
    st.lists(SINGLE, max_size=4),
    sites(),
    st.booleans(),
)
def test_an_array_fares_as_single_jobs_do(
    before: list[JobSpec],
    member: JobSpec,
    count: int,
    behind: list[JobSpec],
    nodes: list[Node],
    spread: bool,
) -> None:
    """The same members on the same nodes, and the same left for those behind."""
    ahead = [Entry(job(i, one)) for i, one in enumerate(before, 1)]
    after = [Entry(job(i, one)) for i, one in enumerate(behind, 500)]
    array = member.model_copy(update={"array": f"1:{count}"})
    whole = decide(ledger_of(*nodes), [*ahead, Entry(job(100, array), count), *after], spread=spread)
    alone = [Entry(job(100 + i, member)) for i in range(count)]
    parts = decide(ledger_of(*nodes), [*ahead, *alone, *after], spread=spread)

    def found(decided: Plan) -> Counter[tuple[int, str]]:
        counts: Counter[tuple[int, str]] = Counter()
        for one in decided.placements:
            counts[100 if 100 <= one.job < 500 else one.job, one.node] += one.count
        return counts

    assert found(whole) == found(parts)


@dataclass
class World:
    """A site whose jobs run exactly until their time limits."""

    ledger: Ledger
    policy: Policy
    running: list[Job]
    now: float = 0.0

    def end_due(self) -> None:
        for one in [one for one in self.running if one.started + one.spec.time_limit <= self.now]:  # type: ignore[operator]
            self.running.remove(one)
            self.ledger.release(one.node or "", one.id)

    def step(self, queue: list[Job]) -> Plan:
        """One pass; what starts leaves the queue."""
        decided = decide(self.ledger, queue, self.now, policy=self.policy)
        by_number = {one.id: one for one in queue}
        for one in start(self.ledger, by_number, decided, self.now):
            queue.remove(by_number[one.id])
            self.running.append(one)
        self.ledger.check()
        return decided

    def room_for(self, wanted: JobSpec) -> float:
        """When `wanted` fits at the latest, if nothing else starts."""
        scratch = ledger_of(*self.ledger.nodes)
        ends = sorted({one.started + one.spec.time_limit for one in self.running})  # type: ignore[operator]
        for end in [self.now, *ends]:
            scratch = ledger_of(*self.ledger.nodes)
            for one in self.running:
                if one.started + one.spec.time_limit > end:  # type: ignore[operator]
                    scratch.hold(one)
            if scratch.table.fits(Request.of(wanted)).any():
                return end
        raise AssertionError("it fits nowhere")


LIMITED = wanted().map(lambda one: one.model_copy(update={"time_limit": one.time_limit or 100.0}))


@settings(max_examples=60, deadline=None)
@given(st.data(), sites(), LIMITED)
def test_a_big_job_starts_no_later_than_it_could_without_the_small_ones(
    data: st.DataObject, nodes: list[Node], big: JobSpec
) -> None:
    """However many small jobs keep coming behind it, the head starts when those that ran before it let it."""
    world = World(ledger_of(*nodes), Policy(), [])
    if not world.ledger.table.able(Request.of(big)).any():
        return
    world.step([job(i, one) for i, one in enumerate(data.draw(st.lists(LIMITED, max_size=15)), 1)])
    head = job(1000, big)
    latest = world.room_for(big)
    number = 1000
    while True:
        small = []
        for one in data.draw(st.lists(LIMITED, max_size=5)):
            number += 1
            small.append(job(number, one))
        queue = [head, *small]
        world.step(queue)
        if head not in queue:
            break
        assert world.running, "nothing runs, and still the head does not start"
        world.now = min(one.started + one.spec.time_limit for one in world.running)  # type: ignore[operator]
        assert world.now <= latest, f"should have started at {latest}"
        world.end_due()


@settings(max_examples=60, deadline=None)
@given(st.data(), sites(), SINGLE)
def test_a_big_job_starts_even_when_nobody_knows_when_anything_ends(
    data: st.DataObject, nodes: list[Node], big: JobSpec
) -> None:
    """Without time limits, what becomes free goes to the head first."""
    ledger = ledger_of(*nodes)
    if not ledger.table.able(Request.of(big)).any():
        return
    endless = SINGLE.map(lambda one: one.model_copy(update={"time_limit": None}))
    number, head = 1000, job(1000, big)
    first = {i: job(i, one) for i, one in enumerate(data.draw(st.lists(endless, max_size=10)), 1)}
    running = start(ledger, first, decide(ledger, list(first.values())))
    for _ in range(200):
        small = [job(number + i, one) for i, one in enumerate(data.draw(st.lists(endless, max_size=3)), 1)]
        number += len(small)
        queue = {one.id: one for one in [head, *small]}
        decided = decide(ledger, list(queue.values()))
        running += start(ledger, queue, decided)
        if head.id in {one.job for one in decided.placements}:
            return
        ended = running.pop(0)  # the oldest ends
        ledger.release(ended.node or "", ended.id)
    raise AssertionError("starved")
