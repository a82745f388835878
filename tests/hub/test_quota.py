"""Quotas: what waits and what is refused, with figures that are true."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import ended, running, waiting

from perijove.model import BlockerKind, FieldError, Job, JobSpec, Reason, ReasonCode, State
from perijove_hub.accounting import GIB, HOUR, Allocation, Held
from perijove_hub.policy.account import MARKS
from perijove_hub.policy.document import Policy, load
from perijove_hub.policy.quotas import PLENTY
from perijove_hub.policy.standing import Standing

NOW = 1_790_000_000.0
DAY = 86400.0

POLICY = load("""
users:
  alice: {limits: {gpus: 4, cpus: 10, running: 6}}
  visitor: {guest: true, limits: {memory: 8G}}
guests: {cpus: 2}
projects:
  sun: {members: ["*"], limits: {cpus: 12}, member_limits: {cpus: 7}}
site: {cpus: 100, pending: 1000}
""")


def room(standing: Standing, job: Job, now: float = NOW) -> tuple[int, Reason | None]:
    return standing.gate(now, standing.shares(now)).room(job)


def spec(count: int = 1, **fields: Any) -> tuple[JobSpec, int]:
    return JobSpec.model_validate({"command": ["true"], **fields}), count


def hold(
    standing: Standing, owner: str, project: str | None = None, *, at: float = NOW, **fields: Any
) -> Job:
    job = running(waiting(owner, project, **fields), at)
    standing.holds(job, at)
    return job


def past(owner: str, hours: float, *, cpu: float = 1.0, end: float = NOW, **held: int) -> Allocation:
    begin = end - hours * HOUR
    memory, gpus = held.get("memory", 0), held.get("gpus", 0)
    return Allocation(1, 1, owner, None, "batch", None, None, "n", cpu, memory, gpus, begin, end, "1")


# Concurrent: over it, a job waits


def test_without_limits_there_is_room_for_all() -> None:
    assert room(Standing(Policy()), waiting("bob", array="1:1000")) == (PLENTY, None)


def test_over_a_limit_it_waits_and_the_limit_is_named_with_figures() -> None:
    standing = Standing(POLICY)
    for _ in range(4):
        hold(standing, "alice", gpus=1)
    count, reason = room(standing, waiting("alice", gpus=1))
    assert count == 0
    assert reason is not None
    assert reason.code is ReasonCode.QUOTA
    (blocker,) = reason.blockers
    assert (blocker.kind, blocker.name) == (BlockerKind.QUOTA, "user alice: gpus")
    assert blocker.message == "user alice: gpus 4 of 4, 1 more asked for"
    assert reason.message == "over quota: user alice: gpus 4 of 4, 1 more asked for"
    assert room(standing, waiting("alice")) == (2, None), "what asks for no GPU may start; two more jobs run"


def test_every_limit_in_the_way_is_a_blocker() -> None:
    standing = Standing(POLICY)
    hold(standing, "alice", "sun", cpu=7, gpus=4)
    hold(standing, "bob", "sun", cpu=5)
    _, reason = room(standing, waiting("alice", "sun", cpu=4, gpus=1))
    assert reason is not None
    assert [blocker.name for blocker in reason.blockers] == [
        "user alice: cpus",
        "user alice: gpus",
        "project sun: cpus",
        "member alice of project sun: cpus",
    ]
    assert room(standing, waiting("alice", cpu=1))[0] == 3, "outside the project only her own limits count"


def test_a_guest_keeps_the_guests_limits_and_their_own() -> None:
    standing = Standing(POLICY)
    hold(standing, "visitor", cpu=2, memory="6G")
    _, reason = room(standing, waiting("visitor", cpu=1, memory="4G"))
    assert reason is not None
    assert [blocker.message for blocker in reason.blockers] == [
        "user visitor: memory 6G of 8G, 4G more asked for",
        "guest visitor: cpus 2 of 2, 1 more asked for",
    ]


def test_the_site_is_limited_as_a_whole() -> None:
    standing = Standing(POLICY)
    for i in range(99):
        hold(standing, f"u{i}")
    assert room(standing, waiting("bob", array="1:50"))[0] == 1


def test_what_starts_in_a_pass_counts_in_it() -> None:
    standing = Standing(POLICY)
    gate = standing.gate(NOW, standing.shares(NOW))
    array = waiting("alice", array="1:100", gpus=1)
    assert gate.room(array) == (4, None)
    gate.take(array, 3)
    assert gate.room(array) == (1, None)
    gate.take(array, 1)
    assert gate.room(array)[0] == 0
    assert gate.room(waiting("alice"))[0] == 2
    assert room(standing, array)[0] == 4, "another pass begins anew"


def test_what_a_guest_starts_is_counted_once() -> None:
    standing = Standing(load("users: {v: {guest: true, limits: {running: 9}}}\nguests: {running: 4}"))
    gate = standing.gate(NOW, standing.shares(NOW))
    for left in (4, 3, 2, 1, 0):
        job = waiting("v")
        assert gate.room(job)[0] == left
        if left:
            gate.take(job, 1)


def test_a_gang_has_room_for_all_its_nodes_or_none() -> None:
    standing = Standing(POLICY)
    assert room(standing, waiting("alice", nodes=3, cpu=3)) == (3, None)
    hold(standing, "alice", cpu=2)
    count, reason = room(standing, waiting("alice", nodes=3, cpu=3))
    assert count == 0
    assert reason is not None
    assert reason.blockers[0].message == "user alice: cpus 2 of 10, 9 more asked for"


def test_a_suspended_job_counts_for_what_it_keeps() -> None:
    policy = POLICY.model_copy(update={"suspended_keep": "memory"})
    standing = Standing(policy)
    job = hold(standing, "alice", cpu=10, gpus=4)
    stopped = job.model_copy(update={"state": State.SUSPENDED, "suspended_at": NOW})
    standing.releases(stopped, NOW)
    standing.holds(stopped, NOW)
    assert room(standing, waiting("alice", cpu=10))[0] == 1
    assert room(standing, waiting("alice", gpus=1))[0] == 0
    standing.releases(stopped, NOW)
    standing.holds(job, NOW)
    assert room(standing, waiting("alice", cpu=1))[0] == 0


def test_fractions_of_cores_leave_nothing_behind() -> None:
    standing = Standing(load("users: {alice: {limits: {cpus: 1}}}"))
    jobs = [hold(standing, "alice", cpu=0.1) for _ in range(7)]
    assert room(standing, waiting("alice", cpu=0.1))[0] == 3
    for job in jobs:
        standing.releases(ended(job, NOW), NOW)
    assert standing.account("user", "alice", None).cpu == 0
    assert room(standing, waiting("alice", cpu=0.1))[0] == 10


def test_an_exclusive_job_counts_for_the_whole_node_when_it_holds_it() -> None:
    standing = Standing(POLICY)
    job = running(waiting("alice", cpu=1, exclusive=True), NOW)
    standing.holds(job, NOW, Held(8.0, 1 << 30, 0))
    assert room(standing, waiting("alice"))[0] == 2
    standing.releases(ended(job, NOW), NOW)
    assert standing.account("user", "alice", None).cpu == 0


LIMITS = st.fixed_dictionaries(
    {}, optional={"cpus": st.integers(0, 12), "gpus": st.integers(0, 4), "running": st.integers(0, 5)}
)


@given(st.data())
def test_the_gate_lets_in_just_what_keeps_every_limit(data: st.DataObject) -> None:
    """Against adding up from scratch: what has room keeps all limits, and one more would break one."""
    policy = Policy.model_validate(
        {
            "users": {"a": {"limits": data.draw(LIMITS), "guest": data.draw(st.booleans())}},
            "guests": data.draw(LIMITS),
            "projects": {"p": {"limits": data.draw(LIMITS), "member_limits": data.draw(LIMITS)}},
            "site": data.draw(LIMITS),
        }
    )
    standing, held = Standing(policy), []
    one = st.tuples(
        st.sampled_from("ab"), st.sampled_from([None, "p"]), st.sampled_from([0.5, 1, 3]), st.integers(0, 2)
    )
    for owner, project, cpu, gpus in data.draw(st.lists(one, max_size=8)):
        job = waiting(owner, project, cpu=cpu, gpus=gpus)
        if room(standing, job)[0]:
            held.append(job)
            standing.holds(running(job, NOW), NOW)
    owner, project, cpu, gpus = data.draw(one)
    asked = waiting(owner, project, cpu=cpu, gpus=gpus, array="1:100")
    count, reason = room(standing, asked)
    assert (count == 0) == (reason is not None)
    assert not broken(policy, held, asked, count) or not count
    if count < PLENTY:
        names = {name for name, _ in broken(policy, held, asked, count + 1)}
        assert names
        if reason is not None:
            assert {blocker.name for blocker in reason.blockers} == names


def broken(policy: Policy, held: list[Job], asked: Job, count: int) -> set[tuple[str, float]]:
    """The limits that apply to `asked` and are broken by `held` and `count` of it."""
    owner, project = asked.owner, asked.spec.project
    user, rules = policy.user(owner), policy.projects.get(project or "")
    groups = [
        (f"user {owner}", user.limits, [job for job in held if job.owner == owner]),
        (
            f"guest {owner}",
            policy.guests if user.guest else None,
            [job for job in held if job.owner == owner],
        ),
        ("project p", rules and rules.limits, [job for job in held if job.spec.project == "p"]),
        (
            f"member {owner} of project p",
            rules and rules.member_limits,
            [job for job in held if job.spec.project == "p" and job.owner == owner],
        ),
        ("site", policy.site, held),
    ]
    found = set()
    for name, limits, jobs in groups:
        if limits is None:
            continue
        for field, need, used in (
            ("cpus", asked.spec.cpu, sum(job.spec.cpu for job in jobs)),
            ("gpus", asked.spec.gpus.count, sum(job.spec.gpus.count for job in jobs)),
            ("running", 1, len(jobs)),
        ):
            limit = getattr(limits, field)
            if limit is not None and need and used + need * count > limit + 1e-6:
                found.add((f"{name}: {field}", limit))
    return found


# At submission


def refused(
    standing: Standing, owner: str, *specs: tuple[JobSpec, int], now: float = NOW
) -> list[FieldError]:
    return standing.refusals(owner, specs, now)


def test_what_could_never_start_is_refused() -> None:
    assert refused(Standing(POLICY), "alice", spec(gpus=8, cpu=2)) == [
        FieldError("gpus", "8", "user alice may have at most gpus 4 at once: it could never start")
    ]
    (error,) = refused(Standing(POLICY), "alice", spec(cpu=3, nodes=4, count=4))
    assert (error.field, error.value) == ("cpu", "12 on 4 nodes")
    (error,) = refused(Standing(POLICY), "alice", spec(nodes=7, cpu=1, count=7))
    assert (error.field, error.value) == ("nodes", "7")
    assert refused(Standing(POLICY), "alice", spec(cpu=1, array="1:100", count=100)) == []


def test_many_like_it_are_refused_with_one_sentence() -> None:
    assert len(refused(Standing(POLICY), "alice", *[spec(gpus=8)] * 50)) == 1


def test_so_many_may_wait() -> None:
    standing = Standing(load("users: {alice: {limits: {pending: 100}}}\nsite: {pending: 150}"))
    array = waiting("alice", array="1:90")
    standing.waits(array, 90)
    assert refused(standing, "alice", spec(10, array="1:10")) == []
    assert refused(standing, "alice", spec(11, array="1:11")) == [
        FieldError("array", "11", "user alice: pending 90 of 100, 11 more asked for")
    ]
    (error,) = refused(standing, "bob", *[spec()] * 61)
    assert error == FieldError("", "61", "site: pending 90 of 150, 61 more asked for")
    standing.leaves(array, 90)
    assert refused(standing, "alice", spec(100, array="1:100")) == []


def test_projects_and_their_members_limit_what_waits_too() -> None:
    text = "projects: {sun: {members: ['*'], limits: {pending: 10}, member_limits: {pending: 6}}}"
    standing = Standing(load(text))
    standing.waits(waiting("alice", "sun"), 5)
    (error,) = refused(standing, "alice", spec(2, project="sun"))
    assert error.message == "member alice of project sun: pending 5 of 6, 2 more asked for"
    (error,) = refused(standing, "bob", spec(6, project="sun"))
    assert error.message == "project sun: pending 5 of 10, 6 more asked for"
    assert refused(standing, "bob", spec(7)) == []


def test_full_job_directories_are_refused_until_some_are_gone() -> None:
    standing = Standing(load("users: {alice: {limits: {disk: 10G}}}"))
    one, other = waiting("alice"), waiting("alice")
    standing.stores(one, 6 << 30)
    standing.stores(one, 7 << 30)
    standing.stores(other, 3 << 30)
    assert standing.disk("alice") == 10 << 30
    (error,) = refused(standing, "alice", spec())
    assert error.message == "user alice: disk 10G of 10G taken by job directories; archive or purge jobs"
    standing.stores(one, 0)
    assert refused(standing, "alice", spec()) == []
    assert standing.disk("alice") == 3 << 30


# Over the window

BUDGET = load("users: {alice: {limits: {cpu_hours: 100}}}\nwindow: 10d")


def test_used_up_hours_are_refused_with_figures_and_a_date() -> None:
    standing = Standing(BUDGET, [past("alice", 100)])
    (error,) = refused(standing, "alice", spec())
    assert error.field == ""
    assert error.message.startswith(
        "user alice: cpu_hours 100 of 100 used in 10d00h; enough are free again at "
    )
    assert refused(standing, "bob", spec()) == []
    assert refused(standing, "alice", spec(), now=NOW + 10 * DAY) == []


def test_what_is_asked_for_by_the_time_limit_counts() -> None:
    standing = Standing(BUDGET, [past("alice", 90)])
    assert refused(standing, "alice", spec(time_limit="10h")) == []
    assert refused(standing, "alice", spec()) == [], "what it will use is not known"
    (error,) = refused(standing, "alice", spec(time_limit="4h", array="1:3", count=3))
    assert (error.field, error.value) == ("time_limit", "12")
    assert "90 of 100 used in 10d00h, 12 more asked for by the time limit; enough are free" in error.message
    (error,) = refused(standing, "alice", spec(time_limit="101h"))
    assert error.message.endswith("101 more asked for by the time limit: never so many at once")


def test_what_runs_now_counts_up_to_now() -> None:
    standing = Standing(BUDGET)
    hold(standing, "alice", cpu=10, at=NOW - 9 * HOUR)
    assert refused(standing, "alice", spec()) == []
    assert len(refused(standing, "alice", spec(), now=NOW + HOUR)) == 1


def test_memory_and_gpus_have_hours_of_their_own() -> None:
    policy = load("users: {alice: {limits: {memory_hours: 64, gpu_hours: 8}}}")
    standing = Standing(policy, [past("alice", 4, memory=16 * int(GIB), gpus=2)])
    names = [error.message.split(" used")[0] for error in refused(standing, "alice", spec(gpus=1))]
    assert names == ["user alice: memory_hours 64 of 64", "user alice: gpu_hours 8 of 8"]
    gpus = load("users: {alice: {limits: {gpu_hours: 8}}}")
    standing = Standing(gpus, [past("alice", 4, gpus=2)])
    assert refused(standing, "alice", spec()) == [], "it needs no GPU"


@pytest.mark.parametrize("over", ["refuse", "wait"])
def test_hours_that_are_used_up_keep_jobs_from_starting(over: str) -> None:
    policy = BUDGET.model_copy(update={"over_budget": over})
    standing = Standing(policy, [past("alice", 120)])
    count, reason = room(standing, waiting("alice"))
    assert count == 0
    assert reason is not None
    assert reason.blockers[0].name == "user alice: cpu_hours"
    assert reason.blockers[0].message == "user alice: cpu_hours 120 of 100 used"
    assert bool(refused(standing, "alice", spec())) == (over == "refuse")
    assert room(standing, waiting("alice"), NOW + 10 * DAY)[0] > 0


SPANS = st.lists(
    st.tuples(st.floats(0, 30 * DAY), st.floats(0, 5 * DAY), st.sampled_from([1.0, 4.0])), max_size=10
)


@given(SPANS, st.floats(0, 40 * DAY))
def test_the_sum_over_the_window_is_that_of_the_allocations(
    spans: list[tuple[float, float, float]], later: float
) -> None:
    window = 10 * DAY
    history = [
        past("alice", length / HOUR, cpu=cpu, end=NOW + begin + length) for begin, length, cpu in spans
    ]
    now = max([NOW + later, *(one.end or 0 for one in history)])
    exact = sum(
        one.cpu * max(0.0, min(one.end or now, now) - max(one.begin, now - window)) for one in history
    )
    found = Standing(BUDGET, history).account("user", "alice", None).within(now, window).cpu
    most = sum(cpu for _, _, cpu in spans)
    assert found == pytest.approx(exact, abs=most * window / MARKS + 1)


@given(SPANS.filter(bool), st.floats(1, 90))
def test_the_date_on_which_enough_is_free_is_right(
    spans: list[tuple[float, float, float]], asked: float
) -> None:
    window, limit = 10 * DAY, 100 * HOUR
    history = [
        past("alice", length / HOUR, cpu=cpu, end=NOW + begin + length) for begin, length, cpu in spans
    ]
    now = max(one.end or 0 for one in history)
    account = Standing(BUDGET, history).account("user", "alice", None)
    goal = limit - asked * HOUR
    at = account.free_again(0, goal, now, window)
    assert at >= now
    assert account.within(at, window).cpu <= goal + 60
    if at > now + 1:
        assert account.within(at - 1, window).cpu >= goal - 60


def test_marks_do_not_pile_up() -> None:
    standing = Standing(BUDGET)
    for i in range(20_000):
        job = hold(standing, "alice", at=NOW + i * 600)
        standing.releases(ended(job, NOW + i * 600 + 300), NOW + i * 600 + 300)
    account = standing.account("user", "alice", None)
    assert len(account.marks[0]) <= 2 * MARKS + 1
    found = account.within(NOW + 20_000 * 600, 10 * DAY).cpu
    assert found == pytest.approx(5 * DAY, rel=0.01)
