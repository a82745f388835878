"""What one transaction writes, and what a list asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from perijove.model import Job, JobEvent, State
from perijove_hub.accounting import Allocation
from perijove_hub.store.workflow_rows import Flows


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    new: dict[int, Job] = field(default_factory=dict)
    changed: dict[int, Job] = field(default_factory=dict)
    """Their spec, owner, name, project and partition are as they were."""
    events: list[JobEvent] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    """Begun ones with no end, ended ones with it; of several for the same job, attempt and begin the last."""
    respecified: dict[int, Job] = field(default_factory=dict)
    """Whole rows of jobs whose spec changed; written before `changed`."""
    removed: list[int] = field(default_factory=list)
    """Jobs whose row, members and history go; what they were charged stays."""
    flows: Flows = field(default_factory=Flows)
    """Of workflows."""
    number: int | None = None
    """Given by the database at the first try: a second one of a batch that was written changes nothing."""

    parts: list[Batch] | None = None
    """What is left of it, when it is written piece by piece."""

    def __bool__(self) -> bool:
        return bool(
            self.new
            or self.changed
            or self.events
            or self.submissions
            or self.allocations
            or self.respecified
            or self.removed
            or self.flows
        )

    def of(self, job: int) -> Batch:
        """The part of it that is about one job."""
        return Batch(
            new=_only(self.new, job),
            changed=_only(self.changed, job),
            events=[event for event in self.events if event.job == job],
            submissions=[row for row in self.submissions if row["first"] == job],
            allocations=[allocation for allocation in self.allocations if allocation.job == job],
            respecified=_only(self.respecified, job),
            removed=[removed for removed in self.removed if removed == job],
            flows=self.flows.of(job),
        )

    @property
    def last_job(self) -> int:
        """The highest id that is taken by it, those reserved for members included."""
        return max(self.flows.last_id, max((_last_id(job) for job in self.new.values()), default=0))

    @property
    def last_seq(self) -> int:
        """The highest number of an event in it."""
        return max(self.flows.last_seq, max((event.seq for event in self.events), default=0))

    def jobs(self) -> list[int]:
        """The jobs and runs it is about, new jobs first."""
        ids = [*self.new, *self.respecified, *self.changed, *self.removed]
        ids += [event.job for event in self.events]
        ids += [allocation.job for allocation in self.allocations]
        ids += self.flows.numbers()
        return list(dict.fromkeys(ids))


@dataclass(frozen=True, slots=True)
class Page:
    """What to list: newest first, ids below `before`.

    A group is one row; its members are listed when `array` names it, or with `members`.
    """

    states: tuple[State, ...] = ()
    owner: str | None = None
    name: str | None = None
    array: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    limit: int = 100
    before: int | None = None
    project: str | None = None
    members: bool = False
    run: int | Literal["any", "none"] = "none"
    """Steps of that run of a workflow; ``any``: steps too, ``none``: no steps."""


def _last_id(job: Job) -> int:
    # Member i of a group has the id after its group's by i + 1 (docs/architecture.md).
    if job.array_id is not None:
        return job.id
    if job.spec.array is not None:
        return job.id + len(job.spec.array.tasks)
    return job.id + job.spec.nodes if job.spec.nodes > 1 else job.id


def _only(jobs: dict[int, Job], job: int) -> dict[int, Job]:
    return {job: jobs[job]} if job in jobs else {}
