"""Admission as a function: what is refused and with which words, who may ask for what, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import (
    Account,
    FieldError,
    Gpu,
    InvalidSpecError,
    Job,
    JobSpec,
    Node,
    Slot,
    State,
    UnavailableError,
)
from perijove.model.spec import TMP_DISK
from perijove_hub.accounts import Identity
from perijove_hub.admission import Admitted, Asker, Site, admit
from perijove_hub.policy.document import Policy, load
from perijove_hub.settings import Settings, VolumeSetting

from .conftest import node

NOW = 1_800_000_000.0
ADA = Identity(Account("ada", 20_000, 20_000, "/home/ada"), home_source="/home/ada")

POLICY = """
projects:
  genomics: {members: [ada], volumes: [genomes], default_time: 2h, max_time: 5h}
  physics: {members: [bob, ada]}
  secret: {members: [bob], leads: [ada]}
partitions:
  all: {default: true, max_time: 1d}
  gpu: {nodes: ["g*"], projects: [physics], default_time: 30m}
  staff: {nodes: [n1], users: ["@staff"]}
reservations:
  course: {nodes: [n1], start: 2027-01-15T08:00:00, end: 2027-01-15T18:00:00, users: [ada]}
  theirs: {nodes: [n1], start: 2027-01-15T08:00:00, end: 2027-01-15T18:00:00, users: [bob]}
  over: {nodes: [n1], start: 2026-01-15T08:00:00, end: 2026-01-15T18:00:00, users: [ada]}
