"""Reading a job's document as the service sent it; shared by all handles."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from perijove.model.states import State

if TYPE_CHECKING:
    from perijove.model import Job as JobRecord
    from perijove.site import Document


class Record(ABC):
    """Reading a job's document; shared by the asynchronous handle and the plain one."""

    @property
    @abstractmethod
    def document(self) -> Document:
        """The job as the service sent it last."""

    @property
    def id(self) -> int:
        """Its number."""
        return int(self.document["id"])

    @property
    def label(self) -> str:
        """The id as people write it: ``12``, or ``12_7`` for member 7 of array 12."""
        return label_of(self.document)

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.document.get("name") or "")

    @property
    def state(self) -> State:
        """Where it stood when last heard of; :meth:`refresh` asks again."""
        return State(self.document["state"])

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state.ended

    @property
    def reason(self) -> str:
        """Why it waits, or why it ended other than by its own success; else empty."""
        return reason_text(self.document)

    @property
    def attempt(self) -> int:
        """Which try at running it this is; 0 before the first."""
        return int(self.document.get("attempt") or 0)

    @property
    def exit_code(self) -> int | None:
        """As a shell gives it; None until it ended, or when nothing ran."""
        code = self.document.get("exit_code")
        return None if code is None else int(code)

    @property
    def record(self) -> JobRecord:
        """All that is known of it, checked and typed."""
        from perijove.model import Job as JobRecord

        return JobRecord.model_validate(self.document)

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for, as the service completed it."""
        return dict(self.document.get("spec") or {})

    @property
    def rich(self) -> bool:
        """Whether it writes rich output to its display stream (a cell or a notebook)."""
        return "perijove.runner" in (self.spec.get("command") or ()) or bool(
            self.spec.get("notebook") or self.spec.get("function")
        )

    @property
    def is_array(self) -> bool:
        """Whether it stands for members and runs nothing itself: an array, or a job on several nodes."""
        several = self.spec.get("array") or (self.spec.get("nodes") or 1) > 1
        return bool(several) and self.document.get("array_id") is None

    @property
    def tasks(self) -> dict[State, int]:
        """Of an array, how many members are in each state; of another job nothing."""
        found = self.document.get("tasks") or {}
        return {State(state): int(count) for state, count in found.items() if count}

    @property
    def task_numbers(self) -> range:
        """Of an array the numbers of its members; of a job on several nodes the ranks from 0; else empty."""
        if not self.is_array:
            return range(0)
        spec = self.spec
        if array := spec.get("array"):
            return range(array["start"], array["end"] + 1, array.get("step") or 1)
        return range(spec["nodes"])

    def unstarted_member(self, task: int) -> Document:
        """The document of a member that is no job of its own yet: it stands as its array does."""
        if self.ended:
            state = State.REJECTED if self.state is State.REJECTED else State.KILLED
        else:
            held = (self.document.get("reason") or {}).get("code") == "JobHeldUser"
            state = State.HELD if held or self.state is State.HELD else State.PENDING
        fresh = {"tasks": {}, "attempt": 0, "exit_code": None, "started": None, "progress": None}
        number = self.id + 1 + self.task_numbers.index(task)
        place = {"id": number, "array_id": self.id, "array_task": task, "state": str(state)}
        return {**self.document, **fresh, **place}

    @property
    def blockers(self) -> list[Document]:
        """What keeps it from starting, where the service told: each has ``kind``, ``name``, ``message``."""
        return list((self.document.get("reason") or {}).get("blockers") or [])

    @property
    def elapsed(self) -> float | None:
        """Seconds it has run, or ran, without what it was suspended; None before the start."""
        started = self.document.get("started")
        if started is None:
            return None
        suspended = float(self.document.get("suspended_seconds") or 0.0)
        until = self.document.get("ended") or self.document.get("suspended_at") or time.time()
        return max(0.0, float(until) - float(started) - suspended)

    def __repr__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"<{type(self).__name__} {self.label} {self.name!r} {self.state}{reason}>"


def label_of(document: Document) -> str:
    """The id as people write it."""
    array = document.get("array_id")
    return str(document["id"]) if array is None else f"{array}_{document.get('array_task')}"


def tasks_text(job: Record) -> str:
    """An array's members by state: ``312/1000 done, 8 running, 2 failed``; empty for another job."""
    if not job.is_array:
        return ""
    count, total = job.tasks, len(job.task_numbers)
    parts = [f"{sum(n for state, n in count.items() if state.ended)}/{total} done"]
    for word, states in _GROUPS.items():
        if some := sum(count.get(state, 0) for state in states):
            parts.append(f"{some} {word}")
    return ", ".join(parts)


_GROUPS = {
    "running": (State.STARTING, State.RUNNING),
    "suspended": (State.SUSPENDED,),
    "held": (State.HELD,),
    "failed": (State.FAILED, State.LOST),
    "killed": (State.KILLED,),
    "rejected": (State.REJECTED,),
}
"""Word -> the states that it counts."""


def reason_text(document: Document) -> str:
    """A job's reason as a sentence, with its place in the queue."""
    reason = document.get("reason")
    if not reason:
        return ""
    text = str(reason.get("message") or reason.get("code") or "")
    position = reason.get("position")
    return f"{text} (place {position} in the queue)" if position else text
