"""What holds for every scheduler, and the orders of those that are not fair-share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import Queue, lines_of, waiting

from perijove.model import Job, OperatorError
from perijove_hub.accounting import DAY, Allocation
from perijove_hub.policy import registry
from perijove_hub.policy.document import GodockerWeights, MultifactorWeights, Policy, load
from perijove_hub.policy.schedulers.godocker import GodockerFairShare
from perijove_hub.policy.schedulers.multifactor import LEAST, WEIGHED, Multifactor
from perijove_hub.policy.shares import Facts, Shares
from perijove_hub.policy.standing import Standing

NOW = 1_790_000_000.0
NAMES = ["fairshare", "fairshare-godocker", "fifo", "multifactor"]

POLICY = load("""
users:
  alice: {shares: 2, priority: 80}
  carol: {shares: 0}
projects:
  sun: {members: ["*"], shares: 3, priority: 20}
  moon: {members: ["*"]}
partitions:
  long: {priority: 10}
""")

JOBS = st.lists(
    st.builds(
        lambda owner, project, priority, cpu, tasks, ago: waiting(
            owner,
            project,
            priority=priority,
            cpu=cpu,
            array=f"1:{tasks}" if tasks > 1 else None,
            submitted=NOW - ago,
        ),
        st.sampled_from(["alice", "bob", "carol"]),
        st.sampled_from([None, "sun", "moon"]),
        st.integers(0, 100),
        st.sampled_from([0.5, 1, 8]),
        st.sampled_from([1, 1, 1, 40]),
        st.integers(0, 10 * 86400),
    ),
    max_size=40,
)


def order(name: str, queues: list[Queue], standing: Standing) -> Iterator[Job]:
    scheduler = registry.create(name, standing.policy)
    shares = standing.shares(NOW)
    return (entry.job for entry in scheduler.order(queues, shares, NOW))


def known(jobs: list[Job]) -> Standing:
    standing = Standing(POLICY)
    for job in jobs:
        standing.waits(job)
    return standing


def test_those_that_come_with_perijove_are_installed() -> None:
    assert registry.names() == NAMES


def test_one_that_is_not_there_is_the_operators_fault() -> None:
    with pytest.raises(OperatorError, match=r"no scheduler lottery; installed: fairshare, "):
        registry.create("lottery", Policy())


@pytest.mark.parametrize("name", NAMES)
@given(jobs=JOBS)
def test_each_job_comes_once_when_none_can_start(name: str, jobs: list[Job]) -> None:
    found = [job.id for job in order(name, lines_of(jobs), known(jobs))]
    assert sorted(found) == sorted(job.id for job in jobs)


@pytest.mark.parametrize("name", NAMES)
@given(jobs=JOBS, seed=st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_that_of_the_lines(name: str, jobs: list[Job], seed: object) -> None:
    queues = lines_of(jobs)
    before = [job.id for job in order(name, queues, known(jobs))]
    seed.shuffle(queues)  # type: ignore[attr-defined]
    assert [job.id for job in order(name, queues, known(jobs))] == before


@pytest.mark.parametrize("name", NAMES)
@given(jobs=JOBS)
def test_all_members_of_an_array_come_while_they_start(name: str, jobs: list[Job]) -> None:
    standing, queues = known(jobs), lines_of(jobs)
    shares = standing.shares(NOW)
    gate = standing.gate(NOW, shares)
    came: dict[int, int] = {}
    for entry in registry.create(name, POLICY).order(queues, shares, NOW):
        came[entry.job.id] = came.get(entry.job.id, 0) + entry.count
        gate.take(entry.job, entry.count)
    assert came == {job.id: len(job.spec.array.tasks) if job.spec.array else 1 for job in jobs}


@pytest.mark.parametrize("name", ["fairshare", "fifo"])
def test_a_pass_that_ends_early_has_not_read_the_queue(name: str) -> None:
    jobs = [waiting(owner) for _ in range(1000) for owner in ("alice", "bob")]
    queues = lines_of(jobs)
    assert len(list(islice(order(name, queues, known(jobs)), 10))) == 10
    assert sum(queue.asked for queue in queues) <= 12


@pytest.mark.parametrize("name", ["fairshare", "multifactor"])
def test_thousands_of_jobs_that_cannot_start_do_not_hide_the_others(name: str) -> None:
    jobs = [waiting("alice", "sun", gpus=1, priority=100) for _ in range(5000)]
    jobs += [waiting("bob", "moon") for _ in range(50)]
    standing = Standing(POLICY, [past("bob", 64.0, 100, project="moon")])
    came = list(order(name, lines_of(jobs), standing))
    assert [job.owner for job in came[:100]] == ["alice"] * 100
    assert [job.owner for job in came[100:150]] == ["bob"] * 50
    assert len(came) == 5050


# fifo


@given(JOBS)
def test_fifo_goes_by_priority_and_then_by_age(jobs: list[Job]) -> None:
    found = [job.id for job in order("fifo", lines_of(jobs), known(jobs))]
    assert found == [job.id for job in sorted(jobs, key=lambda job: (-job.spec.priority, job.id))]


# multifactor


def alone(**weights: float) -> Policy:
    """A policy in which only these factors count."""
    nothing = dict.fromkeys(
        ("age", "fairshare", "priority", "user", "project", "partition", "size"),
        0.0,
    )
    policy = POLICY.model_copy(update={"multifactor": MultifactorWeights(**{**nothing, **weights})})
    assert isinstance(policy, Policy)
    return policy


def ranked(policy: Policy, jobs: list[Job], standing: Standing | None = None) -> list[int]:
    shares = (standing or Standing(policy)).shares(NOW)
    entries = Multifactor(policy).order(lines_of(jobs), shares, NOW)
    return [entry.job.id for entry in entries]


def test_age_counts_up_to_its_maximum_and_no_further() -> None:
    week = 7 * DAY
    young = waiting("bob", submitted=NOW - 60)
    old = waiting("alice", submitted=NOW - week)
    older = waiting("dave", submitted=NOW - 3 * week)
    assert ranked(alone(age=1), [young, older, old]) == [old.id, older.id, young.id], (
        "ties go to the older id"
    )


def test_the_priorities_of_job_user_project_and_partition_count() -> None:
    low, high = waiting("bob", priority=10), waiting("carol", priority=20)
    assert ranked(alone(priority=1), [low, high]) == [high.id, low.id]
    plain, favoured = waiting("bob"), waiting("alice")
    assert ranked(alone(user=1), [plain, favoured]) == [favoured.id, plain.id]
    sun, none = waiting("bob", "sun"), waiting("bob")
    assert ranked(alone(project=1), [sun, none]) == [none.id, sun.id], "20 against the 50 of those in none"
    long, anywhere = waiting("bob", partition="long"), waiting("bob")
    assert ranked(alone(partition=1), [long, anywhere]) == [anywhere.id, long.id]


def test_size_favours_the_big_and_needs_the_size_of_the_site() -> None:
    policy = alone(size=1)
    small, big = waiting("bob", cpu=1), waiting("alice", cpu=8, nodes=2)
    assert ranked(policy, [small, big]) == [small.id, big.id]
    standing = Standing(policy)
    standing.capacity = 16.0
    assert ranked(policy, [small, big], standing) == [big.id, small.id]


def test_who_has_used_less_of_their_share_is_before() -> None:
    policy = alone(fairshare=1)
    used = [past("alice", 20.0, 10), past("bob", 20.0, 10)]
    standing = Standing(policy, used)
    bob, alice = waiting("bob"), waiting("alice")
    assert ranked(policy, [bob, alice], standing) == [alice.id, bob.id], "alice has two shares"


def test_of_each_line_so_many_are_weighed_as_documented() -> None:
    few = lines_of([waiting("alice") for _ in range(WEIGHED + 500)])
    next(order("multifactor", few, Standing(POLICY)))
    assert few[0].asked == WEIGHED
    many = lines_of([waiting(f"u{i}") for i in range(450) for _ in range(LEAST + 2)])
    next(order("multifactor", many, Standing(POLICY)))
    assert {queue.asked for queue in many} == {LEAST}


def past(owner: str, cpu: float, hours: float, *, project: str | None = None, end: float = NOW) -> Allocation:
    begin = end - hours * 3600
    return Allocation(1, 1, owner, project, "batch", None, None, "n1", cpu, 0, 0, begin, end, "1")


# fairshare-godocker

TODAY = int(NOW // DAY)
GOLDEN = load("""
users:
  u3: {priority: 90}
