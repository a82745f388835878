"""What the service does about people by itself: time that is over, jobs of who may have none, homes, mail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from perijove.model import (
    ConflictError,
    Job,
    JobEvent,
    Kind,
    NodeState,
    NotFoundError,
    PerijoveError,
    State,
    UnavailableError,
    User,
    UserState,
)
from perijove_hub.accounts import resolve
from perijove_hub.jobs.controller import Controller
from perijove_hub.jobs.events import Hold, Kill, Overspent
from perijove_hub.policy.account import Amounts
from perijove_hub.store.database import Page
from perijove_hub.users.mail import tell
from perijove_hub.users.person import Moving, Person
from perijove_hub.users.users import Users
from perijove_hub.users.warnings import used_up
from perijove_hub.workflows.runs import Runs
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import LaunchError

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two looks."""
MEASURED = 300.0
"""Seconds between two measurements of all homes; after a job its owner's is measured at the next look."""
BY = "the service"


class Watch:
    """Looks at people again and again, so that what a crash left undone is done at last.

    `note` writes to the audit log, `sign_out` ends sessions and tokens from before a moment.
    """

    def __init__(
        self,
        users: Users,
        controller: Controller,
        runs: Runs,
        note: Callable[[str, str, str], Awaitable[None]],
        sign_out: Callable[[str, float], Coroutine[Any, Any, None]],
    ) -> None:
        self._users, self._controller, self._runs = users, controller, runs
        self._note, self._sign_out = note, sign_out
        self._unmeasured: set[str] = set()
        self._next_round = 0.0
        users.waits = self._waits
        users.nodes = lambda: tuple(node.name for node in controller.ledger.nodes)
        controller.core.held_back = users.held_back
        controller.writer.listeners.append(self._heard)

    async def open(self) -> None:
        """Recall what guests have used in all, and begin to look."""
        await self._recall()
        self._controller.core.spawn(self.run())

    async def _recall(self) -> None:
        now, standing = self._controller.clock(), self._controller.board.standing
        usage = self._controller.database.usage
        for name in [name for name, person in self._users.people.items() if person.guest]:
            spent = await asyncio.to_thread(usage, ["owner"], 0.0, now, owner=name)
            for found in spent.values():
                used = Amounts(found.cpu_seconds, found.memory_byte_seconds, found.gpu_seconds)
                standing.remember(name, used, now)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            try:
                await self.round()
            except UnavailableError as error:
                log.warning("people are looked at again later: %s", error)
            except Exception:
                log.exception("people were not looked at; trying again later")
            await asyncio.sleep(EVERY)

    async def round(self) -> None:
        """One look."""
        now = self._controller.clock()
        for name, person in list(self._users.people.items()):
            if person.user.state is UserState.ACTIVE and person.state_at(now) is UserState.EXPIRED:
                await self._expire(name)
        await self.end_jobs()
        await self.end_overspent()
        for name in [name for name, person in self._users.people.items() if person.moving is not None]:
            await self.move(name)
        steady = self._controller.core.steady()
        if steady >= self._next_round:
            self._next_round = steady + MEASURED
            self._unmeasured |= {name for name, one in self._users.people.items() if one.guest}
        await self.measure()

    async def _expire(self, name: str) -> None:
        await self._note(BY, "expire", f"user {name}")
        user = await self._users.expire(name)
        self._controller.core.spawn(self._sign_out(name, user.valid_from))

    # ---- jobs of who may have none

    async def end_jobs(self) -> None:
        """End, or hold, the jobs of everybody who may have none."""
        board, now = self._controller.board, self._controller.clock()
        out = {
            name: person
            for name, person in self._users.people.items()
            if person.state_at(now) is not UserState.ACTIVE and self._has_jobs(name)
        }
        if not out:
            return
        for job in [job for job in board.jobs.values() if job.owner in out]:
            wish = _wish(job, out[job.owner])
            if wish is not None:
                try:
                    board.apply(job.id, wish, now)
                except ConflictError:
                    log.debug("job %s cannot be held now", job.label)
        for run in [live.run for live in self._runs.live.values() if live.run.owner in out]:
            await self._end_run(run.id, drain=out[run.owner].drain, held=run.state is State.HELD)
        self._controller.core.wake.set()
        await self._controller.committed()

    async def end_overspent(self) -> None:
        """End what runs of guests whose budget is used up; what waits, waits on."""
        guests, board, now = self._users.settings.guests, self._controller.board, self._controller.clock()
        if guests.on_budget != "stop":
            return
        spent = {name: found for name in self._users.people if (found := self._overspent(name, now))}
        if not spent:
            return
        over = [
            (job, text) for job in board.jobs.values() for text in _charged(job, spent.get(job.owner, {}))
        ]
        for job, text in over:
            message = f"the {text} of {job.owner} is used up"
            board.apply(job.id, Overspent(message, guests.budget_notice), now)
        if over:
            await self._controller.committed()

    def look_again(self) -> None:
        """Have the queue looked at now: somebody may use more than before."""
        self._controller.board.placeable = True
        self._controller.core.wake.set()

    def _overspent(self, name: str, now: float) -> dict[str, str]:
        account, terms = (
            self._controller.board.standing.account("user", name, None),
            self._users.terms_of(name),
        )
        return used_up(terms, account.ever(now)) if terms is not None and account.running else {}

    def _has_jobs(self, name: str) -> bool:
        account = self._controller.board.standing.account("user", name, None)
        return bool(account.pending or account.running) or any(
            live.run.owner == name for live in self._runs.live.values()
        )

    async def _end_run(self, number: int, *, drain: bool, held: bool) -> None:
        try:
            if not drain:
                await self._runs.kill(number)
            elif not held:
                await self._runs.hold(number, BY)
        except (ConflictError, NotFoundError):
            log.debug("run %d has ended", number)

    # ---- homes

    def _heard(self, published: Sequence[tuple[JobEvent, Job]]) -> None:
        for _, job in published:
            if job.state.ended and (person := self._users.people.get(job.owner)) and person.guest:
                self._unmeasured.add(job.owner)

    async def measure(self) -> None:
        """Ask the nodes what the homes of these guests take."""
        some, self._unmeasured = self._unmeasured, set()
        for name in sorted(some):
            used = await self.home_of(name)
            user = self._users.get(name)
            if used is not None and user is not None and user.disk_used != used:
                await self._users.note_disk(name, used)

    async def move(self, name: str) -> bool:
        """Have the nodes give or remove a home, once its owner's jobs have ended. Whether all of them did.

        Each that has done it is noted, so a node that is away does it when it is back, and none does twice
        what a death left half done but what it has not noted: for nodes that changes nothing.
        """
        moving = self._users.must_get(name).moving
        if moving is None:
            return True
        ledger = self._controller.ledger
        # Jobs where it is done have the new account already.
        if any(
            job.owner == name
            for node in ledger.nodes
            if node.name not in moving.done
            for job in ledger.jobs_on(node.name)
        ):
            return False
        for node in self.nodes():
            if node not in moving.done and await self._move_on(name, node, moving):
                reach("serve.home-moved")
                await self._users.moved_on(name, node)
                moving = moving.done_by(node)
        known = {node.name for node in ledger.nodes} | set(moving.nodes)
        if not moving.done or known - set(moving.done):
            return False
        await self._users.moved(name)
        return True

    async def _move_on(self, name: str, node: str, moving: Moving) -> bool:
        call = self._controller.fabric.call
        try:
            if moving.remove:
                await call(node, "remove_home", moving.path)
            elif await call(node, "measure_home", moving.path) is not None:
                await call(node, "hand_over", moving.path, moving.old_uid, moving.uid, moving.gid)
        except (PerijoveError, LaunchError) as error:
            log.warning("node %s and the home of %s: %s; trying again", node, name, error)
            return False
        return True

    async def home_of(self, name: str) -> int | None:
        """Bytes of a home: the most that any node has. None where there is none."""
        path = self._path(name)
        if path is None:
            return None
        sizes = [await self._call(node, "measure_home", path) for node in self.nodes()]
        found = [size for size in sizes if size is not None]
        return max(found, default=None)

    async def left_of(self, name: str) -> list[int]:
        """The ended jobs of somebody who had an account of the pool whose directories are not removed.

        :class:`ConflictError` while a home of theirs may be that account's, :class:`UnavailableError` when a
        node does not say.
        """
        user, controller = self._users.must_get(name).user, self._controller
        if user.state is UserState.REMOVED and controller.board.standing.account("user", name, None).running:
            raise ConflictError(f"{name} has jobs that are being ended; try again later")
        if user.state is UserState.REMOVED and user.home is not None:
            for node in controller.ledger.nodes:
                try:
                    left = await controller.fabric.call(node.name, "measure_home", user.home)
                except (PerijoveError, LaunchError) as error:
                    text = f"node {node.name} may have files of {name} and does not say: {error}"
                    raise UnavailableError(text) from error
                if left is not None:
                    raise ConflictError(f"the home {user.home} of {name} is there yet; remove it first")
        await controller.committed()
        return await asyncio.to_thread(self._with_directories, name)

    def _with_directories(self, name: str) -> list[int]:
        ended, found, before = tuple(state for state in State if state.ended), [], None
        while True:
            page = Page(ended, name, limit=1000, before=before, members=True, run="any")
            some = self._controller.database.jobs(page)
            found += [job.id for job in some if not job.archived and job.attempt > 0]
            if len(some) < 1000:
                return found
            before = some[-1].id

    def _path(self, name: str) -> str | None:
        user = self._users.get(name)
        if user is not None and user.home is not None:
            return user.home
        try:
            return resolve(name, self._users.settings, user).home_source
        except PerijoveError:
            return None

    def nodes(self) -> list[str]:
        """Those that are up."""
        return [node.name for node in self._controller.ledger.nodes if node.state is not NodeState.DOWN]

    async def _call(self, node: str, method: str, path: str) -> int | None:
        try:
            found: int | None = await self._controller.fabric.call(node, method, path)
        except (PerijoveError, LaunchError) as error:
            log.info("node %s did not say what %s takes: %s", node, path, error)
            return None
        return found

    # ---- mail

    def _waits(self, user: User) -> None:
        mail = self._users.settings.mail
        if mail is None:
            return
        policy = self._controller.policy
        leads = policy.projects[user.project].leads if user.project in policy.projects else []
        known = [self._users.get(lead) for lead in leads]
        addresses = [*mail.to, *(lead.email for lead in known if lead is not None and lead.email)]
        if addresses:
            self._controller.core.spawn(tell(mail, addresses, user, self._users.lack_of_accounts()))


def _wish(job: Job, person: Person) -> Kill | Hold | None:
    """What is to become of a job of somebody who may have none."""
    if not person.drain or job.spec.kind is Kind.SERVER:
        return Kill(BY)
    return Hold(BY) if job.state is State.PENDING else None


def _charged(job: Job, spent: Mapping[str, str]) -> Iterator[str]:
    """The budget that a job on a node uses and that is used up, with its figures."""
    if job.node is None or job.kill_requested or job.requeue_requested:
        return
    if "CPU" in spent:
        yield f"CPU budget ({spent['CPU']})"
    elif "GPU" in spent and job.spec.gpus.count:
        yield f"GPU budget ({spent['GPU']})"
