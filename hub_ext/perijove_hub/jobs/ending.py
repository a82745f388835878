"""What becomes of a job when an attempt of it is over."""

from __future__ import annotations

from typing import Any

from perijove.model import Attempt, Job, JobSpec, Outcome, Reason, ReasonCode, State, check_transition
from perijove_hub.jobs.decision import Decision, moved_to
from perijove_hub.jobs.effects import SendForget
from perijove_hub.jobs.events import Ended
from perijove_hub.jobs.retries import failed_nodes, may_retry, more_memory

LONGEST_DELAY = 60.0
"""Seconds between two tries at most, while an engine is down."""
BY_SITE = frozenset({ReasonCode.PREEMPTED, ReasonCode.GANG_FAILED, ReasonCode.BUDGET})
"""Why the site ended a job; noted in its reason when that was decided."""
OFF_NODE: dict[str, Any] = {
    "node": None,
    "gpus": [],
    "slots": {},
    "allocated": None,
    "endpoint": None,
    "suspended_at": None,
    "kept": "all",
    "requeue_requested": False,
}
"""What a job that waits again has no more."""


def ended(job: Job, event: Ended, now: float) -> Decision:
    """The attempt is over: the job is, or it waits for another."""
    outcome = event.outcome
    if not job.state.on_node or job.node is None:
        return Decision(job)
    forget = SendForget(job.node, Attempt(job.id, job.attempt))
    # Where one of a gang waits again all do, whatever this one has done already.
    fell = job.spec.nodes > 1 or (job.reason is not None and job.reason.code is ReasonCode.GANG_FAILED)
    if job.requeue_requested and not job.kill_requested and (outcome.state is not State.SUCCEEDED or fell):
        return _requeued(job, forget, now)
    if job.kill_requested and outcome.state is not State.SUCCEEDED:
        return Decision(*_over(job, State.KILLED, _why_killed(job, outcome), event, now), effects=(forget,))
    if outcome.transient and job.state is State.STARTING:
        # Nothing ran: the job keeps its place in the queue, whatever its retries.
        delay = min(LONGEST_DELAY, 2.0 ** min(10, job.attempt - 1))
        reason = _reason(outcome)
        queued = moved_to(job, State.PENDING, reason=reason, ended=None, **OFF_NODE)
        return Decision(queued, "requeued", {"reason": outcome.message}, (forget,), delay)
    if (again := _again(job, event)) is not None:
        changes, detail = again
        over, _, how = _over(job, outcome.state, _reason(outcome), event, now)
        check_transition(job.id, over.state, State.PENDING)
        queued = over.model_copy(update={**OFF_NODE, **changes, "state": State.PENDING})
        return Decision(queued, "requeued", {**how, **detail}, (forget,))
    return Decision(*_over(job, outcome.state, _reason(outcome), event, now), effects=(forget,))


def _again(job: Job, event: Ended) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What changes for another try, and what its history says of that; None: there is none."""
    outcome, spec = event.outcome, job.spec
    nodes = failed_nodes(job, outcome)
    if (memory := more_memory(spec, outcome, event.largest)) is not None:
        larger: JobSpec = spec.model_copy(update={"memory": memory})
        return {"spec": larger, "failed_nodes": nodes}, {"memory": {"from": spec.memory, "to": memory}}
    if not may_retry(spec, job.failures, outcome):
        return None
    failures = job.failures + 1
    return {"failures": failures, "failed_nodes": nodes}, {"retry": failures, "of": spec.retries}


def _over(
    job: Job, state: State, reason: Reason | None, event: Ended, now: float
) -> tuple[Job, str, dict[str, Any]]:
    outcome = event.outcome
    over = moved_to(
        job,
        state,
        reason=reason,
        exit_code=outcome.exit_code,
        started=outcome.started or job.started,
        ended=outcome.ended or now,
        memory_peak=outcome.memory_peak,
        cpu_seconds=outcome.cpu_seconds,
        gpu_seconds=outcome.gpu_seconds,
        outputs=dict(outcome.outputs),
        sizes=dict(outcome.sizes),
        values=dict(outcome.values),
        image_digest=outcome.image_digest,
        image_manifest=outcome.image_manifest,
        endpoint=None,
        suspended_at=None,
        suspended_seconds=_suspended(job, outcome.ended or now),
        requeue_requested=False,
    )
    how: dict[str, Any] = {"exit_code": outcome.exit_code, "reason": reason.message if reason else ""}
    if event.machine is not None and (facts := event.machine.model_dump(exclude_defaults=True)):
        how["machine"] = facts  # as it was then: the host may change
    return over, "ended", how


def _requeued(job: Job, forget: SendForget, now: float) -> Decision:
    queued = moved_to(
        job,
        State.PENDING,
        reason=job.reason if job.reason and job.reason.code in BY_SITE else None,
        ended=None,
        suspended_seconds=_suspended(job, now),
        **OFF_NODE,
    )
    detail = {"reason": job.reason.message} if job.reason else {}
    return Decision(queued, "requeued", detail, (forget,))


def _reason(outcome: Outcome) -> Reason | None:
    return Reason(code=outcome.reason, message=outcome.message) if outcome.reason else None


def _why_killed(job: Job, outcome: Outcome) -> Reason:
    if job.reason is not None and job.reason.code in {*BY_SITE, ReasonCode.KILLED_BY_USER}:
        return job.reason
    return Reason(code=ReasonCode.KILLED_BY_USER, message=outcome.message)


def _suspended(job: Job, until: float) -> float:
    since = job.suspended_at
    return job.suspended_seconds + (max(0.0, until - since) if since is not None else 0.0)
