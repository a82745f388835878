"""From what the engine and the agent saw to how an attempt ended: pure functions."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace

from perijove.model import Outcome, ReasonCode, format_duration, format_size
from perijove_spawners.launcher import Phase, Status
from perijove_spawners.node.attempts import Record, Stop, Times
from perijove_spawners.node.outputs import Taken
from perijove_spawners.protocol import Order

_SIGNALS = range(129, 129 + 64)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the agent itself knows of an end."""

    stop: Stop | None = None
    timed_out: bool = False
    """The agent stopped it at its time limit."""
    started: float | None = None
    ended: float | None = None
    times: Times = field(default_factory=Times)


def outcome_of(status: Status, order: Order, ending: Ending) -> Outcome:
    """How an attempt ended of which the engine says `status` (EXITED, or UNKNOWN for one that vanished)."""
    reason, message = _reason(status, order, ending)
    return Outcome(
        exit_code=status.exit_code,
        reason=reason,
        message=message,
        started=status.started or ending.started,
        ended=status.ended or ending.ended,
        memory_peak=status.memory_peak,
        cpu_seconds=status.cpu_seconds,
        image_digest=status.image_digest,
        image_manifest=status.image_manifest,
    )


def _reason(status: Status, order: Order, ending: Ending) -> tuple[ReasonCode | None, str]:
    code = status.exit_code
    if status.phase is Phase.UNKNOWN:
        if ending.stop:
            return ReasonCode.KILLED_BY_USER, "stopped"
        return ReasonCode.NODE_LOST, "the engine no longer has it; how it ended is not known"
    if ending.stop and (code != 0 or (status.ended or ending.stop.at) >= ending.stop.at):
        return ReasonCode.KILLED_BY_USER, "stopped"
    if status.timed_out or ending.timed_out or (code in _SIGNALS and _over_limit(status, ending)):
        return (
            ReasonCode.TIME_LIMIT,
            f"stopped at its time limit of {format_duration(ending.times.limit or 0)}",
        )
    if status.out_of_memory:
        return ReasonCode.OUT_OF_MEMORY, f"needed more than its memory of {format_size(order.memory)}"
    if code == 0:
        return None, ""
    if code is None:
        return ReasonCode.NODE_LOST, status.message or "it ended and left no exit code"
    if code in _SIGNALS:
        return ReasonCode.SIGNALLED, status.message or f"ended by {_signal_name(code - 128)}"
    return ReasonCode.NON_ZERO_EXIT, status.message or f"ended with exit code {code}"


def _over_limit(status: Status, ending: Ending) -> bool:
    # An agent killed after it had stopped the job at its limit left no other trace of why.
    started, ended, limit = status.started or ending.started, status.ended, ending.times.limit
    return bool(limit and started and ended and ended - started - ending.times.paused >= limit)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def with_taken(outcome: Outcome, taken: Taken) -> Outcome:
    """`outcome` with what the job left; a success that left out what it had promised is none."""
    outcome = replace(outcome, outputs=taken.outputs, sizes=taken.sizes, values=taken.values)
    if outcome.reason is None and taken.missing:
        said = "; ".join(f"output {name} {why}" for name, why in taken.missing.items())
        return replace(outcome, reason=ReasonCode.OUTPUT_MISSING, message=said, transient=taken.transient)
    if outcome.reason is ReasonCode.NON_ZERO_EXIT and taken.failure:
        return replace(outcome, message=taken.failure)
    return outcome


def recovery(record: Record, status: Status, boot: str) -> Phase:
    """What to do with an attempt without an outcome, of which the engine says `status`, in boot `boot`.

    EXITED: it has ended or is lost; finish it. RUNNING: it lives; adopt it. CREATED: start it (again).

    An engine that has nothing of an attempt not seen to run never began it, unless the machine went down
    meanwhile and may have taken the engine's record along.
    """
    if status.phase in {Phase.RUNNING, Phase.SUSPENDED}:
        return Phase.RUNNING
    if status.phase is Phase.EXITED:
        return Phase.EXITED
    if status.phase is Phase.CREATED:
        return Phase.CREATED
    reached = record.started is not None or record.taken is None or record.taken.boot != boot
    return Phase.EXITED if reached else Phase.CREATED
