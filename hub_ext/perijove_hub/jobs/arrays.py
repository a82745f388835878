"""A job array: one job that stands for its members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from perijove.model import Job, State


def is_array(job: Job) -> bool:
    """Whether it stands for its members and never runs itself."""
    return job.spec.array is not None and job.array_id is None


def task_count(array: Job) -> int:
    """How many members it has."""
    assert array.spec.array is not None
    return len(array.spec.array.tasks)


def members(array: Job, first_id: int) -> list[Job]:
    """The members of `array`, with ids from `first_id` on."""
    assert array.spec.array is not None
    return [
        array.model_copy(update={"id": first_id + i, "array_id": array.id, "array_task": task})
        for i, task in enumerate(array.spec.array.tasks)
    ]


def state_of(counts: Mapping[State, int]) -> State:
    """The array's state, given how many members are in each."""
    live = Counter(counts)
    for state in (State.RUNNING, State.STARTING, State.SUSPENDED):
        if live[state]:
            return State.RUNNING if state is State.STARTING else state
    if live[State.PENDING]:
        return State.RUNNING if any(live[state] for state in State if state.ended) else State.PENDING
    if live[State.HELD]:
        return State.HELD
    for state in (State.FAILED, State.LOST, State.KILLED, State.REJECTED):
        if live[state]:
            return state
    return State.SUCCEEDED


def variables(job: Job) -> dict[str, str]:
    """What a member finds in its environment about the array; Grid Engine's and Slurm's set of four."""
    array = job.spec.array
    if array is None or job.array_task is None:
        return {}
    return {
        "PERIJOVE_TASK_ID": str(job.array_task),
        "PERIJOVE_TASK_FIRST": str(array.tasks[0]),
        "PERIJOVE_TASK_LAST": str(array.tasks[-1]),
        "PERIJOVE_TASK_STEP": str(array.step),
    }
