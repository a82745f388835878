"""Control groups of jobs, version 1 and 2: limits, freezing, killing and counting.

Nothing is assumed: :func:`detect` makes a group and moves a process into it, and only what succeeds is
used. Sources: cgroups(7) and the kernel's admin-guide ``cgroup-v1`` and ``cgroup-v2``.
The standard library is all that is used here: spawner processes import this (see :mod:`.supervisor`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

PERIOD = 100_000
"""Microseconds over which the CPU quota counts; the kernel's default."""
LEAST_QUOTA = 1_000
"""Microseconds; the kernel accepts no smaller quota."""
V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "freezer")


class Cgroup(Protocol):
    """The group of one attempt. Its verbs are safe to repeat, also when the group is not there."""

    def create(self, cpu: float, memory: int) -> None:
        """Make the group with its limits: cores, and bytes."""

    def doors(self) -> list[str]:
        """The files into which a process writes ``0`` to enter."""

    def pids(self) -> list[int]: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def kill(self) -> None:
        """SIGKILL to every process in it at one blow, frozen or not."""

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in it at its memory limit."""

    def memory(self) -> int: ...

    def memory_peak(self) -> int: ...

    def cpu_seconds(self) -> float: ...

    def remove(self) -> bool:
        """False while something is in it."""

    def record(self) -> dict[str, Any]:
        """What :func:`from_record` needs."""


# Plain calls of os, not pathlib: a forked supervisor pays for each page of memory it touches. And a control
# file must be written with one write(2), and must not be created.


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def _keyed(text: str, key: str) -> int:
    return next(
        (_number(line.partition(" ")[2]) for line in text.splitlines() if line.startswith(key + " ")), 0
    )


def _make(path: str) -> None:
    if not os.access(path, os.F_OK):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)  # noqa: PTH102


def _remove(paths: Iterable[str]) -> bool:
    gone = True
    for path in paths:
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            continue
        except OSError:
            gone = False
    return gone


def _quota(cpu: float) -> int:
    return max(LEAST_QUOTA, round(cpu * PERIOD))


class CgroupV1:
    """One group per controller, each in its own hierarchy."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        self._directories = dict(directories)

    def _file(self, controller: str, name: str) -> str:
        return f"{self._directories.get(controller, '/nonexistent')}/{name}"

    def create(self, cpu: float, memory: int) -> None:
        for directory in self._directories.values():
            _make(directory)
        if "memory" in self._directories:
            if not _write(self._file("memory", "memory.limit_in_bytes"), str(memory)):
                raise OSError(f"the kernel refuses a memory limit of {memory} bytes")
            _write(self._file("memory", "memory.memsw.limit_in_bytes"), str(memory))
        if "cpu" in self._directories:
            _write(self._file("cpu", "cpu.cfs_period_us"), str(PERIOD))
            if not _write(self._file("cpu", "cpu.cfs_quota_us"), str(_quota(cpu))):
                raise OSError(f"the kernel refuses a limit of {cpu} cores")

    def doors(self) -> list[str]:
        return [f"{directory}/cgroup.procs" for directory in self._directories.values()]

    def pids(self) -> list[int]:
        anyone = next(iter(self._directories.values()))
        return [int(pid) for pid in _read(f"{anyone}/cgroup.procs").split()]

    def freeze(self) -> None:
        state = self._file("freezer", "freezer.state")
        _write(state, "FROZEN")
        for _ in range(100):
            if _read(state).strip() != "FREEZING":
                return
            time.sleep(0.005)
            _write(state, "FROZEN")

    def thaw(self) -> None:
        _write(self._file("freezer", "freezer.state"), "THAWED")

    def kill(self) -> None:
        pids = self.pids()
        if not pids:
            return
        # Frozen, nothing can fork between the list and the last signal.
        self.freeze()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw()

    def out_of_memory(self) -> bool:
        return _keyed(_read(self._file("memory", "memory.oom_control")), "oom_kill") > 0

    def memory(self) -> int:
        used = _number(_read(self._file("memory", "memory.usage_in_bytes")))
        # As `docker stats` counts: cache that can be dropped at once is not use.
        return max(0, used - _keyed(_read(self._file("memory", "memory.stat")), "total_inactive_file"))

    def memory_peak(self) -> int:
        return _number(_read(self._file("memory", "memory.max_usage_in_bytes")))

    def cpu_seconds(self) -> float:
        return _number(_read(self._file("cpuacct", "cpuacct.usage"))) / 1e9

    def remove(self) -> bool:
        return _remove(self._directories.values())

    def record(self) -> dict[str, Any]:
        return {"version": 1, "directories": self._directories}


class CgroupV2:
    """One group in the one hierarchy. Freezing and killing need no controller."""

    def __init__(self, directory: str, controllers: Iterable[str]) -> None:
        self._directory = directory
        self._controllers = sorted(controllers)

    def create(self, cpu: float, memory: int) -> None:
        _make(self._directory)
        if "memory" in self._controllers:
            if not _write(f"{self._directory}/memory.max", str(memory)):
                raise OSError(f"the kernel refuses a memory limit of {memory} bytes")
            _write(f"{self._directory}/memory.swap.max", "0")
        limit = f"{_quota(cpu)} {PERIOD}"
        if "cpu" in self._controllers and not _write(f"{self._directory}/cpu.max", limit):
            raise OSError(f"the kernel refuses a limit of {cpu} cores")

    def doors(self) -> list[str]:
        return [f"{self._directory}/cgroup.procs"]

    def pids(self) -> list[int]:
        return [int(pid) for pid in _read(f"{self._directory}/cgroup.procs").split()]

    def freeze(self) -> None:
        _write(f"{self._directory}/cgroup.freeze", "1")
        for _ in range(100):
            if _keyed(_read(f"{self._directory}/cgroup.events"), "frozen"):
                return
            time.sleep(0.005)

    def thaw(self) -> None:
        _write(f"{self._directory}/cgroup.freeze", "0")

    def kill(self) -> None:
        # cgroup.kill came with Linux 5.14.
        if self.pids() and not _write(f"{self._directory}/cgroup.kill", "1"):
            self.freeze()
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.thaw()

    def out_of_memory(self) -> bool:
        return _keyed(_read(f"{self._directory}/memory.events"), "oom_kill") > 0

    def memory(self) -> int:
        used = _number(_read(f"{self._directory}/memory.current"))
        return max(0, used - _keyed(_read(f"{self._directory}/memory.stat"), "inactive_file"))

    def memory_peak(self) -> int:
        return _number(_read(f"{self._directory}/memory.peak"))

    def cpu_seconds(self) -> float:
        return _keyed(_read(f"{self._directory}/cpu.stat"), "usage_usec") / 1e6

    def remove(self) -> bool:
        return _remove([self._directory])

    def record(self) -> dict[str, Any]:
        return {"version": 2, "directory": self._directory, "controllers": self._controllers}


