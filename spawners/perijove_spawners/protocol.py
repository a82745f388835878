"""What service and nodes say to each other through Dask.

Service to node: :class:`Order` (in a task, pinned to the node), and calls of :class:`NodeCalls` by name.
Node to service: announcements and :class:`Report` on two Dask event topics. Every report of an end is
repeated until the service calls ``forget``; so a lost message delays the truth and never changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from perijove.model import Account, Attempt, Endpoint, Gpu, Node, Outcome, ReasonCode, Stats
from perijove_spawners.launcher import Mount, RegistryLogin

NODES_TOPIC = "perijove-nodes"
"""Events: a :class:`~perijove.model.Node` as a dict, when a node joins and every HEARTBEAT seconds."""
REPORTS_TOPIC = "perijove-reports"
"""Events: a list of reports as dicts (see :meth:`Report.to_wire`)."""
HEARTBEAT = 5.0
"""Seconds between two announcements; a node silent for three of them is DOWN."""

LogStream = Literal["stdout", "stderr", "display", "engine"]
"""``display`` is the file ``display.jsonl`` that the job itself writes, ``engine`` the calls made of the
engine for it (:mod:`perijove_spawners.calls`); see docs/architecture.md."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret for one job; it is on no disk and in no text about the order."""

    name: str
    value: bytes = field(repr=False)
    variable: str | None = None
    """Given in the environment under this name; None: as a file."""


@dataclass(frozen=True, slots=True)
class Order:
    """Start this attempt: all that the node needs, nothing left to decide but paths on the node.

    `incarnation` is that of the agent the service decided for. An agent of another incarnation that has
    no record of the attempt must not start it (the task may be Dask's repetition of one that ran before
    the node was lost): it answers with an outcome NODE_LOST.
    """

    attempt: Attempt
    incarnation: str
    launcher: str
    owner: str
    account: Account
    title: str
    command: tuple[str, ...] = ()
    script: str | None = None
    """Staged as ``script`` in the job directory and run instead of `command`, with `args`."""
    args: tuple[str, ...] = ()
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    """None means the account's home."""
    mounts: tuple[Mount, ...] = ()
    """Sources as configured; the node resolves and checks them."""
    make_home: bool = False
    """Create the account's home (owner, mode 0700) when it is missing: only for homes the site manages."""
    home_limit: int | None = None
    """Bytes that such a home may hold, enforced where the node can have a file system for it."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest, of a file or (``sha256-tree:``) of a folder."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Name -> place (:data:`perijove.model.places.OutputPlace`)."""
    stdin: str | None = None
    """The input that is its standard input."""
    entrypoint: bool = False
    """Keep the image's entrypoint: `command` are its arguments, and may be empty."""
    sealed: bool = False
    """No network, no mounts, read-only root."""
    cpu: float = 1.0
    memory: int = 1 << 30
    shm_size: int | None = None
    gpus: tuple[Gpu, ...] = ()
    network: str | None = None
    ports: tuple[int, ...] = ()
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Countable resource -> the numbers of its units that the job holds."""
    devices: tuple[str, ...] = ()
    """Paths of the device nodes that come with those units."""
    time_limit: float | None = None
    """Seconds of run time; time suspended does not count."""
    warning: tuple[str, float] | None = None
    """A signal's name without SIG, and how many seconds before the time limit it is sent."""
    grace: float = 10.0
    stdout: str | None = None
    stderr: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    """The network ``project`` is its."""
    root: bool = False
    """It is root in its container; home and volumes are read-only then."""
    ipc: str = "private"
    gui: bool = False
    tmp_disk: int | None = None
    """Bytes of scratch space."""
    secrets: tuple[Secret, ...] = ()
    registry: RegistryLogin | None = None
    pull: str | None = None
    """``missing``, ``always`` or ``never``; None: as the node has it."""
    fence: int = 0
    """Of the service's lease, see :class:`NodeCalls`."""


class ReportKind(StrEnum):
    """What a node says of an attempt."""

    LAUNCHING = "launching"  # message: what it is doing (staging, pulling an image)
    STARTED = "started"  # endpoint
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    PROGRESS = "progress"  # progress, message
    WARNED = "warned"  # message: which signal it was sent, and what is left of its time
    ENDED = "ended"  # outcome


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened to one attempt on a node."""

    node: str
    attempt: Attempt
    kind: ReportKind
    at: float
    message: str = ""
    progress: float | None = None
    endpoint: Endpoint | None = None
    outcome: Outcome | None = None
    gpus: tuple[str, ...] = ()
    """In an answer of ``known``, of an attempt that has not ended: UUIDs of the devices it was given."""
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Likewise: countable resource -> the numbers of its units."""

    def to_wire(self) -> dict[str, Any]:
        """Plain types only, for msgpack."""
        wire: dict[str, Any] = {
            "node": self.node,
            "attempt": str(self.attempt),
            "kind": self.kind.value,
            "at": self.at,
        }
        if self.message:
            wire["message"] = self.message
        if self.progress is not None:
            wire["progress"] = self.progress
        if self.endpoint is not None:
            wire["endpoint"] = self.endpoint.model_dump(mode="json")
        if self.outcome is not None:
            reason = self.outcome.reason
            wire["outcome"] = {**asdict(self.outcome), "reason": reason.value if reason else None}
        if self.gpus:
            wire["gpus"] = list(self.gpus)
        if self.slots:
            wire["slots"] = {name: list(units) for name, units in self.slots.items()}
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Report:
        """The inverse of :meth:`to_wire`."""
        outcome = None
        if raw := wire.get("outcome"):
            reason = raw.get("reason")
            outcome = Outcome(**{**raw, "reason": ReasonCode(reason) if reason else None})
        return cls(
            node=wire["node"],
            attempt=Attempt.parse(wire["attempt"]),
            kind=ReportKind(wire["kind"]),
            at=wire["at"],
            message=wire.get("message", ""),
            progress=wire.get("progress"),
            endpoint=Endpoint.model_validate(wire["endpoint"]) if wire.get("endpoint") else None,
            outcome=outcome,
            gpus=tuple(wire.get("gpus", ())),
            slots={name: tuple(units) for name, units in wire.get("slots", {}).items()},
        )


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a log; the next piece begins at ``offset + len(data)``."""

    data: bytes
    offset: int
    end: bool
    """Nothing will follow: the attempt has ended and this reaches the end."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What has become of calls of a warm job: lines of its journal past an offset."""

    lines: tuple[dict[str, Any], ...]
    """As the job wrote them, so not to be trusted; results are in the store by now (``digest``, ``size``)."""
    offset: int
    """Where the next ones begin."""
    end: bool
    """Nothing will follow: the job has ended, and this reaches the end."""
    missing: tuple[str, ...] = ()
    """No call was taken, since the job does not have these files."""
    unstaged: Mapping[str, str] = field(default_factory=dict)
    """Nor was any when files could not be brought: digest -> why."""


