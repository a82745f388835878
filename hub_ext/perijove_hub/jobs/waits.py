"""Who waits for whom: an index from each job to those that depend on it; an end looks at nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perijove.model import Dependency, Reason, ReasonCode

SHOWN = 5
"""Dependencies named in a sentence; of more only the number."""


class Waits:
    """The unmet dependencies of waiting jobs. Each is to a target: the id of a job, a group or a member."""

    def __init__(self) -> None:
        self._unmet: dict[int, dict[Dependency, int]] = {}
        self._dependants: dict[int, dict[int, list[Dependency]]] = {}

    def __contains__(self, job: int) -> bool:
        return job in self._unmet

    def add(self, job: int, unmet: Iterable[tuple[Dependency, int]]) -> None:
        """`job` waits for these: dependency and target."""
        for dependency, target in unmet:
            self._unmet.setdefault(job, {})[dependency] = target
            self._dependants.setdefault(target, {}).setdefault(job, []).append(dependency)

    def unmet(self, job: int) -> Sequence[Dependency]:
        """What `job` waits for still."""
        return list(self._unmet.get(job, ()))

    def on(self, target: int) -> list[tuple[int, list[Dependency]]]:
        """Who waits for `target`, by id, and for what of it."""
        waiting = self._dependants.get(target)
        return sorted(waiting.items()) if waiting else []

    def targets(self, ids: range) -> list[int]:
        """Which of `ids` somebody waits for."""
        if len(ids) > len(self._dependants):
            return sorted(target for target in self._dependants if target in ids)
        return [target for target in ids if target in self._dependants]

    def met(self, job: int, dependency: Dependency) -> bool:
        """That has happened; whether `job` waits for nothing more."""
        mine = self._unmet.get(job)
        if mine is None or (target := mine.pop(dependency, None)) is None:
            return False
        self._unlink(job, target, dependency)
        if not mine:
            del self._unmet[job]
        return not mine

    def drop(self, job: int) -> None:
        """`job` waits no longer, whatever for."""
        for dependency, target in self._unmet.pop(job, {}).items():
            self._unlink(job, target, dependency)

    def following(self, target: int) -> list[int]:
        """All that wait for `target`, and those that wait for them, nearest first."""
        found: dict[int, None] = {}
        todo = [target]
        while todo:
            more = [job for job in self._dependants.get(todo.pop(0), ()) if job not in found]
            found.update(dict.fromkeys(more))
            todo += more
        return list(found)

    def _unlink(self, job: int, target: int, dependency: Dependency) -> None:
        waiting = self._dependants.get(target)
        if waiting is None or job not in waiting:
            return
        waiting[job].remove(dependency)
        if not waiting[job]:
            del waiting[job]
        if not waiting:
            del self._dependants[target]


def waiting(unmet: Sequence[Dependency]) -> Reason:
    """Why a job waits for these."""
    return Reason(code=ReasonCode.DEPENDENCY, message=f"waits for {_names(unmet)}")


def in_vain(blamed: Sequence[Dependency]) -> Reason:
    """Why a job that waits for these can never start."""
    text = f"waits for {_names(blamed)}, which can no longer happen"
    return Reason(code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=text)


def _names(some: Sequence[Dependency]) -> str:
    named = ", ".join(str(dependency) for dependency in some[:SHOWN])
    return f"{named} and {len(some) - SHOWN} more" if len(some) > SHOWN else named