def from_record(record: Mapping[str, Any]) -> Cgroup:
    """The group that :meth:`Cgroup.record` described."""
    if record["version"] == 1:
        return CgroupV1(record["directories"])
    return CgroupV2(record["directory"], record["controllers"])


class Mounted(NamedTuple):
    """A hierarchy as mountinfo shows it; `controllers` is empty for version 2."""

    directory: str
    version: int
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Mounted]:
    """The hierarchies in the text of /proc/self/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        where, (kind, _, options) = before.split()[4], after.split(maxsplit=2)
        if kind == "cgroup2":
            found.append(Mounted(where, 2, frozenset()))
        elif kind == "cgroup":
            found.append(Mounted(where, 1, frozenset(options.split(",")) & frozenset(V1_CONTROLLERS)))
    return [mounted for mounted in found if mounted.version == 2 or mounted.controllers]


def parse_membership(text: str) -> dict[str, str]:
    """Controller -> path, from the text of /proc/self/cgroup; the key of version 2 is empty."""
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


class Layout(NamedTuple):
    """Where the groups of attempts are made: controller -> folder; the key of version 2 is empty."""

    version: int
    folders: Mapping[str, str]
    controllers: frozenset[str]
    """Those in force: ``cpu`` and ``memory``, ``freezer``."""

    def cgroup(self, name: str) -> Cgroup:
        """The group of the attempt `name`, made or not."""
        if self.version == 1:
            return CgroupV1({controller: f"{folder}/{name}" for controller, folder in self.folders.items()})
        return CgroupV2(f"{self.folders['']}/{name}", self.controllers - {"freezer"})

    def to_record(self) -> dict[str, Any]:
        """Plain types, for :meth:`from_record`."""
        return {
            "version": self.version,
            "folders": dict(self.folders),
            "controllers": sorted(self.controllers),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Layout:
        """The inverse of :meth:`to_record`."""
        return cls(record["version"], record["folders"], frozenset(record["controllers"]))

    def remove(self) -> None:
        """Remove the folders where no attempt is left."""
        _remove(self.folders.values())


def detect(
    name: str, mounts: Iterable[Mounted], membership: Mapping[str, str], within: str | None = None
) -> Layout | None:
    """Make the folder `name` for groups of jobs where that is possible, else None.

    At the top of each hierarchy for preference: what lies below the agent's own group ends with it where a
    service manager cleans up. `within` names another place (version 2), as delegated by the operator.
    """
    mounts = list(mounts)
    first = [m for m in mounts if m.version == 1]
    return _detect_v1(name, first, membership) if first else _detect_v2(name, mounts, membership, within)


def _detect_v1(name: str, mounts: Iterable[Mounted], membership: Mapping[str, str]) -> Layout | None:
    folders: dict[str, str] = {}
    for mounted in mounts:
        own = membership.get(next(iter(mounted.controllers)), "/")
        folder = _usable_folder(name, (mounted.directory, mounted.directory + own))
        if folder:
            # Controllers mounted together share their groups.
            folders.update(dict.fromkeys(sorted(mounted.controllers), folder))
    controllers = frozenset(folders) & {"cpu", "memory", "freezer"}
    return Layout(1, folders, controllers) if controllers else None


def _detect_v2(
    name: str, mounts: list[Mounted], membership: Mapping[str, str], within: str | None
) -> Layout | None:
    best: Layout | None = None
    for mounted in mounts:
        parents = (within,) if within else (mounted.directory, mounted.directory + membership.get("", "/"))
        for parent in parents:
            folder = _usable_folder(name, (parent,))
            if not folder:
                continue
            for controller in ("cpu", "memory"):
                _write(f"{parent}/cgroup.subtree_control", f"+{controller}")
                _write(f"{folder}/cgroup.subtree_control", f"+{controller}")
            got = frozenset(_read(f"{folder}/cgroup.subtree_control").split()) & {"cpu", "memory"}
            layout = Layout(2, {"": folder}, got | {"freezer"})
            if best is None or len(layout.controllers) > len(best.controllers):
                best = layout
    return best


def _usable_folder(name: str, parents: Iterable[str]) -> str | None:
    for parent in dict.fromkeys(p.rstrip("/") for p in parents):
        folder = f"{parent}/{name}"
        trial = f"{folder}/trial"
        try:
            _make(folder)
            _make(trial)
        except OSError:
            continue
        entered = _try_entering(f"{trial}/cgroup.procs")
        _remove([trial])
        if entered:
            return folder
        _remove([folder])
    return None


def _try_entering(door: str) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if _write(door, "0") else 1)
    return os.waitpid(child, 0)[1] == 0