projects:
  p1: {priority: 80}
  p2: {priority: 20}
""")
OF_USERS = {"u1": (10.0, 20.0, 1000.0), "u2": (2.0, 4.0, 100.0), "u3": (6.0, 8.0, 400.0)}
OF_PROJECTS = {"p1": (5.0, 5.0, 500.0), "p2": (1.0, 1.0, 50.0)}


def golden_shares() -> Shares:
    def finished(owner: str, project: str | None) -> dict[int, tuple[float, float, float]]:
        found = OF_USERS.get(owner) or OF_PROJECTS.get(project or "")
        return {TODAY: found} if found else {}

    return Shares(GOLDEN, Facts(lambda _o, _p: 0.0, lambda _p: 0.0, list, finished, 0.0))


def golden_jobs() -> list[Job]:
    rows = [("u1", None, 600), ("u2", "p1", 300), ("u3", "p2", 0), ("u1", "p1", 0), ("u2", None, 600)]
    return [
        waiting(owner, project, job=number, submitted=NOW - wait)
        for number, (owner, project, wait) in enumerate(rows, 1)
    ]


def test_the_golden_order_of_godocker() -> None:
    scored = GodockerFairShare(GOLDEN).score(lines_of(golden_jobs()), golden_shares(), NOW)
    assert [job for _, job, _ in scored] == [2, 5, 3, 4, 1]
    assert [round(share, 4) for share, _, _ in scored] == [0.87, 1.12, 1.4973, 2.32, 2.52]


def test_its_weights_are_in_the_policy() -> None:
    policy = GOLDEN.model_copy(update={"godocker": GodockerWeights(waiting_time=100.0)})
    scored = GodockerFairShare(policy).score(lines_of(golden_jobs()), golden_shares(), NOW)
    assert [job for _, job, _ in scored] == [5, 1, 2, 3, 4], "who waits longest is first"


def test_its_golden_figures_come_from_jobs_that_ended() -> None:
    """The same sums, from ended jobs that the standing saw."""
    history = []
    for owner, (cpu, memory, seconds) in OF_USERS.items():
        begin = NOW - seconds
        gib = int(memory * (1 << 30))
        history.append(Allocation(1, 1, owner, None, "batch", None, None, "n", cpu, gib, 0, begin, NOW, "1"))
    standing = Standing(GOLDEN, history)
    for owner, sums in OF_USERS.items():
        of_user, _ = standing.shares(NOW).finished(owner, None)
        assert of_user == {TODAY: pytest.approx(sums)}


def test_it_reads_back_only_to_the_first_quiet_day() -> None:
    heavy = [past("heavy", 64.0, 5, end=NOW - days * DAY) for days in range(1, 20)]
    light = [past("light", 1.0, 1)]
    jobs = [waiting("light", job=1), waiting("heavy", job=2)]
    policy = POLICY.model_copy(update={"scheduler": "fairshare-godocker"})
    quiet = Standing(policy, [*heavy, *light])
    assert [job.id for job in order("fairshare-godocker", lines_of(jobs), quiet)] == [2, 1]
    busy = Standing(policy, [*heavy, *light, past("heavy", 64.0, 5)])
    assert [job.id for job in order("fairshare-godocker", lines_of(jobs), busy)] == [1, 2]
