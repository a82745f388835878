"""The engine behind the in-memory launcher: programs in a language of its own, run by timers.

A command is a list of statements with ``;`` between them, run one after the other; the exit code is that
of the last. Words are arguments as in any command: there is no quoting.

===================  ===========================================================================
``true`` ``false``   exit codes 0 and 1
``exit N``           end now
``signal N``         end as by signal N
``sleep SECONDS``    let that time pass
``echo WORD...``     to standard output, with a line end
``complain WORD...`` to standard error
``emit HEX``         these bytes to standard output
``print NAME``       a variable of the environment
``pwd``              the working directory
``account``          ``uid:gid group,group``
``append NAME TEXT`` a line to that file in the job directory (a real one)
``allocate BYTES``   hold so much more memory; beyond the limit it is killed
``burn SECONDS``     let that time pass and count it as CPU time
``on-term N``        from now on the polite signal ends it with exit code N
``ignore-term``      from now on the polite signal does nothing
``on-signal N TEXT`` from now on signal N writes that line to standard output, and no more
===================  ===========================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from perijove.model import Attempt
from perijove_spawners.launcher import Launch, Phase, Status

TERM = 15
KILLED = 137
TERMINATED = 143
NOT_FOUND = 127


class Timer:
    """Calls back once after so many seconds of the event loop's time, not counting pauses."""

    def __init__(self, seconds: float, call: Callable[[], None], *, paused: bool = False) -> None:
        self._left = seconds
        self._call = call
        self._since = 0.0
        self._handle: asyncio.TimerHandle | None = None
        if not paused:
            self.resume()

    def pause(self) -> None:
        if self._handle:
            self._handle.cancel()
            self._handle = None
            self._left -= asyncio.get_running_loop().time() - self._since

    def resume(self) -> None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._handle = loop.call_later(max(0.0, self._left), self._call)

    def cancel(self) -> None:
        if self._handle:
            self._handle.cancel()
            self._handle = None


