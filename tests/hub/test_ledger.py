"""The ledger: what holds after any sequence of announcements, jobs, ends and returns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from placing import MIB, decide, job, ledger_of, node, placed, spec

from perijove.model import Job, Node, NodeState
from perijove_hub.ledger import Keep, Ledger
from perijove_hub.placement.entry import Placement

SIZES = st.tuples(st.integers(1, 8), st.integers(512, 8192), st.integers(0, 3), st.integers(0, 3))
NAMES = st.sampled_from(["n0", "n1", "n2"])


def made(name: str, size: tuple[int, int, int, int]) -> Node:
    cpus, memory, gpus, units = size
    slots: dict[str, list[Any]] = {"port": [{} for _ in range(units)]} if units else {}
    return node(name, cpus, memory, gpus, slots=slots, resources={"licence": units})


class AnyLife(RuleBasedStateMachine):
    """Jobs come by way of placement, suspend, go on and end; nodes come, shrink, grow and go."""

    @initialize(size=SIZES)
    def begin(self, size: tuple[int, int, int, int]) -> None:
        self.ledger = ledger_of(made("n0", size))
        self.jobs: dict[int, Job] = {}
        self.kept: dict[int, Keep] = {}
        self.last = 0

    @rule(name=NAMES, size=SIZES, state=st.sampled_from([NodeState.UP, NodeState.UP, NodeState.DRAIN]))
    def announce(self, name: str, size: tuple[int, int, int, int], state: NodeState) -> None:
        self.ledger.announce(made(name, size).model_copy(update={"state": state}))

    @rule(name=NAMES, state=st.sampled_from(list(NodeState)))
    def mark(self, name: str, state: NodeState) -> None:
        if self.ledger.node(name) is not None:
            self.ledger.mark(name, state)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        if self.ledger.node(name) is not None and not self.ledger.jobs_on(name):
            self.ledger.forget(name)
            assert self.ledger.node(name) is None

    @rule(
        cpu=st.sampled_from([0.1, 1 / 3, 1, 2]),
        memory=st.integers(4, 2000),
        gpus=st.integers(0, 2),
        units=st.integers(0, 2),
        exclusive=st.booleans(),
        preemptible=st.booleans(),
        partition=st.sampled_from([None, "p"]),
    )
    def start(self, cpu: float, memory: int, gpus: int, units: int, exclusive: bool, **more: Any) -> None:
        self.last += 1
        resources = {"licence": units, "port": units} if units else {}
        asked = spec(
            cpu=cpu,
            memory=memory * MIB,
            gpus=gpus,
            resources=resources,
            exclusive=exclusive,
            preemptible=more["preemptible"],
        )
        one = job(self.last, asked)
        for placement in decide(self.ledger, [one]).placements:
            held = placed(one, placement, partition=more["partition"])
            self.ledger.hold(held)
            self.ledger.hold(held)  # twice is once
            self.jobs[one.id] = held

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), keep=st.sampled_from(["all", "memory", "nothing"]))
    def suspend(self, data: st.DataObject, keep: Keep) -> None:
        one = data.draw(st.sampled_from(sorted(self.jobs)))
        if one not in self.kept:
            self.kept[one] = keep
            self.jobs[one] = self.jobs[one].model_copy(update={"suspended_at": 1.0, "kept": keep})
            self.ledger.change(self.jobs[one], keep)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(self.kept)))
        if self.ledger.fits_back(self.jobs[one]):
            del self.kept[one]
            self.jobs[one] = self.jobs[one].model_copy(update={"suspended_at": None, "kept": "all"})
            self.ledger.change(self.jobs[one])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        one = self.jobs.pop(data.draw(st.sampled_from(sorted(self.jobs))))
        self.kept.pop(one.id, None)
        self.ledger.release(one.node or "", one.id)
        self.ledger.release(one.node or "", one.id)  # twice is once

    @precondition(lambda self: len(self.ledger.nodes) > 0)
    @rule()
    def restart(self) -> None:
        """The service starts anew: jobs come from the database before their nodes speak again."""
        nodes, self.ledger = self.ledger.nodes, Ledger()
        for one in self.jobs.values():
            self.ledger.hold(one)
        for one_node in nodes:
            self.ledger.announce(one_node)

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.check()
            held = {one.id for name in ("n0", "n1", "n2") for one in self.ledger.jobs_on(name)}
            assert held == set(self.jobs)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for one in self.jobs.values():
            self.ledger.release(one.node or "", one.id)
        self.ledger.check()
        for one_node in self.ledger.nodes:
            free = self.ledger.free(one_node.name)
            assert (free.cpu, free.memory, free.gpus) == (one_node.cpus, one_node.memory, one_node.gpus)


AnyLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyLife = AnyLife.TestCase


def held(number: int, name: str = "n0", **fields: Any) -> Job:
    return placed(job(number, spec(**fields)), Placement(number, name))


def test_a_job_is_homeless_until_its_node_has_spoken() -> None:
    ledger = Ledger()
    ledger.hold(held(1, cpu=3))
    assert ledger.jobs_on("n0") == []
    assert ledger.holding(1) is None
    ledger.announce(node("n0", 4))
    assert [one.id for one in ledger.jobs_on("n0")] == [1]
    assert ledger.free("n0").cpu == 1
    ledger.check()


def test_a_homeless_job_that_ended_holds_nothing() -> None:
    ledger = Ledger()
    ledger.hold(held(1, cpu=3))
    ledger.release("n0", 1)
    ledger.announce(node("n0", 4))
    assert ledger.free("n0").cpu == 4


def test_a_node_that_comes_back_smaller_gets_nothing_until_there_is_room() -> None:
    ledger = ledger_of(node("n0", 4, gpus=2))
    ledger.hold(held(1, cpu=2))
    ledger.hold(held(2, cpu=2))
    ledger.announce(node("n0", 3, gpus=1))
    ledger.check()
    assert not decide(ledger, [job(3, spec(cpu=0.5))]).placements
    ledger.release("n0", 1)
    ledger.check()
    assert len(decide(ledger, [job(3, spec(cpu=0.5))]).placements) == 1
    ledger.hold(held(4, cpu=2))
    with pytest.raises(AssertionError, match="over its cores"):
        ledger.check()


def test_a_device_held_twice_is_found() -> None:
    ledger = ledger_of(node("n0", 4, gpus=1))
    gpus = ledger.nodes[0].gpus
    for number in (1, 2):
        ledger.hold(held(number, gpus=1).model_copy(update={"gpus": gpus}))
    with pytest.raises(AssertionError, match="held twice"):
        ledger.check()


def test_a_unit_held_twice_is_found() -> None:
    ledger = ledger_of(node("n0", 4, slots={"port": [{}, {}]}))
    for number in (1, 2):
        ledger.hold(held(number, resources={"port": 1}).model_copy(update={"slots": {"port": [1]}}))
    with pytest.raises(AssertionError, match="held twice"):
        ledger.check()


def test_an_exclusive_job_holds_the_whole_node() -> None:
    ledger = ledger_of(node("n0", 4))
    ledger.hold(held(1, cpu=1, exclusive=True))
    assert ledger.free("n0").cpu == 0
    assert ledger.holding(1).cpu == 4  # type: ignore[union-attr]
    ledger.check()
    ledger.hold(held(2, cpu=1))
    with pytest.raises(AssertionError):
        ledger.check()


def test_the_end_that_a_holding_tells_leaves_suspended_time_out() -> None:
    ledger = ledger_of(node("n0"))
    one = held(1, time_limit=100).model_copy(update={"started": 10.0, "allocated": 5.0})
    ledger.hold(one)
    assert ledger.holdings("n0")[0].until == 110
    ledger.change(one.model_copy(update={"suspended_at": 50.0}))
    assert ledger.holdings("n0")[0].until is None
    ledger.change(one.model_copy(update={"suspended_seconds": 30.0}))
    assert ledger.holdings("n0")[0].until == 140
    assert ledger.holdings("n0")[0].since == 5


def test_what_a_suspended_job_gave_away_is_not_promised_back() -> None:
    ledger = ledger_of(node("n0", 4))
    one = held(1, cpu=3)
    ledger.hold(one)
    ledger.change(one, "memory")
    assert ledger.free("n0").cpu == 4
    assert ledger.fits_back(one)
    ledger.hold(held(2, cpu=2))
    assert not ledger.fits_back(one)
    ledger.release("n0", 2)
    ledger.change(one)
    assert ledger.free("n0").cpu == 1
    ledger.check()


def test_thirds_of_a_core_add_up() -> None:
    ledger = ledger_of(node("n0", 1))
    for number in (1, 2, 3):
        decided = decide(ledger, [job(number, spec(cpu=1 / 3))])
        ledger.hold(placed(job(number, spec(cpu=1 / 3)), decided.placements[0]))
    ledger.check()
    for number in (2, 1, 3):
        ledger.release("n0", number)
    assert ledger.free("n0").cpu == 1
