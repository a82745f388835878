"""The contract of a launcher: what it takes to run one attempt of one job on one engine.

A launcher is small and holds no truth of its own: the engine does. Whatever it is asked may be asked
again after the process that asked was killed at any line, so every verb is safe to repeat. Policy (may
this user, which node, which devices) has been decided before a :class:`Launch` is made.

Third parties register a class in the entry-point group ``perijove.launchers``; its constructor takes a
:class:`LauncherContext`. The conformance suite in ``tests/conformance`` is the test of this contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from perijove.model import Account, Attempt, Capabilities, Endpoint, Gpu, Stats

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One call made of an engine for an attempt, for people who want to see what exactly was done."""

    what: str
    """``POST /v1.41/containers/create?name=...``, ``execve sh -c date``."""
    body: Any = None
    """What was sent, as JSON; environments only as :func:`~perijove_spawners.calls.shown` leaves them."""
    at: float | None = None
    """When it was made, in seconds since the epoch; None for the start of the attempt."""
    answer: int | None = None
    """HTTP status."""
    milliseconds: float | None = None
    """Until the answer came, or what stands for one."""
    message: str = ""
    """Why it failed, in the engine's words."""


def _ignore(attempt: Attempt, call: EngineCall) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LauncherContext:
    """What every launcher is made with."""

    installation: str
    """Unique name of this Perijove; in container names and labels, so that several can share an engine."""
    directory: Path
    """A directory of the launcher's own on this node, kept between runs of the agent; mode 0700."""
    options: Mapping[str, str] = field(default_factory=dict)
    """From the node's configuration, for example ``{"url": "unix:///run/podman/podman.sock"}``."""
    note: Callable[[Attempt, EngineCall], None] = _ignore
    """Takes each call that a verb makes of the engine for an attempt; from any thread, and it never fails."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the node seen by the job. `source` is resolved: no link is left in it."""

    source: str
    target: str
    read_only: bool = False
    name: str = field(default="", compare=False)
    """The volume's, as jobs ask for it."""

    def __str__(self) -> str:
        """For the job's owner, whom paths of the node do not concern."""
        return f"volume {self.name}" if self.name else f"what belongs at {self.target}"


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """With whom an image's registry is asked for it."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt, ready to be started: nothing is left to decide.

    Memory and sizes are bytes, durations seconds. Directories named by `mounts` and `directory` exist.
    """

    attempt: Attempt
    owner: str
    command: tuple[str, ...]
    account: Account
    directory: Path
    """The attempt's directory on this node. Its subfolder ``job`` belongs to the account and is what the
    job sees as ``$PERIJOVE_JOB_DIR`` (mounted at :data:`JOB_DIRECTORY` in containers)."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    image: str | None = None
    mounts: tuple[Mount, ...] = ()
    cpu: float = 1.0
    memory: int = 1 << 30
    shm_size: int | None = None
    gpus: tuple[Gpu, ...] = ()
    devices: tuple[str, ...] = ()
    """Paths of device nodes of this host that it may open, under the same paths (feature ``devices``)."""
    network: str | None = None
    ports: tuple[int, ...] = ()
    """TCP ports of the job that must be reachable from the service's host; see :meth:`Launcher.endpoint`."""
    time_limit: float | None = None
    """Enforced by the agent for launchers without the feature ``time_limit``."""
    grace: float = 10.0
    """Seconds between the polite signal and SIGKILL, at a stop and at the time limit."""
    stdout: str | None = None
    stderr: str | None = None
    stdin: str | None = None
    """Path, as the job sees it, of the file that is its standard input (feature ``stdin``)."""
    descriptors: Mapping[int, str] = field(default_factory=dict)
    """File descriptors 3 to 9 -> paths, as the job sees them, of the files in the job directory that are open
    for writing from its start (feature ``stdin`` too)."""
    entrypoint: bool = False
    """The image's entrypoint runs; `command` are its arguments, or the image's own ones when it is empty."""
    sealed: bool = False
    """No network, and nothing to write to but `mounts`, the job directory and a ``/tmp`` in memory (feature
    ``sealed``)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    """Whose network the network ``project`` is."""
    root: bool = False
    """Root in the container, able to become another user and to give files away, and no more (feature
    ``root``). The job directory belongs to root then, and `mounts` but for `own_mounts` are read-only
    whatever they say."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variable -> path, as the job sees it, of the file that holds its value. The program gets them in its
    environment, and no record, list of processes or answer of the engine holds a value."""
    login: RegistryLogin | None = field(default=None, repr=False)
    """With whom the image's registry is asked."""
    pull: str | None = None
    """``missing``, ``always`` or ``never``; None: as the launcher is set up."""
    ipc: str = "private"
    """``host``: the node's IPC namespace (feature ``ipc``)."""
    own_mounts: tuple[Mount, ...] = ()
    """Those of `mounts` that are this attempt's alone: its scratch space, and folders of its outputs."""
    published: Mapping[int, int] = field(default_factory=dict)
    """Of `ports`, those to be reached under a port of this host: port of the job -> port of the host."""
    publish_at: tuple[str, ...] = ()
    """The addresses of this host that `published` is bound to."""


