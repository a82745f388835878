"""Fair share: usage that fades, and queues that are divided by shares."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import Queue, ended, lines_of, running, waiting
from placing import ledger_of, node

from perijove.model import Job
from perijove_hub.accounting import GIB, HOUR, Allocation, Held, opened
from perijove_hub.placement.plan import Rules, plan
from perijove_hub.policy import registry
from perijove_hub.policy.account import Account, fading
from perijove_hub.policy.document import FairShare, Policy, UsageWeights, load
from perijove_hub.policy.standing import Standing

NOW = 1_790_000_000.0
WEEK = 7 * 86400.0


def free_cores(
    cores: float, queues: list[Queue], standing: Standing, now: float = NOW
) -> Counter[tuple[str, str | None]]:
    """What one pass gives to whom on a machine of which that much is free."""
    shares = standing.shares(now)
    gate = standing.gate(now, shares)
    given: Counter[tuple[str, str | None]] = Counter()
    for entry in registry.create("fairshare", standing.policy).order(queues, shares, now):
        room, _ = gate.room(entry.job)
        count = min(entry.count, room, int(cores / entry.job.spec.cpu))
        if count:
            gate.take(entry.job, count)
            cores -= count * entry.job.spec.cpu
            given[(entry.job.owner, entry.job.spec.project)] += count
    return given


def cores_of(text: str, jobs: list[Job], cores: float = 100) -> dict[str, int]:
    found = free_cores(cores, lines_of(jobs), Standing(load(text)))
    return {owner: count for (owner, _), count in found.items()}


# One pass over a free cluster


def test_one_pass_divides_a_free_cluster_by_the_users_shares() -> None:
    jobs = [waiting(owner) for owner in ("alice", "bob", "carol") for _ in range(100)]
    assert cores_of("users: {alice: {shares: 3}, carol: {shares: 0}}", jobs) == {"alice": 75, "bob": 25}


def test_with_no_shares_one_gets_what_the_others_leave() -> None:
    jobs = [waiting("carol", job=1), *(waiting(owner) for owner in ("alice", "carol") for _ in range(60))]
    assert cores_of("users: {carol: {shares: 0}}", jobs) == {"alice": 60, "carol": 40}


def test_projects_share_first_then_their_members() -> None:
    text = """
    projects:
      sun: {members: ["*"], shares: 3}
      moon: {members: ["*"]}
    """
    jobs = [waiting(owner, "sun") for owner in ("a", "b", "c") for _ in range(100)]
    jobs += [waiting("d", "moon") for _ in range(100)]
    found = cores_of(text, jobs, 96)
    assert found["d"] == 24
    assert {found[owner] for owner in "abc"} == {24}


def test_those_in_no_project_share_one_account() -> None:
    jobs = [waiting(f"u{i}") for i in range(9) for _ in range(100)]
    jobs += [waiting("d", "moon") for _ in range(100)]
    assert cores_of('projects: {moon: {members: ["*"]}}', jobs, 90)["d"] == 45
    text = 'projects: {moon: {members: ["*"]}}\nfairshare: {default_shares: 9}'
    assert cores_of(text, jobs, 90)["d"] == 9


@pytest.mark.parametrize("turned", [False, True])
def test_an_array_does_not_take_the_whole_cluster(turned: bool) -> None:
    array = waiting("alice", array="1:100000")
    others = [waiting("bob") for _ in range(2000)]
    found = free_cores(1000, lines_of([*others, array] if turned else [array, *others]), Standing(Policy()))
    assert found[("alice", None)] == pytest.approx(500, abs=500 / 16 + 1)


def test_two_arrays_divide_it_and_the_queue_is_asked_little() -> None:
    policy = load("users: {bob: {shares: 2}}")
    jobs = [waiting(owner, array="1:100000") for owner in ("alice", "bob")]
    queues, standing = lines_of(jobs), Standing(policy)
    shares = standing.shares(NOW)
    gate, cores, offers = standing.gate(NOW, shares), 30_000, 0
    for entry in registry.create("fairshare", policy).order(queues, shares, NOW):
        offers += 1
        count = min(entry.count, cores)
        if count:
            gate.take(entry.job, count)
            cores -= count
    assert shares.taken[jobs[1].id] / shares.taken[jobs[0].id] == pytest.approx(2, rel=0.13)
    assert offers < 500


def test_what_a_gpu_weighs_is_the_policys() -> None:
    text = "fairshare: {weights: {cpu: 1, memory: 0, gpu: 9}}"
    jobs = [waiting("gpu", cpu=1, gpus=1) for _ in range(100)] + [waiting("cpu", cpu=1) for _ in range(100)]
    assert cores_of(text, jobs) == {"gpu": 10, "cpu": 90}


@pytest.mark.parametrize("arrays", [False, True])
def test_the_placement_divides_real_nodes_by_shares(arrays: bool) -> None:
    """40 nodes of 16 cores: three parts for sun, of which two for alice, and one for moon."""
    policy = load("""
    users: {alice: {shares: 2}}
    projects: {sun: {members: ["*"], shares: 3}, moon: {members: ["*"]}}
    """)
    who = [("alice", "sun"), ("bob", "sun"), ("carol", "moon")]
    array = "1:2000" if arrays else None
    jobs = [
        waiting(owner, project, memory="64M", array=array)
        for owner, project in who
        for _ in range(1 if arrays else 700)
    ]
    jobs = [job.model_copy(update={"launcher": "process"}) for job in jobs]
    ledger, standing = ledger_of(*(node(f"n{i}", 16) for i in range(40))), Standing(policy)
    shares = standing.shares(NOW)
    entries = registry.create("fairshare", policy).order(lines_of(jobs), shares, NOW)
    rules = Rules(policy, holdings=ledger.holdings)
    decided = plan(entries, ledger.table.copy(), rules, standing.gate(NOW, shares), NOW)
    owners = {job.id: job.owner for job in jobs}
    given: Counter[str] = Counter()
    for placement in decided.placements:
        given[owners[placement.job]] += placement.count
    assert sum(given.values()) == 640
    within = 640 / 16 if arrays else 1
    assert given["alice"] == pytest.approx(320, abs=within)
    assert given["bob"] == pytest.approx(160, abs=within)
    assert given["carol"] == pytest.approx(160, abs=within)


def test_who_has_used_much_waits_until_the_others_have_caught_up() -> None:
    before = Allocation(1, 1, "alice", None, "batch", None, None, "n", 100.0, 0, 0, NOW - WEEK, NOW, "1")
    queues = lines_of([waiting(owner) for owner in ("alice", "bob") for _ in range(100)])
    assert free_cores(100, queues, Standing(Policy(), [before])) == {("bob", None): 100}


def test_jobs_that_have_just_started_count() -> None:
    standing = Standing(Policy())
    for _ in range(50):
        standing.holds(running(waiting("alice"), NOW), NOW)
    queues = lines_of([waiting(owner) for owner in ("alice", "bob") for _ in range(100)])
    assert free_cores(50, queues, standing, NOW + 1) == {("bob", None): 50}


def test_a_job_that_does_not_fit_does_not_cost_its_owner_the_turn() -> None:
    jobs = [waiting("alice", cpu=64), waiting("alice"), waiting("bob"), waiting("bob")]
    before = Allocation(1, 1, "bob", None, "batch", None, None, "n", 1.0, 0, 0, NOW - WEEK, NOW, "1")
    found = free_cores(1, lines_of(jobs), Standing(Policy(), [before]))
    assert found == {("alice", None): 1}


def test_within_a_line_the_jobs_priority_decides() -> None:
    low, high = waiting("alice", priority=10), waiting("alice", priority=90)
    entries = registry.create("fairshare", Policy()).order(
        lines_of([low, high]), Standing(Policy()).shares(NOW), NOW
    )
    assert [entry.job.id for entry in entries] == [high.id, low.id]


# Fading


CHANGES = st.lists(
    st.tuples(st.floats(0, 5 * 86400), st.floats(0.1, 64), st.floats(1, 10 * 86400)), min_size=1, max_size=12
)


@given(CHANGES, st.floats(600, 30 * 86400))
def test_fading_in_closed_form_is_the_integral(
    changes: list[tuple[float, float, float]], half_life: float
) -> None:
    """Each job (begin, cores, seconds) adds the integral of its cores, weighed by age."""
    account, rate = Account(), fading(half_life)
    events = [(begin, 1, cpu) for begin, cpu, _ in changes]
    events += [(begin + seconds, -1, cpu) for begin, cpu, seconds in changes]
    for at, sign, cpu in sorted(events):
        account.settle(at, rate, WEEK)
        account.change(Held(cpu, 0, 0), sign)
    end = max(at for at, _, _ in events) + 3600
    exact = sum(
        cpu / rate * (math.exp(-rate * (end - begin - seconds)) - math.exp(-rate * (end - begin)))
        for begin, cpu, seconds in changes
    )
    assert account.faded_by(end, rate).cpu == pytest.approx(exact, rel=1e-6, abs=1e-3)
    assert account.faded_by(end + half_life, rate).cpu == pytest.approx(exact / 2, rel=1e-6, abs=1e-3)


def test_usage_counts_cores_memory_and_gpus_by_their_weights() -> None:
    weights = UsageWeights(cpu=2, memory=0.5, gpu=7)
    policy = Policy(fairshare=FairShare(weights=weights, half_life=3e8, foresight=1e-6))
    before = Allocation(1, 1, "a", "p", "batch", None, None, "n", 3.0, 4 * int(GIB), 2, NOW - HOUR, NOW, "1")
    shares = Standing(policy, [before]).shares(NOW)
    assert shares.usage("a", "p") == pytest.approx(2 * 3 + 0.5 * 4 + 7 * 2, rel=1e-4)
    assert shares.project_usage("p") == pytest.approx(22, rel=1e-4)
    assert shares.usage("a", None) == shares.project_usage(None) == 0


def test_a_clock_that_is_turned_back_takes_nothing_away() -> None:
    standing = Standing(Policy())
    job = running(waiting("alice"), NOW)
    standing.holds(job, NOW)
    before = standing.shares(NOW + HOUR).usage("alice", None)
    standing.releases(ended(job, NOW - HOUR), NOW - HOUR)
    standing.holds(running(waiting("alice"), NOW - HOUR), NOW - HOUR)
    assert 0 <= standing.shares(NOW - HOUR).usage("alice", None) <= before


def test_another_half_life_keeps_who_is_before_whom() -> None:
    history = [
        Allocation(i, 1, owner, None, "batch", None, None, "n", cpu, 0, 0, NOW - WEEK, NOW - age, "1")
        for i, (owner, cpu, age) in enumerate([("a", 4.0, 0), ("b", 9.0, 3 * 86400), ("c", 1.0, 0)])
    ]
    standing = Standing(Policy(), history)
    before = [standing.shares(NOW).usage(owner, None) for owner in "abc"]
    standing.adopt(Policy(fairshare=FairShare(half_life=86400.0)))
    after = [standing.shares(NOW).usage(owner, None) for owner in "abc"]
    assert [value / before[0] for value in before] == pytest.approx([value / after[0] for value in after])
    assert after[0] < before[0]


# Kept change by change, or read from the history


@given(st.data())
def test_the_history_says_the_same_as_having_been_there(data: st.DataObject) -> None:
    policy = load("users: {alice: {limits: {cpu_hours: 1}}}")
    live, history = Standing(policy), []
    for _ in range(data.draw(st.integers(0, 12))):
        job = waiting(
            data.draw(st.sampled_from(["alice", "bob"])),
            data.draw(st.sampled_from([None, "sun"])),
            cpu=data.draw(st.sampled_from([0.5, 2, 16])),
        )
        begin = NOW + data.draw(st.floats(0, WEEK))
        end = data.draw(st.none() | st.floats(begin, NOW + WEEK))
        history.append((running(job, begin), begin, end))
    moves = [(begin, 1, job.id, job) for job, begin, _ in history]
    moves += [(end, 2, job.id, job) for job, _, end in history if end is not None]
    for at, kind, _, job in sorted(moves, key=lambda move: move[:3]):
        live.holds(job, at) if kind == 1 else live.releases(ended(job, at), at)
    allocations = []
    for job, begin, end in history:
        one = opened(job, begin)
        allocations.append(Allocation(**{**{f: getattr(one, f) for f in one.__slots__}, "end": end}))
    read, later = Standing(policy, allocations), NOW + WEEK + 5
    for owner in ("alice", "bob"):
        for project in (None, "sun"):
            was, found = live.shares(later), read.shares(later)
            assert found.usage(owner, project) == pytest.approx(was.usage(owner, project))
            assert found.project_usage(project) == pytest.approx(was.project_usage(project))
            account, other = live.account("user", owner, None), read.account("user", owner, None)
            month = policy.window
            assert account.within(later, month).cpu == pytest.approx(other.within(later, month).cpu, abs=1e-3)
            assert account.running == other.running
            assert found.finished(owner, project) == tuple(map(approximately, was.finished(owner, project)))


def approximately(days: object) -> object:
    assert isinstance(days, dict)
    return {day: pytest.approx(sums) for day, sums in days.items()}


def test_what_the_history_holds_is_not_held_twice() -> None:
    job = running(waiting("alice", cpu=4), NOW)
    standing = Standing(Policy(), [opened(job, NOW)])
    standing.holds(job, NOW + HOUR)
    assert standing.account("user", "alice", None).cpu == 4
    standing.releases(ended(job, NOW + HOUR), NOW + HOUR)
    standing.releases(ended(job, NOW + HOUR), NOW + HOUR)
    account = standing.account("user", "alice", None)
    assert (account.cpu, account.running) == (0, 0)
    assert account.within(NOW + HOUR, WEEK).cpu == pytest.approx(4 * HOUR)


# How all stand


def test_the_report_adds_up() -> None:
    policy = load("users: {a: {shares: 3}}\nprojects: {sun: {members: ['*'], shares: 2}}")
    history = [
        Allocation(i, 1, owner, project, "batch", None, None, "n", cpu, 0, 0, NOW - HOUR, NOW, "1")
        for i, (owner, project, cpu) in enumerate([("a", "sun", 2.0), ("b", "sun", 6.0), ("b", None, 4.0)])
    ]
    standing = Standing(policy, history)
    standing.capacity = 8.0
    report = standing.report(NOW)
    assert [(share.owner, share.project) for share in report] == [("b", None), ("a", "sun"), ("b", "sun")]
    assert sum(share.target for share in report) == pytest.approx(1)
    assert sum(share.actual for share in report) == pytest.approx(1)
    assert [share.target for share in report] == pytest.approx([1 / 3, 2 / 3 * 3 / 4, 2 / 3 / 4])
    by_name = {(share.owner, share.project): share for share in report}
    assert by_name[("b", None)].factor == pytest.approx(0.5), "had just what is due"
    assert by_name[("a", "sun")].factor > by_name[("b", "sun")].factor


# A week


def week(
    policy: Policy, demand: list[tuple[str, str | None]], seed: int
) -> dict[tuple[str, str | None], float]:
    """Core-seconds each got of a machine of 200 cores, while all always have jobs waiting.

    Jobs are of 1 to 4 cores and 20 to 100 minutes; a pass is made every 5 minutes. The first three days, in
    which use is gathered, are left out.
    """
    random, standing, cores = Random(seed), Standing(policy), 200
    scheduler = registry.create("fairshare", policy)
    on_node: list[tuple[float, int, Job]] = []
    got: dict[tuple[str, str | None], float] = defaultdict(float)
    queues = [Queue(owner, project) for owner, project in demand]
    begin = 3 * 86400.0
    end = begin + WEEK
    for now in map(float, range(0, int(end), 300)):
        while on_node and on_node[0][0] <= now:
            until, _, job = heapq.heappop(on_node)
            standing.releases(ended(job, until), until)
            cores += int(job.spec.cpu)
        for queue in queues:
            while len(queue.jobs) < 10:
                queue.jobs.append(waiting(queue.owner, queue.project, cpu=random.randint(1, 4)))
        shares = standing.shares(now)
        gate, started = standing.gate(now, shares), set()
        for entry in scheduler.order(queues, shares, now):
            if entry.job.spec.cpu > cores:
                break  # what the head needs is kept for it
            gate.take(entry.job, 1)
            cores -= int(entry.job.spec.cpu)
            started.add(entry.job.id)
            job, until = running(entry.job, now), now + random.uniform(1200, 6000)
            standing.holds(job, now)
            heapq.heappush(on_node, (until, job.id, job))
            inside = max(0.0, min(until, end) - max(now, begin))
            got[(job.owner, job.spec.project)] += inside * job.spec.cpu
        for queue in queues:
            queue.jobs = [job for job in queue.jobs if job.id not in started]
    return got


def test_in_a_week_each_of_fifty_users_gets_what_is_due() -> None:
    """Ten users in each of four projects and ten in none; shares differ by a factor of 12."""
    users = {f"u{i}": {"shares": 1 + i % 3} for i in range(50)}
    projects = {f"p{n}": {"members": ["*"], "shares": n} for n in range(1, 5)}
    weights = {"weights": {"cpu": 1, "memory": 0, "gpu": 0}, "default_shares": 2}
    policy = Policy.model_validate({"users": users, "projects": projects, "fairshare": weights})
    demand = [(f"u{i}", f"p{i // 10}" if i >= 10 else None) for i in range(50)]
    got = week(policy, demand, seed=7)
    whole = sum(got.values())
    due = {}
    for owner, project in demand:
        siblings = sum(policy.user(o).shares for o, p in demand if p == project)
        due[(owner, project)] = policy.shares_of(project) / 12 * policy.user(owner).shares / siblings
    worst = max(abs(got[pair] / whole / due[pair] - 1) for pair in demand)
    assert worst < 0.05, {pair: (got[pair] / whole, due[pair]) for pair in demand}
    assert whole > 0.9 * WEEK * 200, "and the machine was not idle for it"


def test_an_even_order_is_even_all_along() -> None:
    """Not only in sum: of any 30 starts in a row each of three equals has about ten."""
    jobs = [waiting(owner) for owner in "abc" for _ in range(100)]
    standing = Standing(Policy())
    shares = standing.shares(NOW)
    gate, owners = standing.gate(NOW, shares), []
    for entry in registry.create("fairshare", Policy()).order(lines_of(jobs), shares, NOW):
        gate.take(entry.job, 1)
        owners.append(entry.job.owner)
    for begin in range(0, 270, 30):
        assert set(Counter(owners[begin : begin + 30]).values()) == {10}
    assert not any(one == other for one, other in pairwise(owners))
