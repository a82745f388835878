"""(job, event) -> (job, effects): everything that may happen to a job, decided without doing anything.

Effects are carried out only after the new job has been committed, and each is safe to repeat. Events
about an attempt that is no longer the job's own change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perijove.model import (
    Attempt,
    ConflictError,
    Endpoint,
    Gpu,
    Job,
    Outcome,
    Reason,
    ReasonCode,
    State,
    check_transition,
)

LONGEST_DELAY = 60.0
"""Seconds between two tries at most, while an engine is down."""

# ---- events


@dataclass(frozen=True, slots=True)
class Placed:
    """Placement gave it a node."""

    node: str
    gpus: tuple[Gpu, ...] = ()


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
    """The engine froze it."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The engine lets it go on."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """The job said how far it is."""

    progress: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Kill:
    """Somebody wants it ended."""

    by: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep it from starting."""


@dataclass(frozen=True, slots=True)
class Release:
    """Let it start again."""


@dataclass(frozen=True, slots=True)
class Reject:
    """It can never start."""

    reason: Reason


Event = (
    Placed | Launching | Started | Suspended | Resumed | Progressed | Ended | Kill | Hold | Release | Reject
)

# ---- effects


@dataclass(frozen=True, slots=True)
class SendOrder:
    """Send the job's order to its node."""

    job: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Have the attempt stopped on its node."""

    node: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class SendForget:
    """Tell the node that the end of the attempt is recorded."""

    node: str
    attempt: Attempt


Effect = SendOrder | SendStop | SendForget


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the job. ``event`` is None when nothing of it needs to be recorded."""

    job: Job
    event: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    delay: float = 0.0
    """Seconds before it may start again."""


def decide(job: Job, event: Event, now: float) -> Decision:
    """What `event` makes of `job` at time `now`.

    Raises :class:`~perijove.model.ConflictError` when a user's wish does not fit the state; reports of
    nodes never raise, a report that does not fit changes nothing.
    """
    match event:
        case Placed():
            return _placed(job, event)
        case Launching():
            return _launching(job, event)
        case Started():
            return _started(job, event)
        case Suspended():
            return _moved(job, State.RUNNING, State.SUSPENDED, "suspended")
        case Resumed():
            return _moved(job, State.SUSPENDED, State.RUNNING, "resumed")
        case Progressed():
            changed = job.model_copy(update={"progress": event.progress, "progress_text": event.text})
            detail = {"progress": event.progress, "text": event.text}
            return Decision(changed, "progress", detail) if job.state.on_node else Decision(job)
        case Ended():
            return _ended(job, event.outcome, now)
        case Kill():
            return _kill(job, event, now)
        case Hold():
            return _hold(job)
        case Release():
            return _release(job)
        case Reject():
            if job.state not in {State.PENDING, State.HELD}:
                return Decision(job)
            rejected = _to(job, State.REJECTED, reason=event.reason, ended=now)
            return Decision(rejected, "rejected", {"reason": event.reason.message})


def attempt_of(job: Job) -> Attempt:
    """The job's current attempt."""
    return Attempt(job.id, job.attempt)


def _to(job: Job, state: State, **changes: Any) -> Job:
    check_transition(job.id, job.state, state)
    return job.model_copy(update={"state": state, **changes})


def _placed(job: Job, event: Placed) -> Decision:
    placed = _to(
        job,
        State.STARTING,
        node=event.node,
        gpus=list(event.gpus),
        attempt=job.attempt + 1,
        reason=None,
        started=None,
        ended=None,
        exit_code=None,
        endpoint=None,
        progress=None,
        progress_text="",
    )
    detail = {"node": event.node, "gpus": [gpu.uuid for gpu in event.gpus]}
    return Decision(placed, "placed", detail, (SendOrder(job.id),))


def _launching(job: Job, event: Launching) -> Decision:
    reason = Reason(code=ReasonCode.LAUNCHING, message=event.message)
    if job.state is not State.STARTING or job.reason == reason:
        return Decision(job)
    return Decision(job.model_copy(update={"reason": reason}), "launching", {"message": event.message})


def _started(job: Job, event: Started) -> Decision:
    if job.state is not State.STARTING:
        return Decision(job)
    running = _to(job, State.RUNNING, started=event.at, endpoint=event.endpoint, reason=None)
    return Decision(running, "started", {"node": job.node})


def _moved(job: Job, start: State, finish: State, name: str) -> Decision:
    return Decision(_to(job, finish), name) if job.state is start else Decision(job)


def _ended(job: Job, outcome: Outcome, now: float) -> Decision:
    if not job.state.on_node or job.node is None:
        return Decision(job)
    forget = SendForget(job.node, attempt_of(job))
    reason = Reason(code=outcome.reason, message=outcome.message) if outcome.reason else None
    killed = job.kill_requested and outcome.state is not State.SUCCEEDED
    if killed:
        reason = Reason(code=ReasonCode.KILLED_BY_USER, message=outcome.message)
    if not killed and outcome.transient and job.state is State.STARTING:
        # Nothing ran: the job keeps its place in the queue, whatever its retries.
        queued = _to(job, State.PENDING, node=None, gpus=[], reason=reason, ended=None)
        delay = min(LONGEST_DELAY, 2.0 ** (job.attempt - 1))
        return Decision(queued, "requeued", {"reason": outcome.message}, (forget,), delay)
    state = State.KILLED if killed else outcome.state
    over = _to(
        job,
        state,
        reason=reason,
        exit_code=outcome.exit_code,
        started=outcome.started or job.started,
        ended=outcome.ended or now,
        memory_peak=outcome.memory_peak,
        cpu_seconds=outcome.cpu_seconds,
        outputs=dict(outcome.outputs),
        endpoint=None,
    )
    detail = {"exit_code": outcome.exit_code, "reason": reason.message if reason else ""}
    if state in {State.FAILED, State.LOST} and job.attempt <= job.spec.retries:
        again = _to(over, State.PENDING, node=None, gpus=[])
        return Decision(again, "requeued", detail, (forget,))
    return Decision(over, "ended", detail, (forget,))


def _kill(job: Job, event: Kill, now: float) -> Decision:
    if job.state.ended:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    if job.kill_requested:
        return Decision(job, None, {}, _stop(job))
    reason = Reason(code=ReasonCode.KILLED_BY_USER, message=f"killed by {event.by}")
    if not job.state.on_node:
        killed = _to(job, State.KILLED, reason=reason, ended=now, kill_requested=True)
        return Decision(killed, "ended", {"by": event.by})
    asked = job.model_copy(update={"kill_requested": True})
    return Decision(asked, "kill", {"by": event.by}, _stop(job))


def _stop(job: Job) -> tuple[Effect, ...]:
    return (SendStop(job.node, attempt_of(job)),) if job.node else ()


def _hold(job: Job) -> Decision:
    if job.state is State.HELD:
        return Decision(job)
    if job.state is not State.PENDING:
        raise ConflictError(f"job {job.label} is {job.state}; only a pending job can be held")
    reason = Reason(code=ReasonCode.HELD, message="held; `release` lets it start")
    return Decision(_to(job, State.HELD, reason=reason), "held")


def _release(job: Job) -> Decision:
    if job.state is State.PENDING:
        return Decision(job)
    if job.state is not State.HELD:
        raise ConflictError(f"job {job.label} is {job.state}; only a held job can be released")
    return Decision(_to(job, State.PENDING, reason=None), "released")
