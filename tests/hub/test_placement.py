"""What a pass decides: single cases of every rule. Properties over random queues are next door."""

from __future__ import annotations

from placing import Open, decide, job, ledger_of, node, placed, spec, where

from perijove.model import Capabilities, Gpu, Node, NodeState
from perijove_hub.placement.entry import Entry, Placement


def test_small_jobs_go_on_round_a_big_one_and_leave_it_its_room() -> None:
    ledger = ledger_of(node("n0", 4, gpus=2))
    first = job(1, spec(gpus=1))
    ledger.hold(placed(first, Placement(1, "n0", gpus=tuple(ledger.nodes[0].gpus[:1]))))
    decided = decide(ledger, [job(2, spec(gpus=2)), job(3, spec(gpus=1)), job(4)])
    assert where(decided) == {4: "n0"}, "the plain job needs nothing that the big one waits for"
    assert decided.reasons[2].message == "waits for 2 GPUs (1 free) on n0"
    assert decided.reasons[3].message == "what is free on n0 is kept for job 2, which is before it"


def test_a_node_that_is_not_up_gets_nothing() -> None:
    ledger = ledger_of(node("n0"))
    ledger.mark("n0", NodeState.DRAIN, "new disk")
    decided = decide(ledger, [job(1)])
    assert not decided.placements
    assert decided.reasons[1].code == "NodeDown"


def test_a_gpu_is_found_by_a_part_of_its_model() -> None:
    gpus = [Gpu(index=0, uuid="a", model="NVIDIA H100 80GB"), Gpu(index=1, uuid="b", model="Tesla T4")]
    ledger = ledger_of(
        Node(name="n", cpus=4, memory=1 << 33, gpus=gpus, launchers=[Capabilities(name="process")])
    )
    decided = decide(ledger, [job(1, spec(gpus="t4:1"))])
    assert [gpu.uuid for gpu in decided.placements[0].gpus] == ["b"]


def test_labels_and_os_choose_the_node() -> None:
    ledger = ledger_of(node("n0"), node("n1", labels={"disk": "ssd", "os": "linux"}))
    assert where(decide(ledger, [job(1, spec(constraints={"disk": "ssd"}, os="linux"))])) == {1: "n1"}


def test_a_quota_lets_some_members_start() -> None:
    ledger = ledger_of(node("n0", 8))
    decided = decide(ledger, [Entry(job(1, spec(array="1:100")), 100)], gate=Open({1: 3}))
    assert sum(one.count for one in decided.placements) == 3
    assert decided.reasons[1].code == "Quota"
