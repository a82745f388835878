"""What nodes do in a simulation: attempts start, end, are stopped and suspended; nodes fail and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from perijove.model import Attempt, Job, NodeState, Outcome, ReasonCode
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.effects import (
    Effect,
    SendForget,
    SendOrder,
    SendResume,
    SendStop,
    SendSuspend,
    SendUpdate,
)
from perijove_hub.jobs.events import Ended, Resumed, Started, Suspended
from perijove_hub.simulation.clockwork import Clockwork, Rank
from perijove_hub.simulation.fleet import NodeChange
from perijove_hub.simulation.site import Site
from perijove_hub.simulation.trace import Run

ANCHOR = 1.0
"""Seconds by which a start may miss the recorded one and its end still be the recorded one: a service is
slower than a simulation, and what it lost in milliseconds must not add up."""


@dataclass(slots=True)
class _Attempt:
    number: int
    node: str
    run: Run
    begun: float
    """When it was placed."""
    ran: float = 0.0
    """Run time up to `since`."""
    since: float | None = None
    """Since when it runs; None: not yet, or it is suspended."""
    ends: float = inf
    reason: ReasonCode | None = None


class Machines:
    """`run_of` tells what an attempt of a job does, `changed` is called when the nodes are others."""

    def __init__(
        self,
        site: Site,
        board: Board,
        clockwork: Clockwork,
        run_of: Callable[[Job], Run],
        changed: Callable[[], None],
    ) -> None:
        self.site, self.board, self.clockwork = site, board, clockwork
        self.attempts: dict[int, _Attempt] = {}
        self.down: set[str] = set()
        self.active = site.start
        """When something last started or ended."""
        self._run_of, self._changed = run_of, changed
        self._ended: dict[int, tuple[int, Outcome]] = {}
        """Attempts whose end the board keeps for later: nodes say it again."""

    def load(self, job: Job) -> None:
        """It runs at the start of the simulation."""
        assert job.node is not None
        begun = job.allocated if job.allocated is not None else self.site.start
        since = job.started if job.started is not None else begun
        going = self.attempts[job.id] = _Attempt(job.attempt, job.node, self._run_of(job), begun, since=since)
        self._schedule(job, going)

    def prepare(self) -> None:
        """Have the nodes fail, and change, as the site says."""
        site = self.site
        for change in site.changes:
            if change.at > site.start:
                self.clockwork.set(change.at, Rank.NODE, self._node_changes, change, planned=True)
        if site.failures is not None:
            for one in site.nodes:
                self._fail_next(one.name, site.failures.of(one.name))

    def perform(self, effect: Effect) -> None:
        """What the board wants done on a node."""
        if isinstance(effect, SendOrder):
            if (job := self.board.jobs.get(effect.job)) is not None and job.node is not None:
                self._start(job, job.node)
            return
        if isinstance(effect, SendForget):
            self._ended.pop(effect.attempt.job, None)
        if not isinstance(effect, SendStop | SendSuspend | SendResume | SendUpdate):
            return
        going = self.attempts.get(effect.attempt.job)
        if going is None:
            self._say_again(effect.attempt)
        elif going.number == effect.attempt.number and going.node not in self.down:
            self._change(effect, effect.attempt.job, going)

    def _change(
        self, effect: SendStop | SendSuspend | SendResume | SendUpdate, number: int, going: _Attempt
    ) -> None:
        board, now = self.board, self.clockwork.now
        match effect:
            case SendStop() if going.ends > now + self.site.stopping:
                going.reason = ReasonCode.KILLED_BY_USER
                self._set_end(number, going, now + self.site.stopping)
            case SendSuspend() if going.since is not None:
                going.ran, going.since, going.ends = going.ran + now - going.since, None, inf
                board.apply(number, Suspended(), now)
            case SendResume() if going.since is None:
                going.since = now
                self._schedule(board.jobs[number], going)
                board.apply(number, Resumed(), now)
            case SendUpdate() if going.since is not None and going.reason is not ReasonCode.KILLED_BY_USER:
                self._schedule(board.jobs[number], going)
            case _:
                pass

    def _start(self, job: Job, node: str) -> None:
        run = self._run_of(job)
        going = self.attempts[job.id] = _Attempt(job.attempt, node, run, self.clockwork.now)
        self.active = self.clockwork.now
        if run.launch > 0:
            self.clockwork.set(self.clockwork.now + run.launch, Rank.START, self._started, job.id, going)
        else:
            self._started(self.clockwork.now, job.id, going)

    def _started(self, now: float, number: int, going: _Attempt) -> None:
        if self.attempts.get(number) is not going or going.node in self.down:
            return
        going.since = now
        job = self.board.apply(number, Started(now), now)
        if job is not None and job.state.on_node and going.reason is not ReasonCode.KILLED_BY_USER:
            self._schedule(job, going)

    def _schedule(self, job: Job, going: _Attempt) -> None:
        """Its end, as far as is known now."""
        run, limit = going.run, job.spec.time_limit
        assert going.since is not None
        if run.placed is not None and run.ended is not None and abs(run.placed - going.begun) <= ANCHOR:
            going.reason = run.reason
            self._set_end(job.id, going, max(run.ended, self.clockwork.now))
            return
        seconds, going.reason = run.seconds, run.reason
        if run.placed is None and limit is not None and limit < seconds:
            seconds, going.reason = limit, ReasonCode.TIME_LIMIT
        self._set_end(job.id, going, max(self.clockwork.now, going.since + seconds - going.ran))

    def _set_end(self, number: int, going: _Attempt, at: float) -> None:
        going.ends = at
        self.clockwork.set(at, Rank.END, self._end, number, going)

    def _end(self, now: float, number: int, going: _Attempt) -> None:
        if self.attempts.get(number) is not going or going.ends != now:
            return
        del self.attempts[number]
        reason, code = going.reason, going.run.exit_code
        if reason is None:
            code = 0
        elif reason is ReasonCode.NON_ZERO_EXIT and not code:
            code = 1
        elif reason is not going.run.reason:
            code = None
        outcome = Outcome(exit_code=code, reason=reason, started=self._since(number), ended=now)
        self.active = now
        after = self.board.apply(number, Ended(outcome), now)
        if after is not None and after.state.on_node:
            self._ended[number] = (going.number, outcome)

    def _say_again(self, attempt: Attempt) -> None:
        number, outcome = self._ended.pop(attempt.job, (0, None))
        if number == attempt.number and outcome is not None:
            self.board.apply(attempt.job, Ended(outcome), self.clockwork.now)

    def _since(self, number: int) -> float | None:
        job = self.board.jobs.get(number)
        return job.started if job is not None else None

    # ---- nodes that come and go

    def _fail_next(self, name: str, failures: Iterator[tuple[float, float]]) -> None:
        down, back = next(failures)
        self.clockwork.set(self.site.start + down, Rank.NODE, self._node_fails, name, back, failures)

    def _node_fails(
        self, _now: float, name: str, back: float, failures: Iterator[tuple[float, float]]
    ) -> None:
        self._lose_touch(name)
        for going in self.attempts.values():
            if going.node == name:
                going.ends = inf
        self.clockwork.set(self.site.start + back, Rank.NODE, self._node_returns, name, failures)

    def _node_returns(self, now: float, name: str, failures: Iterator[tuple[float, float]]) -> None:
        """Only now is known that what ran there is lost: until then it might have gone on."""
        self.down.discard(name)
        for job in self.board.ledger.jobs_on(name):
            if (going := self.attempts.pop(job.id, None)) is not None:
                lost = Outcome(
                    reason=ReasonCode.NODE_LOST, message=f"{name} failed", started=going.since, ended=now
                )
                self.board.apply(job.id, Ended(lost), now)
        self.board.ledger.mark(name, NodeState.UP)
        self._changed()
        self.board.placeable = True
        self._fail_next(name, failures)

    def _lose_touch(self, name: str) -> None:
        self.down.add(name)
        self.board.ledger.mark(name, NodeState.DOWN, "not reachable")
        self._changed()
        self.board.placeable = True

    def _node_changes(self, _now: float, change: NodeChange) -> None:
        self.board.ledger.announce(change.node)
        self.board.ledger.mark(change.node.name, change.node.state, change.node.reason)
        self._changed()
        self.board.placeable = True
