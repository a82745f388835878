"""Jobs that wait, in lines, for tests of the order in which they start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from perijove.model import Job, JobSpec, State
from perijove_hub.placement.entry import Entry

_ids = count(1)


def waiting(
    owner: str, project: str | None = None, *, job: int = 0, submitted: float = 0.0, **spec: Any
) -> Job:
    """A pending job; `spec` are fields of its spec."""
    asked = JobSpec.model_validate({"command": ["true"], "project": project, **spec})
    return Job(
        id=job or next(_ids),
        owner=owner,
        name="j",
        state=State.PENDING,
        submitted=submitted,
        partition=asked.partition,
        spec=asked,
    )


def running(job: Job, at: float, node: str = "n1") -> Job:
    """The same job on a node since `at`."""
    changes = {
        "state": State.RUNNING,
        "node": node,
        "allocated": at,
        "started": at,
        "attempt": job.attempt + 1,
    }
    return job.model_copy(update=changes)


def ended(job: Job, at: float) -> Job:
    """The same job, over."""
    return job.model_copy(update={"state": State.SUCCEEDED, "ended": at})


@dataclass
class Queue:
    """One line. `asked` counts the entries it was asked for."""

    owner: str
    project: str | None
    jobs: list[Job] = field(default_factory=list)
    asked: int = 0

    def __iter__(self) -> Iterator[Entry]:
        for job in sorted(self.jobs, key=lambda job: (-job.spec.priority, job.id)):
            self.asked += 1
            members = len(job.spec.array.tasks) if job.spec.array else job.spec.nodes
            yield Entry(job, members)


def lines_of(jobs: Iterable[Job]) -> list[Queue]:
    """The lines in which these jobs stand."""
    found: dict[tuple[str, str | None], Queue] = {}
    for job in jobs:
        pair = (job.owner, job.spec.project)
        found.setdefault(pair, Queue(*pair)).jobs.append(job)
    return list(found.values())