JOB_DIRECTORY = "/run/perijove"
"""Where a container finds its job directory."""
JOB_SECRETS = "/run/perijove-secrets"
"""Where a container finds its secrets, if it has any."""


SCRATCH_DIRECTORY = "/scratch"
"""Where a container finds its scratch space, when it has any (feature ``tmp_disk``)."""


ARCHIVE = "archive:"
"""What the name of an image begins with that is an archive in the store; its digest follows."""


ARCHIVES = "localhost/perijove/archive:"
"""What the names of such images begin with on engines. They are the agents' alone: a job that names one
itself is refused by the service.
"""


class Archive(Protocol):
    """An archive of an image that lies elsewhere; it is fetched when it is needed."""

    @property
    def digest(self) -> str:
        """Of the file, ``sha256:...``."""

    async def size(self) -> int:
        """Bytes; :class:`LaunchError` when it cannot be had."""

    async def fetch(self, path: Path) -> None:
        """Copy it to the new file `path`; :class:`LaunchError` when it cannot be had."""


class Phase(StrEnum):
    """What an engine says of an attempt."""

    UNKNOWN = "unknown"
    """The engine was reached and has nothing of that name."""
    CREATED = "created"
    """It exists and has not been started; `start` goes on with it."""
    RUNNING = "running"
    SUSPENDED = "suspended"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Status:
    """One attempt as its engine sees it."""

    phase: Phase
    exit_code: int | None = None
    """With EXITED: as a shell gives it, 128 + N after signal N; None when nobody can know it any more (the
    machine was restarted, its supervisor killed), and then `message` says why."""
    out_of_memory: bool = False
    timed_out: bool = False
    """The launcher itself ended it at its time limit."""
    message: str = ""
    started: float | None = None
    ended: float | None = None
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    image_digest: str | None = None
    """The engine's id of the image it was made of."""
    image_manifest: str | None = None
    """REPOSITORY@DIGEST at the registry that the engine has it from."""


class LaunchError(Exception):
    """An attempt could not be started, and nothing of it is left on the engine."""

    transient = False


class ImageMissingError(LaunchError):
    """The engine has no such image and may not or cannot pull it."""


class ImageGoneError(ImageMissingError):
    """The engine had the image when :meth:`Launcher.prepare` was called, and has it no more."""

    transient = True


class EngineError(LaunchError):
    """The engine does not answer, or not sensibly; the same call may succeed later.

    Any verb may raise it. It never means that a job is gone.
    """

    transient = True


class StaleFenceError(LaunchError):
    """The service that asks has been replaced by another, which leads now."""


class UnsupportedError(LaunchError):
    """This launcher cannot do that; see its :class:`~perijove.model.Capabilities`."""


