"""Groups: an array or a gang, one job that stands for its members.

A member is a job of its own only from the moment it is placed or acted on by itself; before that it is
derived from its group. Its id is reserved with the group's: member `i` has the group's plus one plus `i`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perijove.model import Job, JobSpec, ReasonCode, State


def is_group(job: Job) -> bool:
    """Whether it stands for its members and never runs itself."""
    return (job.spec.array is not None or job.spec.nodes > 1) and job.array_id is None


def is_array(job: Job) -> bool:
    """Whether it is a group of members that start by themselves."""
    return job.spec.array is not None and job.array_id is None


def is_gang(job: Job) -> bool:
    """Whether it is a group of members that start together, or a member of one."""
    return job.spec.nodes > 1


def size(spec: JobSpec) -> int:
    """How many members a job of this spec has; 0 when it is no group."""
    if spec.array is not None:
        return len(spec.array.tasks)
    return spec.nodes if spec.nodes > 1 else 0


def tasks(spec: JobSpec) -> range:
    """The numbers of its members: of an array its tasks, of a gang the ranks from 0."""
    return spec.array.tasks if spec.array is not None else range(size(spec))


def index_of(group: Job, task: int) -> int | None:
    """Which member, from 0, has that task number or rank."""
    numbers = tasks(group.spec)
    return numbers.index(task) if task in numbers else None


def is_held(group: Job) -> bool:
    """Whether members that are no jobs yet are held."""
    return group.state is State.HELD or (
        group.reason is not None and group.reason.code is ReasonCode.HELD and not group.state.ended
    )


def state_of_rest(group: Job) -> State:
    """The state of the members that are no jobs yet."""
    if group.state is State.REJECTED:
        return State.REJECTED
    if group.kill_requested or group.state.ended:
        return State.KILLED
    return State.HELD if is_held(group) else State.PENDING


def member(group: Job, index: int) -> Job:
    """Member `index`, which is no job yet."""
    state = state_of_rest(group)
    return group.model_copy(
        update={
            "id": group.id + 1 + index,
            "array_id": group.id,
            "array_task": tasks(group.spec)[index],
            "state": state,
            "tasks": {},
            "started": None,
            "ended": group.ended if state.ended else None,
            "exit_code": None,
            "attempt": 0,
        }
    )


def state_of(counts: Mapping[State, int]) -> State:
    """The group's state, given how many members are in each."""

    def some(*states: State) -> bool:
        return any(counts.get(state) for state in states)

    if some(State.RUNNING, State.STARTING):
        return State.RUNNING
    if some(State.SUSPENDED):
        return State.SUSPENDED
    if some(State.PENDING):
        return State.RUNNING if some(State.SUCCEEDED, State.FAILED, State.LOST) else State.PENDING
    for state in (State.HELD, State.FAILED, State.LOST, State.KILLED, State.REJECTED):
        if some(state):
            return state
    return State.SUCCEEDED


def variables(job: Job, nodes: Sequence[str] = ()) -> dict[str, str]:
    """What a member finds in its environment about its group.

    Of an array Grid Engine's and Slurm's set of four; of a gang its rank and the names of all its `nodes`, in
    the order of the ranks.
    """
    if job.array_task is None:
        return {}
    if is_gang(job):
        return {
            "PERIJOVE_NODE_RANK": str(job.array_task),
            "PERIJOVE_NODE_COUNT": str(job.spec.nodes),
            "PERIJOVE_NODE_LIST": ",".join(nodes),
        }
    array = job.spec.array
    assert array is not None
    return {
        "PERIJOVE_TASK_ID": str(job.array_task),
        "PERIJOVE_TASK_FIRST": str(array.tasks[0]),
        "PERIJOVE_TASK_LAST": str(array.tasks[-1]),
        "PERIJOVE_TASK_STEP": str(array.step),
    }
