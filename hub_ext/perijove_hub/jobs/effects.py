"""What is to be done on nodes, after the decision that asked for it is durable. Each is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass

from perijove.model import Attempt


@dataclass(frozen=True, slots=True)
class SendOrder:
    """Send the job's order to its node."""

    job: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Have the attempt stopped on its node."""

    node: str
    attempt: Attempt
    grace: float | None = None
    """Seconds between the polite signal and SIGKILL; the job's own when None."""


@dataclass(frozen=True, slots=True)
class SendForget:
    """Tell the node that the end of the attempt is recorded."""

    node: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class SendSuspend:
    """Have the attempt frozen."""

    node: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class SendResume:
    """Let the attempt go on."""

    node: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class SendUpdate:
    """Give a running attempt another time limit, seconds of run time."""

    node: str
    attempt: Attempt
    time_limit: float | None


@dataclass(frozen=True, slots=True)
class SendPurge:
    """Have directory and logs of ended attempts removed."""

    node: str
    attempts: tuple[Attempt, ...]


Effect = SendOrder | SendStop | SendForget | SendSuspend | SendResume | SendUpdate | SendPurge