class NodeCalls(Protocol):
    """What a node agent answers. Unknown attempts are answered, never an error, unless said.

    Of several services one leads, and each new leader has a higher *fence* than the one before. Orders and
    calls carry it (:attr:`Order.fence`; a field of the message, set as ``Fabric.fence``), the node keeps the
    highest it has seen, and refuses what carries a lower one with
    :class:`~perijove_spawners.launcher.StaleFenceError`: a leader that was replaced without noticing changes
    nothing. 0 stands for a service that needs no lease, and is not refused.
    """

    async def describe(self) -> Node:
        """The announcement, fresh."""

    async def start(self, orders: Sequence[Order]) -> None:
        """Take orders; returns when each has ended. Progress and ends come as reports.

        Idempotent: an attempt the agent has a record of is not started again.
        """

    async def known(self, attempts: Sequence[Attempt] | None = None) -> list[Report]:
        """For each (by default all) attempts the agent has a record of, the latest STARTED, SUSPENDED or
        ENDED report (LAUNCHING before that). An attempt missing from the answer is unknown here. What has
        not ended comes with the devices and units of its order: the service may have lost that record.
        """

    async def stop(self, attempts: Sequence[Attempt], grace: float | None = None) -> None:
        """Have them stopped; returns at once, the ENDED reports (KILLED_BY_USER) follow.

        An attempt without a record is reported ENDED as KILLED_BY_USER too, and will not be started by an
        order that arrives later.
        """

    async def signal(self, attempts: Sequence[Attempt], name: str) -> None:
        """Send the signal `name` (``USR1``) to those that run; the others are passed over.

        Raises LaunchError when one of them cannot be sent it.
        """

    async def update(self, attempt: Attempt, time_limit: float | None) -> None:
        """Give it another time limit, in seconds of run time from its start; None for none.

        Raises LaunchError when it has ended or is unknown.
        """

    async def suspend(self, attempt: Attempt) -> None:
        """Raises LaunchError when it cannot."""

    async def resume(self, attempt: Attempt) -> None:
        """Raises LaunchError when it cannot."""

    async def logs(
        self, attempt: Attempt, stream: LogStream, offset: int, limit: int, wait: float = 0.0
    ) -> LogChunk | None:
        """A piece of the log, waiting up to `wait` seconds for the first byte past `offset`.

        Available until ``purge``; None when the node has no log of it.
        """

    async def stats(self, attempt: Attempt) -> Stats:
        """What it uses now."""

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command beside the job, as its account."""

    async def compute(
        self, attempt: Attempt, message: bytes, contents: Sequence[str], offset: int | None, wait: float = 0.0
    ) -> Answers:
        """Have a warm job (``python -m perijove.runner pool``) make calls, and hear of those it made before.

        `message`: a request as :mod:`perijove.runner.pool` has it, which the job is to answer within `wait`
        seconds; `contents`: digests of files that it gets first. What it wrote down is read from `offset` on,
        if that is given, also when it has ended, and the rest is passed over then. LaunchError when the job
        does not answer: then it may or may not have taken the calls.
        """

    async def forget(self, attempts: Sequence[Attempt]) -> None:
        """The service has recorded the end durably: no more reports of it. Its log stays."""

    async def purge(self, attempts: Sequence[Attempt]) -> None:
        """Remove log and directory of ended attempts."""

    async def kept(self, after: Attempt | None, limit: int) -> list[Attempt]:
        """Attempts that have a directory here, running ones too: at most `limit` past `after`, in order."""

    async def measure_home(self, path: str) -> int | None:
        """Bytes on disk of a home, as ``disk`` counts them; None when there is none."""

    async def hand_over(self, path: str, old_uid: int, uid: int, gid: int, to: str | None = None) -> int:
        """Give what belongs to `old_uid` in the home at `path` to another account; how many entries that is.

        The group goes along where it was the home's. No link is followed, files of others stay theirs, and
        programs lose their setuid bits. At last the home gets the name `to`, where nothing may be yet. Safe
        to repeat. Raises LaunchError when it is not there, or a user could change the way to it.
        """

    async def remove_home(self, path: str) -> None:
        """Remove a home with all that is in it. Safe to repeat; raises LaunchError when something stays."""

    async def disk(self, attempts: Sequence[Attempt]) -> dict[Attempt, int]:
        """Bytes on disk of the directories of these, logs included; those without one are left out.

        Of a directory with more files than can be looked at in a moment, what was counted so far.
        """
