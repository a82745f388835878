"""Whatever users, nodes and the clock do, in whatever order, with restarts between: what must always hold."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from boards import MIB, Record, job, node
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from perijove.model import TRANSITIONS, ConflictError, Job, NodeState, Outcome, ReasonCode, State
from perijove_hub.accounting import total
from perijove_hub.jobs import arrays, events
from perijove_hub.jobs.effects import SendForget, SendOrder, SendResume, SendStop, SendSuspend
from perijove_hub.policy.document import Policy

NODES = [
    node("a", 4, 1024, gpus=2),
    node("b", 4, 1024),
    node("c", 2, 512, resources={"scratch": 2}, slots={"scratch": [{}, {}]}),
]
FAILURES = [
    Outcome(exit_code=1, reason=ReasonCode.NON_ZERO_EXIT),
    Outcome(exit_code=75, reason=ReasonCode.NON_ZERO_EXIT),
    Outcome(reason=ReasonCode.NODE_LOST),
    Outcome(exit_code=137, reason=ReasonCode.OUT_OF_MEMORY),
    Outcome(exit_code=143, reason=ReasonCode.TIME_LIMIT),
    Outcome(reason=ReasonCode.LAUNCH_FAILED, transient=True),
]
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from([0.5, 1, 2, 4]),
        "memory": st.sampled_from([16 * MIB, 256 * MIB, 600 * MIB]),
        "gpus": st.sampled_from([0, 1]),
        "priority": st.sampled_from([10, 50, 90]),
        "retries": st.sampled_from([0, 2]),
        "retry_on": st.sampled_from([[], ["node"], ["exit:75"]]),
        "oom_retry": st.sampled_from([None, "2x"]),
        "preemptible": st.booleans(),
        "hold": st.sampled_from([False, False, True]),
        "exclusive": st.sampled_from([False, False, False, True]),
        "time_limit": st.sampled_from([None, 30.0]),
        "project": st.sampled_from([None, "p"]),
        "resources": st.sampled_from([{}, {}, {"scratch": 1}]),
    },
)
FORMS: dict[str, dict[str, Any]] = {
    "job": {},
    "array": {"array": "1:9:2"},
    "limited": {"array": "0:3%2"},
    "gang": {"nodes": 2, "exclusive": False, "resources": {}},
}
WISHES = st.sampled_from(
    [
        events.Kill("u"),
        events.Kill("u", dependants=True),
        events.Hold("u"),
        events.Release("u"),
        events.Suspend("u"),
        events.Resume("u"),
        events.Reschedule("u"),
        events.Change({"priority": 70}, "u"),
        events.Change({"time_limit": 60.0}, "u"),
        events.Change({"cpu": 1.0}, "u"),
    ]
)


class Life(RuleBasedStateMachine):
    """A board, the record behind it, and nodes that do as they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.held = 0.0
        """Core-seconds held so far, added up from the ledger."""
        self.frozen: set[tuple[int, int]] = set()
        self.states: dict[int, State] = {}
        self.published: list[Any] = []
        self.told = 0

    @initialize(
        mode=st.sampled_from(["off", "requeue", "suspend", "kill"]),
        keep=st.sampled_from(["all", "memory", "nothing"]),
        scheduler=st.sampled_from(["fifo", "fairshare", "multifactor"]),
    )
    def begin(self, mode: str, keep: str, scheduler: str) -> None:
        preemption = {"mode": mode, "notice": 5}
        given = {"preemption": preemption, "suspended_keep": keep, "scheduler": scheduler}
        self.policy = Policy.model_validate(given)
        self.record = Record()
        self.board = self.record.board(NODES, self.policy, self.now)

    # ---- what happens

    @rule(
        fields=SPECS,
        form=st.sampled_from(["job", "job", "array", "limited", "gang"]),
        owner=st.sampled_from(["alice", "bob"]),
        data=st.data(),
    )
    def submit(self, fields: dict[str, Any], form: str, owner: str, data: st.DataObject) -> None:
        more: dict[str, Any] = dict(FORMS[form])
        known = self._known()
        depends: bool = data.draw(st.booleans())
        if known and depends:
            on: int = data.draw(st.sampled_from(sorted(known)))
            kind = data.draw(st.sampled_from(["after", "afterok", "afterany", "afternotok"]))
            label = str(on)
            of_member: bool = data.draw(st.booleans())
            if arrays.is_group(known[on]) and of_member:
                label += f"_{data.draw(st.sampled_from(arrays.tasks(known[on].spec)))}"
            more["depends_on"] = [f"{kind}:{label}"]
        made = job(0, owner, **{**fields, **more}).model_copy(update={"submitted": self.now})
        [number] = self.board.new_ids([arrays.size(made.spec)])
        assert number not in self.record.jobs
        self.board.add([made.model_copy(update={"id": number})], self.now, self.record.jobs)

    @rule()
    def place(self) -> None:
        self.board.place(self.now)

    @rule(wish=WISHES, data=st.data())
    def wish(self, wish: events.Event, data: st.DataObject) -> None:
        some = [
            n
            for group, m in self.board.groups.items()
            for n in (group, *range(group + 1, group + 1 + m.size))
        ]
        some += [number for number, one in self.board.jobs.items() if one.array_id is None]
        if not some:
            return
        number = data.draw(st.sampled_from(sorted(set(some))))
        before = self.board.find(number)
        try:
            self.board.apply(number, wish, self.now)
        except ConflictError:
            assert self.board.find(number) == before
            return
        after = self.board.find(number)
        if isinstance(wish, events.Kill) and after is not None and not after.state.ended:
            assert after.kill_requested

    @rule(data=st.data(), outcome=st.sampled_from([Outcome(exit_code=0), Outcome(exit_code=0), *FAILURES]))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        if (one := self._some(data, lambda j: j.state.on_node)) is None:
            return
        if one.kill_requested or one.requeue_requested:
            outcome = Outcome(exit_code=143, reason=ReasonCode.KILLED_BY_USER)
        self.board.apply(one.id, events.Ended(outcome), self.now)

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        if (one := self._some(data, lambda j: j.state is State.STARTING)) is not None:
            self.board.apply(one.id, events.Started(self.now), self.now)

    @rule(data=st.data(), able=st.booleans())
    def do_as_told(self, data: st.DataObject, able: bool) -> None:
        """A node suspends, resumes or stops what it was told to."""
        self.record.take(self.board)
        told = [e for e in self.record.effects if isinstance(e, SendSuspend | SendResume | SendStop)]
        if not told:
            return
        effect = data.draw(st.sampled_from(told))
        self.record.effects.remove(effect)
        one = self.board.jobs.get(effect.attempt.job)
        if one is None or one.attempt != effect.attempt.number or not one.state.on_node:
            return
        if isinstance(effect, SendStop):
            outcome = Outcome(exit_code=143, reason=ReasonCode.KILLED_BY_USER)
            self.board.apply(one.id, events.Ended(outcome), self.now)
        elif not able:
            verb = "suspend" if isinstance(effect, SendSuspend) else "resume"
            self.board.apply(one.id, events.Refused(verb, "no"), self.now)
        elif isinstance(effect, SendSuspend):
            self.board.apply(one.id, events.Suspended(), self.now)
        elif one.kept == "all":
            self.board.apply(one.id, events.Resumed(), self.now)

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.held += seconds * sum(h.cpu for n in NODES for h in self.board.ledger.holdings(n.name))
        self.now += seconds
        self.board.end_delays(self.now)

    @rule(name=st.sampled_from(["a", "b", "c"]), state=st.sampled_from(list(NodeState)))
    def mark(self, name: str, state: NodeState) -> None:
        self.board.ledger.mark(name, state)
        self.board.placeable = True

    @rule()
    def commit(self) -> None:
        self.record.take(self.board)

    @rule()
    def restart(self) -> None:
        self.record.take(self.board)
        before, queued = self.board, set(self.board.queue._places)
        delayed = set(before.delayed)
        self.board = self.record.board(NODES, self.policy, self.now)
        assert self.board.jobs.keys() == before.jobs.keys()
        for number, one in before.jobs.items():
            assert self.board.find(number) == one
        for number, members in before.groups.items():
            assert +self.board.groups[number].counts == +members.counts
        mine = set(self.board.queue._places)
        assert queued <= mine
        assert mine - queued <= delayed, "a delay may be forgotten, nothing else"
        assert set(before.waits._unmet) == set(self.board.waits._unmet)

    # ---- what must hold

    @invariant()
    def the_ledger_is_sound(self) -> None:
        self.board.ledger.check()
        on_node = {n for n, one in self.board.jobs.items() if one.state.on_node and not arrays.is_group(one)}
        assert on_node == {h.job for n in NODES for h in self.board.ledger.holdings(n.name)}

    @invariant()
    def standing_is_what_is_there(self) -> None:
        board, site = self.board, self.board.standing.account("site", "", None)
        waiting = sum(1 for one in board.jobs.values() if not arrays.is_group(one) and not one.state.on_node)
        for number, members in board.groups.items():
            if not arrays.state_of_rest(board.jobs[number]).ended:
                waiting += members.rest
        assert site.pending == waiting
        held = [h for n in NODES for h in board.ledger.holdings(n.name)]
        assert site.cpu == pytest.approx(sum(h.cpu for h in held))
        assert site.memory == sum(h.memory for h in held)
        assert site.running == len(held)

    @invariant()
    def groups_count_their_members(self) -> None:
        for number, members in self.board.groups.items():
            group = self.board.find(number)
            assert group is not None
            every = [self._member(number + 1 + i) for i in range(members.size)]
            counts = Counter(one.state for one in every)
            assert +members.counts == counts
            assert group.tasks == dict(counts)
            assert group.state is arrays.state_of(counts) or members.live
            array = group.spec.array
            if array is not None and array.limit is not None:
                assert sum(counts[s] for s in State if s.on_node) <= array.limit
            if arrays.is_gang(group):
                placed = [one for one in every if one.state.on_node]
                assert len({one.node for one in placed}) == len(placed), "two members on one node"

    @invariant()
    def every_step_was_legal(self) -> None:
        published = self.board.pending.published
        if published is not self.published:
            self.published, self.told = published, 0
        new_ones, self.told = published[self.told :], len(published)
        for event, one in new_ones:
            if arrays.is_group(one):
                continue
            old = self.states.get(
                one.id, State.HELD if one.spec.hold and one.array_id is None else State.PENDING
            )
            new = event.state
            if event.event != "displaced" and new is not old:
                again = new is State.PENDING and old.on_node
                assert again or new in TRANSITIONS[old], (event, old)
            self.states[one.id] = new

    @invariant()
    def the_queue_holds_what_could_start(self) -> None:
        board = self.board
        for number in board.queue._places:
            one = board.jobs[number]
            members = board.groups.get(number)
            assert number not in board.waits
            assert one.state is State.PENDING or (members is not None and members.rest)
            assert not one.kill_requested
        for number, one in board.jobs.items():
            if one.state is State.PENDING and one.array_id is None and not arrays.is_group(one):
                waits = number in board.waits or number in board.delayed
                assert (number in board.queue) is not waits

    @invariant()
    def charges_are_what_was_held(self) -> None:
        known = dict(self.record.allocations)
        for one in self.board.pending.batch.allocations:
            known[one.job, one.attempt, one.begin] = one
        assert total(known.values(), now=self.now).cpu_seconds == pytest.approx(self.held)
        still = {(one.job, one.attempt) for one in known.values() if one.end is None}
        assert still == {(one.job, one.attempt) for one in self.board.allocations}

    @invariant()
    def nothing_is_forgotten_that_runs(self) -> None:
        for effect in self.board.pending.effects:
            if isinstance(effect, SendForget):
                one = self.board.jobs.get(effect.attempt.job)
                assert one is None or one.attempt != effect.attempt.number or not one.state.on_node
        ordered = Counter(e.job for e in self.board.pending.effects if isinstance(e, SendOrder))
        assert all(self._member(number).attempt >= count for number, count in ordered.items())

    # ---- inside

    def _known(self) -> dict[int, Job]:
        return {n: one for n, one in {**self.record.jobs, **self.board.jobs}.items() if one.array_id is None}

    def _some(self, data: st.DataObject, fits: Any) -> Job | None:
        some = [n for n, one in self.board.jobs.items() if not arrays.is_group(one) and fits(one)]
        return self.board.jobs[data.draw(st.sampled_from(sorted(some)))] if some else None

    def _member(self, number: int) -> Job:
        found = self.board.find(number) or self.record.jobs.get(number)
        assert found is not None
        return found


Life.TestCase.settings = settings(
    max_examples=int(os.environ.get("LIFE_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
TestLife = Life.TestCase
