"""The same of both databases: what is written is read back, lists and sums are right."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from perijove.model import (
    Blocker,
    BlockerKind,
    Endpoint,
    Gpu,
    Job,
    JobEvent,
    JobSpec,
    Reason,
    ReasonCode,
    State,
)
from perijove_hub import accounting
from perijove_hub.accounting import AXES, DAY, Allocation
from perijove_hub.store import rows
from perijove_hub.store.database import Batch, Database, Page

NOW = 1_700_000_000.0


def job(number: int, **changes: Any) -> Job:
    spec = changes.pop("spec", {})
    fields = {"owner": "alice", "name": "j", "state": State.PENDING, "submitted": NOW + number}
    made = JobSpec.model_validate({"command": ["true"], **spec})
    return Job.model_validate({"id": number, **fields, **changes, "spec": made})


def event(seq: int, number: int, **detail: Any) -> JobEvent:
    return JobEvent(seq, number, "alice", NOW, "submitted", State.PENDING, 0, detail)


def held(number: int, begin: float, end: float | None, **changes: Any) -> Allocation:
    whole = Allocation(
        number, 1, "alice", None, "batch", None, None, "n1", 1.0, 1 << 30, 0, begin, end, str(number)
    )
    return replace(whole, **changes)


def write(database: Database, *jobs: Job) -> None:
    database.commit(Batch(new={job.id: job for job in jobs}))


FULL = job(
    2**40,
    owner="ünal",
    name="näme \N{ROCKET}",
    state=State.SUSPENDED,
    reason=Reason(
        code=ReasonCode.QUOTA,
        message="a\x00b \ud800",
        blockers=[Blocker(kind=BlockerKind.JOB, name="12_7", message="m")],
        position=3,
    ),
    attempt=3,
    exit_code=137,
    node="n1",
    launcher="docker",
    gpus=[Gpu(index=1, uuid="GPU-1", model="A100", memory=40 << 30)],
    slots={"gpu_10.5": [0, 3]},
    partition="long",
    endpoint=Endpoint(ports={8888: "h:1"}),
    allocated=NOW,
    started=NOW + 0.123456,
    suspended_at=NOW + 9,
    suspended_seconds=7.25,
    ended=NOW + 99,
    memory_peak=2**41,
    cpu_seconds=1e9,
    gpu_seconds=0.5,
    outputs={"model": "sha256:1"},
    sizes={"model": 12},
    values={"loss": 0.1},
    image_digest="sha256:2",
    image_manifest="r.example/a@sha256:3",
    run=2**40 - 2,
    step="train[3]",
    progress=0.0,
    progress_text='"{\\',
    array_id=2**40 - 1,
    array_task=10**12 - 1,
    tasks={State.RUNNING: 2, State.SUCCEEDED: 1},
    failures=2,
    kept="memory",
    failed_nodes=["n2", "n3"],
    rerun_of=7,
    archived=True,
    kill_requested=True,
    requeue_requested=True,
    spec={"env": {"A": "ü\n"}, "project": "p", "labels": {"k": "v"}, "nodes": 2},
)


def test_every_field_of_a_job_has_another_value_here() -> None:
    same = {name for name, field in Job.model_fields.items() if getattr(FULL, name) == field.get_default()}
    assert same == set(), "this test must hold a job with each field set"


def test_a_job_comes_back_as_it_was(database: Database) -> None:
    write(database, FULL, job(1))
    assert database.job(FULL.id) == FULL
    assert database.job(1) == job(1)
    assert database.job(2) is None
    assert database.member(FULL.array_id or 0, FULL.array_task or 0) == FULL
    assert database.live() == [job(1), FULL]


def test_a_changed_job_comes_back_as_it_is(database: Database) -> None:
    write(
        database, job(FULL.id, array_id=FULL.array_id, array_task=FULL.array_task, run=FULL.run, owner="ünal")
    )
    changed = FULL.model_copy(update={"spec": FULL.spec.model_copy(update={"priority": 7})})
    database.commit(Batch(respecified={FULL.id: changed}))
    assert database.job(FULL.id) == changed.model_copy(update={"submitted": NOW + FULL.id})
    database.commit(Batch(changed={FULL.id: changed.model_copy(update={"state": State.KILLED})}))
    assert database.live() == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=st.integers(0, 2**62),
    seconds=st.floats(0, 1e12),
    code=st.none() | st.integers(-(2**31), 2**31 - 1),
    text=st.text(),
)
def test_numbers_and_texts_of_any_size_come_back(
    database: Database, memory: int, seconds: float, code: int | None, text: str
) -> None:
    before = database.last()[0]
    some = [
        job(before + 1, memory_peak=memory, cpu_seconds=seconds, started=seconds, progress_text=text),
        job(before + 2, exit_code=code, started=None, reason=Reason(code=ReasonCode.QUOTA, message=text)),
    ]
    write(database, *some)
    assert [database.job(one.id) for one in some] == some


def test_numbers_of_different_kinds_fit_in_one_batch(database: Database) -> None:
    events = [JobEvent(1, 1, "a", 1, "e", State.PENDING, 0), JobEvent(2, 1, "a", 1.5, "e", State.PENDING, 0)]
    allocations = [held(1, 1, None), held(2, 1.5, 2, cpu=2)]
    database.commit(Batch(events=events, allocations=allocations))
    assert database.events() == events
    assert sorted(database.allocations(0), key=lambda one: one.job) == allocations


def test_a_batch_is_written_as_a_whole_or_not_at_all(database: Database) -> None:
    write(database, job(1))
    batch = Batch(new={2: job(2), 1: job(1)}, events=[event(1, 2)], allocations=[held(2, 1.0, None)])
    with pytest.raises(IntegrityError):
        database.commit(batch)
    assert [found.id for found in database.live()] == [1]
    assert database.events() == []
    assert database.allocations(0) == []
    assert database.last() == (1, 0)


def test_one_row_that_cannot_be_written_keeps_no_other_from_it(database: Database) -> None:
    write(database, job(1))
    batch = Batch(new={number: job(number) for number in (1, 2, 3)}, events=[event(1, 2), event(2, 3)])
    with pytest.raises(IntegrityError):
        database.commit(batch)
    database.commit_piecemeal(batch)
    assert [found.id for found in database.live()] == [1, 2, 3]
    assert [found.seq for found in database.events()] == [1, 2]


def test_numbers_once_given_are_not_given_again(database: Database) -> None:
    write(database, job(1), job(2, spec={"array": "1:10"}), job(13, spec={"nodes": 4}))
    database.commit(Batch(events=[event(5, 1)]))
    assert database.last() == (17, 5)
    database.commit(Batch(removed=[1, 2, 13]))
    assert database.jobs(Page()) == []
    assert database.last() == (17, 5)


def test_what_is_removed_leaves_its_charges(database: Database) -> None:
    group = job(1, state=State.SUCCEEDED, spec={"array": "1:2", "labels": {"k": "v"}})
    member = job(2, array_id=1, array_task=1, state=State.SUCCEEDED)
    batch = Batch(new={1: group, 2: member, 4: job(4)}, events=[event(1, 1), event(2, 2), event(3, 4)])
    batch.allocations = [held(2, NOW, NOW + 60)]
    database.commit(batch)
    database.commit(Batch(removed=[1]))
    assert [found.id for found in database.jobs(Page(members=True))] == [4]
    assert [found.job for found in database.events()] == [4]
    assert database.jobs(Page(labels=(("k", "v"),))) == []
    assert database.allocations(0) == [held(2, NOW, NOW + 60)]


def test_an_idempotency_key_is_found_again(database: Database) -> None:
    database.commit(Batch(new={7: job(7)}, submissions=[{"owner": "a", "key": "k", "first": 7, "count": 3}]))
    assert database.submission("a", "k") == range(7, 10)
    assert database.submission("b", "k") is None


def test_a_file_belongs_to_who_uploaded_it(database: Database) -> None:
    for _ in range(2):
        database.add_file("sha256:1", "a", 2**40, NOW)
    assert database.owns("a", "sha256:1")
    assert not database.owns("b", "sha256:1")


def test_documents_have_versions(database: Database) -> None:
    assert database.document("policy") is None
    first = database.save_document("policy", "a: 1\n", "root", NOW)
    assert database.save_document("policy", "a: 1\n", "root", NOW + 1) == first  # a repeated request
    second = database.save_document("policy", "a: 2\n", "root", NOW + 2)
    database.save_document("drains", "{}", "root", NOW)
    assert (first.version, second.version) == (1, 2)
    assert database.document("policy") == second
    assert database.documents("policy") == [second, first]


def test_the_members_of_a_group_that_have_rows(database: Database) -> None:
    members = [job(2, array_id=1, array_task=0), job(5, array_id=1, array_task=9, state=State.FAILED)]
    write(database, job(1, spec={"array": "0:9:3"}), *members)
    assert database.group_tasks(1) == {0: State.PENDING, 9: State.FAILED}
    assert database.members(1) == members
    assert database.array_counts(1) == {State.PENDING: 1, State.FAILED: 1}


def test_jobs_that_are_old_enough(database: Database) -> None:
    ended = {"state": State.SUCCEEDED}
    some = [
        job(1, **ended, ended=NOW + 2),
        job(2, **ended, ended=NOW + 1),
        job(3, **ended, ended=NOW + 1, archived=True),
        job(4, **ended, ended=NOW + 1, array_id=1, array_task=0),
        job(5),
        job(6, **ended, ended=NOW + 5),
    ]
    write(database, *some)
    assert [one.id for one in database.expired(NOW + 5, False, 10)] == [2, 1]
    assert [one.id for one in database.expired(NOW + 5, False, 1)] == [2]
    assert [one.id for one in database.expired(NOW + 5, True, 10)] == [3]


# Lists, against a plain loop


def _some_jobs(count: int) -> list[Job]:
    chance = random.Random(3)
    made: list[Job] = []
    for number in range(1, count + 1):
        groups = [one.id for one in made if one.array_id is None]
        member = number > 3 and chance.random() < 0.3
        labels = {key: chance.choice("xy") for key in "kl" if chance.random() < 0.5}
        made.append(
            job(
                number,
                owner=chance.choice(["alice", "bob"]),
                name=chance.choice(["a", "b"]),
                state=chance.choice(list(State)),
                array_id=chance.choice(groups) if member else None,
                array_task=number if member else None,
                spec={"labels": labels, "project": chance.choice([None, "p", "q"])},
            )
        )
    # Members bear the labels of their group.
    by_id = {one.id: one for one in made}
    return [
        one.model_copy(update={"spec": by_id[one.array_id].spec, "owner": by_id[one.array_id].owner})
        if one.array_id is not None
        else one
        for one in made
    ]


def _expected(jobs: list[Job], page: Page) -> list[int]:
    def wanted(one: Job) -> bool:
        return (
            (not page.states or one.state in page.states)
            and page.owner in {None, one.owner}
            and page.name in {None, one.name}
            and page.project in {None, one.spec.project}
            and all(one.spec.labels.get(key) == value for key, value in page.labels)
            and (page.before is None or one.id < page.before)
            and (one.array_id == page.array if page.array else page.members or one.array_id is None)
        )

    return [one.id for one in reversed(jobs) if wanted(one)][: page.limit]


def test_lists_hold_what_was_asked_for_newest_first(database: Database) -> None:
    jobs = _some_jobs(120)
    # half of them reach their state by a change
    early = [one if one.id % 2 else one.model_copy(update={"state": State.PENDING}) for one in jobs]
    write(database, *early)
    database.commit(Batch(changed={one.id: one for one in jobs if one.id % 2 == 0}))
    chance = random.Random(5)
    for _ in range(200):
        page = Page(
            states=tuple(chance.sample(list(State), chance.choice([0, 0, 1, 2, 5]))),
            owner=chance.choice([None, "alice", "bob"]),
            name=chance.choice([None, None, "a"]),
            project=chance.choice([None, None, "p"]),
            labels=tuple(chance.sample([("k", "x"), ("l", "y")], chance.choice([0, 0, 1, 2]))),
            before=chance.choice([None, 50]),
            limit=chance.choice([5, 1000]),
            array=chance.choice([None, None, None, 1, 2]),
            members=chance.random() < 0.3,
        )
        assert [one.id for one in database.jobs(page)] == _expected(jobs, page), page


# Sums, against the pure function


def _some_allocations(count: int, now: float) -> list[Allocation]:
    chance = random.Random(7)
    made = []
    for number in range(1, count + 1):
        begin = now - chance.random() * 5 * DAY
        end = None if chance.random() < 0.1 else min(now, begin + chance.choice([0, 60, DAY, 3 * DAY]))
        made.append(
            held(
                chance.randint(1, count // 2),
                begin,
                end,
                attempt=number,
                owner=chance.choice(["alice", "bob"]),
                project=chance.choice([None, "p"]),
                image=chance.choice([None, "i"]),
                partition=chance.choice([None, "long"]),
                node=chance.choice(["n1", "n2"]),
                cpu=chance.choice([0.5, 4]),
                gpus=chance.choice([0, 2]),
            )
        )
    return made


@pytest.mark.parametrize("by", [(), ("owner",), ("day",), ("project", "day", "node"), AXES])
def test_usage_is_the_sum_of_what_was_held(database: Database, by: tuple[Any, ...]) -> None:
    now = NOW + 3600
    allocations = _some_allocations(200, now)
    database.commit(Batch(allocations=[replace(one, end=None) for one in allocations]))
    database.commit(Batch(allocations=[one for one in allocations if one.end is not None]))
    for since, until in ((0.0, now), (now - 2.5 * DAY, now), (now - 3 * DAY, now - DAY), (now - 600, now)):
        found = database.usage(by, since, until)
        expected = accounting.usage(allocations, by, now=now, since=since, until=until)
        assert found.keys() == expected.keys()
        for key, spent in expected.items():
            assert found[key].jobs == spent.jobs, key
            for name in ("cpu_seconds", "memory_byte_seconds", "gpu_seconds"):
                assert getattr(found[key], name) == pytest.approx(getattr(spent, name), abs=1e-3, rel=1e-9)
    only = database.usage(("owner",), 0.0, now, owner="bob", project="p")
    assert {owner for (owner,) in only} <= {"bob"}


def test_the_history_since_a_time(database: Database) -> None:
    allocations = _some_allocations(100, NOW)
    database.commit(Batch(allocations=allocations))
    since = NOW - 2 * DAY
    expected = [one for one in allocations if one.end is None or one.end >= since]
    assert database.allocations(since) == sorted(expected, key=lambda one: (one.begin, one.job))


def test_columns_are_written_in_the_order_they_are_named() -> None:
    assert len(rows.row_of(FULL)) == len(rows.INSERTED)
    assert len(rows.update_of(FULL)) == len(rows.UPDATED) + 1
    assert len(rows.respecified_of(FULL)) == len(rows.RESPECIFIED) + 1
