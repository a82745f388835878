"""Other values for a job that is there already: what may change when, and by whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from perijove.model import (
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    Job,
    State,
)
from perijove_hub.jobs.decision import Decision, attempt_of
from perijove_hub.jobs.effects import SendUpdate
from perijove_hub.jobs.events import Change
from perijove_hub.policy.document import Policy

WHILE_WAITING = frozenset({"cpu", "memory", "partition", "priority"})
"""What has no meaning any more once the job is on a node."""
LOWERED_FREELY = frozenset({"time_limit", "priority"})


def check(job: Job, changes: Mapping[str, Any], roles: Collection[str], policy: Policy) -> None:
    """Raise :class:`ForbiddenError` unless one of `roles` (``owner``, ``lead``, ``admin``) may do it.

    :class:`InvalidSpecError` names the fields that nobody can change later.
    """
    known = ", ".join(sorted(policy.updatable)) or "none"
    if wrong := [
        FieldError(name, str(value)[:80], f"cannot be changed later; can be: {known}")
        for name, value in changes.items()
        if name not in policy.updatable
    ]:
        raise InvalidSpecError(errors=wrong)
    for name, value in changes.items():
        allowed = policy.updatable[name]  # type: ignore[index]
        if "admin" in roles or any(role in allowed for role in roles):
            continue
        old = getattr(job.spec, name)
        if (
            name in LOWERED_FREELY
            and "owner" in roles
            and value is not None
            and (old is None or value <= old)
        ):
            continue
        who = " or ".join(allowed) or "nobody"
        more = "; you may lower it" if name in LOWERED_FREELY else ""
        raise ForbiddenError(f"{name}: may be changed by {who}{more}")


def changed(job: Job, event: Change, now: float) -> Decision:
    """The job with other values. A running one's node is told of another time limit."""
    if job.state.ended:
        raise ConflictError(f"job {job.label} has ended already: {job.state}")
    late = sorted(set(event.changes) & WHILE_WAITING)
    if late and job.state.on_node:
        raise ConflictError(f"{', '.join(late)}: cannot be changed any more, job {job.label} is {job.state}")
    before = {name: getattr(job.spec, name) for name in event.changes}
    if before == dict(event.changes):
        return Decision(job)
    fields: dict[str, Any] = {"spec": job.spec.model_copy(update=dict(event.changes))}
    if "name" in event.changes:
        fields["name"] = event.changes["name"] or job.name
    if "partition" in event.changes:
        fields["partition"] = event.changes["partition"]
    detail = {name: [before[name], event.changes[name]] for name in event.changes}
    effects: tuple[SendUpdate, ...] = ()
    if (
        "time_limit" in event.changes
        and job.node
        and job.state in {State.RUNNING, State.SUSPENDED, State.STARTING}
    ):
        effects = (SendUpdate(job.node, attempt_of(job), event.changes["time_limit"]),)
    return Decision(job.model_copy(update=fields), "changed", {"by": event.by, "changes": detail}, effects)