@runtime_checkable
class Launcher(Protocol):
    """Runs attempts on one engine.

    All verbs are coroutines and may be called concurrently, for different attempts and for the same.
    Each raises :class:`EngineError` when the engine cannot be asked.
    """

    capabilities: Capabilities

    async def open(self) -> None:
        """Connect to the engine. :class:`EngineError` when it cannot be reached."""

    async def close(self) -> None:
        """Let go of the engine; what runs goes on."""

    async def prepare(self, launch: Launch, say: Callable[[str], None]) -> None:
        """Fetch what the start of `launch` needs and the node lacks (its image); nothing by default.

        `say` takes a sentence for people on what is being done (``pulling image X``). Slow, idempotent,
        and called before :meth:`start`, which never fetches. :class:`ImageMissingError` when it cannot.
        """

    async def load(self, archive: Archive, say: Callable[[str], None]) -> str:
        """Have the image in `archive` on the engine, under a name made of its digest; that name.

        Only called with the feature ``archives``, before :meth:`prepare`; idempotent. Whatever names the
        archive holds are not given to it. :class:`LaunchError` when it is none that can be loaded.
        """

    async def start(self, launch: Launch) -> None:
        """Make `launch` run and return once it does (it may have ended already).

        Starting what exists adopts it: a second call does nothing, also when the first was cut short
        anywhere. Any other failure raises :class:`LaunchError` and leaves nothing behind.
        """

    def call(self, launch: Launch) -> EngineCall | None:
        """The call that starts `launch`, if it follows from that alone; None where calls are noted as made.

        Nothing is kept of such a call: it is asked for when somebody wants to see it.
        """

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        """What the engine has of each, asked in as few calls as it allows."""

    async def recover(self) -> list[Attempt]:
        """Every attempt of this installation that the engine has, in whatever phase."""

    def watch(self) -> AsyncIterator[Collection[Attempt]]:
        """Attempts that may have changed since, for as long as it is read; a hint, never the truth.

        It yields soon after an attempt ends; a lost engine ends the iteration with :class:`EngineError`.
        """

    async def stop(self, attempt: Attempt, *, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL, to everything the attempt runs; suspended or not.

        Returns when it has ended. Stopping what has ended or is unknown does nothing.
        """

    async def signal(self, attempt: Attempt, number: int) -> None:
        """Send the signal `number` to what it runs; a frozen one may get it only when it goes on.

        Which of its processes get it is the engine's business; see the launchers' documentation.
        :class:`LaunchError` when it does not run, :class:`UnsupportedError` without the feature ``signal``.
        """

    async def limit(self, attempt: Attempt, seconds: float | None) -> None:
        """From now on its time limit is so many seconds of run time since its start; None for none.

        Only called with the feature ``time_limit``. :class:`LaunchError` when it does not run.
        """

    async def suspend(self, attempt: Attempt) -> None:
        """Freeze it. :class:`UnsupportedError` without the feature ``suspend``."""

    async def resume(self, attempt: Attempt) -> None:
        """Let it go on."""

    async def logs(self, attempt: Attempt, stream: Stream, *, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of what it wrote, from byte `offset`; empty at the end.

        An offset means the same byte for the life of the attempt, also after the agent was restarted.
        Never waits. Works until :meth:`remove`.
        """

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        """Run `command` beside it, as the same account; its exit code and output (both streams)."""

    async def stats(self, attempt: Attempt) -> Stats:
        """What it uses now; all zero when it does not run."""

    async def endpoint(self, attempt: Attempt) -> Endpoint:
        """Where the ports of its launch are reached from this host."""

    async def images(self) -> Mapping[str, str]:
        """References of the images present -> their ids; empty for launchers without containers.

        An id that the engine does not say is empty.
        """

    async def remove(self, attempt: Attempt) -> None:
        """Remove all that is left of an ended attempt on the engine (not its `directory`); idempotent."""