def statements(command: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The statements of a command: each a verb and its words."""
    words: list[str] = []
    for word in (*command, ";"):
        if word != ";":
            words.append(word)
        elif words:
            yield words[0], words[1:]
            words = []


class Program:
    """One command as it runs; `ended` is called once, with its exit code."""

    def __init__(self, launch: Launch, command: Sequence[str], ended: Callable[[int], None]) -> None:
        self.launch = launch
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self.memory = 0
        self.cpu_seconds = 0.0
        self.out_of_memory = False
        self.term_code: int | None = TERMINATED
        self.handlers: dict[int, str] = {}
        """Signal -> the line it writes instead of ending the program."""
        self._ended = ended
        self._statements = statements(command)
        self._code = 0
        self._timer: Timer | None = None
        self._exit: int | None = None

    def go(self) -> None:
        """Run up to the next statement that takes time, or to the end."""
        self._timer = None
        if not self._run_on():
            self.end(self._code if self._exit is None else self._exit)

    def _run_on(self) -> bool:
        """True when the rest comes later."""
        for verb, words in self._statements:
            self._code = self._run(verb, words)
            if self._exit is not None or self._timer is not None:
                break
        return self._timer is not None

    def end(self, code: int) -> None:
        """End it here, once."""
        if self._timer:
            self._timer.cancel()
        ended, self._ended = self._ended, lambda _: None
        ended(code)

    def pause(self) -> None:
        if self._timer:
            self._timer.pause()

    def resume(self) -> None:
        if self._timer:
            self._timer.resume()

    def _run(self, verb: str, words: list[str]) -> int:
        run = getattr(self, f"_do_{verb.replace('-', '_')}", None)
        if run is None:
            self._do_complain(f"perijove: cannot run '{verb}': No such file or directory")
            return NOT_FOUND
        result = run(*words)
        return result if isinstance(result, int) else 0

    def _do_true(self) -> None:
        pass

    def _do_false(self) -> int:
        return 1

    def _do_exit(self, code: str) -> None:
        self._exit = int(code) & 255

    def _do_signal(self, number: str) -> None:
        self._exit = 128 + int(number)

    def _do_sleep(self, seconds: str) -> None:
        self._timer = Timer(float(seconds), self.go)

    def _do_burn(self, seconds: str) -> None:
        self.cpu_seconds += float(seconds)
        self._do_sleep(seconds)

    def _do_echo(self, *words: str) -> None:
        self.output["stdout"] += (" ".join(words) + "\n").encode()

    def _do_complain(self, *words: str) -> None:
        self.output["stderr"] += (" ".join(words) + "\n").encode()

    def _do_emit(self, data: str) -> None:
        self.output["stdout"] += bytes.fromhex(data)

    def _do_print(self, name: str) -> None:
        self._do_echo(self.launch.env.get(name, ""))

    def _do_pwd(self) -> None:
        self._do_echo(self.launch.cwd)

    def _do_account(self) -> None:
        account = self.launch.account
        self._do_echo(f"{account.uid}:{account.gid}", ",".join(map(str, sorted(account.groups))))

    def _do_append(self, name: str, *words: str) -> None:
        with (Path(self.launch.directory) / "job" / name).open("a") as file:
            file.write(" ".join(words) + "\n")

    def _do_allocate(self, size: str) -> None:
        self.memory += int(size)
        if self.memory > self.launch.memory:
            self.out_of_memory = True
            self._exit = KILLED

    def _do_on_term(self, code: str) -> None:
        self.term_code = int(code)

    def _do_ignore_term(self) -> None:
        self.term_code = None

    def _do_on_signal(self, number: str, *words: str) -> None:
        self.handlers[int(number)] = " ".join(words)

    def signal(self, number: int) -> None:
        """What the program made of signal `number`; without a handler that is its end."""
        if number in self.handlers:
            self._do_echo(self.handlers[number])
        elif number != TERM:
            self.end(128 + number)
        elif self.term_code is not None:
            self.end(self.term_code)


class Run:
    """One attempt on the engine."""

    def __init__(self, launch: Launch, changed: Callable[[Attempt], None]) -> None:
        self.launch = launch
        self.phase = Phase.RUNNING
        self.ended = asyncio.Event()
        self.started = time.time()
        self.program = Program(launch, launch.command, self._end)
        self._changed = changed
        self._status: Status | None = None
        self._kill: Timer | None = None
        self._timed_out = False
        self._limit = Timer(launch.time_limit, self._meet_limit) if launch.time_limit else None
        self._pending: list[int] = []
        """Signals sent while it was suspended."""
        self._paused_at, self._paused = 0.0, 0.0

    def _end(self, code: int) -> None:
        for timer in (self._kill, self._limit):
            if timer:
                timer.cancel()
        self.phase = Phase.EXITED
        self._status = Status(
            Phase.EXITED,
            exit_code=code,
            out_of_memory=self.program.out_of_memory,
            timed_out=self._timed_out,
            started=self.started,
            ended=time.time(),
            memory_peak=self.program.memory,
            cpu_seconds=self.program.cpu_seconds,
        )
        self.ended.set()
        self._changed(self.launch.attempt)

    def status(self) -> Status:
        return self._status or Status(self.phase, started=self.started)

    def _meet_limit(self) -> None:
        self._timed_out = True
        self.stop(self.launch.grace)

    def stop(self, grace: float) -> None:
        """The polite signal, and the other one after `grace`."""
        self.resume()
        if self.program.term_code is not None:
            self.program.end(self.program.term_code)
        elif self.phase is not Phase.EXITED:
            if self._kill:
                self._kill.cancel()
            self._kill = Timer(grace, lambda: self.program.end(KILLED))

    def signal(self, number: int) -> None:
        """Send it signal `number`, now or when it goes on."""
        if self.phase is Phase.SUSPENDED:
            self._pending.append(number)
        else:
            self.program.signal(number)

    def limit(self, seconds: float | None) -> None:
        """From now on it may run so many seconds since its start."""
        if self._limit:
            self._limit.cancel()
            self._limit = None
        if seconds is not None:
            now = time.time()
            pause = now - self._paused_at if self.phase is Phase.SUSPENDED else 0.0
            ran = now - self.started - self._paused - pause
            self._limit = Timer(seconds - ran, self._meet_limit, paused=self.phase is Phase.SUSPENDED)

    def suspend(self) -> None:
        if self.phase is Phase.RUNNING:
            self.phase = Phase.SUSPENDED
            self._paused_at = time.time()
            self.program.pause()
            if self._limit:
                self._limit.pause()
            self._changed(self.launch.attempt)

    def resume(self) -> None:
        if self.phase is Phase.SUSPENDED:
            self.phase = Phase.RUNNING
            self._paused += time.time() - self._paused_at
            self.program.resume()
            if self._limit:
                self._limit.resume()
            self._changed(self.launch.attempt)
            pending, self._pending = self._pending, []
            for number in pending:
                self.program.signal(number)


class MemoryEngine:
    """Attempts and what became of them. Launchers come and go; their jobs run on here."""

    def __init__(self) -> None:
        self.runs: dict[Attempt, Run] = {}
        self.watchers: set[asyncio.Queue[Attempt]] = set()

    def start(self, launch: Launch) -> None:
        """Run it, unless an attempt of that name is there already."""
        if launch.attempt not in self.runs:
            run = self.runs[launch.attempt] = Run(launch, self._changed)
            run.program.go()

    def _changed(self, attempt: Attempt) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(attempt)
