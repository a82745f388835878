"""Whether what a job waits for has happened (sbatch(1), ``--dependency``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from perijove.model import Dependency, DependencyType, Job, State


class Verdict(Enum):
    """Of one dependency, or of all of a job's."""

    MET = "met"
    WAITING = "waiting"
    NEVER = "never"


def judge(dependency: Dependency, on: Job | None) -> Verdict:
    """Of one dependency; a job that is gone can never be waited for."""
    if on is None:
        return Verdict.NEVER
    if dependency.type is DependencyType.AFTER:
        begun = on.attempt > 0 and on.state is not State.STARTING
        return Verdict.MET if begun or on.state.ended else Verdict.WAITING
    if not on.state.ended:
        return Verdict.WAITING
    if dependency.type is DependencyType.AFTERANY:
        return Verdict.MET
    wanted = dependency.type is DependencyType.AFTEROK
    return Verdict.MET if (on.state is State.SUCCEEDED) == wanted else Verdict.NEVER


def judge_all(
    dependencies: Iterable[Dependency], find: Callable[[int], Job | None]
) -> tuple[Verdict, list[Dependency]]:
    """Of all, with those to blame: one that can never hold decides, else one that still waits."""
    verdicts = [(judge(dependency, find(dependency.job)), dependency) for dependency in dependencies]
    for verdict in (Verdict.NEVER, Verdict.WAITING):
        if blamed := [dependency for v, dependency in verdicts if v is verdict]:
            return verdict, blamed
    return Verdict.MET, []
