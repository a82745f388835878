"""The hot state: every live job, the queue, who waits for whom, and what is yet to be written and done.

Synchronous and without I/O: a change is made here at once and gathered, with its effects, for the next
commit. The simulator drives it as the controller does.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perijove.model import Job, Reason, ReasonCode, State
from perijove_hub.accounting import Allocation
from perijove_hub.jobs import arrays, depending, gangs, loading, passes, whole
from perijove_hub.jobs.books import Books
from perijove_hub.jobs.decision import Decision
from perijove_hub.jobs.ending import LONGEST_DELAY
from perijove_hub.jobs.events import Ended, Event, Kill, Resume, Suspended
from perijove_hub.jobs.holdings import Holdings
from perijove_hub.jobs.lifecycle import HELD, decide
from perijove_hub.jobs.members import Members
from perijove_hub.jobs.pending import Pending
from perijove_hub.jobs.queue import Queue
from perijove_hub.jobs.waits import Waits
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry
from perijove_hub.policy.document import Policy
from perijove_hub.policy.registry import create
from perijove_hub.policy.standing import Standing

if TYPE_CHECKING:
    from perijove_hub.policy.schedulers import Scheduler


class Board(Books):
    """See the module. `last_job` and `last_seq` are the highest numbers ever given."""

    def __init__(
        self,
        ledger: Ledger,
        standing: Standing | None = None,
        scheduler: Scheduler | None = None,
        *,
        last_job: int = 0,
        last_seq: int = 0,
        groups_of: Callable[[str], frozenset[str]] = lambda _user: frozenset(),
    ) -> None:
        super().__init__(last_job, last_seq)
        self.ledger = ledger
        self.standing = standing or Standing(Policy())
        self.policy = self.standing.policy
        self.scheduler = scheduler or create(self.policy.scheduler, self.policy)
        self.groups_of = groups_of
        self.maintenance: str | None = None
        """Why nothing starts, while nothing does."""
        self.thorough = -math.inf
        """When a pass last looked at all that it may."""
        self.brief = False
        """Whether the last pass did not."""
        self.terse = False
        """Nobody asks why jobs wait: a pass that can start no more looks at no more."""
        self.full = False
        """The last pass left no room on any node."""
        self.jobs: dict[int, Job] = {}
        self.groups: dict[int, Members] = {}
        self.placeable = True
        """Whether something changed that may let a job start."""
        self.queue = Queue(self.entry)
        self.waits = Waits()
        self.holdings = Holdings(ledger, self.standing, self.charge)
        self.reasons: dict[int, Reason] = {}
        self.resuming: set[int] = set()
        """Suspended jobs that go on by themselves when there is room."""
        self.room_for: dict[int, set[int]] = {}
        """Job that waits for victims of its preemption to leave -> those."""
        self.delayed: dict[int, float] = {}
        self._delays: list[tuple[float, int]] = []
        self._order: list[int] = []
        self._dirty: set[int] = set()

    # ---- what is there

    def find(self, job: int) -> Job | None:
        """A live or recently ended job, or a member of a live group."""
        if job in self._dirty:
            self._refresh(job)
        return self.jobs.get(job) or self.recent.get(job) or self._derived(job)

    @property
    def waiting(self) -> int:
        """How many jobs and members could start if there were room."""
        groups = [members for group, members in self.groups.items() if group in self.queue]
        return len(self.queue) - len(groups) + sum(members.rest or members.size for members in groups)

    @property
    def allocations(self) -> Iterator[Allocation]:
        """What is held now: the allocations that have no end yet."""
        return iter(self.holdings)

    def view(self, job: Job) -> Job:
        """The job as its owner sees it: a pending one with its reason and its place in its owner's line."""
        if job.id in self.groups:
            job = self.find(job.id) or job
        if job.id not in self.queue:
            return job
        position = self.queue.position(job.id)
        if (found := self.reasons.get(job.id)) is not None:
            reason = found.model_copy(update={"position": position})
        else:
            ahead = position - 1
            some = f"{ahead} of your own {'job is' if ahead == 1 else 'jobs are'} before it"
            text = some if ahead else "next in line"
            reason = Reason(code=ReasonCode.PRIORITY, message=text, position=position)
        return job.model_copy(update={"reason": reason})

    def entry(self, job_id: int) -> Entry | None:
        """What of a queued job may start now; None while as many of its array run as may at once."""
        job = self.jobs[job_id]
        members = self.groups.get(job_id)
        if members is not None:
            if arrays.is_gang(job):
                return Entry(job, members.size)
            count = min(members.rest, members.room)
            return Entry(job, count) if count > 0 else None
        if job.array_id is not None and self.groups[job.array_id].room <= 0:
            return None
        return Entry(job)

    def nodes_of_gang(self, job: Job) -> list[str]:
        """The nodes of all members of the gang that `job` is a member of, by rank; none for another job."""
        members = self.groups.get(job.array_id or 0)
        if members is None or not arrays.is_gang(job):
            return []
        return [self.jobs[member].node or "" for member in sorted(members.live)]

    # ---- changes from outside

    def load(
        self,
        jobs: Iterable[Job],
        now: float,
        known: Mapping[int, Job],
        states: Mapping[int, Mapping[int, State]] | None = None,
    ) -> None:
        """Take over live jobs from the database.

        `known` are the ended ones they depend on; `states`, of each group, those of its members, by task,
        that have rows.
        """
        loading.load(self, jobs, now, known, states or {})

    def add(self, jobs: Sequence[Job], now: float, known: Mapping[int, Job]) -> None:
        """Take new jobs in, with ids of :meth:`new_ids`."""
        for given in jobs:
            job = given
            if job.state is State.HELD and job.reason is None:
                job = job.model_copy(update={"reason": HELD})
            self.jobs[job.id] = self.pending.batch.new[job.id] = job
            if arrays.is_group(job):
                self.take_group(job, Members.of(job))
            self.standing.waits(job, arrays.size(job.spec) or 1)
            self.record(job, "submitted", {}, now)
            if not depending.begin_waiting(self, job, known, now):
                self.enqueue(self.jobs[job.id], now)
        self.placeable = True

    def apply(self, job_id: int, event: Event, now: float) -> Job | None:
        """Let `event` happen to a live job; None when there is no such live job.

        A group passes it on to its members, and so does a member of a gang what concerns all of it.
        Raises what :func:`decide` raises.
        """
        job = self.jobs.get(job_id) or self._derived(job_id)
        if job is None or job.state.ended:
            return None
        if isinstance(event, Kill) and event.dependants:
            # The farthest first: else it would end as one that waits in vain.
            for follower in reversed(self.waits.following(job_id)):
                self.apply(follower, replace(event, dependants=False), now)
        if job_id in self.groups:
            return whole.happen(self, job, event, now)
        if arrays.is_gang(job) and gangs.concerns_all(event):
            whole.happen(self, self.jobs[job.array_id or 0], event, now)
            return self.find(job_id)
        if arrays.is_gang(job) and isinstance(event, Ended) and gangs.waits_for_others(self, job, event):
            return job
        decision = decide(job, self._filled_in(job, event), now)
        self._carry(job, decision, now)
        return decision.job

    def apply_to_member(self, job: Job, event: Event, now: float) -> None:
        """Let `event` happen to this job alone, whatever it is a member of."""
        self._carry(job, decide(job, self._filled_in(job, event), now), now)

    def end_delays(self, now: float) -> bool:
        """Let those start again whose delay is over, and have looked at whom a brief pass left out.

        Whether there is anything to place. To be called each second.
        """
        found = self.brief
        self.placeable |= self.brief
        while self._delays and not now < self._delays[0][0] <= now + LONGEST_DELAY:
            # One further away than any was set before the clock was turned back.
            until, job_id = heapq.heappop(self._delays)
            if self.delayed.get(job_id) != until:
                continue
            del self.delayed[job_id]
            if (job := self.jobs.get(job_id)) is not None:
                found = True
                self.enqueue(job, now)
        return found

    def place(self, now: float) -> None:
        """Start what can start; note for the others why not. A pass is bounded: see `placeable`."""
        if self.placeable:
            self.placeable = False
            passes.place(self, now)

    def adopt(self, policy: Policy, scheduler: Scheduler) -> None:
        """Go on under another policy."""
        self.standing.adopt(policy)
        self.policy, self.scheduler = policy, scheduler
        self.placeable = True

    def take(self) -> Pending:
        """What has gathered since the last time, for the commit."""
        for group in list(self._dirty):
            self._refresh(group)
        return super().take()

    # ---- changes, for the modules beside this one

    def change(self, old: Job, new: Job, event: str | None, detail: dict[str, Any], now: float) -> None:
        """`old`, live or a member that is no job yet, is `new` from now on."""
        batch = self.pending.batch
        if new.id not in self.jobs and new.array_id is not None:
            members = self.groups[new.array_id]
            members.known.add(new.id - new.array_id - 1)
            members.live.add(new.id)
            if not members.rest and not arrays.is_gang(new):
                self.queue.discard(new.array_id)
            batch.new[new.id] = new
        elif new.id in batch.new:
            batch.new[new.id] = new
        else:
            batch.changed[new.id] = new
            if new.spec is not old.spec or new.id in batch.respecified:
                batch.respecified[new.id] = new
        self.jobs[new.id] = new
        if event is not None:
            self.record(new, event, detail, now)
        if old.state is not new.state:
            self._settle(old, new, now)
        elif new.state.on_node and new.id not in self.groups:
            self.holdings.change(old, new, now)
        elif new.spec is not old.spec:
            self.queue.discard(new.id)
            self.enqueue(new, now)
        if new.state is State.SUSPENDED or new.id in self.resuming:
            self.note_resumption(new)

    def enqueue(self, job: Job, now: float) -> None:
        """Into the queue, when nothing but room is missing for it."""
        if job.state.ended or job.id in self.waits or job.id in self.delayed or job.id not in self.jobs:
            return
        if (members := self.groups.get(job.id)) is not None:
            gang = arrays.is_gang(job)
            ready = gangs.may_start(self, job) if gang else members.rest and not arrays.is_held(job)
            if not ready or job.kill_requested:
                return
        elif job.state is not State.PENDING or arrays.is_gang(job) or (job.array_id or 0) in self.waits:
            return
        self.queue.add(job)
        self.placeable = True

    def take_group(self, group: Job, members: Members) -> None:
        """It is on the board from now on."""
        self.groups[group.id] = members
        self._order.insert(bisect_right(self._order, group.id), group.id)
        self._dirty.add(group.id)

    def delay(self, job_id: int, until: float) -> None:
        """Keep it out of the queue until then."""
        self.delayed[job_id] = until
        heapq.heappush(self._delays, (until, job_id))

    def touch(self, group: int) -> None:
        """The numbers of its members have changed."""
        self._dirty.add(group)

    def retire(self, job: Job) -> None:
        """It has ended: out of the live ones."""
        self.jobs.pop(job.id, None)
        self.reasons.pop(job.id, None)
        self.resuming.discard(job.id)
        self.waits.drop(job.id)
        if self.groups.pop(job.id, None) is not None:
            del self._order[bisect_right(self._order, job.id) - 1]
            self._dirty.discard(job.id)
        elif job.array_id is not None and (members := self.groups.get(job.array_id)):
            members.live.discard(job.id)
            members.finished.pop(job.id, None)
        self.remember(job)

    # ---- inside

    def _filled_in(self, job: Job, event: Event) -> Event:
        """What only the board knows of an event."""
        if isinstance(event, Suspended):
            return replace(event, keep=passes.keeps(self, job))
        if isinstance(event, Resume):
            return replace(event, room=passes.has_room(self, job))
        if isinstance(event, Ended):
            return replace(event, largest=passes.largest_memory(self, job), machine=passes.machine(self, job))
        return event

    def _carry(self, job: Job, decision: Decision, now: float) -> None:
        self.pending.effects.extend(decision.effects)
        if decision.delay:
            self.delay(job.array_id if arrays.is_gang(job) and job.array_id else job.id, now + decision.delay)
        if decision.job is not job:
            self.change(job, decision.job, decision.event, decision.detail, now)
        elif decision.event is not None:
            self.record(job, decision.event, decision.detail, now)

    def _derived(self, job: int) -> Job | None:
        """A member of a live group that is no job of its own yet."""
        at = bisect_right(self._order, job) - 1
        if at < 0:
            return None
        group = self._order[at]
        members, index = self.groups[group], job - group - 1
        if not 0 <= index < members.size or index in members.known:
            return None
        return arrays.member(self.jobs[group], index)

    def _refresh(self, group: int) -> None:
        self._dirty.discard(group)
        members, job = self.groups.get(group), self.jobs.get(group)
        if members is None or job is None or job.tasks == (tasks := members.tasks()):
            return
        new = job.model_copy(update={"tasks": tasks})
        batch = self.pending.batch
        (batch.new if group in batch.new else batch.changed)[group] = new
        if group in batch.respecified:
            batch.respecified[group] = new
        self.jobs[group] = new
        self.record(new, "tasks", {}, new.submitted)

    def _settle(self, old: Job, new: Job, now: float) -> None:
        """Queue, ledger, group and dependants follow the state."""
        if new.id in self.groups:
            if new.state.ended:
                self.queue.discard(new.id)
                self.retire(new)
        else:
            self._settle_job(old, new, now)
            if new.array_id is not None and new.array_id in self.groups:
                whole.member_moved(self, old, new, now)
        depending.tell(self, new, now)

    def _settle_job(self, old: Job, new: Job, now: float) -> None:
        waited, waits = _waits(old), _waits(new)
        if waited:
            self.queue.discard(new.id)
        if waited and not waits:
            self.standing.leaves(new)
        elif waits and not waited:
            self.standing.waits(new)
        if new.state.on_node and not old.state.on_node:
            self.holdings.hold(new, now)
        elif old.state.on_node and not new.state.on_node and old.node is not None:
            self.holdings.release(new, old.node, now)
            self.placeable = True
        elif new.state.on_node:
            self.holdings.change(old, new, now)
            self.placeable = self.placeable or new.kept != "all"
        if new.state.ended:
            self.retire(new)
        else:
            self.enqueue(new, now)

    def note_resumption(self, job: Job) -> None:
        """Whether a suspended job goes on by itself when there is room."""
        by_site = job.reason is not None and job.reason.code is ReasonCode.SUSPENDED_BY_SITE
        if job.state is State.SUSPENDED and by_site and not job.kill_requested:
            self.resuming.add(job.id)
            self.placeable = True
        else:
            self.resuming.discard(job.id)


def _waits(job: Job) -> bool:
    return job.state is State.PENDING or job.state is State.HELD
