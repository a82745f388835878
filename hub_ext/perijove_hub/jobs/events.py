"""What may happen to a job: wishes of users and of the site, and what nodes report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perijove.model import Endpoint, Gpu, Machine, Outcome, Reason
from perijove_hub.accounting import Keep

# ---- what the queue decides


@dataclass(frozen=True, slots=True)
class Placed:
    """Placement gave it a node."""

    node: str
    gpus: tuple[Gpu, ...] = ()
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """It can never start."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Eligible:
    """What it waited for has happened."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """Its place is needed for job `by`, of a higher class; it has `notice` seconds."""

    by: int
    mode: Literal["requeue", "suspend", "kill"]
    notice: float


@dataclass(frozen=True, slots=True)
class Overspent:
    """Its owner has used all that they may in all, as `message` says; it has `notice` seconds."""

    message: str
    notice: float


@dataclass(frozen=True, slots=True)
class Granted:
    """It holds all its resources again and may go on."""


@dataclass(frozen=True, slots=True)
class GangFell:
    """Job `by` of its gang did not go on; `requeue`: all of them wait again, else all end."""

    by: str
    requeue: bool
    failures: int = 0


# ---- what users ask


@dataclass(frozen=True, slots=True)
class Kill:
    """Somebody wants it ended; with `dependants`, also the jobs that wait for it."""

    by: str
    dependants: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it from starting."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Let it start again."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Freeze it."""

    by: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let it go on; it waits for its resources when it gave them back and they are taken."""

    by: str
    room: bool = True
    """Whether it holds its resources, or they are free; the board fills this in."""


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Take it off its node and let it wait again, for a new attempt."""

    by: str


@dataclass(frozen=True, slots=True)
class Change:
    """Other values for fields of its spec."""

    changes: Mapping[str, Any]
    by: str


# ---- what nodes say


@dataclass(frozen=True, slots=True)
class Launching:
    """The node has it and says what it is doing."""

    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """The engine runs it."""

    at: float
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """The engine froze it; it keeps `keep` of its resources, which the board fills in."""

    keep: Keep = "all"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The engine lets it go on."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The node could not `verb` it."""

    verb: str
    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """It was sent its warning signal."""

    message: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """The job said how far it is."""

    progress: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over. `largest`: the memory of the largest node that could run it, in bytes; `machine`:
    the host that it ran on.
    """

    outcome: Outcome
    largest: int = 0
    machine: Machine | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A node runs an attempt of it that is newer than the one on record (an older database was restored)."""

    node: str
    attempt: int
    gpus: tuple[Gpu, ...] = ()
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


Event = (
    Placed
    | Reject
    | Eligible
    | Preempt
    | Overspent
    | Granted
    | GangFell
    | Kill
    | Hold
    | Release
    | Suspend
    | Resume
    | Reschedule
    | Change
    | Launching
    | Started
    | Suspended
    | Resumed
    | Refused
    | Warned
    | Progressed
    | Ended
    | Adopted
)
