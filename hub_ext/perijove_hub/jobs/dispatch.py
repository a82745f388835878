"""Carries out what has been decided and committed: orders, stops, and the rest, bundled by node."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perijove.model import (
    Attempt,
    Job,
    Outcome,
    PerijoveError,
    ReasonCode,
    State,
    UnavailableError,
)
from perijove_hub.admission.lists import Lists
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.effects import (
    Effect,
    SendForget,
    SendOrder,
    SendPurge,
    SendResume,
    SendStop,
    SendSuspend,
    SendUpdate,
)
from perijove_hub.jobs.events import Ended, Refused, Resumed, Suspended
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.jobs.orders import order_of
from perijove_hub.secrets.orders import confided
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import LaunchError, StaleFenceError
from perijove_spawners.protocol import Order

log = logging.getLogger(__name__)

BUNDLE = 64
"""Orders that travel in one message at most."""


class Dispatch:
    """What it could not do, because a node did not answer, the reconciler finds missing later."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.freezing: dict[Attempt, asyncio.Task[Any]] = {}
        """Suspensions and resumptions that a node is at: whoever asked for one may wait for it."""
        self._lists: Lists | None = None

    def perform(self, effects: Sequence[Effect]) -> None:
        """Do all of it; returns at once."""
        orders: dict[str, list[Order]] = defaultdict(list)
        stops: dict[tuple[str, float | None], list[Attempt]] = defaultdict(list)
        forgets: dict[str, list[Attempt]] = defaultdict(list)
        for effect in effects:
            match effect:
                case SendOrder(job_id):
                    if (order := self._order(job_id)) is not None:
                        orders[self._core.board.jobs[job_id].node or ""].append(order)
                case SendStop(node, attempt, grace):
                    stops[node, grace].append(attempt)
                case SendForget(node, attempt):
                    forgets[node].append(attempt)
                case SendSuspend(node, attempt) | SendResume(node, attempt):
                    self._freeze(effect, node, attempt)
                case SendUpdate(node, attempt, limit):
                    self._core.spawn(self._tell(node, "update", attempt, limit))
                case SendPurge(node, some):
                    self._core.spawn(self._tell(node, "purge", list(some)))
        for node, bundle in orders.items():
            for i in range(0, len(bundle), BUNDLE):
                self._core.fabric.start(node, bundle[i : i + BUNDLE])
            reach("serve.order-sent")
        for (node, grace), attempts in stops.items():
            self._core.spawn(self._tell(node, "stop", attempts, grace))
        for node, attempts in forgets.items():
            reach("serve.before-forget")
            self._core.fabric.release(attempts)
            self._core.spawn(self._tell(node, "forget", attempts))

    def _order(self, job_id: int) -> Order | None:
        """The order of a job that still starts; None when it does no more, or cannot."""
        core = self._core
        job = core.board.jobs.get(job_id)
        node = core.ledger.node(job.node) if job is not None and job.node else None
        if job is None or node is None or not _starts(job):
            return None
        if why := core.held_back(job.owner, node.name):
            self._without_order(job_id, Outcome(reason=ReasonCode.LAUNCH_FAILED, message=why, transient=True))
            return None
        try:
            order = order_of(
                job,
                core.identify(job.owner),
                core.settings,
                node,
                self._listed(),
                gang=core.board.nodes_of_gang(job),
                grace=core.board.policy.grace,
                fence=core.fabric.fence,
            )
            return replace(order, **confided(job, core.secrets, core.settings.registries))
        except (PerijoveError, KeyError) as error:
            self._without_order(job_id, Outcome(reason=ReasonCode.LAUNCH_FAILED, message=str(error)))
            return None

    def _without_order(self, job_id: int, outcome: Outcome) -> None:
        """There is no order for it: it has failed, or waits a little."""
        self._core.board.apply(job_id, Ended(outcome), self._core.clock())
        self._core.wake.set()

    def _listed(self) -> Lists:
        """Images and volumes as the policy has them now."""
        core = self._core
        if self._lists is None or self._lists.policy is not core.board.policy:
            self._lists = Lists(core.settings, core.board.policy)
        return self._lists

    def _freeze(self, effect: SendSuspend | SendResume, node: str, attempt: Attempt) -> None:
        task = self._core.spawn(self._frozen(effect, node, attempt))
        self.freezing[attempt] = task
        task.add_done_callback(lambda done: self._thawed(attempt, done))

    def _thawed(self, attempt: Attempt, done: asyncio.Task[Any]) -> None:
        if self.freezing.get(attempt) is done:
            del self.freezing[attempt]

    async def _frozen(self, effect: SendSuspend | SendResume, node: str, attempt: Attempt) -> str:
        """Have it suspended or resumed; why that did not succeed."""
        verb = "suspend" if isinstance(effect, SendSuspend) else "resume"
        core, refused = self._core, ""
        try:
            await core.fabric.call(node, verb, attempt)
        except (LaunchError, UnavailableError) as error:
            refused = str(error)
        job = core.board.jobs.get(attempt.job)
        if job is None or attempt_of(job) != attempt:
            return refused
        done = Suspended() if verb == "suspend" else Resumed()
        core.board.apply(attempt.job, Refused(verb, refused) if refused else done, core.clock())
        core.wake.set()
        return refused

    async def _tell(self, node: str, method: str, *args: Any) -> None:
        try:
            await self._core.fabric.call(node, method, *args)
            reach(f"serve.{method}-sent")
        except UnavailableError:
            log.info("node %s was not told to %s %s; the reconciler will", node, method, _shown(args[0]))
        except StaleFenceError as error:
            log.critical("another service leads: %s", error)
            self._core.died()
        except LaunchError as error:
            log.warning("node %s could not %s %s: %s", node, method, _shown(args[0]), error)


def _starts(job: Job) -> bool:
    return job.state is State.STARTING and not job.kill_requested and not job.requeue_requested


def _shown(what: Any) -> str:
    return f"{len(what)} attempts" if isinstance(what, list) else str(what)
