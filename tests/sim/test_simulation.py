"""The service's board under random lives: what must hold at every event, and at the end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import isclose

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.model import JobSpec, ReasonCode, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.events import Event, Hold, Kill, Release, Reschedule, Resume, Suspend
from perijove_hub.jobs.pending import Pending
from perijove_hub.policy.document import Policy, load
from perijove_hub.simulation.engine import Simulation
from perijove_hub.simulation.fleet import Failures, nodes_of
from perijove_hub.simulation.measure import Measure, Report
from perijove_hub.simulation.site import Site
from perijove_hub.simulation.synthetic import Demand, synthetic
from perijove_hub.simulation.trace import Arrival, Run

pytestmark = pytest.mark.slow

HOUR, DAY, GIB = 3600.0, 86400.0, 1 << 30
POLICIES = [
    Policy(),
    load("scheduler: fifo\nspread: false"),
    load("scheduler: multifactor\npreemption: {mode: suspend, notice: 5s}\nsuspended_keep: memory"),
    load("preemption: {mode: requeue, notice: 5s}\ndefault_user: {limits: {cpus: 6, running: 5}}"),
    load("scheduler: fairshare-godocker\nsuspended_keep: nothing\nbackfill: {reservations: 1}"),
]


class Auditor:
    """Looks at the books at each moment, and keeps its own."""

    def __init__(self) -> None:
        self.simulation: Simulation | None = None
        self.integral = [0.0, 0.0, 0.0]
        self.charged = [0.0, 0.0, 0.0]
        self.ended: Counter[int] = Counter()
        self._held = [0.0, 0.0, 0.0]
        self._at = 0.0

    def __call__(self, now: float, pending: Pending) -> None:
        for i, rate in enumerate(self._held):
            self.integral[i] += rate * (now - self._at)
        self._at = now
        assert self.simulation is not None
        board = self.simulation.board
        ledger = board.ledger
        ledger.check()
        holdings = [one for node in ledger.nodes for one in ledger.holdings(node.name)]
        devices = [gpu for one in holdings for gpu in one.gpus]
        assert len(devices) == len(set(devices)), "a device held twice"
        self._held = [
            sum(one.cpu for one in holdings),
            float(sum(one.memory for one in holdings)),
            float(len(devices)),
        ]
        for one in pending.batch.allocations:
            if one.end is not None:
                for i, amount in enumerate((one.cpu, one.memory, one.gpus)):
                    self.charged[i] += amount * (one.end - one.begin)
        for group, members in board.groups.items():
            states = Counter(board.jobs[member].state for member in members.live)
            for state in (State.STARTING, State.RUNNING, State.SUSPENDED):
                assert members.counts[state] == states[state], group
            assert sum(members.counts.values()) == members.size
        for line, job in pending.published:
            if line.event in {"ended", "rejected"} and not arrays.is_group(job):
                self.ended[job.id] += 1


def simulated(site: Site, trace: list[Arrival]) -> tuple[Simulation, Auditor, Report]:
    measure, auditor = Measure(), Auditor()
    simulation = Simulation(site, trace, [measure, auditor])
    auditor.simulation = simulation
    simulation.run()
    return simulation, auditor, measure.report(simulation)


def busy(seed: int, submissions: int) -> list[Arrival]:
    """A few hundred seconds of a busy small site."""
    chance = random.Random(seed)
    found = []
    for i in range(submissions):
        asked: dict[str, object] = {"command": ["x"], "cpu": chance.choice((0.5, 1, 2, 4))}
        asked["memory"] = chance.choice((1, 2, 4)) * GIB
        asked["priority"] = chance.choice((50, 50, 80))
        kind = chance.random()
        if kind < 0.2:
            asked["array"] = chance.choice(("1-5", "1-9%2"))
        elif kind < 0.35:
            asked |= {"nodes": 2, "cpu": 1}
        elif kind < 0.45:
            asked["exclusive"] = True
        if chance.random() < 0.3:
            asked["gpus"] = chance.choice((1, 2))
        if chance.random() < 0.3:
            asked["preemptible"] = True
        if chance.random() < 0.6:
            asked["time_limit"] = chance.choice((30, 100))
        if chance.random() < 0.4:
            asked["retries"] = 2
        if i and chance.random() < 0.2:
            kinds = ("after", "afterany", "afterok", "afternotok")
            asked["depends_on"] = [f"{chance.choice(kinds)}:{chance.randrange(i) * 100 + 1}"]
        reasons = (None, None, ReasonCode.NON_ZERO_EXIT, ReasonCode.OUT_OF_MEMORY)
        runs = tuple(
            Run(chance.uniform(0, 120), chance.choice(reasons), launch=chance.choice((0.0, 2.0)))
            for _ in range(chance.randint(1, 3))
        )
        at = chance.uniform(0, 200)
        wishes: list[tuple[float, int, Event]] = []
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            wish = chance.choice((Kill("a"), Hold("a"), Suspend("a"), Reschedule("a")))
            when = at + chance.uniform(0, 100)
            wishes.append((when, 0, wish))
            if isinstance(wish, Hold | Suspend):
                back = Release("a") if isinstance(wish, Hold) else Resume("a")
                wishes.append((when + chance.uniform(1, 100), 0, back))
                wishes.append((1000.0, 0, Release("a")))
                wishes.append((1001.0, 0, Resume("a")))
        spec = JobSpec.model_validate(asked)
        found.append(Arrival(at, f"u{chance.randrange(3)}", spec, runs, id=i * 100 + 1, wishes=tuple(wishes)))
    return sorted(found, key=lambda one: one.at)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 30), st.integers(1, 25), st.integers(0, len(POLICIES) - 1), st.booleans())
def test_whatever_happens_the_books_are_right(seed: int, submissions: int, policy: int, fails: bool) -> None:
    failures = Failures(between=300.0, repair=20.0, seed=seed) if fails else None
    site = Site(nodes_of("2x4:8G:2gpu,1x8:16G"), POLICIES[policy], failures, stopping=1.0)
    simulation, auditor, report = simulated(site, busy(seed, submissions))
    board = simulation.board
    assert not board.jobs, [(job.id, job.state, job.reason) for job in board.jobs.values()]
    assert report.unfinished == 0
    assert set(auditor.ended.values()) <= {1}
    for charged, integral in zip(auditor.charged, auditor.integral, strict=True):
        assert isclose(charged, integral, rel_tol=1e-9, abs_tol=1e-3)
    for account in board.standing._accounts.values():
        assert (account.pending, account.running, account.memory, account.gpus) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_result(seed: int) -> None:
    def play(seed: int) -> Report:
        measure = Measure()
        failures = Failures(between=DAY / 2, repair=HOUR, seed=seed)
        demand = Demand(users=8, projects=2, days=1, jobs=20, retries=1, seed=seed)
        simulation = Simulation(
            Site(nodes_of("3x16:64G:4gpu"), failures=failures), synthetic(demand), [measure]
        )
        simulation.run()
        return measure.report(simulation)

    found = play(seed)
    assert found == play(seed)
    assert found != play(seed + 10)
    assert found.submitted == sum(found.ended.values())


@pytest.mark.parametrize("scheduler", ["fairshare", "multifactor"])
def test_fifty_users_with_steady_demand_get_their_shares_in_a_week(scheduler: str) -> None:
    """Everybody always has something waiting; some are due twice or three times as much."""
    users = {f"user{i:03d}": {"shares": 1 + i % 3} for i in range(50)}
    policy = Policy.model_validate({"scheduler": scheduler, "users": users})
    hours = 7 * 24
    spec = JobSpec(command=["x"], cpu=1, memory=GIB, time_limit=3 * HOUR)
    trace = [
        Arrival(float(i), name, spec.model_copy(update={"array": None}), (Run(2 * HOUR),), name="x")
        for name, user in users.items()
        for i in range(int(hours / 2 * 1.3 * user["shares"]))
    ]
    trace.sort(key=lambda one: one.at)
    measure = Measure()
    simulation = Simulation(Site(nodes_of("2x50:200G"), policy), trace, [measure])
    while simulation.clockwork.next <= hours * HOUR and simulation.step():
        pass
    report = measure.report(simulation)
    assert len(simulation.board.queue) > 0
    for line in report.users:
        assert line.realised == pytest.approx(line.target, rel=0.05), line


def test_a_big_job_does_not_starve_behind_small_ones() -> None:
    small = JobSpec(command=["small"], cpu=1, memory=GIB, time_limit=HOUR)
    big = JobSpec(command=["big"], cpu=16, memory=16 * GIB, time_limit=HOUR)
    gang = JobSpec(command=["gang"], cpu=16, memory=GIB, nodes=2, time_limit=HOUR)
    trace = [Arrival(i * 60.0, f"u{i % 5}", small, (Run(HOUR * 0.9),)) for i in range(2000)]
    trace += [
        Arrival(4 * HOUR + 1, "patient", big, (Run(HOUR),), id=900_001),
        Arrival(8 * HOUR + 1, "patient", gang, (Run(HOUR),), id=900_011),
    ]
    trace = [replace(one, id=one.id or i + 1) for i, one in enumerate(trace)]
    trace.sort(key=lambda one: one.at)
    _, _, report = simulated(Site(nodes_of("2x16:64G"), load("scheduler: fairshare")), trace)
    [patient] = [line for line in report.users if line.user == "patient"]
    assert patient.waiting.starts == 3
    assert patient.waiting.longest <= 2 * HOUR


def test_a_time_limit_ends_what_runs_longer_and_a_failure_is_tried_again() -> None:
    limited = JobSpec(command=["x"], time_limit=60)
    again = JobSpec(command=["x"], retries=1)
    failing = (Run(5.0, ReasonCode.NON_ZERO_EXIT), Run(7.0))
    trace = [Arrival(0.0, "a", limited, (Run(1e6),)), Arrival(0.0, "a", again, failing)]
    simulation, _, report = simulated(Site(nodes_of("1x4")), trace)
    assert report.ended == {"failed": 1, "succeeded": 1}
    assert (report.attempts, simulation.now) == (3, 60.0)


def test_what_a_failing_node_ran_is_lost_and_known_when_it_is_back() -> None:
    spec = JobSpec(command=["x"], retries=5)
    site = Site(nodes_of("1x4"), failures=Failures(between=100.0, repair=50.0, seed=3))
    simulation, _, report = simulated(site, [Arrival(0.0, "a", spec, (Run(150.0),))])
    assert report.attempts > 1
    assert simulation.capacity < simulation.now * 4


def test_what_no_node_could_run_is_refused() -> None:
    trace = [Arrival(0.0, "a", JobSpec(command=["x"], cpu=5), (Run(1.0),))]
    _, _, report = simulated(Site(nodes_of("1x4")), trace)
    assert (report.refused, report.submitted) == (1, 0)
