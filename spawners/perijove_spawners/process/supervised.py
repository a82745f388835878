"""One attempt under its supervisor, from the fork of its command to the record of its end.

A supervisor may be killed between any two lines. What keeps the user's program from running twice, or from
being forgotten, is the order of the steps (the file: :mod:`.attempt_journal`):

1. lock the journal; without the lock, or when ``running`` or ``ended`` is in it, another has it: leave it;
2. fork. The child makes itself ready (cgroup, account, directory, output files), says so, and waits;
3. write ``running`` with the child's identity;
4. let the child go: only now it executes the user's program. Should the supervisor have died, the child
   reads the end of the pipe instead, and ends;
5. when it has ended, kill what is left; write ``ended``.

Killed before 3, nothing ran and a new start goes on. After it, the kernel kills the program (PDEATHSIG), and
the launcher finds a supervisor gone without ``ended``, kills what remains in cgroup and session, and says so.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from perijove_spawners import cgroups
from perijove_spawners.process import job_process, processes
from perijove_spawners.process.attempt_journal import AttemptJournal, Record
from perijove_spawners.process.processes import Identity, Process

TRY_AGAIN = 1.0
"""Seconds after which an end that could not be written is written again."""
UNKILLABLE_AFTER = 30.0
"""Seconds after SIGKILL at which a process in uninterruptible sleep is given up."""


class Site(NamedTuple):
    """What all attempts of a supervisor share."""

    directory: str
    """The launcher's."""
    boot: str
    supervisor: Identity
    layout: cgroups.Layout | None


