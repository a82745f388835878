"""What jobs hold, told alike to the ledger, to the standing of their owners, and to the accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from perijove.model import Job, State
from perijove_hub.accounting import Allocation, Held, Keep, held_by, opened
from perijove_hub.ledger import Ledger

if TYPE_CHECKING:
    from perijove_hub.policy.standing import Standing


class Holdings:
    """The allocations that are open, one for each job on a node; `charge` takes their begins and ends."""

    def __init__(self, ledger: Ledger, standing: Standing, charge: Callable[[Allocation], None]) -> None:
        self._ledger, self._standing, self._charge = ledger, standing, charge
        self._open: dict[int, Allocation] = {}

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._open.values()))

    def load(self, job: Job) -> None:
        """A job that was on its node before, with its allocation written down already."""
        begin = job.allocated if job.allocated is not None else job.submitted
        self._ledger.hold(job, now=begin)
        held = self._held(job)
        self._open[job.id] = opened(job, begin, held)
        self._standing.holds(job, begin, held)

    def hold(self, job: Job, now: float) -> None:
        """`job` takes hold of its resources."""
        self._ledger.hold(job, now=now)
        self._begin(job, now)

    def change(self, before: Job, job: Job, now: float) -> None:
        """Another version of a job that holds something: leaving, with another limit, suspended."""
        keep = keep_of(job)
        if keep != keep_of(before):
            self._ledger.change(job, keep)
            self._end(job, now)
            self._begin(job, now)
        elif (
            job.spec is not before.spec
            or job.kill_requested != before.kill_requested
            or job.requeue_requested != before.requeue_requested
            or (job.spec.time_limit is not None and job.state is not before.state)
        ):
            self._ledger.change(job, keep)

    def release(self, job: Job, node: str, now: float) -> None:
        """It holds nothing any more."""
        self._ledger.release(node, job.id)
        self._end(job, now)

    def _begin(self, job: Job, now: float) -> None:
        held = self._held(job)
        begun = opened(job, job.allocated if job.allocated is not None else now, held)
        self._open[job.id] = begun
        self._standing.holds(job, now, held)
        self._charge(begun)

    def _end(self, job: Job, now: float) -> None:
        self._standing.releases(job, now)
        if (allocation := self._open.pop(job.id, None)) is not None:
            # The clock may have been turned back.
            self._charge(replace(allocation, end=max(allocation.begin, now)))

    def _held(self, job: Job) -> Held:
        """As the ledger has it; of a node that is not known yet, by what the job asked for."""
        if (holding := self._ledger.holding(job.id)) is not None:
            return Held(holding.cpu, holding.memory, len(holding.gpus))
        return held_by(job, keep_of(job))


def keep_of(job: Job) -> Keep:
    """Of its resources, what it holds now."""
    return job.kept if job.state is State.SUSPENDED else "all"
