"""Placement and ledger as properties over random queues and nodes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Capabilities, Gpu, Job, JobSpec, Node, NodeState, State
from perijove_hub.ledger import Ledger
from perijove_hub.placement import fits, plan, suits


def spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"command": ["true"], **fields})


SPECS = st.builds(
    lambda cpu, memory, gpus: spec(cpu=cpu, memory=memory << 20, gpus=gpus),
    st.sampled_from([0.01, 0.3, 0.5, 1, 2, 3.7, 8]),
    st.integers(64, 4096),
    st.integers(0, 3),
)


def jobs(specs: list[JobSpec]) -> list[Job]:
    fields = {"owner": "alice", "name": "j", "state": State.PENDING, "submitted": 0.0, "launcher": "process"}
    return [Job.model_validate({"id": i, "spec": one, **fields}) for i, one in enumerate(specs, 1)]


def nodes(sizes: list[tuple[int, int, int]]) -> list[Node]:
    launchers = [Capabilities(name="process")]
    return [
        Node(
            name=f"n{i}",
            cpus=cpus,
            memory=memory << 20,
            gpus=[Gpu(index=g, uuid=f"n{i}g{g}", model="H100") for g in range(gpus)],
            launchers=launchers,
        )
        for i, (cpus, memory, gpus) in enumerate(sizes)
    ]


NODES = st.lists(
    st.tuples(st.integers(1, 8), st.integers(512, 8192), st.integers(0, 4)), min_size=1, max_size=4
)


def ledger_of(some: list[Node]) -> Ledger:
    ledger = Ledger()
    for node in some:
        ledger.announce(node)
    return ledger


@given(st.lists(SPECS, max_size=30), NODES)
def test_no_plan_takes_more_than_there_is(specs: list[JobSpec], sizes: list[tuple[int, int, int]]) -> None:
    ledger, queue = ledger_of(nodes(sizes)), jobs(specs)
    by_id = {job.id: job for job in queue}
    for placement in (result := plan(queue, ledger.all_free())).placements:
        update = {"node": placement.node, "gpus": list(placement.gpus)}
        ledger.hold(by_id[placement.job].model_copy(update=update))
        assert len(placement.gpus) == by_id[placement.job].spec.gpus.count
    ledger.check()
    assert not {p.job for p in result.placements} & set(result.reasons)


@given(st.lists(SPECS, min_size=1, max_size=30), NODES)
def test_the_first_that_fits_an_empty_site_starts(
    specs: list[JobSpec], sizes: list[tuple[int, int, int]]
) -> None:
    free = ledger_of(nodes(sizes)).all_free()
    queue = jobs(specs)
    possible = any(fits(queue[0].spec, node) for node in free)
    assert (1 in {p.job for p in plan(queue, free).placements}) == possible


@given(st.lists(SPECS, min_size=1, max_size=20), NODES)
def test_what_becomes_free_goes_to_the_first_in_line(
    specs: list[JobSpec], sizes: list[tuple[int, int, int]]
) -> None:
    """No job that some node could run is starved: as jobs end in any order, the head starts in the end."""
    ledger = ledger_of(nodes(sizes))
    queue = [job for job in jobs(specs) if any(fits(job.spec, node) for node in ledger.all_free())]
    waiting, running, rounds = list(queue), [], 0
    while waiting:
        rounds += 1
        assert rounds <= 3 * len(queue) + 3, f"stuck: {[job.id for job in waiting]}"
        placed = plan(waiting, ledger.all_free()).placements
        for placement in placed:
            job = next(job for job in waiting if job.id == placement.job)
            waiting.remove(job)
            held = job.model_copy(update={"node": placement.node, "gpus": list(placement.gpus)})
            ledger.hold(held)
            running.append(held)
        ledger.check()
        if running:
            ended = running.pop()
            ledger.release(ended.node or "", ended.id)
    for job in running:
        ledger.release(job.node or "", job.id)
    assert all(free.cpu == node.cpus for free, node in zip(ledger.all_free(), ledger.nodes, strict=True))


def test_small_jobs_go_on_round_a_big_one_and_leave_it_its_room() -> None:
    ledger = ledger_of(nodes([(4, 8192, 2)]))
    small = spec(cpu=1, memory="64M", gpus=1)
    first = jobs([small])[0].model_copy(update={"node": "n0", "gpus": ledger.nodes[0].gpus[:1]})
    ledger.hold(first)
    big = spec(cpu=1, memory="64M", gpus=2)
    plain = spec(cpu=1, memory="64M")
    queue = jobs([small, big, small, plain])[1:]
    result = plan(queue, ledger.all_free())
    assert [p.job for p in result.placements] == [4], "the plain job needs nothing that the big one waits for"
    assert result.reasons[2].message == "waits for 2 GPUs (1 free) on n0"


def test_a_node_that_is_not_up_gets_nothing() -> None:
    ledger = ledger_of(nodes([(4, 8192, 0)]))
    ledger.mark("n0", NodeState.DRAIN, "new disk")
    result = plan(jobs([spec()]), ledger.all_free())
    assert not result.placements
    assert result.reasons[1].code == "NodeDown"


def test_a_gpu_is_found_by_a_part_of_its_model() -> None:
    ledger = Ledger()
    gpus = [Gpu(index=0, uuid="a", model="NVIDIA H100 80GB"), Gpu(index=1, uuid="b", model="Tesla T4")]
    ledger.announce(
        Node(name="n", cpus=4, memory=1 << 33, gpus=gpus, launchers=[Capabilities(name="process")])
    )
    placed = plan(jobs([spec(gpus="t4:1")]), ledger.all_free()).placements
    assert [gpu.uuid for gpu in placed[0].gpus] == ["b"]


def test_labels_and_os_choose_the_node() -> None:
    ledger = ledger_of(nodes([(4, 8192, 0), (4, 8192, 0)]))
    ledger.announce(ledger.nodes[1].model_copy(update={"labels": {"disk": "ssd", "os": "linux"}}))
    job = jobs([spec(constraints={"disk": "ssd"}, os="linux")])[0]
    assert [suits(job, free) for free in ledger.all_free()] == [False, True]