"""


def ada(
    spec: dict[str, Any],
    *nodes: Node,
    policy: str = "",
    groups: frozenset[str] = frozenset(),
    known: dict[int, Job] | None = None,
    owns: Callable[[str], bool] = lambda _: True,
    **settings: Any,
) -> Admitted:
    """Ada submits `spec`."""
    rules = load(policy)
    site = Site(Settings(mode="hub", **settings), rules, nodes or (node("n1"),))
    wanted = JobSpec.model_validate({"command": ["true"], "launcher": "process", **spec})
    return admit(wanted, Asker(rules, "ada", groups), ADA, site, now=NOW, owns=owns, known=known or {})


def refused(spec: dict[str, Any], *nodes: Node, **more: Any) -> list[FieldError]:
    """What is wrong with it."""
    with pytest.raises(InvalidSpecError) as caught:
        ada(spec, *nodes, **more)
    return list(caught.value.errors)


# ---- where


def test_a_job_without_a_partition_is_in_the_default_one() -> None:
    admitted = ada({}, policy=POLICY)
    assert (admitted.partition, admitted.spec.partition) == ("all", "all")
    assert ada({}).partition is None


def test_a_partition_is_for_those_it_names() -> None:
    nodes = (node("n1"), node("g1"))
    (error,) = refused({"partition": "gpu"}, *nodes, policy=POLICY)
    assert (error.field, error.value) == ("partition", "gpu")
    assert "for you in project genomics; you may use: all" in error.message
    assert ada({"partition": "gpu", "project": "physics"}, *nodes, policy=POLICY).partition == "gpu"
    assert refused({"partition": "staff"}, policy=POLICY)[0].field == "partition"
    assert ada({"partition": "staff"}, policy=POLICY, groups=frozenset({"staff"})).partition == "staff"
    assert refused({"partition": "nowhere"}, policy=POLICY)[0].field == "partition"


def test_a_default_partition_that_is_for_others_says_which_to_name() -> None:
    policy = "partitions: {hers: {default: true, users: [eve]}, open: {}}"
    (error,) = refused({}, policy=policy)
    assert "not for you; name one of: open" in error.message


def test_only_nodes_of_the_partition_count() -> None:
    nodes = (node("n1", cpus=64.0), node("g1", cpus=8.0))
    (error,) = refused({"partition": "gpu", "project": "physics", "cpu": 9}, *nodes, policy=POLICY)
    assert error.message == "no node has 9 CPUs; the largest has 8"


def test_a_reservation_is_for_those_it_names_and_while_it_lasts() -> None:
    assert ada({"reservation": "course", "time": "9h", "project": "physics"}, policy=POLICY)
    for name in ("theirs", "over", "none"):
        (error,) = refused({"reservation": name}, policy=POLICY)
        assert error.message == "there is no such reservation for you; yours: course"
    (error,) = refused({"reservation": "course", "time": "11h", "project": "physics"}, policy=POLICY)
    assert (error.field, error.message) == ("time_limit", "reservation course has 10h00m left for it")
    (error,) = refused({"reservation": "course"}, node("n2"), policy=POLICY)
    assert "keeps no node of partition all" in error.message


def test_labels_that_no_node_bears_name_those_that_they_do() -> None:
    nodes = (node("n1", labels={"rack": "a", "cpu": "epyc"}), node("n2", labels={"rack": "b"}))
    (error,) = refused({"constraints": {"rack": "c"}}, *nodes)
    assert error.message == "no node bears these labels; values of rack: a, b"
    (error,) = refused({"constraints": {"row": "c"}}, *nodes)
    assert error.message == "no node bears these labels; labels: cpu, rack"
    (error,) = refused({"constraints": {"rack": "b", "cpu": "epyc"}}, *nodes)
    assert error.message == "no node bears these labels together"
    (error,) = refused({"node": "n3"}, *nodes)
    assert error.message == "there is no such node; there are: n1, n2"
    (error,) = refused({"node": "n2", "constraints": {"rack": "a"}}, *nodes)
    assert error.message == "it is none of those that suit this job; there are: n1"


# ---- how much


def test_impossible_sizes_name_the_nearest_node() -> None:
    nodes = (node("wide", cpus=64.0), node("deep", cpus=2.0, memory=512 << 30))
    (error,) = refused({"cpu": 32, "memory": "256G"}, *nodes)
    assert (error.field, error.value) == ("cpu, memory", "32 CPUs, 256G")
    assert error.message == "no single node has all of this; the nearest is deep with 2 CPUs, 512G"


def test_gpus_by_model_and_memory() -> None:
    small = [Gpu(index=i, uuid=f"s{i}", model="NVIDIA A100", memory=40 << 30) for i in range(4)]
    big = [Gpu(index=0, uuid="b0", model="NVIDIA A100", memory=80 << 30)]
    nodes = (node("n1", gpus=small), node("n2", gpus=big))
    assert ada({"gpus": "a100:4"}, *nodes)
    assert ada({"gpus": "1@80G"}, *nodes)
    (error,) = refused({"gpus": "2@80G"}, *nodes)
    assert error.message == "no node has 2 GPUs with 80G; the largest has 1"
    (error,) = refused({"gpus": "h100"}, *nodes)
    assert "there are: nvidia-a100 of 40G, nvidia-a100 of 80G" in error.message


def test_a_gang_needs_so_many_nodes_at_once() -> None:
    nodes = [node(f"n{i}", cpus=float(4 * i)) for i in range(1, 6)]
    assert ada({"nodes": 2, "cpu": 16}, *nodes)
    (error,) = refused({"nodes": 3, "cpu": 16}, *nodes)
    assert (error.field, error.value) == ("nodes", "3")
    assert "only 2 nodes have this much; ask for nodes=2, or for less of each: 3 nodes have 12 CPUs" in (
        error.message
    )
    (error,) = refused({"nodes": 6}, *nodes)
    assert "ask for nodes=5" in error.message


def test_units_that_are_devices_need_a_launcher_that_hands_them_in() -> None:
    slots = {"lens": [Slot(devices=["/dev/null"]), Slot(devices=["/dev/zero"])]}
    counted = node("n1", slots=slots, resources={"lens": 2, "licence": 3})
    (error,) = refused({"resources": {"lens": 1}}, counted)
    assert (error.field, error.value) == ("resources.lens", "1")
    assert "hands into no job" in error.message
    able = [one.model_copy(update={"features": one.features | {"devices"}}) for one in counted.launchers]
    assert ada({"resources": {"lens": 2}}, counted.model_copy(update={"launchers": able}))
    assert ada({"resources": {"licence": 3}}, counted)
    (error,) = refused({"resources": {"licence": 4}}, counted)
    assert error.message == "no node has 4 licence; the largest has 3"
    (error,) = refused({"resources": {"licenze": 1}}, counted)
    assert "there are: lens, licence" in error.message


def test_scratch_space_is_had_where_a_node_gives_it_out() -> None:
    one = node("n1")
    able = [each.model_copy(update={"features": each.features | {"tmp_disk"}}) for each in one.launchers]
    without = one.model_copy(update={"launchers": able})
    (error,) = refused({"tmp_disk": "2G"}, without)
    assert (error.field, error.value) == ("tmp_disk", "2G")
    assert error.message == "no node gives out scratch space (perijove node --scratch)"
    small = without.model_copy(update={"resources": {TMP_DISK: 1024}})
    (error,) = refused({"tmp_disk": "2G"}, small)
    assert error.message == "no node has 2G of scratch space; the largest has 1G"
    assert ada({"tmp_disk": "1G"}, small)


def test_while_no_node_is_known_one_may_try_again() -> None:
    policy = Policy()
    with pytest.raises(UnavailableError):
        admit(
            JobSpec(command=["true"]),
            Asker(policy, "ada"),
            ADA,
            Site(Settings(), policy, []),
            now=NOW,
            known={},
        )


sizes = st.fixed_dictionaries(
    {
        "cpu": st.sampled_from([0.5, 1, 2, 4, 8, 16]),
        "memory": st.sampled_from([1 << 30, 4 << 30, 8 << 30, 64 << 30]),
        "gpus": st.sampled_from([0, 1, 2, "a100", "h100:1", "1@60G"]),
        "nodes": st.integers(1, 3),
    }
)
hosts = st.lists(
    st.tuples(
        st.sampled_from([1.0, 4.0, 16.0]),
        st.sampled_from([4 << 30, 64 << 30]),
        st.lists(st.sampled_from([("NVIDIA A100", 40), ("NVIDIA H100", 80)]), max_size=2),
    ),
    min_size=1,
    max_size=4,
)


@given(sizes, hosts)
def test_refused_is_what_too_few_nodes_could_run(
    size: dict[str, Any], given_hosts: list[tuple[float, int, list[tuple[str, int]]]]
) -> None:
    nodes = [
        node(
            f"n{i}",
            cpus=cpus,
            memory=memory,
            gpus=[
                Gpu(index=j, uuid=f"{i}.{j}", model=model, memory=gigabytes << 30)
                for j, (model, gigabytes) in enumerate(gpus)
            ],
        )
        for i, (cpus, memory, gpus) in enumerate(given_hosts)
    ]
    spec = JobSpec.model_validate({"command": ["true"], **size})
    able = 0
    for one in nodes:
        devices = [
            gpu
            for gpu in one.gpus
            if (spec.gpus.model or "") in gpu.model.casefold() and gpu.memory >= (spec.gpus.memory or 0)
        ]
        able += one.cpus >= spec.cpu and one.memory >= spec.memory and len(devices) >= spec.gpus.count
    policy = Policy()
    site = Site(Settings(default_launcher="process"), policy, nodes)
    for _ in range(2):  # the second time from memory
        if able >= spec.nodes:
            assert admit(spec, Asker(policy, "ada"), ADA, site, now=NOW, known={})
            continue
        with pytest.raises(InvalidSpecError) as caught:
            admit(spec, Asker(policy, "ada"), ADA, site, now=NOW, known={})
        assert all(error.field and error.value and error.message for error in caught.value.errors)


# ---- rights


def test_a_job_is_in_the_users_project_and_in_no_other() -> None:
    assert ada({}, policy=POLICY).spec.project == "genomics"
    assert ada({"project": "physics"}, policy=POLICY).spec.project == "physics"
    for name in ("secret", "none"):
        (error,) = refused({"project": name}, policy=POLICY)
        assert error.message == "you are in no such project; yours: genomics, physics"
    assert refused({"project": "x"})[0].message == "you are in no such project; yours: none"


def test_volumes_of_a_project_are_for_its_jobs() -> None:
    volumes = {"genomes": VolumeSetting(source="/srv/g", target="/g", users=["nobody"])}
    assert ada({"volumes": ["genomes"]}, policy=POLICY, volumes=volumes)
    (error,) = refused({"volumes": ["genomes"], "project": "physics"}, policy=POLICY, volumes=volumes)
    assert error.message == "there is no such volume for you; you have: home"


def test_time_limits_of_partition_project_policy_and_service() -> None:
    assert ada({}, policy=POLICY).spec.time_limit == 7200
    (error,) = refused({"time": "6h"}, policy=POLICY)
    assert error.message == "at most 5h00m in project genomics"
    assert ada({"project": "physics"}, policy=POLICY).spec.time_limit == 86400
    assert ada({"project": "physics"}, policy=POLICY, max_time="1h").spec.time_limit == 3600
    gpu = ada({"project": "physics", "partition": "gpu"}, node("g1"), policy=POLICY)
    assert gpu.spec.time_limit == 1800


def test_a_warning_needs_a_time_limit_and_comes_before_it() -> None:
    able = node("n1")
    launchers = [one.model_copy(update={"features": one.features | {"signal"}}) for one in able.launchers]
    able = able.model_copy(update={"launchers": launchers})
    assert ada({"signal": "USR1@5m", "time": "1h"}, able)
    assert "no end to warn of" in refused({"signal": "USR1@5m"}, able)[0].message
    (error,) = refused({"signal": "USR1@3h"}, able, policy=POLICY)
    assert error.message == "must be less than the time limit, which is 2h00m"
    assert "not supported by launcher process" in refused({"signal": "USR1@1m", "time": "1h"})[0].message


def test_retries_by_cause_need_retries() -> None:
    assert ada({"retries": 2, "retry_on": ["node", "exit:75"], "oom_retry": "2x", "preemptible": True})
    (error,) = refused({"retry_on": ["node"]})
    assert (error.field, error.value) == ("retry_on", "node")


def job(spec: dict[str, Any], number: int = 7, **fields: Any) -> Job:
    wanted = JobSpec.model_validate({"command": ["true"], **spec})
    return Job(id=number, owner="ada", name="x", state=State.PENDING, submitted=0.0, spec=wanted, **fields)


@pytest.mark.parametrize(
    ("on", "text"),
    [
        ("7_3", ""),
        ("7_2", "array 7 has no such member; it has 1 to 9 in steps of 2"),
        ("7_99", "array 7 has no such member"),
        ("7", ""),
        ("8_0", "job 8 has no members"),
        ("9_1", ""),
        ("9_2", "array 9 has no such member; it has 0 to 1"),
        ("77_1", "you have no such job"),
    ],
)
def test_members_that_are_waited_for_are_there(on: str, text: str) -> None:
    known = {7: job({"array": "1:10:2"}), 8: job({}, 8), 9: job({"nodes": 2}, 9)}
    if not text:
        assert ada({"depends_on": [on]}, known=known)
        return
    (error,) = refused({"depends_on": [on]}, known=known)
    assert error.message.startswith(text)


def test_a_notebook_server_is_one_job_on_one_node() -> None:
    errors = refused({"kind": "server", "nodes": 2}, node("n1"), node("n2"))
    assert [error.field for error in errors] == ["nodes"]


def test_every_error_is_told_at_once() -> None:
    errors = refused({"project": "no", "partition": "no", "gpus": 64, "cwd": "x", "user": "root"})
    assert {e.field for e in errors} == {"project", "partition", "cwd", "user"}


# ---- cost


class Hosts(list[Node]):
    """Nodes that count how often they are gone through."""

    walks = 0

    def __iter__(self) -> Iterator[Node]:
        self.walks += 1
        return super().__iter__()


def test_a_thousand_shapes_do_not_look_at_each_node() -> None:
    policy = load(POLICY)
    hosts = Hosts(node(f"n{i}", memory=(8 << 30) + i, labels={"host": f"h{i}"}, gpus=[]) for i in range(1000))
    site, asker = Site(Settings(default_launcher="process"), policy, hosts), Asker(policy, "ada")
    for i in range(1000):
        spec = JobSpec(command=["true"], memory=(4 << 30) + i)
        admit(spec, asker, ADA, site, now=NOW, known={})
    assert 0 < hosts.walks < 20
