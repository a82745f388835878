"""One suite for all launchers. To put another under test, add an entry to TARGETS.

A test asks for the fixture `stand`: a launcher on its real engine, and what one does with it again and again.
It runs against every target; ``@pytest.mark.needs("real")`` keeps to those that have the trait.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from tests.conftest import TEST_IMAGE, absent
from waiting import becomes, until

from perijove.model import Account, Attempt
from perijove_spawners import registry
from perijove_spawners.launcher import (
    JOB_DIRECTORY,
    EngineCall,
    Launch,
    Launcher,
    LauncherContext,
    Mount,
    Phase,
    Status,
    Stream,
)
from perijove_spawners.memory.launcher import MemoryLauncher

PATIENCE = 30.0
"""Seconds that anything here may take on a busy machine."""


class Programs(Protocol):
    """What a job does, in the language of the launcher: parts, and a command made of them."""

    def command(self, *parts: Any) -> tuple[str, ...]: ...
    def exit(self, code: int) -> Any: ...
    def signal(self, number: int) -> Any: ...
    def sleep(self, seconds: float) -> Any: ...
    def echo(self, text: str) -> Any: ...
    def complain(self, text: str) -> Any: ...
    def emit(self, data: bytes) -> Any: ...
    def print(self, name: str) -> Any: ...
    def pwd(self) -> Any: ...
    def account(self) -> Any: ...
    def append(self, name: str, text: str) -> Any: ...
    def allocate(self, size: int) -> Any: ...
    def on_term(self, code: int) -> Any: ...
    def ignore_term(self) -> Any: ...
    def on_signal(self, number: int, text: str) -> Any: ...


class ShellPrograms:
    """For launchers that run real programs: a part is a line for /bin/sh."""

    def command(self, *parts: str) -> tuple[str, ...]:
        return ("/bin/sh", "-c", "\n".join(parts))

    def exit(self, code: int) -> str:
        return f"exit {code}"

    def signal(self, number: int) -> str:
        # The shell of a container is its first process, which cannot signal itself.
        return f"sh -c 'kill -{number} $$'; exit $?"

    def sleep(self, seconds: float) -> str:
        # A shell that waits runs its traps at once, also when it alone is signalled.
        return f"sleep {seconds} & wait $!"

    def echo(self, text: str) -> str:
        return f"printf '%s\\n' {shlex.quote(text)}"

    def complain(self, text: str) -> str:
        return f"{self.echo(text)} >&2"

    def emit(self, data: bytes) -> str:
        return "printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'"

    def print(self, name: str) -> str:
        return f"printf '%s\\n' \"${name}\""

    def pwd(self) -> str:
        return "pwd"

    def account(self) -> str:
        return "echo \"$(id -u):$(id -g) $(id -G | tr ' ' ,)\""

    def append(self, name: str, text: str) -> str:
        return f'{self.echo(text)} >> "$PERIJOVE_JOB_DIR/{name}"'

    def allocate(self, size: int) -> str:
        return f"held=$(head -c {size} /dev/zero | tr '\\0' x)"

    def on_term(self, code: int) -> str:
        return f"trap 'exit {code}' TERM"

    def ignore_term(self) -> str:
        return "trap '' TERM"

    def on_signal(self, number: int, text: str) -> str:
        return f"trap {shlex.quote(self.echo(text))} {number}"


class MemoryPrograms:
    """The in-memory launcher's own language; a part is a statement."""

    def command(self, *parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for part in parts for word in (*part, ";"))

    def exit(self, code: int) -> tuple[str, ...]:
        return ("exit", str(code))

    def signal(self, number: int) -> tuple[str, ...]:
        return ("signal", str(number))

    def sleep(self, seconds: float) -> tuple[str, ...]:
        return ("sleep", str(seconds))

    def echo(self, text: str) -> tuple[str, ...]:
        return ("echo", text)

    def complain(self, text: str) -> tuple[str, ...]:
        return ("complain", text)

    def emit(self, data: bytes) -> tuple[str, ...]:
        return ("emit", data.hex())

    def print(self, name: str) -> tuple[str, ...]:
        return ("print", name)

    def pwd(self) -> tuple[str, ...]:
        return ("pwd",)

    def account(self) -> tuple[str, ...]:
        return ("account",)

    def append(self, name: str, text: str) -> tuple[str, ...]:
        return ("append", name, text)

    def allocate(self, size: int) -> tuple[str, ...]:
        return ("allocate", str(size))

    def on_term(self, code: int) -> tuple[str, ...]:
        return ("on-term", str(code))

    def ignore_term(self) -> tuple[str, ...]:
        return ("ignore-term",)

    def on_signal(self, number: int, text: str) -> tuple[str, ...]:
        return ("on-signal", str(number), text)


