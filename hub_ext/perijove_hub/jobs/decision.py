"""What a rule answers: the job as it is from now on, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perijove.model import Attempt, Job, State, check_transition
from perijove_hub.jobs.effects import Effect


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the job. ``event`` is None when nothing of it needs to be recorded."""

    job: Job
    event: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    delay: float = 0.0
    """Seconds before it may start again."""


def moved_to(job: Job, state: State, **changes: Any) -> Job:
    """`job` in another state. Raises :class:`InvalidTransitionError` unless the table allows it."""
    check_transition(job.id, job.state, state)
    return job.model_copy(update={"state": state, **changes})


def attempt_of(job: Job) -> Attempt:
    """The job's current attempt."""
    return Attempt(job.id, job.attempt)
