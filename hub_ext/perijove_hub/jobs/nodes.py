"""What nodes say: announcements, reports, and how the record and what runs are brought together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from perijove.model import Attempt, Job, Node, NodeState, State, UnavailableError
from perijove_hub.jobs import adopting
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.effects import SendForget, SendOrder, SendStop
from perijove_hub.jobs.events import Progressed
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.jobs.reconcile import compare, events_of
from perijove_spawners.launcher import StaleFenceError
from perijove_spawners.protocol import HEARTBEAT, Report, ReportKind

log = logging.getLogger(__name__)


class Nodes:
    """The nodes as they come and go. `drained`: name -> why it is to take no jobs."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._reconciling: set[str] = set()
        self._next_round = core.steady() + core.settings.reconcile_every
        self._heard: dict[str, float] = {}
        """When each announced itself last, by the steady clock: the other may be set meanwhile."""
        self.drained: dict[str, str] = {}
        self.gone: set[str] = set()
        """Those that were removed and have not joined anew: what they say is not heard."""

    def heard(self, reports: Iterable[Report]) -> None:
        """Reports of a node. Those of attempts that are no job's any more are answered with `forget`."""
        core, now = self._core, self._core.clock()
        board = core.board
        for report in reports:
            job = board.jobs.get(report.attempt.job)
            if job is None or job.attempt != report.attempt.number or not job.state.on_node:
                if report.kind is ReportKind.ENDED and not self._may_be_newer(report, job):
                    board.pending.effects.append(SendForget(report.node, report.attempt))
                continue
            if report.kind is ReportKind.PROGRESS:
                board.apply(job.id, Progressed(report.progress, report.message), now)
            for event in events_of(report):
                board.apply(job.id, event, now)
        core.wake.set()

    def announced(self, node: Node) -> None:
        """A node is there. It takes no jobs until it has been asked what it runs."""
        core = self._core
        if node.name in self.gone:
            return
        self._heard[node.name] = core.steady()
        before = core.ledger.node(node.name)
        same = before is not None and before.incarnation == node.incarnation
        state = before.state if before is not None and same else NodeState.DOWN
        reason = before.reason if before is not None and same else ""
        seen = {"state": state, "reason": reason, "seen": core.clock()}
        core.ledger.announce(node.model_copy(update=seen))
        core.board.standing.capacity = sum(one.cpus for one in core.ledger.nodes)
        core.joined.set()
        core.inventory.note(core.ledger.node(node.name), core.clock())
        if state is NodeState.DOWN:
            core.spawn(self.reconcile(node.name))

    def unreachable(self, name: str) -> None:
        """A node is not there; its jobs may well go on, so nothing is said of them."""
        core = self._core
        node = core.ledger.node(name)
        if node is not None and node.state is not NodeState.DOWN:
            log.warning("node %s is not reachable", name)
            core.ledger.mark(name, NodeState.DOWN, "not reachable")
            core.inventory.note(core.ledger.node(name), core.clock())
            core.board.placeable = True
            core.wake.set()

    def look_around(self) -> None:
        """Once in a while: who is silent, and who is to be asked again."""
        core, now = self._core, self._core.steady()
        due = now >= self._next_round
        if due:
            self._next_round = now + core.settings.reconcile_every
        for node in core.ledger.nodes:
            if node.state is not NodeState.DOWN and now - self._heard.get(node.name, now) > 3 * HEARTBEAT:
                self.unreachable(node.name)
            elif due and node.state is not NodeState.DOWN:
                core.spawn(self.reconcile(node.name))

    async def reconcile(self, name: str) -> None:
        """Ask a node what it has and settle the differences."""
        if name in self._reconciling:
            return
        core = self._core
        self._reconciling.add(name)
        try:
            asked = [core.board.jobs[job.id] for job in core.ledger.jobs_on(name)]
            reports: list[Report] = await core.fabric.call(name, "known", None)
            seen = {report.attempt: report for report in reports}
            missing = [attempt for job in asked if (attempt := attempt_of(job)) not in seen]
            if missing:
                # Of what has ended and is forgotten it speaks only when asked.
                more: list[Report] = await core.fabric.call(name, "known", missing)
                seen |= {report.attempt: report for report in more}
        except UnavailableError as error:
            log.info("node %s was not asked: %s", name, error)
            return
        except StaleFenceError as error:
            log.critical("another service leads: %s", error)
            core.died()
            return
        finally:
            self._reconciling.discard(name)
        self._settle(name, asked, seen)
        if (node := core.ledger.node(name)) is not None and node.state is NodeState.DOWN:
            log.info("node %s is up: %g CPUs, %d GPUs", name, node.cpus, len(node.gpus))
        self.mark(name)

    def mark(self, name: str) -> None:
        """A node that answers takes jobs, unless it is drained."""
        core = self._core
        node = core.ledger.node(name)
        reason = self.drained.get(name)
        state = NodeState.UP if reason is None else NodeState.DRAIN
        if node is not None and (node.state, node.reason) != (state, reason or ""):
            core.ledger.mark(name, state, reason or "")
            core.inventory.note(core.ledger.node(name), core.clock())
            core.board.placeable = True
            core.wake.set()

    def _settle(self, name: str, asked: Sequence[Job], seen: dict[Attempt, Report]) -> None:
        core, now = self._core, self._core.clock()
        board = core.board
        wanted = [
            job
            for before in asked
            if (job := board.jobs.get(before.id)) is not None
            and job.attempt == before.attempt
            and _alike(job.state, before.state)
        ]
        ours = {attempt_of(board.jobs[job.id]) for job in core.ledger.jobs_on(name)}
        board.raise_ids(max((attempt.job for attempt in seen), default=0))
        found = compare(wanted, seen, name, ours, board.find)
        for job_id, event in found.events:
            board.apply(job_id, event, now)
        for attempt in found.adopt:
            adopting.displace(board, attempt.job, attempt.number, now)
        for attempt in found.adopt:
            self._adopt(name, attempt, seen[attempt])
        for attempt in found.skip:
            adopting.skip(board, attempt.job, attempt.number, now)
        effects = board.pending.effects
        unsent = core.unsent()
        effects += [SendOrder(job) for job in found.resend if job not in unsent]
        effects += [SendStop(name, attempt) for attempt in found.stop]
        effects += [SendForget(name, attempt) for attempt in found.forget]
        core.wake.set()

    def _adopt(self, name: str, attempt: Attempt, report: Report) -> None:
        core, now = self._core, self._core.clock()
        log.warning("node %s has %s, which is newer than the record: taken over", name, attempt)
        if adopting.adopt(core.board, attempt, report, now) is None:
            return
        for event in events_of(report, asked=True):
            core.board.apply(attempt.job, event, now)

    def _may_be_newer(self, report: Report, job: Job | None) -> bool:
        """Whether it is of an attempt that the record does not know yet: the reconciler looks into that."""
        return job is not None and report.attempt.number > job.attempt


def _alike(now: State, before: State) -> bool:
    """Whether what a node said between the two holds for both."""
    odd = (State.STARTING, State.SUSPENDED)
    return now is before or (now not in odd and before not in odd)