def _again(old: Launcher, context: LauncherContext) -> Launcher:
    assert isinstance(old, MemoryLauncher)
    return MemoryLauncher(context, engine=old.engine)


@dataclass(frozen=True)
class Target:
    """A launcher to test, by its registered name."""

    launcher: str
    programs: Programs = field(default_factory=ShellPrograms)
    traits: frozenset[str] = frozenset({"real"})
    """``real``: programs of a real system, which outlive the agent. ``image``: in containers.
    ``processes``: they see the node as it is. ``bounded``: memory is bounded for a job as a whole.
    ``timed``: the launcher itself ends a job at its time limit."""
    image: str | None = None
    not_found: int = 127
    """Exit code of a program that is not there; Podman's init (catatonit) has only 1 to say so."""
    engine: str | None = None
    """The fixture that gives the engine's address, for the option ``url``."""
    options: Mapping[str, str] = field(default_factory=dict)
    again: Callable[[Launcher, LauncherContext], Launcher] | None = None
    """Makes another launcher for what an earlier one ran; by default as the first was made."""
    marks: tuple[pytest.MarkDecorator, ...] = ()


def _engine(name: str) -> Target:
    return Target(
        name,
        traits=frozenset({"real", "image", "bounded"}),
        image=TEST_IMAGE,
        engine=f"{name}_url",
        not_found=1 if name == "podman" else 127,
        marks=(pytest.mark.engine,),
    )


TARGETS = {
    "memory": Target(
        "memory", programs=MemoryPrograms(), traits=frozenset({"bounded", "timed"}), again=_again
    ),
    "process": Target("process", traits=frozenset({"real", "processes", "bounded", "timed"})),
    "process without cgroups": Target(
        "process", traits=frozenset({"real", "processes", "timed"}), options={"cgroup": "off"}
    ),
    "docker": _engine("docker"),
    "podman": _engine("podman"),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): keep to launchers with these traits (conformance)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames:
        return
    needed = {word for mark in metafunc.definition.iter_markers("needs") for word in mark.args}
    fitting = {name: target for name, target in TARGETS.items() if needed <= target.traits}
    metafunc.parametrize(
        "target",
        [pytest.param(target, marks=target.marks) for target in fitting.values()],
        ids=list(fitting),
        scope="function",
    )


class Result(NamedTuple):
    """What became of a job that was run to its end."""

    status: Status
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()


