"""What containers use, read from the kernel while they run: engines forget it at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perijove_spawners.cgroups import (
    Cgroup,
    CgroupV1,
    CgroupV2,
    Mounted,
    parse_membership,
    parse_mounts,
)
from perijove_spawners.containers.reading import Sample


def cgroup_of(info: Mapping[str, Any]) -> Cgroup | None:
    """The control group of a container that runs, by an answer of inspect; None where it cannot be seen."""
    pid = info["State"].get("Pid")
    if not pid:
        return None
    try:
        membership = parse_membership(Path(f"/proc/{pid}/cgroup").read_text())
        mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    except (OSError, ValueError):
        return None
    return find_cgroup(info["Id"], mounts, membership)


def find_cgroup(container: str, mounts: list[Mounted], membership: Mapping[str, str]) -> Cgroup | None:
    """The group named after `container`; a process number may have passed to somebody else meanwhile."""
    own = {controller: path for controller, path in membership.items() if container in path}
    first = {
        controller: mounted.directory + own[controller]
        for mounted in mounts
        for controller in mounted.controllers & own.keys()
    }
    if first:
        return CgroupV1(first)
    for mounted in mounts:
        if mounted.version == 2 and "" in own:
            return CgroupV2(mounted.directory + own[""], ())
    return None


def measure(cgroup: Cgroup, now: float, last: Sample | None) -> Sample | None:
    """The counts of `cgroup` at the time `now`; the `last` ones when the group has gone."""
    cpu, peak = 0.0, 0
    with contextlib.suppress(OSError, ValueError):
        cpu, peak = cgroup.cpu_seconds(), max(cgroup.memory(), cgroup.memory_peak())
    if last is None:
        return Sample(now, cpu, peak) if cpu else None
    return Sample(now, cpu, max(peak, last.memory_peak)) if cpu > last.cpu_seconds else last
