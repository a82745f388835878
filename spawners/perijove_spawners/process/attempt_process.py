"""A running attempt as the launcher sees it: its supervisor, its processes, its cgroup."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from perijove.model import Stats
from perijove_spawners.calls import shown
from perijove_spawners.cgroups import Cgroup, from_record
from perijove_spawners.launcher import EngineCall, Launch
from perijove_spawners.process import processes
from perijove_spawners.process.attempt_journal import Record
from perijove_spawners.process.processes import Identity, Process
from perijove_spawners.process.supervisor_process import interpreter

EXEC_TIMEOUT = 60.0
EXEC_OUTPUT = 1 << 20
TIMED_OUT = 124
"""The exit code of a command that was stopped after EXEC_TIMEOUT, as of timeout(1)."""
KILL_TIMEOUT = 5.0
WORDS = 200
"""Characters of a command in the line about it."""


@dataclass(frozen=True, slots=True)
class Running:
    """The line ``running``; see :mod:`.attempt_journal`."""

    boot: str
    supervisor: Identity
    command: Identity
    cgroup: Cgroup | None
    started: float

    @classmethod
    def from_record(cls, record: Record) -> Running:
        return cls(
            boot=record["boot"],
            supervisor=Identity(*record["supervisor"]),
            command=Identity(*record["command"]),
            cgroup=from_record(record["cgroup"]) if record["cgroup"] else None,
            started=record["started"],
        )

    @property
    def supervised(self) -> bool:
        """Whether the supervisor lives; when not, nobody will say how the attempt ended."""
        return processes.alive(self.supervisor) and self.boot == processes.boot_id()

    async def kill(self) -> None:
        """Kill what is left after the supervisor's death.

        Without a cgroup that is the command's session: what left it for a session of its own is not found.
        """
        until = asyncio.get_running_loop().time() + KILL_TIMEOUT
        while left := self._left():
            if self.cgroup:
                self.cgroup.kill()
            processes.send_all(left, signal.SIGKILL)
            if asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.02)
        if self.cgroup:
            self.cgroup.remove()

    def _left(self) -> list[Process]:
        members = [processes.read(pid) for pid in self.cgroup.pids()] if self.cgroup else []
        found = [process for process in members if process and not process.gone]
        return found or processes.session_members(self.command)

    def sample(self) -> Stats:
        """What it uses now; `cpu` is left to whoever has an earlier sample."""
        group = self.cgroup
        below = processes.session_members(self.command)
        pids = {process.pid for process in below} | set(group.pids() if group else ())
        memory = sum(process.memory for process in below)
        cpu_seconds = sum(process.cpu_seconds for process in below)
        if group is None:
            return Stats(memory=memory, memory_peak=memory, cpu_seconds=cpu_seconds, pids=len(pids))
        memory = group.memory() or memory
        return Stats(
            memory=memory,
            memory_peak=group.memory_peak() or memory,
            cpu_seconds=group.cpu_seconds() or cpu_seconds,
            pids=len(pids),
        )


def launch_record(launch: Launch) -> Record:
    """The line ``launch``: what a supervisor needs of it."""
    return {
        "attempt": str(launch.attempt),
        "boot": processes.boot_id(),
        "directory": str(launch.directory),
        "command": launch.command,
        "env": dict(launch.env),
        "secrets": dict(launch.secrets),
        "cwd": launch.cwd,
        "uid": launch.account.uid,
        "gid": launch.account.gid,
        "groups": launch.account.groups,
        "cpu": launch.cpu,
        "memory": launch.memory,
        "network": launch.network,
        "ports": launch.ports,
        "time_limit": launch.time_limit,
        "grace": launch.grace,
        "stdout": launch.stdout,
        "stderr": launch.stderr,
        "stdin": launch.stdin,
        "descriptors": dict(launch.descriptors),
    }


def launch_call(launch: Launch, group: Record | None) -> EngineCall:
    """What a supervisor does at last to start it; `group` is the record of its cgroup."""
    account = launch.account
    words = shlex.join(launch.command)
    body = {
        "argv": launch.command,
        "cwd": launch.cwd,
        "user": f"{account.uid}:{account.gid}",
        "groups": account.groups,
        "limits": {"cpu": launch.cpu, "memory": launch.memory, "time": launch.time_limit},
        "network": launch.network or "host",
        "cgroup": group and (group.get("directory") or group.get("directories")),
        "env": shown(launch.env),
    }
    return EngineCall(f"execve {words if len(words) <= WORDS else words[: WORDS - 3] + '...'}", body)


async def run_beside(running: Running, launch: Record, command: Sequence[str]) -> tuple[int, bytes]:
    """Run `command` in the cgroup, network, account and directory of a running attempt."""
    code = "from perijove_spawners.process.job_process import join; join()"
    request = {
        "launch": launch,
        "command": list(command),
        "doors": running.cgroup.doors() if running.cgroup else [],
        "beside": running.command.pid,
    }
    process = await asyncio.create_subprocess_exec(
        *interpreter(code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env={},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = bytearray()
    try:
        async with asyncio.timeout(EXEC_TIMEOUT):
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
            while piece := await process.stdout.read(65536):
                output += piece[: EXEC_OUTPUT - len(output)]
            return await process.wait(), bytes(output)
    except TimeoutError:
        return TIMED_OUT, bytes(output)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