class Stand:
    """A launcher under test, with a workplace on the node."""

    def __init__(self, target: Target, launcher: Launcher, context: LauncherContext, workplace: Path) -> None:
        self.target = target
        self.launcher = launcher
        self.context = context
        self.workplace = workplace
        self.programs = target.programs
        uid = os.geteuid()
        if uid == 0:
            self.account = Account("nobody-knows", 20011, 20012, str(workplace / "home"), (20013, 20014))
        else:
            self.account = Account("me", uid, os.getegid(), str(workplace / "home"), tuple(os.getgroups()))
        self.home = self.folder("home")
        self.calls: list[tuple[Attempt, EngineCall]] = []
        """Those that the launcher noted."""
        self._attempts: list[Attempt] = []
        self._opened = [launcher]

    def folder(self, name: str, mode: int = 0o700) -> Path:
        """A new folder of the job's account."""
        path = self.workplace / name
        path.mkdir()
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, self.account.uid, self.account.gid)
        return path

    def needs(self, feature: str) -> None:
        """Give up where this machine does not let the launcher have `feature`."""
        if feature not in self.launcher.capabilities.features:
            absent(f"{self.target.launcher} cannot give {feature} on this machine")

    def launch(self, *parts: Any, **changes: Any) -> Launch:
        """A launch of these parts (or of ``command``), in a directory of its own."""
        attempt = Attempt(len(self._attempts) + 1, 1)
        self._attempts.append(attempt)
        directory = self.workplace / str(attempt)
        directory.mkdir(mode=0o711)
        directory.chmod(0o711)
        job = self.folder(f"{attempt}/job")
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home)}
        env["PERIJOVE_JOB_DIR"] = JOB_DIRECTORY if self.target.image else str(job)
        values: dict[str, Any] = {
            "attempt": attempt,
            "owner": "nobody-knows",
            "account": self.account,
            "directory": directory,
            "command": self.programs.command(*parts),
            "cwd": str(self.home),
            "image": self.target.image,
            "mounts": (Mount(str(self.home), str(self.home)),),
            "memory": 256 << 20,
            "grace": 5.0,
        }
        values.update(changes)
        values["env"] = env | changes.get("env", {})
        return Launch(**values)

    async def start(self, *parts: Any, **changes: Any) -> Launch:
        """Start a job and see it run."""
        launch = self.launch(*parts, **changes)
        await self.launcher.start(launch)
        return launch

    async def run(self, *parts: Any, **changes: Any) -> Result:
        """Run a job to its end."""
        launch = await self.start(*parts, **changes)
        status = await self.end_of(launch)
        return Result(status, await self.log(launch, "stdout"), await self.log(launch, "stderr"))

    async def status(self, launch: Launch) -> Status:
        return (await self.launcher.status([launch.attempt]))[launch.attempt]

    async def end_of(self, launch: Launch) -> Status:
        """Wait for the end of a job."""

        async def ended() -> Status | None:
            status = await self.status(launch)
            return status if status.phase is Phase.EXITED else None

        return await becomes(ended, f"the end of {launch.command}", PATIENCE)

    async def log(self, launch: Launch, stream: Stream, *, piece: int = 1 << 20) -> bytes:
        """All of a log, read piece by piece."""
        data = b""
        while more := await self.launcher.logs(launch.attempt, stream, offset=len(data), limit=piece):
            data += more
        return data

    def file(self, launch: Launch, name: str) -> str:
        """What a job wrote into a file of its directory; empty when it is not there."""
        path = launch.directory / "job" / name
        return path.read_text() if path.exists() else ""

    async def writes(self, launch: Launch, name: str, text: str = "") -> None:
        """Wait until a job's file holds `text`."""
        await until(
            lambda: (written := self.file(launch, name)) and text in written, f"{text!r} in {name}", PATIENCE
        )

    async def another(self) -> Launcher:
        """Another launcher, as an agent that starts anew makes it; the first is simply left."""
        make = self.target.again
        launcher = (
            make(self.launcher, self.context) if make else registry.create(self.target.launcher, self.context)
        )
        await launcher.open()
        self._opened.append(launcher)
        return launcher

    def start_and_die(self, launch: Launch) -> None:
        """Have `launch` started by an agent in a process of its own, which is then killed."""
        plain = LauncherContext(self.context.installation, self.context.directory, self.context.options)
        order = base64.b64encode(pickle.dumps((self.target.launcher, plain, launch))).decode()
        agent = subprocess.Popen([sys.executable, "-c", AGENT, order], stdout=subprocess.PIPE)
        assert agent.stdout is not None
        said = agent.stdout.readline()
        agent.send_signal(signal.SIGKILL)
        agent.wait(PATIENCE)
        assert said == b"started\n"

    async def clean(self) -> None:
        """End and remove whatever the test has left."""
        known = await self.launcher.recover()
        for attempt in known:
            await self.launcher.stop(attempt, grace=0.0)
            await self.launcher.remove(attempt)
        for launcher in self._opened:
            await launcher.close()


AGENT = """
import asyncio, base64, pickle, sys
from perijove_spawners import registry

async def main():
    name, context, launch = pickle.loads(base64.b64decode(sys.argv[1]))
    launcher = registry.create(name, context)
    await launcher.open()
    await launcher.start(launch)
    print("started", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def workplace() -> Iterator[Path]:
    """A folder that other accounts may pass through."""
    path = Path(tempfile.mkdtemp(prefix="perijove-conformance-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        # A supervisor without work removes its own pipe just then.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def stand(target: Target, workplace: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    options = dict(target.options)
    if target.engine:
        options["url"] = request.getfixturevalue(target.engine)
    directory = workplace / "launcher"
    directory.mkdir(mode=0o700)
    calls: list[tuple[Attempt, EngineCall]] = []
    installation = f"test-{workplace.name[-8:].replace('_', 'x')}"
    context = LauncherContext(installation, directory, options, lambda *noted: calls.append(noted))
    launcher = registry.create(target.launcher, context)
    await launcher.open()
    stand = Stand(target, launcher, context, workplace)
    stand.calls = calls
    try:
        yield stand
    finally:
        await stand.clean()
