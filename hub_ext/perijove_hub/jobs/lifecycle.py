"""(job, event) -> (job, effects): everything that may happen to a job, decided without doing anything.

Effects are carried out only after the new job has been committed, and each is safe to repeat. Events
about an attempt that is no longer the job's own change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perijove.model import (
    Blocker,
    BlockerKind,
    ConflictError,
    Job,
    Reason,
    ReasonCode,
    State,
)
from perijove_hub.jobs.changes import changed
from perijove_hub.jobs.decision import Decision, attempt_of, moved_to
from perijove_hub.jobs.effects import (
    Effect,
    SendForget,
    SendOrder,
    SendPurge,
    SendResume,
    SendStop,
    SendSuspend,
    SendUpdate,
)
from perijove_hub.jobs.ending import OFF_NODE, ended
from perijove_hub.jobs.events import (
    Adopted,
    Change,
    Eligible,
    Ended,
    Event,
    GangFell,
    Granted,
    Hold,
    Kill,
    Launching,
    Overspent,
    Placed,
    Preempt,
    Progressed,
    Refused,
    Reject,
    Release,
    Reschedule,
    Resume,
    Resumed,
    Started,
    Suspend,
    Suspended,
    Warned,
)

__all__ = [
    "Adopted",
    "Change",
    "Decision",
    "Effect",
    "Eligible",
    "Ended",
    "Event",
    "GangFell",
    "Granted",
    "Hold",
    "Kill",
    "Launching",
    "Overspent",
    "Placed",
    "Preempt",
    "Progressed",
    "Refused",
    "Reject",
    "Release",
    "Reschedule",
    "Resume",
    "Resumed",
    "SendForget",
    "SendOrder",
    "SendPurge",
    "SendResume",
    "SendStop",
    "SendSuspend",
    "SendUpdate",
    "Started",
    "Suspend",
    "Suspended",
    "Warned",
    "attempt_of",
    "decide",
]


def decide(job: Job, event: Event, now: float) -> Decision:
    """What `event` makes of `job` at time `now`.

    Raises :class:`~perijove.model.ConflictError` when a user's wish does not fit the state; reports of
    nodes never raise, a report that does not fit changes nothing.
    """
    return _RULES[type(event)](job, event, now)


# ---- what the queue decides


def _placed(job: Job, event: Placed, now: float) -> Decision:
    placed = moved_to(
        job,
        State.STARTING,
        node=event.node,
        gpus=list(event.gpus),
        slots={name: list(units) for name, units in event.slots.items()},
        attempt=job.attempt + 1,
        allocated=now,
        reason=None,
        started=None,
        suspended_at=None,
        suspended_seconds=0.0,
        ended=None,
        exit_code=None,
        endpoint=None,
        progress=None,
        progress_text="",
    )
    detail: dict[str, Any] = {"node": event.node, "gpus": [gpu.uuid for gpu in event.gpus]}
    if event.slots:
        detail["slots"] = placed.slots
    return Decision(placed, "placed", detail, (SendOrder(job.id),))


def _reject(job: Job, event: Reject, now: float) -> Decision:
    if job.state not in {State.PENDING, State.HELD}:
        return Decision(job)
    rejected = moved_to(job, State.REJECTED, reason=event.reason, ended=now)
    return Decision(rejected, "rejected", {"reason": event.reason.message})


def _eligible(job: Job, _event: Eligible, _now: float) -> Decision:
    if job.state is not State.PENDING:
        return Decision(job)
    return Decision(job.model_copy(update={"reason": None}), "eligible")


def _preempt(job: Job, event: Preempt, _now: float) -> Decision:
    if not job.state.on_node or job.kill_requested or job.requeue_requested:
        return Decision(job)
    blockers = [Blocker(kind=BlockerKind.JOB, name=str(event.by))]
    detail = {"by": event.by, "mode": event.mode, "notice": event.notice}
    if event.mode == "suspend":
        if job.state is not State.RUNNING:
            return Decision(job)
        text = f"suspended for job {event.by}, which is of a higher class"
        reason = Reason(code=ReasonCode.SUSPENDED_BY_SITE, message=text, blockers=blockers)
        effects: tuple[Effect, ...] = _told(job, SendSuspend)
        return Decision(job.model_copy(update={"reason": reason}), "preempted", detail, effects)
    text = f"its place was needed for job {event.by}, which is of a higher class"
    reason = Reason(code=ReasonCode.PREEMPTED, message=text)
    asked = "requeue_requested" if event.mode == "requeue" else "kill_requested"
    marked = job.model_copy(update={asked: True, "reason": reason})
    return Decision(marked, "preempted", detail, _stop(job, event.notice))


def _overspent(job: Job, event: Overspent, _now: float) -> Decision:
    if not job.state.on_node or job.kill_requested or job.requeue_requested:
        return Decision(job)
    reason = Reason(code=ReasonCode.BUDGET, message=event.message)
    marked = job.model_copy(update={"kill_requested": True, "reason": reason})
    return Decision(marked, "stopping", {"reason": event.message}, _stop(job, event.notice))


def _granted(job: Job, _event: Granted, now: float) -> Decision:
    if job.state is not State.SUSPENDED:
        return Decision(job)
    return Decision(_with_all(job, now), None, {}, _told(job, SendResume))


def _gang_fell(job: Job, event: GangFell, now: float) -> Decision:
    message = f"{event.by} of its gang did not go on"
    reason = Reason(code=ReasonCode.GANG_FAILED, message=message)
    if job.state.on_node:
        if job.kill_requested or (job.requeue_requested and event.requeue):
            return Decision(job.model_copy(update={"failures": max(job.failures, event.failures)}))
        wish = {"requeue_requested": event.requeue, "kill_requested": not event.requeue}
        failures = max(job.failures, event.failures)
        marked = job.model_copy(update={**wish, "failures": failures, "reason": reason})
        return Decision(marked, "stopping", {"reason": message}, _stop(job))
    if event.requeue or job.state.ended:
        return Decision(job)
    killed = moved_to(job, State.KILLED, reason=reason, ended=now, kill_requested=True)
    return Decision(killed, "ended", {"reason": message})


# ---- what users ask


def _kill(job: Job, event: Kill, now: float) -> Decision:
    if job.state.ended:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    if job.kill_requested:
        return Decision(job, None, {}, _stop(job))
    reason = Reason(code=ReasonCode.KILLED_BY_USER, message=f"killed by {event.by}")
    if not job.state.on_node:
        killed = moved_to(job, State.KILLED, reason=reason, ended=now, kill_requested=True)
        return Decision(killed, "ended", {"by": event.by})
    asked = job.model_copy(update={"kill_requested": True, "requeue_requested": False, "reason": reason})
    return Decision(asked, "kill", {"by": event.by}, _stop(job))


def _hold(job: Job, event: Hold, _now: float) -> Decision:
    if job.state is State.HELD:
        return Decision(job)
    if job.state is not State.PENDING:
        raise ConflictError(f"job {job.label} is {job.state}; only a pending job can be held")
    detail = {"by": event.by} if event.by else {}
    return Decision(moved_to(job, State.HELD, reason=HELD), "held", detail)


def _release(job: Job, event: Release, _now: float) -> Decision:
    if job.state is State.PENDING:
        return Decision(job)
    if job.state is not State.HELD:
        raise ConflictError(f"job {job.label} is {job.state}; only a held job can be released")
    detail = {"by": event.by} if event.by else {}
    return Decision(moved_to(job, State.PENDING, reason=None), "released", detail)


def _suspend(job: Job, event: Suspend, _now: float) -> Decision:
    if job.state is State.SUSPENDED:
        if job.reason is None or job.reason.code is not ReasonCode.SUSPENDED_BY_SITE:
            raise ConflictError(f"job {job.label} is suspended already")
        # It was to go on by itself; now it stays until it is asked to.
        return Decision(job.model_copy(update={"reason": None}), "suspend", {"by": event.by})
    if job.state is not State.RUNNING or job.kill_requested:
        raise ConflictError(f"job {job.label} is {_doing(job)}; only a running job can be told to suspend")
    return Decision(job, "suspend", {"by": event.by}, _told(job, SendSuspend))


def _resume(job: Job, event: Resume, now: float) -> Decision:
    if job.state is not State.SUSPENDED or job.kill_requested:
        raise ConflictError(f"job {job.label} is {_doing(job)}; only a suspended job can be told to resume")
    if event.room:
        going = _with_all(job, now)
        if job.reason is not None:
            going = going.model_copy(update={"reason": None})
        return Decision(going, "resume", {"by": event.by}, _told(job, SendResume))
    text = f"waits for its resources on {job.node}, which it gave back while suspended"
    reason = Reason(code=ReasonCode.SUSPENDED_BY_SITE, message=text)
    return Decision(job.model_copy(update={"reason": reason}), "resume", {"by": event.by, "waits": True})


def _reschedule(job: Job, event: Reschedule, _now: float) -> Decision:
    if job.state.ended:
        raise ConflictError(f"job {job.label} has ended: {job.state}; `rerun` makes a new job of it")
    if job.kill_requested:
        raise ConflictError(f"job {job.label} is being ended")
    if not job.state.on_node:
        raise ConflictError(f"job {job.label} is {job.state}: it waits for a start already")
    marked = job.model_copy(update={"requeue_requested": True})
    return Decision(marked, None if job.requeue_requested else "reschedule", {"by": event.by}, _stop(job))


# ---- what nodes say


def _launching(job: Job, event: Launching, _now: float) -> Decision:
    reason = Reason(code=ReasonCode.LAUNCHING, message=event.message)
    if job.state is not State.STARTING or job.reason == reason or job.requeue_requested or job.kill_requested:
        return Decision(job)
    return Decision(job.model_copy(update={"reason": reason}), "launching", {"message": event.message})


def _started(job: Job, event: Started, _now: float) -> Decision:
    if job.state is not State.STARTING:
        return Decision(job)
    ending = job.requeue_requested or job.kill_requested
    reason = job.reason if ending else None
    running = moved_to(job, State.RUNNING, started=event.at, endpoint=event.endpoint, reason=reason)
    return Decision(running, "started", {"node": job.node})


def _suspended(job: Job, event: Suspended, now: float) -> Decision:
    if job.state is not State.RUNNING:
        return Decision(job)
    since = job.allocated if event.keep == "all" else now
    frozen = moved_to(job, State.SUSPENDED, suspended_at=now, kept=event.keep, allocated=since)
    return Decision(frozen, "suspended", {"keeps": event.keep})


def _resumed(job: Job, _event: Resumed, now: float) -> Decision:
    if job.state is not State.SUSPENDED:
        return Decision(job)
    away = max(0.0, now - (job.suspended_at if job.suspended_at is not None else now))
    ending = job.requeue_requested or job.kill_requested
    running = moved_to(
        job,
        State.RUNNING,
        suspended_at=None,
        suspended_seconds=job.suspended_seconds + away,
        kept="all",
        allocated=job.allocated if job.kept == "all" else now,
        reason=job.reason if ending else None,
    )
    return Decision(running, "resumed", {"after": round(away, 3)})


def _refused(job: Job, event: Refused, _now: float) -> Decision:
    reason = job.reason
    if event.verb == "suspend" and reason is not None and reason.code is ReasonCode.SUSPENDED_BY_SITE:
        reason = None
    changed_job = job if reason is job.reason else job.model_copy(update={"reason": reason})
    return Decision(changed_job, "refused", {"verb": event.verb, "message": event.message})


def _warned(job: Job, event: Warned, _now: float) -> Decision:
    return Decision(job, "warned", {"message": event.message}) if job.state.on_node else Decision(job)


def _progressed(job: Job, event: Progressed, _now: float) -> Decision:
    if not job.state.on_node:
        return Decision(job)
    further = job.model_copy(update={"progress": event.progress, "progress_text": event.text})
    return Decision(further, "progress", {"progress": event.progress, "text": event.text})


def _adopted(job: Job, event: Adopted, now: float) -> Decision:
    """Whatever the record says, the node is right: an attempt later than that of the record is there.

    A job that the record has on a node must have been taken off it before.
    """
    if event.attempt <= job.attempt or job.state is not State.PENDING:
        return Decision(job)
    held = {"gpus": list(event.gpus), "slots": {name: list(units) for name, units in event.slots.items()}}
    there = moved_to(job, State.STARTING, **{**OFF_NODE, "node": event.node, "allocated": now, **held})
    adopted = there.model_copy(update={"attempt": event.attempt, "reason": None, "started": None})
    return Decision(adopted, "adopted", {"node": event.node})


def _with_all(job: Job, now: float) -> Job:
    """It holds all its resources again."""
    return job if job.kept == "all" else job.model_copy(update={"kept": "all", "allocated": now})


HELD = Reason(code=ReasonCode.HELD, message="held; `release` lets it start")


def _doing(job: Job) -> str:
    return "being ended" if job.kill_requested else str(job.state)


def _stop(job: Job, grace: float | None = None) -> tuple[Effect, ...]:
    return (SendStop(job.node, attempt_of(job), grace),) if job.node else ()


def _told(job: Job, effect: type[SendSuspend] | type[SendResume]) -> tuple[Effect, ...]:
    return (effect(job.node, attempt_of(job)),) if job.node else ()


_RULES: dict[type, Callable[[Job, Any, float], Decision]] = {
    Placed: _placed,
    Reject: _reject,
    Eligible: _eligible,
    Preempt: _preempt,
    Overspent: _overspent,
    Granted: _granted,
    GangFell: _gang_fell,
    Kill: _kill,
    Hold: _hold,
    Release: _release,
    Suspend: _suspend,
    Resume: _resume,
    Reschedule: _reschedule,
    Change: changed,
    Launching: _launching,
    Started: _started,
    Suspended: _suspended,
    Resumed: _resumed,
    Refused: _refused,
    Warned: _warned,
    Progressed: _progressed,
    Ended: ended,
    Adopted: _adopted,
}
