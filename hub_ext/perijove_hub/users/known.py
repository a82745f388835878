"""Who is known: in memory as the service leads, written before anything is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy import Connection

from perijove.model import (
    ConflictError,
    ForbiddenError,
    Invitation,
    NotFoundError,
    UnavailableError,
    User,
    UserState,
)
from perijove_hub import accounts
from perijove_hub.accounts import FIRST_UID, Identity, resolve, system_uid
from perijove_hub.policy.document import Policy
from perijove_hub.policy.guests import GuestTerms, invited
from perijove_hub.policy.limits import Limits
from perijove_hub.settings import Settings
from perijove_hub.store import people
from perijove_hub.store.database import TRANSIENT, Database
from perijove_hub.users.names import is_reserved
from perijove_hub.users.person import MESSAGES, Person, Standing, standing_of
from perijove_hub.users.uids import free_number

log = logging.getLogger(__name__)
T = TypeVar("T")


class Known:
    """Everybody there is. `policy`: the one in force. Lives in one event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
    ) -> None:
        self.settings, self.clock = settings, clock
        self.people: dict[str, Person] = {}
        self.invitations: dict[str, Invitation] = {}
        """By the hash of their code."""
        self._database, self._policy = database, policy
        self._logins: dict[tuple[str, str], str] = {}
        self._numbers: set[int] = set()
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Take over what the database holds."""
        found = await asyncio.to_thread(self._database.read, people.load)
        invited = await asyncio.to_thread(self._database.read, people.invitations)
        self.people, self._logins, self._numbers = {}, {}, set()
        self._adopt(found)
        self.invitations = dict(invited)

    def _adopt(self, some: Iterable[Person]) -> None:
        for one in some:
            name, before = one.user.name, self.people.get(one.user.name)
            for login in before.user.identities if before else ():
                self._logins.pop((login.provider, login.subject), None)
            self.people[name] = one
            self._logins.update({(each.provider, each.subject): name for each in one.user.identities})
            if one.user.number is not None:
                self._numbers.add(one.user.number)

    async def _write(self, act: Callable[[Connection], T]) -> T:
        """Write durably. :class:`UnavailableError`: nothing was done."""
        try:
            return await asyncio.to_thread(self._database.write, act)
        except TRANSIENT as error:
            log.error("what is known of people cannot be written: %s", error)
            raise UnavailableError("the database cannot be written; nothing was done") from error

    # ---- questions

    def get(self, name: str) -> User | None:
        """Whoever is called so, whatever their state."""
        person = self.people.get(name)
        return None if person is None else person.user

    def must_get(self, name: str) -> Person:
        """The same. Raises :class:`NotFoundError`."""
        person = self.people.get(name)
        if person is None:
            raise NotFoundError(f"there is no user {name[:80]}")
        return person

    def standing(self, name: str) -> Standing:
        """Whether `name` may come in. Who is not known has logged in some other way, and is not kept out."""
        person = self.people.get(name)
        if person is not None:
            return standing_of(person, self.clock(), self._admin(person), self.groups_of(name))
        admin = True if name in self.settings.admins else None
        return Standing(name=name, state="active", admin=admin, groups=sorted(self.groups_of(name)))

    def _admin(self, person: Person) -> bool | None:
        if person.guest:
            return False
        return True if person.user.name in self.settings.admins else None

    def identity(self, name: str) -> Identity:
        """Under which account jobs of `name` run. :class:`ForbiddenError`: none of theirs may start."""
        person = self.people.get(name)
        if person is not None and (state := person.state_at(self.clock())) is not UserState.ACTIVE:
            raise ForbiddenError(f"{name} may have no jobs now. {MESSAGES[state]}")
        return resolve(name, self.settings, person.user if person else None)

    def groups_of(self, name: str) -> frozenset[str]:
        """The groups that a policy may name: of the system and of the provider. Guests have none of them."""
        person = self.people.get(name)
        if person is None:
            return accounts.groups_of(name)
        if person.guest:
            project = person.user.project
            return frozenset() if project is None else frozenset({invited(project)})
        account = person.user.account or name
        return (accounts.groups_of(account) if person.user.number is None else frozenset()) | person.groups

    def terms_of(self, name: str) -> GuestTerms | None:
        """What holds for a guest; None for members and who is not known."""
        person = self.people.get(name)
        if person is None or not person.guest:
            return None
        user, guests = person.user, self.settings.guests
        cpu, gpu = user.budget.cpu_minutes, user.budget.gpu_minutes
        hours = Limits(
            cpu_hours=None if cpu is None else cpu / 60, gpu_hours=None if gpu is None else gpu / 60
        )
        return GuestTerms(
            project=user.project,
            budget=hours,
            disk=guests.disk if user.budget.disk is None else user.budget.disk,
            disk_used=user.disk_used,
            networks=tuple(guests.network),
            launchers=tuple(guests.launchers),
            containers=guests.shared,
        )

    # ---- who may be called what, and have which number

    def has_account(self, name: str) -> bool:
        """Whether a person's system account is called so, or one that the settings keep."""
        uid = system_uid(name)
        return name in self.settings.accounts or (uid is not None and uid >= FIRST_UID)

    def _is_forbidden(self, name: str) -> bool:
        uid = system_uid(name)
        reserved = is_reserved(name, self.settings.uids) and not self.has_account(name)
        return reserved or (uid is not None and uid < FIRST_UID and name not in self.settings.accounts)

    def _is_claimed(self, name: str) -> bool:
        """Whether settings or policy name it, and so grant it something."""
        policy, guests = self._policy(), self.settings.guests
        named = [*self.settings.admins, *guests.pool, guests.account, *policy.users]
        named += [user for volume in self.settings.volumes.values() for user in volume.users]
        for project in policy.projects.values():
            named += [*project.members, *project.leads]
        named += [user for one in policy.partitions.values() for user in one.users]
        named += [user for one in policy.reservations.values() for user in one.users]
        return name in named

    def free_number(self) -> int:
        """A number that nobody ever had. :class:`ConflictError`: there is none."""
        ours = {account.uid for account in self.settings.accounts.values()}
        ours |= {account.gid for account in self.settings.accounts.values()}
        return free_number(
            self._numbers, self.settings.uids, lambda uid: uid in ours or accounts.owner_of(uid) is not None
        )

    def lack_of_accounts(self) -> str:
        """Why no other guest can have an account; empty when one can."""
        guests = self.settings.guests
        if guests.account is None and not guests.pool:
            return ""
        try:
            self.free_account()
        except ConflictError as error:
            return str(error)
        return ""

    def free_account(self) -> str:
        """The account for another guest. :class:`ConflictError`: all of the pool have one."""
        guests = self.settings.guests
        if guests.account is not None:
            return guests.account
        held = {one for person in self.people.values() for one in (person.user.account, person.holds)}
        found = next((name for name in guests.pool if name not in held), None)
        if found is None:
            text = f"all {len(guests.pool)} accounts for guests are somebody's"
            raise ConflictError(f"{text}; remove a guest and release the account, or widen the pool")
        return found
