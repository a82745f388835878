"""The hot state: every live job, the queue, who waits for whom, and what is yet to be written and done.

Synchronous and without I/O: a change is made here at once and gathered, with its effects, for the next
commit.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sortedcontainers import SortedSet

from perijove.model import Dependency, Job, JobEvent, Reason, ReasonCode, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.dependencies import Verdict, judge, judge_all
from perijove_hub.jobs.lifecycle import Effect, Event, Kill, Placed, Reject, decide
from perijove_hub.ledger import Ledger
from perijove_hub.placement import plan
from perijove_hub.store.database import Batch

RECENT = 10_000
"""Ended jobs kept in memory for questions about them."""


@dataclass(slots=True)
class Pending:
    """What the next commit writes, and what happens after it, in this order."""

    batch: Batch = field(default_factory=Batch)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    published: list[tuple[JobEvent, Job]] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.batch or self.waiters or self.effects or self.published)


class Board:
    """See the module. `last_job` and `last_seq` are the highest numbers ever given."""

    def __init__(self, ledger: Ledger, *, last_job: int = 0, last_seq: int = 0) -> None:
        self.ledger = ledger
        self.jobs: dict[int, Job] = {}
        self.recent: OrderedDict[int, Job] = OrderedDict()
        self.members: dict[int, set[int]] = {}
        self.pending = Pending()
        self.placeable = True
        """Whether something changed that may let a job start."""
        self._queue: SortedSet = SortedSet(key=self._rank)
        self._reasons: dict[int, Reason] = {}
        self._counts: dict[int, Counter[State]] = {}
        self._unmet: dict[int, list[Dependency]] = {}
        self._dependants: dict[int, set[int]] = {}
        self._delayed: dict[int, float] = {}
        self._last_job, self._last_seq = last_job, last_seq

    # ---- what is there

    def find(self, job: int) -> Job | None:
        """A live or recently ended job."""
        return self.jobs.get(job) or self.recent.get(job)

    @property
    def waiting(self) -> int:
        """How many jobs could start if there were room."""
        return len(self._queue)

    def view(self, job: Job) -> Job:
        """The job as its owner sees it: a pending one with its reason and place in the queue."""
        if job.state is not State.PENDING or job.id not in self._queue:
            return job
        position = self._queue.index(job.id) + 1
        if (found := self._reasons.get(job.id)) is not None:
            reason = Reason(code=found.code, message=found.message, position=position)
        else:
            ahead = position - 1
            text = f"{ahead} {'job is' if ahead == 1 else 'jobs are'} before it" if ahead else "next in line"
            reason = Reason(code=ReasonCode.PRIORITY, message=text, position=position)
        return job.model_copy(update={"reason": reason})

    # ---- changes

    def load(self, jobs: Iterable[Job], now: float, known: Mapping[int, Job]) -> None:
        """Take over live jobs from the database; `known` are the ended ones they depend on."""
        loaded = list(jobs)
        self.jobs.update((job.id, job) for job in loaded)
        for job in loaded:
            if job.array_id is not None:
                self.members.setdefault(job.array_id, set()).add(job.id)
            if job.state.on_node and not arrays.is_array(job):
                self.ledger.hold(job)
            if (never := self._await_dependencies(job, known)) is not None:
                self.apply(job.id, Reject(never), now)
            else:
                self._enqueue(job)

    def count_array(self, array: int, counts: Mapping[State, int]) -> None:
        """How the members of a loaded array stand, the ended ones included."""
        self._counts[array] = Counter(counts)

    def new_ids(self, count: int) -> range:
        """Ids for that many new jobs; what is not used is not given again."""
        first = self._last_job + 1
        self._last_job += count
        return range(first, first + count)

    def add(self, jobs: Sequence[Job], now: float, known: Mapping[int, Job]) -> None:
        """Take new jobs in, with ids of :meth:`new_ids`; an array brings its members with it."""
        for job in jobs:
            self._take_in(job, now, known)
            if not arrays.is_array(job):
                continue
            tasks = arrays.task_count(job)
            some = arrays.members(job, self.new_ids(tasks).start)
            self._counts[job.id] = Counter({job.state: tasks})
            self.members[job.id] = {member.id for member in some}
            for member in some:
                self._take_in(member, now, known)
        self.placeable = True

    def apply(self, job_id: int, event: Event, now: float) -> Job | None:
        """Let `event` happen to a live job; None when there is no such live job.

        An array passes it on to its members. Raises what :func:`decide` raises.
        """
        job = self.jobs.get(job_id)
        if job is None:
            return None
        if job_id in self.members:
            for member in sorted(self.members[job_id]):
                if isinstance(event, Kill) or self.jobs[member].state in {State.PENDING, State.HELD}:
                    self.apply(member, event, now)
            return self.find(job_id)
        decision = decide(job, event, now)
        self.pending.effects.extend(decision.effects)
        if decision.delay:
            self._delayed[job_id] = now + decision.delay
        if decision.job is not job:
            self._change(job, decision.job, decision.event, decision.detail, now)
        return decision.job

    def end_delays(self, now: float) -> bool:
        """Let those start again whose delay is over; whether there were any."""
        due = [job for job, until in self._delayed.items() if until <= now]
        for job_id in due:
            del self._delayed[job_id]
            if (job := self.jobs.get(job_id)) is not None:
                self._enqueue(job)
        return bool(due)

    def place(self, now: float) -> None:
        """Start what can start; notes for the others why not."""
        if not self.placeable:
            return
        self.placeable = False
        if not self._queue:
            self._reasons = {}
            return
        decided = plan(self._in_order(), self.ledger.all_free())
        for placement in decided.placements:
            self.apply(placement.job, Placed(placement.node, placement.gpus), now)
        self._reasons = decided.reasons

    def take(self) -> Pending:
        """What has gathered since the last time, for the commit."""
        taken, self.pending = self.pending, Pending()
        return taken

    # ---- inside

    def _rank(self, job: int) -> tuple[int, int]:
        return -self.jobs[job].spec.priority, job

    def _in_order(self) -> Iterator[Job]:
        return (self.jobs[job] for job in list(self._queue[: self._depth()]))

    def _depth(self) -> int:
        """No pass can look at more jobs than could start plus those that may lay claims."""
        cores = sum(max(0.0, free.cpu) for free in self.ledger.all_free())
        return int(cores * 100) + 200

    def _take_in(self, job: Job, now: float, known: Mapping[int, Job]) -> None:
        self.jobs[job.id] = job
        self.pending.batch.new[job.id] = job
        self._record(job, "submitted", {}, now)
        if arrays.is_array(job):
            return
        never = self._await_dependencies(job, known)
        if never is not None:
            self.apply(job.id, Reject(never), now)
            return
        if job.id in self._unmet:
            names = ", ".join(str(dependency) for dependency in self._unmet[job.id])
            reason = Reason(code=ReasonCode.DEPENDENCY, message=f"waits for {names}")
            self.jobs[job.id] = self.pending.batch.new[job.id] = job.model_copy(update={"reason": reason})
        self._enqueue(self.jobs[job.id])

    def _enqueue(self, job: Job) -> None:
        queued = job.state is State.PENDING and job.id not in self._unmet and job.id not in self._delayed
        if queued and not arrays.is_array(job):
            self._queue.add(job.id)
            self.placeable = True

    def _await_dependencies(self, job: Job, known: Mapping[int, Job]) -> Reason | None:
        """Note what a waiting job waits for; the reason when it waits in vain."""
        if not job.spec.depends_on or job.state not in {State.PENDING, State.HELD}:
            return None
        verdict, blamed = judge_all(job.spec.depends_on, lambda i: self.find(i) or known.get(i))
        if verdict is Verdict.NEVER:
            return _never(blamed)
        if verdict is Verdict.WAITING:
            self._unmet[job.id] = blamed
            for dependency in blamed:
                self._dependants.setdefault(dependency.job, set()).add(job.id)
        return None

    def _change(self, old: Job, new: Job, event: str | None, detail: dict[str, Any], now: float) -> None:
        self.jobs[new.id] = new
        batch = self.pending.batch
        (batch.new if new.id in batch.new else batch.changed)[new.id] = new
        if event is not None:
            self._record(new, event, detail, now)
        if old.state is new.state:
            return
        self._settle(old, new)
        if new.array_id is not None:
            self._follow_array(old, new, now)
        for dependant in sorted(self._dependants.get(new.id, ())):
            self._look_again(dependant, new, now)
        if new.state.ended:
            self._dependants.pop(new.id, None)

    def _settle(self, old: Job, new: Job) -> None:
        """Queue, ledger and memory follow the state."""
        if old.state is State.PENDING:
            self._queue.discard(new.id)
        if new.state.on_node and not old.state.on_node and not arrays.is_array(new):
            self.ledger.hold(new)
        if old.state.on_node and not new.state.on_node and old.node is not None:
            self.ledger.release(old.node, old.id)
            self.placeable = True
        self._enqueue(new)
        if new.state.ended:
            self._unmet.pop(new.id, None)
            self._retire(new)

    def _retire(self, job: Job) -> None:
        self.jobs.pop(job.id, None)
        self._reasons.pop(job.id, None)
        if job.array_id is not None and (members := self.members.get(job.array_id)):
            members.discard(job.id)
        self.recent[job.id] = job
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)

    def _follow_array(self, old: Job, new: Job, now: float) -> None:
        array = self.jobs.get(new.array_id or 0)
        counts = self._counts.get(new.array_id or 0)
        if array is None or counts is None:
            return
        counts[old.state] -= 1
        counts[new.state] += 1
        state = arrays.state_of(counts)
        if state is array.state:
            return
        changes: dict[str, Any] = {"state": state}
        if state.ended:
            changes["ended"] = now
            changes["exit_code"] = 0 if state is State.SUCCEEDED else new.exit_code
        if array.started is None and state is State.RUNNING:
            changes["started"] = now
        detail = {str(s): n for s, n in counts.items() if n}
        if state.ended:
            del self._counts[array.id], self.members[array.id]
        self._change(array, array.model_copy(update=changes), "array", detail, now)

    def _look_again(self, dependant: int, on: Job, now: float) -> None:
        unmet = self._unmet.get(dependant)
        if unmet is None:
            return
        verdicts = [(judge(d, on) if d.job == on.id else Verdict.WAITING, d) for d in unmet]
        if never := [d for verdict, d in verdicts if verdict is Verdict.NEVER]:
            self.apply(dependant, Reject(_never(never)), now)
            return
        self._unmet[dependant] = [d for verdict, d in verdicts if verdict is Verdict.WAITING]
        if not self._unmet[dependant]:
            del self._unmet[dependant]
            job = self.jobs[dependant]
            if job.state is State.PENDING:
                self._change(job, job.model_copy(update={"reason": None}), "eligible", {}, now)
                self._enqueue(self.jobs[dependant])

    def _record(self, job: Job, event: str, detail: dict[str, Any], now: float) -> None:
        durable = event not in {"progress", "launching"}
        if durable:
            self._last_seq += 1
        entry = JobEvent(
            seq=self._last_seq,
            job=job.id,
            owner=job.owner,
            at=now,
            event=event,
            state=job.state,
            attempt=job.attempt,
            detail=detail,
        )
        if durable:
            self.pending.batch.events.append(entry)
        self.pending.published.append((entry, job))


def _never(blamed: Sequence[Dependency]) -> Reason:
    names = ", ".join(str(dependency) for dependency in blamed)
    return Reason(
        code=ReasonCode.DEPENDENCY_NEVER_SATISFIED, message=f"waits for {names}, which can no longer happen"
    )
