"""What a pass decides: single cases of every rule. Properties over random queues are next door."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from placing import Open, decide, job, ledger_of, node, placed, spec, where

from perijove.model import Capabilities, Gpu, Job, Node, NodeState
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry, Placement
from perijove_hub.placement.plan import Plan, Rules, plan
from perijove_hub.policy.document import Policy

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


def run(ledger: Ledger, number: int, name: str = "n0", now: float = 0.0, **fields: Any) -> Job:
    """A job that runs on a node."""
    more = {key: fields.pop(key) for key in ("partition", "requeue_requested", "owner") if key in fields}
    one = placed(job(number, spec(**fields)), Placement(number, name), now, **more)
    gpus = ledger.free(name).gpus[: one.spec.gpus.count]
    one = one.model_copy(update={"gpus": gpus})
    ledger.hold(one, now=now)
    return one


def counts(decided: Plan) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in decided.placements:
        found[one.node] = found.get(one.node, 0) + one.count
    return found


# ---- kinds of nodes


def test_a_node_that_is_not_up_gets_nothing() -> None:
    ledger = ledger_of(node("n0"))
    ledger.mark("n0", NodeState.DRAIN, "new disk")
    decided = decide(ledger, [job(1)])
    assert not decided.placements
    assert decided.reasons[1].code == "NodeDown"
    assert decided.reasons[1].message == "no node that could run it is up (n0)"


def test_labels_and_os_choose_the_node() -> None:
    ledger = ledger_of(node("n0"), node("n1", labels={"disk": "ssd", "os": "linux"}))
    assert where(decide(ledger, [job(1, spec(constraints={"disk": "ssd"}, os="linux"))])) == {1: "n1"}
    ledger.announce(node("n0", labels={"disk": "ssd", "os": "linux"}))
    assert where(decide(ledger, [job(1, spec(node="n0"))])) == {1: "n0"}
    assert counts(decide(ledger, [Entry(job(1, spec(cpu=4, constraints={"disk": "ssd"})), 2)])) == {
        "n0": 1,
        "n1": 1,
    }


def test_a_launcher_is_not_everywhere() -> None:
    ledger = ledger_of(node("n0"), node("n1", launchers=[Capabilities(name="docker")]))
    assert where(decide(ledger, [job(1, launcher="docker")])) == {1: "n1"}
    assert decide(ledger, [job(1, launcher="podman")]).reasons[1].code == "NodeDown"


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ("t4:1", ["b"]),
        ("H100:1", ["a"]),
        ("h100-80gb:1", ["a"]),
        ("1@40G", ["a"]),
        ("2", ["a", "b"]),
        ("1", ["a"]),
    ],
)
def test_a_gpu_is_found_by_a_part_of_its_model_and_by_its_memory(asked: str, devices: list[str]) -> None:
    gpus = [
        Gpu(index=0, uuid="a", model="NVIDIA H100 80GB", memory=80 << 30),
        Gpu(index=1, uuid="b", model="Tesla T4", memory=16 << 30),
    ]
    ledger = ledger_of(node("n0").model_copy(update={"gpus": gpus}))
    decided = decide(ledger, [job(1, spec(gpus=asked))])
    assert [gpu.uuid for gpu in decided.placements[0].gpus] == devices


def test_units_are_numbered_and_counts_are_counted() -> None:
    slots = {"gpu_10.5": [{"devices": ["/dev/a"]}, {"devices": ["/dev/b"]}, {"devices": ["/dev/c"]}]}
    ledger = ledger_of(node("n0", 8, slots=slots, resources={"licence": 4}))
    asked = spec(resources={"gpu_10.5": 1, "licence": 2})
    decided = decide(ledger, [Entry(job(1, asked), 2), job(2, asked)])
    assert [numbers for one in decided.placements for numbers in one.slots["gpu_10.5"]] == [0, 1]
    assert all("licence" not in one.slots for one in decided.placements)
    assert decided.reasons[2].message == "waits for 2 licence (0 free) on n0"
    first = placed(job(1, asked), Placement(1, "n0", slots={"gpu_10.5": (1,)}))
    ledger.hold(first)
    assert decide(ledger, [job(2, spec(resources={"gpu_10.5": 2}))]).placements[0].slots == {
        "gpu_10.5": (0, 2)
    }


def test_a_node_where_it_failed_is_avoided_while_there_are_others() -> None:
    ledger = ledger_of(node("n0", 8), node("n1", 4))
    assert where(decide(ledger, [job(1)])) == {1: "n0"}
    assert where(decide(ledger, [job(1, failed_nodes=["n0"])])) == {1: "n1"}
    assert where(decide(ledger, [job(1, failed_nodes=["n0", "n1"])])) == {1: "n0"}
    run(ledger, 9, "n1", cpu=4)
    assert not decide(ledger, [job(1, failed_nodes=["n0"])]).placements, "it waits for the other"
    ledger.mark("n1", NodeState.DOWN)
    assert where(decide(ledger, [job(1, failed_nodes=["n0"])])) == {1: "n0"}


# ---- how they are spread


def test_jobs_are_spread_or_packed() -> None:
    ledger = ledger_of(*(node(f"n{i}", 4) for i in range(3)))
    assert counts(decide(ledger, [job(i) for i in range(1, 5)])) == {"n0": 2, "n1": 1, "n2": 1}
    assert counts(decide(ledger, [job(i) for i in range(1, 5)], spread=False)) == {"n0": 4}
    assert counts(decide(ledger, [Entry(job(1), 100)])) == {"n0": 4, "n1": 4, "n2": 4}
    assert counts(decide(ledger, [Entry(job(1, spec(cpu=0.1)), 40)], spread=False)) == {"n0": 40}


@pytest.mark.parametrize("spread", [True, False])
def test_nodes_with_gpus_are_left_to_jobs_with_gpus(spread: bool) -> None:
    ledger = ledger_of(node("g", 64, gpus=4), node("n1", 2))
    decided = decide(ledger, [job(1), job(2), job(3), job(4, spec(gpus=1))], spread=spread)
    assert where(decided) == {1: "n1", 2: "n1", 3: "g", 4: "g"}


def test_an_exclusive_job_shares_with_none() -> None:
    ledger = ledger_of(node("n0", 4), node("n1", 4))
    run(ledger, 9, "n0", cpu=1)
    alone = spec(exclusive=True)
    decided = decide(ledger, [job(1, alone), job(2, alone), job(3)])
    assert where(decided) == {1: "n1"}
    assert "to have the node for itself" in decided.reasons[2].message
    assert decided.reasons[3].message == "what is free on n0 is kept for job 2, which is before it"


# ---- gangs and arrays


def test_a_gang_starts_on_different_nodes_or_not_at_all() -> None:
    ledger = ledger_of(*(node(f"n{i}", 4) for i in range(3)))
    gang = job(1, spec(cpu=3, nodes=2))
    assert sorted(one.node for one in decide(ledger, [Entry(gang, 2)]).placements) == ["n0", "n1"]
    run(ledger, 8, "n0", cpu=2)
    run(ledger, 9, "n1", cpu=2)
    decided = decide(ledger, [Entry(gang, 2), job(2, spec(cpu=4))])
    assert not decided.placements, "n2 is kept for the gang"
    assert decided.reasons[1].message == "waits for 2 nodes with 3 CPUs, 64M free each (1 have)"
    assert not decide(ledger, [Entry(gang, 2)], gate=Open({1: 1})).placements
    assert decide(ledger, [Entry(job(1, spec(nodes=4)), 4)]).reasons[1].code == "NodeDown"


def test_a_gang_is_not_starved_by_short_jobs() -> None:
    ledger = ledger_of(node("n0", 4), node("n1", 4))
    run(ledger, 9, "n0", cpu=4, time_limit=100)
    gang = Entry(job(1, spec(cpu=4, nodes=2, time_limit=50)), 2)
    behind = [job(2, spec(cpu=4, time_limit=100)), job(3, spec(cpu=4, time_limit=101))]
    assert where(decide(ledger, [gang, Entry(behind[1])])) == {}
    assert where(decide(ledger, [gang, Entry(behind[0])])) == {2: "n1"}, "it ends when the gang begins"


def test_a_quota_lets_some_members_start() -> None:
    ledger = ledger_of(node("n0", 8))
    decided = decide(ledger, [Entry(job(1, spec(array="1:100")), 100)], gate=Open({1: 3}))
    assert sum(one.count for one in decided.placements) == 3
    assert decided.reasons[1].code == "Quota"


def test_a_job_over_quota_keeps_nothing_from_others() -> None:
    ledger = ledger_of(node("n0", 4))
    decided = decide(ledger, [job(1, spec(cpu=4)), job(2)], gate=Open({1: 0}))
    assert where(decided) == {2: "n0"}
    assert decided.reasons[1].code == "Quota"


def test_no_more_is_asked_for_than_is_needed() -> None:
    ledger, asked = ledger_of(node("n0", 4)), []

    def queue() -> Iterator[Entry]:
        for i in range(1, 1000):
            asked.append(i)
            yield Entry(job(i))

    rules = Rules(Policy(), holdings=ledger.holdings)
    decided = plan(queue(), ledger.table.copy(), rules, Open(), 0.0, most=3)
    assert (asked, decided.complete) == ([1, 2, 3], False)
    asked.clear()
    decided = plan(queue(), ledger.table.copy(), rules, Open(), 0.0)
    assert decided.complete
    assert len(asked) == 4 + Policy().backfill.reservations, "the head is told why it waits; nothing is free"


def test_an_array_may_come_in_portions() -> None:
    ledger, array = ledger_of(node("n0", 4)), job(1, spec(array="1:10"))
    decided = decide(ledger, [Entry(array, 2), Entry(job(20)), Entry(array, 2)])
    assert sum(one.count for one in decided.placements if one.job == 1) == 3
    assert decided.reasons[1].code == "Resources"


# ---- backfill


def test_small_jobs_go_on_round_a_big_one_and_leave_it_its_room() -> None:
    ledger = ledger_of(node("n0", 4, gpus=2))
    run(ledger, 1, gpus=1)
    decided = decide(ledger, [job(2, spec(gpus=2)), job(3, spec(gpus=1)), job(4)])
    assert where(decided) == {4: "n0"}, "the plain job needs nothing that the big one waits for"
    assert decided.reasons[2].message == "waits for 2 GPUs (1 free) on n0"
    assert decided.reasons[3].message == "what is free on n0 is kept for job 2, which is before it"


def test_a_short_job_may_use_what_is_kept_meanwhile() -> None:
    ledger = ledger_of(node("n0", 4))
    run(ledger, 9, cpu=3, time_limit=100)
    big = job(1, spec(cpu=4))
    assert where(decide(ledger, [big, job(2, spec(time_limit=100))])) == {2: "n0"}
    assert where(decide(ledger, [big, job(2, spec(time_limit=101))])) == {}
    assert where(decide(ledger, [big, job(2)])) == {}
    assert where(decide(ledger, [big, job(2, spec(time_limit=61))], 40.0)) == {}


def test_what_a_big_job_will_leave_is_not_kept() -> None:
    ledger = ledger_of(node("n0", 8))
    run(ledger, 9, cpu=5, time_limit=100)
    decided = decide(ledger, [job(1, spec(cpu=6)), job(2, spec(cpu=2)), job(3)])
    assert where(decided) == {2: "n0"}, "two cores are left beside the big one, now and then"


def test_a_job_started_in_the_same_pass_ends_too() -> None:
    ledger = ledger_of(node("n0", 4))
    first, big = job(1, spec(cpu=3, time_limit=100)), job(2, spec(cpu=4))
    assert where(decide(ledger, [first, big, job(3, spec(time_limit=99))])) == {1: "n0", 3: "n0"}
    assert where(decide(ledger, [first, big, job(3, spec(time_limit=101))])) == {1: "n0"}


def test_only_the_head_has_its_room_kept() -> None:
    ledger = ledger_of(node("n0", 4), node("n1", 4))
    for name in ("n0", "n1"):
        run(ledger, 8 if name == "n0" else 9, name, cpu=3, time_limit=100)
    queue = [job(1, spec(cpu=4)), job(2, spec(cpu=4)), job(3)]
    assert where(decide(ledger, queue)) == {}
    assert len(where(decide(ledger, queue, backfill={"reservations": 1}))) == 1


# ---- policy


def test_partitions_have_their_nodes_and_their_users() -> None:
    partitions = {
        "short": {"nodes": ["n[01]"], "default": True},
        "gpu": {"nodes": ["g*"], "users": ["bob", "@ml"], "projects": ["deep"]},
    }
    policy = Policy.model_validate({"partitions": partitions, "projects": {"deep": {}}})
    ledger = ledger_of(node("g0", 64), node("n0", 4), node("n2", 64))
    assert where(decide(ledger, [job(1)], policy=policy)) == {1: "n0"}
    asked = spec(partition="gpu")
    assert decide(ledger, [job(1, asked)], policy=policy).reasons[1].message == (
        "partition gpu is not open to alice"
    )
    assert where(decide(ledger, [job(1, asked, owner="bob")], policy=policy)) == {1: "g0"}
    deep = spec(partition="gpu", project="deep")
    assert where(decide(ledger, [job(1, deep)], policy=policy)) == {1: "g0"}
    gone = decide(ledger, [job(1, spec(), partition="old"), job(2)], policy=policy)
    assert gone.reasons[1].message == "there is no partition old any more"
    assert where(gone) == {2: "n0"}


def test_each_user_is_judged_alone() -> None:
    """Equal jobs of different users are not one shape where the policy tells the users apart."""
    policy = Policy.model_validate({"partitions": {"p": {"users": ["bob"]}}})
    ledger = ledger_of(node("n0"))
    queue = [job(1, spec(partition="p")), job(2, spec(partition="p"), owner="bob")]
    assert where(decide(ledger, queue, policy=policy)) == {2: "n0"}


def reserved(start: float, end: float, **who: Any) -> Policy:
    dates = {key: datetime.fromtimestamp(at, UTC).isoformat() for key, at in (("start", start), ("end", end))}
    return Policy.model_validate({"reservations": {"course": {"nodes": ["n0"], **dates, **who}}})


def test_reserved_nodes_are_for_those_they_are_kept_for() -> None:
    ledger = ledger_of(node("n0"))
    policy = reserved(NOON - HOUR, NOON + HOUR, users=["bob"])
    decided = decide(ledger, [job(1, spec(time_limit=60)), job(2, owner="bob")], NOON, policy=policy)
    assert where(decided) == {2: "n0"}
    assert decided.reasons[1].code == "Reservation"
    assert decided.reasons[1].message == (
        "nodes that could run it are kept for others: course (2026-11-21 11:00 UTC to 2026-11-21 13:00 UTC)"
    )
    assert where(decide(ledger, [job(1)], NOON + HOUR, policy=policy)) == {1: "n0"}, "it is over"


def test_no_job_runs_into_a_reservation_of_others() -> None:
    ledger = ledger_of(node("n0"))
    policy = reserved(NOON + HOUR, NOON + 2 * HOUR, users=["bob"])
    assert where(decide(ledger, [job(1, spec(time_limit=HOUR))], NOON, policy=policy)) == {1: "n0"}
    assert where(decide(ledger, [job(1, spec(time_limit=HOUR + 1))], NOON, policy=policy)) == {}
    assert where(decide(ledger, [job(1)], NOON, policy=policy)) == {}, "nobody knows when it ends"
    short = policy.model_copy(update={"max_time": HOUR})
    assert where(decide(ledger, [job(1)], NOON, policy=short)) == {1: "n0"}
    assert where(decide(ledger, [job(1)], NOON - 30 * HOUR, policy=policy)) == {1: "n0"}, "taken for a day"
    assert where(decide(ledger, [job(1, owner="bob")], NOON, policy=policy)) == {1: "n0"}


@pytest.mark.parametrize(
    ("at", "limit", "why"),
    [
        (-2 * HOUR, 60, "reservation course begins at 2026-11-21 11:00 UTC"),
        (0, HOUR + 60, "reservation course ends at 2026-11-21 13:00 UTC; its time limit is 1h01m"),
        (2 * HOUR, 60, "reservation course is over, or was removed"),
        (0, HOUR, None),
    ],
)
def test_a_job_for_a_reservation_runs_only_inside_it(at: float, limit: float, why: str | None) -> None:
    ledger = ledger_of(node("n0"), node("n1", 64))
    policy = reserved(NOON - HOUR, NOON + HOUR, users=["alice"])
    inside = job(1, spec(reservation="course", time_limit=limit))
    decided = decide(ledger, [inside], NOON + at, policy=policy)
    assert where(decided) == ({1: "n0"} if why is None else {})
    assert why is None or decided.reasons[1].message == why
    foreign = decide(ledger, [inside.model_copy(update={"owner": "eve"})], NOON, policy=policy)
    assert foreign.reasons[1].message == "reservation course is not open to eve"


def test_in_maintenance_nothing_starts() -> None:
    decided = decide(ledger_of(node("n0")), [job(1), job(2)], maintenance="new kernel")
    assert not decided.placements
    assert {one.message for one in decided.reasons.values()} == {"maintenance: new kernel"}


# ---- preemption


def victims(decided: Plan) -> list[tuple[int, int]]:
    return [(one.job, one.by) for one in decided.preemptions]


def test_the_fewest_make_room_of_lower_priority_first_then_the_youngest() -> None:
    ledger = ledger_of(node("n0", 8))
    run(ledger, 1, cpu=2, preemptible=True, priority=60, now=3.0)
    run(ledger, 2, cpu=2, preemptible=True, priority=40, now=1.0)
    run(ledger, 3, cpu=2, preemptible=True, priority=40, now=2.0)
    run(ledger, 4, cpu=2)
    assert victims(decide(ledger, [job(9, spec(cpu=2))], 100.0)) == [(3, 9)]
    assert sorted(victims(decide(ledger, [job(9, spec(cpu=4))], 100.0))) == [(2, 9), (3, 9)]
    assert sorted(victims(decide(ledger, [job(9, spec(cpu=6))], 100.0))) == [(1, 9), (2, 9), (3, 9)]
    assert victims(decide(ledger, [job(9, spec(cpu=7))], 100.0)) == []


def test_one_victim_is_better_than_two_on_another_node() -> None:
    ledger = ledger_of(node("n0", 4), node("n1", 4))
    run(ledger, 1, "n0", cpu=2, preemptible=True, priority=1)
    run(ledger, 2, "n0", cpu=2, preemptible=True, priority=1)
    run(ledger, 3, "n1", cpu=4, preemptible=True, priority=90)
    assert victims(decide(ledger, [job(9, spec(cpu=3))], 100.0)) == [(3, 9)]


def test_each_gets_victims_of_its_own_and_what_they_leave_is_kept() -> None:
    ledger = ledger_of(node("n0", 2))
    for number in (1, 2):
        run(ledger, number, preemptible=True, now=float(number))
    queue = [job(7), job(8), job(9)]
    assert victims(decide(ledger, queue, 100.0)) == [(2, 7), (1, 8)]


def test_while_victims_leave_no_others_are_asked_to() -> None:
    ledger = ledger_of(node("n0", 3))
    for number in (1, 2):
        run(ledger, number, cpu=1, preemptible=True)
    run(ledger, 3, cpu=1, preemptible=True, requeue_requested=True)
    assert victims(decide(ledger, [job(8)], 100.0)) == []
    assert victims(decide(ledger, [job(8), job(9)], 100.0)) == [(1, 9)]
    assert not decide(ledger, [job(8), job(9, spec(preemptible=True, time_limit=1))], 100.0).placements


@pytest.mark.parametrize(
    ("rules", "asking", "expected"),
    [
        ({"mode": "off"}, {}, []),
        ({"exempt": 200}, {}, []),
        ({"exempt": 50}, {}, [(1, 9)]),
        ({"mode": "suspend"}, {}, [(1, 9)]),
        ({"mode": "suspend"}, {"memory": "8G"}, []),  # a suspended job keeps its memory
        ({"mode": "requeue"}, {"memory": "8G"}, [(1, 9)]),
        ({}, {"preemptible": True}, []),
        ({}, {"partition": "low"}, []),
    ],
)
def test_who_may_be_asked_to_leave_for_whom(
    rules: dict[str, Any], asking: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    ledger = ledger_of(node("n0", 4))
    run(ledger, 1, cpu=4, partition="low")
    policy = Policy.model_validate({"preemption": rules, "partitions": {"low": {"preemptible": True}}})
    assert victims(decide(ledger, [job(9, spec(**asking))], 100.0, policy=policy)) == expected


def test_gpus_and_whole_nodes_are_made_room_for() -> None:
    ledger = ledger_of(node("n0", 4, gpus=2))
    run(ledger, 1, gpus=1, preemptible=True)
    run(ledger, 2, gpus=1)
    assert victims(decide(ledger, [job(9, spec(gpus=1))], 100.0)) == [(1, 9)]
    assert victims(decide(ledger, [job(9, spec(gpus=2))], 100.0)) == []
    assert victims(decide(ledger, [job(9, spec(exclusive=True))], 100.0)) == []
    ledger.release("n0", 2)
    assert victims(decide(ledger, [job(9, spec(exclusive=True))], 100.0)) == [(1, 9)]


# ---- why


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"cpu": 3}, "waits for 3 CPUs (1 free) on n1"),
        ({"cpu": 3, "memory": "8G"}, "waits for 3 CPUs (1 free) and 8G of memory (7G free) on n1"),
        ({"cpu": 0.5, "gpus": "h100:2"}, "waits for 2 h100 GPUs (1 free) on n0"),
        (
            {"cpu": 99},
            "waits for a node that has 99 CPUs, 64M; of those that are up and could run it none has",
        ),
    ],
)
def test_reasons_have_the_figures(asked: dict[str, Any], why: str) -> None:
    ledger = ledger_of(node("n0", 4, gpus=2), node("n1", 4))
    run(ledger, 8, "n0", cpu=3.5, gpus=1)
    run(ledger, 9, "n1", cpu=3, memory="1G")
    found = decide(ledger, [job(1, spec(**asked))]).reasons[1]
    assert found.message == why


def test_a_site_with_nobody_on_it_says_so() -> None:
    found = decide(Ledger(), [job(1)]).reasons[1]
    assert found.message == "no node that could run it is up (none is known)"
    many = [Node(name=f"n{i:02}", cpus=1, memory=1, state=NodeState.DOWN) for i in range(20)]
    assert "none is known" in decide(ledger_of(*many), [job(1)]).reasons[1].message
