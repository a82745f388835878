"""A warm job: many small function calls of one user, in one process that stays.

The node's agent connects to ``pool.sock`` in the job's directory, sends one request, a length and JSON, and
gets one answer in the same form:

- ``{"contents": [DIGEST...]}`` with an open file for each (``SCM_RIGHTS``): kept for calls to come;
- ``{"calls": [CALL...], "cancel": [PREFIX...], "taken": OFFSET, "offset": OFFSET, "wait": SECONDS}``, all of
  them optional. A CALL is ``{"id", "function": DIGEST, "call": {"args", "kwargs"}, "inputs": {NAME: DIGEST},
  "time_limit": SECONDS}``; one whose id is known already is passed over. The answer is ``{"size": BYTES}`` of
  the journal, as soon as that is more than OFFSET, or ``{"missing": [DIGEST...]}``, and no call was taken.
  Results that are files are removed up to ``taken``, an offset in the journal.

What becomes of the calls stands in the journal (:mod:`perijove.runner.journal`). This process never runs the
user's functions: it starts the one that does, ends it when a call takes too long or is to be killed, and
starts another for the calls that are left.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.journal import FOLDER, SOCKET, Journal
from perijove.runner.pool_worker import content

REQUEST_BYTES = 256 << 20
CONTENT_BYTES = 2 << 30
"""Files beyond that are dropped, the longest unused first, and sent again when a call needs one."""
FILES_AT_ONCE = 64
WINDOW = 64
"""Calls that the process is given ahead."""
TICK = 0.2
"""Seconds between two looks at the time while calls are under way."""
_DEATHS = 3


@dataclass(slots=True)
class _Asker:
    """A connection: what has come of its request, and until when it waits for an answer."""

    link: socket.socket
    data: bytearray = field(default_factory=bytearray)
    files: list[int] = field(default_factory=list)
    offset: int = 0
    until: float | None = None


class Pool:
    """One warm job. :meth:`run` returns when nothing was asked of it for `idle` seconds."""

    def __init__(self, directory: JobDirectory, idle: float) -> None:
        self._directory, self._idle = directory, idle
        (directory.path / FOLDER).mkdir(exist_ok=True, mode=0o700)
        self._journal = Journal(directory.path)
        self._calls: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Those that have not ended, in their order."""
        self._known: set[str] = set()
        self._sent = 0
        """How many of them the process has been given."""
        self._current: str | None = None
        """The call that has begun."""
        self._ran, self._looked = 0.0, time.monotonic()
        """For how long, and when that was seen last."""
        self._results: deque[tuple[int, str]] = deque()
        self._contents: OrderedDict[str, int] = OrderedDict()
        self._askers: dict[int, _Asker] = {}
        self._deaths = 0
        self._active = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._server = _listening(directory)
        self._selector.register(self._server, selectors.EVENT_READ, self._accept)
        self._start_worker()

    def run(self) -> None:
        """Serve."""
        while self._calls or time.monotonic() - self._active < self._idle:
            for key, _ in self._selector.select(self._patience()):
                key.data(key.fileobj)
            self._look()
        self._server.close()
        with suppress(OSError):
            (self._directory.path / SOCKET).unlink()
        self._link.close()
        self._worker.wait()

    def _patience(self) -> float:
        if self._calls or self._askers:
            return TICK
        return max(0.0, self._idle - (time.monotonic() - self._active))

    # the process that makes the calls

    def _start_worker(self) -> None:
        self._link, other = socket.socketpair()
        with other:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "perijove.runner.pool_worker", str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._sent, self._current = 0, None
        self._selector.register(self._link, selectors.EVENT_READ, self._nudged)

    def _nudged(self, link: socket.socket) -> None:
        try:
            gone = not link.recv(1 << 16)
        except OSError:
            gone = True
        if gone:
            self._worker_ended()

    def _worker_ended(self) -> None:
        status = self._worker.wait()
        self._selector.unregister(self._link)
        self._link.close()
        self._read()
        if self._current is not None:
            # It may have ended by the time limit or a kill, which is on record already.
            self._journal.end(self._current, _died(status))
            self._read()
        else:
            self._deaths += 1
            if self._deaths >= _DEATHS:
                raise RunnerError(f"the process for the calls ends as soon as it begins, with {status}")
        self._start_worker()
        self._feed()

    def _feed(self) -> None:
        """Give the process the next calls."""
        if self._sent >= min(WINDOW // 2, len(self._calls)):
            return
        some = list(islice(self._calls.values(), self._sent, WINDOW))
        self._send("".join(json.dumps(call) + "\n" for call in some))
        self._sent += len(some)

    def _send(self, text: str) -> None:
        # An end of the process is seen where its nudges are.
        with suppress(OSError):
            self._link.sendall(text.encode())

    def _look(self) -> None:
        """See what has become of the calls, and whether one takes too long."""
        self._read()
        self._feed()
        now, before = time.monotonic(), self._looked
        self._looked = now
        if self._current is not None:
            # Time in which the whole job was suspended does not count.
            self._ran += min(now - before, 5 * TICK)
            limit = self._calls[self._current].get("time_limit")
            if limit is not None and self._ran > limit:
                self._end_current({"reason": "TimeLimit", "error": f"took longer than {limit:g} s"})
        for asker in [one for one in self._askers.values() if one.until is not None]:
            if self._journal.size > asker.offset or now >= (asker.until or 0.0):
                self._answer(asker, {"size": self._journal.size})

    def _read(self) -> None:
        for line in self._journal.news():
            name = line["call"]
            if "begun" in line:
                if name in self._calls:
                    self._current, self._ran = name, 0.0
            elif self._calls.pop(name, None) is not None:
                self._sent -= 1
                self._deaths = 0
                self._active = time.monotonic()
                if self._current == name:
                    self._current = None
                if "file" in line:
                    self._results.append((line["at"], line["file"]))

    def _end_current(self, ended: dict[str, Any]) -> None:
        """End the process in the midst of a call."""
        assert self._current
        self._worker.kill()
        self._worker.wait()
        self._read()  # it may just have ended by itself
        if self._current is not None:
            print(f"perijove: {self._current}: {ended['error']}", file=sys.stderr, flush=True)
            self._journal.end(self._current, {"exit_code": 128 + signal.SIGKILL, **ended})
            self._read()

    # requests

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            link, _ = server.accept()
            link.setblocking(False)
            self._askers[link.fileno()] = _Asker(link)
            self._selector.register(link, selectors.EVENT_READ, self._received)

    def _received(self, link: socket.socket) -> None:
        asker = self._askers[link.fileno()]
        try:
            data, files, _, _ = socket.recv_fds(link, 1 << 20, FILES_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data, files = b"", []
        asker.files += files
        asker.data += data
        size = int.from_bytes(asker.data[:4], "big")
        if not data or size > REQUEST_BYTES:
            self._drop(asker)
        elif len(asker.data) >= 4 + size:
            self._asked(asker, json.loads(asker.data[4 : 4 + size]))

    def _asked(self, asker: _Asker, request: dict[str, Any]) -> None:
        for digest, file in zip(request.get("contents", ()), asker.files, strict=False):
            self._keep(digest, file)
        while self._results and self._results[0][0] <= request.get("taken", 0):
            with suppress(OSError):
                (self._directory.path / FOLDER / self._results.popleft()[1]).unlink()
        if missing := self._take(request.get("calls", [])):
            self._answer(asker, {"missing": missing})
            return
        for prefix in request.get("cancel", ()):
            self._cancel(prefix)
        asker.offset = request.get("offset", 0)
        asker.until = time.monotonic() + request.get("wait", 0.0)

    def _take(self, calls: list[dict[str, Any]]) -> list[str]:
        """Take calls, all or none; the digests of the files that are missing."""
        fresh = [call for call in calls if call["id"] not in self._known]
        needed = {digest: None for call in fresh for digest in _needs(call)}
        if missing := [digest for digest in needed if digest not in self._contents]:
            return missing
        for digest in needed:
            self._contents.move_to_end(digest)
        for call in fresh:
            self._known.add(call["id"])
            self._calls[call["id"]] = call
            self._active = time.monotonic()
        return []

    def _cancel(self, prefix: str) -> None:
        self._send(json.dumps({"cancel": prefix}) + "\n")
        self._read()
        for name in list(self._calls)[self._sent :]:
            if name.startswith(prefix):
                self._journal.end(name, {"reason": "KilledByUser", "error": "killed before it began"})
                del self._calls[name]
        if self._current is not None and self._current.startswith(prefix):
            self._end_current({"reason": "KilledByUser", "error": "killed"})
            for name in [one for one in self._calls if one.startswith(prefix)]:
                self._journal.end(name, {"reason": "KilledByUser", "error": "killed before it began"})

    def _keep(self, digest: str, file: int) -> None:
        path = content(self._directory.path, digest)
        if digest not in self._contents:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            with os.fdopen(os.dup(file), "rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                self._contents[digest] = target.tell()
        self._make_room()

    def _make_room(self) -> None:
        needed = {digest for call in self._calls.values() for digest in _needs(call)}
        held, newest = sum(self._contents.values()), next(reversed(self._contents), None)
        for digest in [one for one in self._contents if one not in needed and one != newest]:
            if held <= CONTENT_BYTES:
                break
            held -= self._contents.pop(digest)
            shutil.rmtree(content(self._directory.path, digest).parent, ignore_errors=True)

    def _answer(self, asker: _Asker, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        with suppress(OSError):
            asker.link.setblocking(True)
            asker.link.settimeout(5.0)
            asker.link.sendall(len(data).to_bytes(4, "big") + data)
        self._drop(asker)

    def _drop(self, asker: _Asker) -> None:
        del self._askers[asker.link.fileno()]
        self._selector.unregister(asker.link)
        asker.link.close()
        for file in asker.files:
            os.close(file)


def run_pool(directory: JobDirectory, idle: float) -> int:
    """Make calls until none came for `idle` seconds; the exit code."""
    Pool(directory, idle).run()
    return 0


def _needs(call: dict[str, Any]) -> list[str]:
    return [call["function"], *call.get("inputs", {}).values()]


def _died(status: int) -> dict[str, Any]:
    if status >= 0:
        return {"exit_code": status, "error": f"ended the process, with exit code {status}"}
    number = -status
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return {"reason": "RaisedSignal", "exit_code": 128 + number, "error": f"the process ended by {name}"}


def _listening(directory: JobDirectory) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The path of the directory may be longer than an address holds (unix(7): 108 bytes).
    folder = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=folder)
        server.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        server.listen(16)
        server.setblocking(False)
    finally:
        os.close(folder)
    return server