class Supervised:
    """One attempt; made by the one who has the claim. None of its verbs waits for anything."""

    def __init__(
        self, site: Site, journal: AttemptJournal, launch: Record, claim: int, alarm: Callable[[float], None]
    ) -> None:
        self.name: str = launch["attempt"]
        self.command = 0
        """Its process number."""
        self.ready = -1
        """A pipe; when it can be read, :meth:`go` is due."""
        self.done = False
        self._site = site
        self._journal = journal
        self._launch = launch
        self._claim = claim
        self._alarm = alarm
        self._cgroup = site.layout.cgroup(self.name) if site.layout else None
        self._go = -1
        self._started = 0.0
        self._origin = 0.0
        """When, by the monotonic clock, it would have begun had it never been suspended."""
        self._status: int | None = None
        self._usage: resource.struct_rusage | None = None
        self._timed_out = False
        self._limit_at: float | None = None
        self._kill_at: float | None = None
        self._suspended_at: float | None = None
        self._killing_since: float | None = None
        self._pause = 0.001
        self._record: dict[str, object] | None = None

    def prepare(self) -> None:
        """Fork the command up to the line before its program."""
        limits = self._site.layout.controllers if self._site.layout else frozenset()
        ready, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        try:
            if self._cgroup:
                self._cgroup.create(self._launch["cpu"], self._launch["memory"])
            self.command = os.fork()
        except OSError as error:
            for descriptor in (*ready, *go):
                os.close(descriptor)
            self._fail(str(error), transient=True)
            return
        if self.command == 0:
            doors = self._cgroup.doors() if self._cgroup else []
            job_process.become(
                self._launch, doors=doors, limit_memory="memory" not in limits, ready=ready[1], go=go[0]
            )
        os.close(ready[1])
        os.close(go[0])
        self.ready, self._go = ready[0], go[1]

    def go(self) -> None:
        """Take the child's answer: write that it runs and let it, or say why it cannot."""
        answer = os.read(self.ready, 4096)
        os.close(self.ready)
        self.ready = -1
        if answer == b"ok":
            self._run()
        else:
            self._fail(answer.decode(errors="replace") or "it was stopped while it was being prepared")
        os.close(self._go)

    def _run(self) -> None:
        self._started = time.time()
        record = {
            "boot": self._site.boot,
            "supervisor": self._site.supervisor,
            # A child that was killed meanwhile has ended as one that ran.
            "command": processes.identify(self.command) or (self.command, 0),
            "cgroup": self._cgroup.record() if self._cgroup else None,
            "started": self._started,
        }
        self._journal.append("running", record)
        self._notify()
        os.close(self._claim)
        if self._status is None:
            os.write(self._go, b"g")
        self._origin = time.monotonic()
        self._set_limit(self._launch["time_limit"])
        if self._status is not None:
            self._clear_away()

    def _fail(self, message: str, *, transient: bool = False) -> None:
        if self._cgroup:
            self._cgroup.kill()
            self._cgroup.remove()
        self._journal.append("failed", {"message": message, "transient": transient})
        self._notify()
        os.close(self._claim)
        self.done = True

    def ended(self, status: int, usage: resource.struct_rusage) -> None:
        """The command has ended, as wait4(2) says."""
        self._status, self._usage = status, usage
        if self._started:
            self._clear_away()

    def meet_deadlines(self) -> None:
        """Do what has become due; to be called at the times given to `alarm`."""
        now = time.monotonic()
        if self._killing_since is not None:
            self._clear_away()
        elif self._kill_at is not None:
            if now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
                self._kill_at = now + 1.0
                self._alarm(self._kill_at)
        elif self._limit_at is not None and self._suspended_at is None and now >= self._limit_at:
            self._timed_out = True
            self.stop(self._launch["grace"])

    def stop(self, grace: float) -> None:
        """The polite signal to all of it, and SIGKILL after `grace` seconds."""
        if not self._started:
            os.kill(self.command, signal.SIGKILL)
            return
        if self._status is not None:
            return
        until = time.monotonic() + grace
        self._kill_at = until if self._kill_at is None else min(until, self._kill_at)
        self._alarm(self._kill_at)
        self._signal_all(signal.SIGTERM)
        self.resume()

    def signal(self, number: int) -> None:
        """Send a signal to all of it; what is frozen gets it when it goes on.

        Once: what a handler starts must not get it too.
        """
        if self._started and self._status is None:
            processes.send_all(self._left(), number)

    def limit(self, seconds: float | None) -> None:
        """From now on it may run so many seconds since its start; None: without end."""
        if self._started:
            self._set_limit(seconds)
            self._journal.append("limit", seconds)
        self._notify()

    def _set_limit(self, seconds: float | None) -> None:
        self._limit_at = None
        if seconds is not None:
            self._limit_at = self._origin + seconds
            self._alarm(self._limit_at)

    def suspend(self) -> None:
        """Freeze it, unless it is being stopped."""
        if self._started and self._suspended_at is None and self._kill_at is None:
            self._suspended_at = time.monotonic()
            if self._cgroup:
                self._cgroup.freeze()
            else:
                self._signal_all(signal.SIGSTOP)
            self._journal.append("suspended", True)
        self._notify()

    def resume(self) -> None:
        """Go on; time spent suspended does not count towards the limit."""
        if self._suspended_at is not None:
            pause = time.monotonic() - self._suspended_at
            self._origin += pause
            if self._limit_at is not None:
                self._limit_at += pause
                self._alarm(self._limit_at)
            self._suspended_at = None
            if self._cgroup:
                self._cgroup.thaw()
            else:
                self._signal_all(signal.SIGCONT)
            self._journal.append("suspended", False)
        self._notify()

    def _signal_all(self, number: int) -> None:
        if number == signal.SIGKILL and self._cgroup:
            self._cgroup.kill()
            return
        # A process may fork while the list is read: look until there is nobody new.
        seen: set[int] = set()
        while new := [process for process in self._left() if process.pid not in seen]:
            processes.send_all(new, number)
            seen.update(process.pid for process in new)

    def _left(self) -> list[Process]:
        """What it runs, the command first: its handler must not see its children die before it is asked.

        Without a cgroup these are its descendants, its session, and whoever has its job directory in the
        environment: that finds all but what has left all three behind.
        """
        if self._cgroup:
            members = [processes.read(pid) for pid in self._cgroup.pids()]
            found = [process for process in members if process and not process.gone]
        else:
            own = self._launch["env"].get("PERIJOVE_JOB_DIR", self._launch["directory"])
            found = processes.related(self.command, f"PERIJOVE_JOB_DIR={own}")
        return sorted(found, key=lambda process: process.pid != self.command)

    def _clear_away(self) -> None:
        """Kill what the command left behind; when nothing is left, write the end."""
        now = time.monotonic()
        self._killing_since = self._killing_since or now
        given_up = now - self._killing_since > UNKILLABLE_AFTER
        left = bool(self._cgroup.pids() if self._cgroup else self._left())
        if left and not given_up:
            self._signal_all(signal.SIGKILL)
            self._alarm(now + self._pause)
            self._pause = min(0.2, self._pause * 2)
            return
        try:
            ended = self._end(left, given_up)
        except OSError:
            # As on a full disk: the end is written when there is room.
            self._alarm(now + TRY_AGAIN)
            raise
        if not ended:
            self._alarm(now + self._pause)

    def _end(self, left: bool, given_up: bool) -> bool:
        """Write the end; False when the kernel has not yet let go of the cgroup."""
        if self._record is None:
            self._record = self._measured()
        if self._cgroup and not self._cgroup.remove():
            left = True
            if not given_up:
                return False
        if left:
            self._record["message"] = "it left processes behind that cannot be killed"
        self._journal.append("ended", self._record)
        self._notify()
        self.done = True
        return True

    def _measured(self) -> dict[str, object]:
        """What the end says, from the cgroup while that is there."""
        usage = self._usage
        cpu_seconds = usage.ru_utime + usage.ru_stime if usage else 0.0
        peak = usage.ru_maxrss * 1024 if usage else 0
        code = os.waitstatus_to_exitcode(self._status or 0)
        code = 128 - code if code < 0 else code
        out_of_memory = False
        if self._cgroup:
            cpu_seconds = self._cgroup.cpu_seconds() or cpu_seconds
            peak = self._cgroup.memory_peak() or peak
            out_of_memory = code != 0 and self._cgroup.out_of_memory()
        return {
            "exit_code": code,
            "out_of_memory": out_of_memory,
            "timed_out": self._timed_out,
            "message": "",
            "started": self._started,
            "ended": time.time(),
            "memory_peak": peak,
            "cpu_seconds": cpu_seconds,
        }

    def _notify(self) -> None:
        notify(self._site.directory, self.name)


def notify(directory: str, attempt: str) -> None:
    """Tell the launcher, if there is one, to look at `attempt`. Lost hints do no harm."""
    say(f"{directory}/notify", attempt)


def say(pipe: str, line: str) -> bool:
    """Write a line into a named pipe, never waiting; False when nobody reads or it is full.

    A write of this size is whole or not at all, whoever else writes (pipe(7)).
    """
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, f"{line}\n".encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
