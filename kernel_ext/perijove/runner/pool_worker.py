"""``python -m perijove.runner.pool_worker FD``: the process of a warm job that makes the calls.

It reads calls from the socket FD, a JSON object a line, makes one after another, and writes to the journal
what becomes of them. Being a process of its own, it may crash or hang, and the pool goes on.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
from collections import OrderedDict, deque
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import cloudpickle

from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import StandIn
from perijove.runner.journal import FOLDER, Journal
from perijove.runner.step import FUNCTION, VALUE_BYTES, Inputs, exit_code, json_of, traceback_of

FUNCTIONS = 64
"""How many functions are kept unpickled."""
TRACEBACK = 16 << 10
"""Characters of a traceback that are sent back; the log has it whole."""
_NUDGE = 0.002


class LabelledStream(StandIn):
    """Stands in for ``sys.stdout`` or ``sys.stderr``: the real one gets each line behind the step's label."""

    errors = "backslashreplace"

    def __init__(self, real: TextIO) -> None:
        super().__init__(real)
        self._part = ""
        self.label = ""

    def _take(self, text: str) -> None:
        *lines, self._part = (self._part + text).split("\n")
        if lines:
            self._put(lines)

    def flush(self) -> None:
        """A line that is not complete waits for its end."""

    def end(self) -> None:
        """Write what is left of the call's text."""
        if self._part:
            part, self._part = self._part, ""
            self._put([part])

    def _put(self, lines: list[str]) -> None:
        text = "".join(f"{self.label}: {line}\n" for line in lines)
        self._real.buffer.write(text.encode("utf-8", "backslashreplace"))
        self._real.buffer.flush()


class Worker:
    """Takes calls from a socket until its other end closes."""

    def __init__(self, directory: JobDirectory, link: socket.socket) -> None:
        self._directory, self._link = directory, link
        self._journal = Journal(directory.path)
        self._calls: deque[dict[str, Any]] = deque()
        self._buffer = b""
        self._functions: OrderedDict[str, Any] = OrderedDict()
        self._nudged = 0.0
        self._names = count(1)
        self._out, self._err = LabelledStream(sys.stdout), LabelledStream(sys.stderr)
        sys.stdout, sys.stderr = self._out, self._err

    def run(self) -> None:
        """Make calls for as long as there are any."""
        while self._receive():
            call = self._calls.popleft()
            name = call["id"]
            self._journal.begin(name)
            self._journal.keep(name, self._made(call))

    def _receive(self) -> bool:
        """Take what has come; wait for something when there is nothing to do. False at the end."""
        while True:
            if not self._calls:
                self._journal.flush()
                self._nudge()
            elif time.monotonic() - self._nudged > _NUDGE:
                self._nudge()
            try:
                data = self._link.recv(1 << 20, socket.MSG_DONTWAIT if self._calls else 0)
            except BlockingIOError:
                return True
            if not data:
                self._journal.flush()
                return False
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if (prefix := message.get("cancel")) is None:
            self._calls.append(message)
            return
        for call in [one for one in self._calls if one["id"].startswith(prefix)]:
            self._calls.remove(call)
            self._journal.end(call["id"], {"reason": "KilledByUser", "error": "killed before it began"})

    def _nudge(self) -> None:
        self._nudged = time.monotonic()
        with suppress(OSError):
            self._link.send(b".")

    def _made(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make a call: what the journal says of its end."""
        self._out.label = self._err.label = call["id"].split("/")[1]
        try:
            return self._result(self._called(call))
        except RunnerError as error:
            print(f"perijove: {error}", file=sys.stderr)
            return {"error": str(error), "exit_code": 1}
        except SystemExit as leaving:
            code = exit_code(leaving)
            return {"error": f"left with exit code {code}", "exit_code": code} if code else {"value": None}
        except BaseException as error:
            return self._failure(error)
        finally:
            self._out.end()
            self._err.end()

    def _called(self, call: dict[str, Any]) -> Any:
        function = self._function(call["function"])
        names = call.get("inputs", {})
        inputs = Inputs(
            load=lambda name: self._directory.load(self._path(names, name)),
            path=lambda name: self._path(names, name),
        )
        args, kwargs = inputs.arguments(call["call"])
        return function(*args, **kwargs)

    def _function(self, digest: str) -> Any:
        if digest not in self._functions:
            self._functions[digest] = self._directory.load(self._path({FUNCTION: digest}, FUNCTION))
            while len(self._functions) > FUNCTIONS:
                self._functions.popitem(last=False)
        self._functions.move_to_end(digest)
        return self._functions[digest]

    def _path(self, names: dict[str, str], name: str) -> Path:
        if name not in names:
            raise RunnerError(f"the call came without its input {name!r}")
        kept = content(self._directory.path, names[name])
        path = kept.with_name(name)
        if not path.exists():
            os.link(kept, path)
        return path

    def _result(self, value: Any) -> dict[str, Any]:
        if json_of(value) is not None:
            return {"value": value}
        try:
            data = cloudpickle.dumps(value)
        except Exception as error:
            raise RunnerError(
                f"result ({type(value).__name__}) cannot be pickled and sent back: {error}"
            ) from error
        if len(data) <= VALUE_BYTES:
            return {"data": base64.b64encode(data).decode()}
        name = f"result-{os.getpid()}-{next(self._names)}"
        try:
            (self._directory.path / FOLDER / name).write_bytes(data)
        except OSError as error:
            raise RunnerError(f"result ({len(data)} bytes pickled) cannot be written: {error}") from error
        return {"file": name}

    def _failure(self, error: BaseException) -> dict[str, Any]:
        try:
            error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
            lines, said = "".join(traceback_of(error)), f"{type(error).__name__}: {error}"
        except Exception:  # an exception whose text cannot be had
            lines = said = type(error).__name__
        print(lines, end="", file=sys.stderr)
        return {"error": said[:4096], "traceback": lines[-TRACEBACK:], "exit_code": 1}


def content(directory: Path, digest: str) -> Path:
    """Where the pool keeps the file with that digest."""
    return directory / FOLDER / digest.rpartition(":")[2] / "content"


def main() -> None:
    """Make the calls that come through the socket whose number is the only argument."""
    with socket.socket(fileno=int(sys.argv[1])) as link:
        os.set_inheritable(link.fileno(), False)
        Worker(JobDirectory.find(), link).run()


if __name__ == "__main__":
    main()
