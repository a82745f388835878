"""Whether what a job waits for has happened (sbatch(1), ``--dependency``)."""

from __future__ import annotations

from enum import Enum

from perijove.model import Dependency, DependencyType, Job, State


class Verdict(Enum):
    """Of one dependency."""

    MET = "met"
    WAITING = "waiting"
    NEVER = "never"


def judge(dependency: Dependency, on: Job | None) -> Verdict:
    """Of one dependency; a job that is gone can never be waited for.

    A group has begun with its first member and has ended with its last: ``afterok`` asks for the success of
    all, ``afternotok`` for one that had none.
    """
    if on is None:
        return Verdict.NEVER
    if dependency.type is DependencyType.AFTER:
        begun = on.started is not None or (on.attempt > 0 and on.state is not State.STARTING)
        return Verdict.MET if begun or on.state.ended else Verdict.WAITING
    if not on.state.ended:
        return Verdict.WAITING
    if dependency.type is DependencyType.AFTERANY:
        return Verdict.MET
    wanted = dependency.type is DependencyType.AFTEROK
    return Verdict.MET if (on.state is State.SUCCEEDED) == wanted else Verdict.NEVER
