"""Which control groups are used. Limits in force: tests/conformance."""

from __future__ import annotations

from pathlib import Path

import pytest

from perijove_spawners import cgroups
from perijove_spawners.cgroups import CgroupV2, Layout, Mounted

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_the_mounts_of_a_mixed_machine() -> None:
    assert cgroups.parse_mounts(HYBRID) == [
        Mounted("/sys/fs/cgroup/cpu,cpuacct", 1, frozenset({"cpu", "cpuacct"})),
        Mounted("/sys/fs/cgroup/memory", 1, frozenset({"memory"})),
        Mounted("/sys/fs/cgroup/unified", 2, frozenset()),
    ]


def test_membership_in_both_versions() -> None:
    text = "4:memory:/agent/x\n2:cpu,cpuacct:/\n0::/user.slice/a:b.scope\n"
    assert cgroups.parse_membership(text) == {
        "memory": "/agent/x",
        "cpu": "/",
        "cpuacct": "/",
        "": "/user.slice/a:b.scope",
    }


def test_where_nothing_can_be_made_there_is_none(tmp_path: Path) -> None:
    # A folder that is no cgroup: a process cannot be moved into it.
    mounts = [Mounted(str(tmp_path), 1, frozenset({"memory"}))]
    assert cgroups.detect("x", mounts, {}) is None
    assert cgroups.detect("x", [Mounted(str(tmp_path), 2, frozenset())], {}) is None
    assert cgroups.detect("x", [], {}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_layout_survives_the_wire() -> None:
    layout = Layout(2, {"": "/sys/fs/cgroup/x"}, frozenset({"cpu", "freezer"}))
    assert Layout.from_record(layout.to_record()) == layout
    group = layout.cgroup("12.1")
    assert cgroups.from_record(group.record()).record() == group.record()
    assert group.doors() == ["/sys/fs/cgroup/x/12.1/cgroup.procs"]


def version_2(folder: Path) -> CgroupV2:
    """A group of plain files, as the kernel would show one."""
    for name in ("memory.max", "memory.swap.max", "cpu.max", "cgroup.freeze", "cgroup.kill"):
        (folder / name).touch()
    (folder / "cgroup.procs").write_text("12\n13\n")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    (folder / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 1\n")
    (folder / "memory.current").write_text("5000\n")
    (folder / "memory.stat").write_text("anon 3000\ninactive_file 1500\n")
    (folder / "memory.peak").write_text("7000\n")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    return CgroupV2(str(folder), {"cpu", "memory"})


def test_what_version_2_is_told_and_tells(tmp_path: Path) -> None:
    group = version_2(tmp_path)
    group.create(cpu=0.5, memory=1 << 20)
    assert (tmp_path / "cpu.max").read_text() == "50000 100000"
    assert (tmp_path / "memory.max").read_text() == str(1 << 20)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    group.freeze()
    assert (tmp_path / "cgroup.freeze").read_text() == "1"
    group.kill()
    assert (tmp_path / "cgroup.kill").read_text() == "1"
    assert group.pids() == [12, 13]
    assert group.out_of_memory()
    assert (group.memory(), group.memory_peak(), group.cpu_seconds()) == (3500, 7000, 2.5)


@pytest.mark.parametrize("cpu", [0.0001, 0.01])
def test_the_smallest_share_is_one_the_kernel_accepts(cpu: float, tmp_path: Path) -> None:
    version_2(tmp_path).create(cpu=cpu, memory=1 << 20)
    assert (tmp_path / "cpu.max").read_text() == "1000 100000"


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    group = CgroupV2(str(tmp_path / "gone"), {"cpu", "memory"})
    group.freeze()
    group.kill()
    assert group.pids() == []
    assert not group.out_of_memory()
    assert group.remove()
