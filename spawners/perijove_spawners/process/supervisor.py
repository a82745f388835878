"""The supervisor: a small process that runs a launcher's jobs, and outlives the agent.

A Python interpreter for each job would cost 10 to 30 ms, and a forked one 3 ms and 3 MiB. So a launcher
starts one supervisor, tells it over a socket what to start, and reads what becomes of it in files. When the
agent closes the socket, or dies, the supervisor takes no more work, and ends with its last job. The agent's
next launcher starts another.

How an attempt goes, and what happens when a supervisor is killed: :mod:`.supervised`.

Orders, a line each in a named pipe ``supervisors/PID.STARTED`` in the launcher's directory, reach also the
supervisor of an earlier agent: ``stop ATTEMPT GRACE``, ``signal ATTEMPT NUMBER``, ``limit ATTEMPT SECONDS``
(or ``none``), ``suspend ATTEMPT``, ``resume ATTEMPT``.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

from perijove_spawners import cgroups
from perijove_spawners.process import kernel, processes
from perijove_spawners.process.attempt_journal import AttemptJournal
from perijove_spawners.process.job_process import new_signals
from perijove_spawners.process.supervised import Site, Supervised


class Supervisor:
    """Waits for orders and ends, and hands each to its attempt."""

    def __init__(self, connection: socket.socket, site: Site) -> None:
        self._site = site
        self._attempts: dict[str, Supervised] = {}
        self._commands: dict[int, Supervised] = {}
        self._alarms: list[tuple[float, str]] = []
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._connection: socket.socket | None = connection
        self._read_from(connection.fileno(), self._take_work)
        self._pipe = pipe_of(site.directory, site.supervisor)
        os.mkfifo(self._pipe, 0o600)
        # For writing too, so that the pipe never is at its end.
        self._orders = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._read_from(self._orders, self._obey)
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._read_from(self._woken, self._reap)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        new_signals()

    def run(self) -> None:
        """Until the agent has gone and the last job has ended."""
        while self._connection is not None or self._attempts:
            for descriptor, _ in self._poll.poll(self._patience()):
                if reader := self._readers.get(descriptor):
                    reader()
            now = time.monotonic()
            while self._alarms and self._alarms[0][0] <= now:
                _, name = heapq.heappop(self._alarms)
                self._with(name, Supervised.meet_deadlines)
        Path(self._pipe).unlink(missing_ok=True)
        if self._site.layout and not living(self._site.directory):
            self._site.layout.remove()

    def _patience(self) -> float | None:
        """Milliseconds to the next alarm."""
        return max(0.0, (self._alarms[0][0] - time.monotonic()) * 1000 + 1) if self._alarms else None

    def _read_from(self, descriptor: int, reader: Callable[[], None]) -> None:
        self._readers[descriptor] = reader
        self._poll.register(descriptor, select.POLLIN)

    def _leave(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._readers[descriptor]

    def _take_work(self) -> None:
        assert self._connection is not None
        message = self._connection.recv(65536)
        if not message:
            self._leave(self._connection.fileno())
            self._connection.close()
            self._connection = None
        for name in message.decode().split():
            if name not in self._attempts:
                with _kept_apart(name):
                    self._start(name)

    def _start(self, name: str) -> None:
        journal = AttemptJournal(f"{self._site.directory}/attempts/{name}")
        claim = journal.claim()
        if claim is None:
            return
        entries = journal.read()
        begun = entries is None or "running" in entries or "ended" in entries
        launch = entries.get("launch") if entries and not begun else None
        if launch is None:
            os.close(claim)
            return

        def alarm(at: float) -> None:
            heapq.heappush(self._alarms, (at, name))

        supervised = self._attempts[name] = Supervised(self._site, journal, launch, claim, alarm)
        self._with(name, Supervised.prepare)
        if supervised.ready >= 0:
            self._commands[supervised.command] = supervised
            self._read_from(supervised.ready, lambda: self._go(supervised))

    def _go(self, supervised: Supervised) -> None:
        self._leave(supervised.ready)
        self._with(supervised.name, Supervised.go)

    def _with(self, name: str, act: Callable[[Supervised], None]) -> None:
        """Have an attempt do something, if it is still here, and forget it when it is done."""
        supervised = self._attempts.get(name)
        if supervised is None:
            return
        with _kept_apart(name):
            act(supervised)
        if supervised.done:
            del self._attempts[name]

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._orders, 65536).decode(errors="replace").splitlines():
                verb, name, *words = line.split(" ")
                if act := _ORDERS.get(verb):
                    self._with(name, lambda supervised, act=act, words=words: act(supervised, *words))  # type: ignore[misc]

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 65536)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                # Others are orphans of jobs, whose parent this process has become.
                if supervised := self._commands.pop(pid, None):
                    self._with(supervised.name, partial(Supervised.ended, status=status, usage=usage))


_ORDERS: dict[str, Callable[..., None]] = {
    "limit": lambda supervised, text: supervised.limit(None if text == "none" else float(text)),
    "resume": Supervised.resume,
    "signal": lambda supervised, text: supervised.signal(int(text)),
    "stop": lambda supervised, text: supervised.stop(float(text)),
    "suspend": Supervised.suspend,
}


@contextlib.contextmanager
def _kept_apart(name: str) -> Iterator[None]:
    """Whatever goes wrong with one attempt must not end the others: it is logged."""
    try:
        yield
    except Exception:
        print(f"attempt {name}:", file=sys.stderr)
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()


def _ignore(number: int, frame: FrameType | None) -> None:
    """What matters is that poll(2) wakes up."""


def pipe_of(directory: str, supervisor: processes.Identity) -> str:
    """Where a supervisor takes orders."""
    return f"{directory}/supervisors/{supervisor.pid}.{supervisor.started}"


def living(directory: str) -> list[processes.Identity]:
    """The supervisors of a launcher that live; the pipes of others are removed."""
    found = []
    folder = Path(directory, "supervisors")
    for pipe in folder.iterdir() if folder.exists() else ():
        pid, _, started = pipe.name.partition(".")
        identity = processes.Identity(int(pid), int(started))
        if processes.alive(identity):
            found.append(identity)
        else:
            pipe.unlink(missing_ok=True)
    return found


def can_leave_network() -> bool:
    """Whether jobs can be given a network with nothing in it, found by trying."""
    child = os.fork()
    if child == 0:
        try:
            kernel.leave_network()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(descriptor: str, directory: str, group: str, within: str) -> None:
    """The supervisor's process: `descriptor` is its end of a sequenced-packet socket, inherited."""
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)
    # A child of nobody who must wait for it.
    if os.fork():
        os._exit(0)
    mounts = cgroups.parse_mounts(Path("/proc/self/mountinfo").read_text())
    membership = cgroups.parse_membership(Path("/proc/self/cgroup").read_text())
    layout = None if within == "off" else cgroups.detect(group, mounts, membership, within or None)
    no_network = can_leave_network()
    own = processes.identify(os.getpid())
    assert own is not None
    kernel.adopt_orphans()
    kernel.no_new_privileges()
    supervisor = Supervisor(connection, Site(directory, processes.boot_id(), own, layout))
    hello = {"layout": layout.to_record() if layout else None, "no_network": no_network}
    connection.send(json.dumps(hello).encode())
    gc.collect()
    gc.freeze()
    supervisor.run()
