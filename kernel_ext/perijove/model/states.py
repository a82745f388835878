"""The states of a job and the one table of what may follow what."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands. The last five are final for the attempt that reached them."""

    PENDING = "pending"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    REJECTED = "rejected"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self in ENDED

    @property
    def on_node(self) -> bool:
        """Whether the job holds resources of a node."""
        return self in ON_NODE


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.KILLED, State.REJECTED, State.LOST})
"""The states after which nothing more happens to a job by itself."""
ON_NODE = frozenset({State.STARTING, State.RUNNING, State.SUSPENDED})
"""The states in which a job holds resources of a node."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.HELD, State.STARTING, State.KILLED, State.REJECTED}),
    State.HELD: frozenset({State.PENDING, State.KILLED, State.REJECTED}),
    # A short job may be seen first when it has ended already; a start that never
    # reached the engine (node gone, engine down) goes back to the queue.
    State.STARTING: frozenset(
        {State.RUNNING, State.PENDING, State.SUCCEEDED, State.FAILED, State.KILLED, State.LOST}
    ),
    # Back to the queue: rescheduled, or preempted.
    State.RUNNING: frozenset(
        {State.SUSPENDED, State.PENDING, State.SUCCEEDED, State.FAILED, State.KILLED, State.LOST}
    ),
    State.SUSPENDED: frozenset(
        {State.RUNNING, State.PENDING, State.SUCCEEDED, State.FAILED, State.KILLED, State.LOST}
    ),
    State.SUCCEEDED: frozenset(),
    # `retries`: a new attempt of the same job.
    State.FAILED: frozenset({State.PENDING}),
    State.LOST: frozenset({State.PENDING}),
    State.KILLED: frozenset(),
    State.REJECTED: frozenset(),
}
"""State -> the states that may follow it."""


class InvalidTransitionError(Exception):
    """A job was asked to go where its state does not lead."""

    def __init__(self, job: int, start: State, finish: State) -> None:
        self.job, self.start, self.finish = job, start, finish
        super().__init__(f"job {job} cannot go from {start} to {finish}")


def check_transition(job: int, start: State, finish: State) -> None:
    """Raise :class:`InvalidTransitionError` unless the table allows it."""
    if finish not in TRANSITIONS[start]:
        raise InvalidTransitionError(job, start, finish)
