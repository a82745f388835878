"""The site's users: who arrives, and what administrators and leads do to them.

All that changes somebody goes one after the other, so two logins at once make one user.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from perijove.model import (
    Account,
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    Invitation,
    LinkedIdentity,
    NotFoundError,
    User,
    UserKind,
    UserState,
)
from perijove_hub.accounts import FIRST_UID, home_of, resolve, system_uid
from perijove_hub.auth.configuration import LOCAL
from perijove_hub.policy.guests import is_invitation
from perijove_hub.store import people
from perijove_hub.users import lifecycle
from perijove_hub.users.arrival import (
    Admitted,
    Arrival,
    Decision,
    Made,
    Names,
    ProviderRules,
    Refused,
    decide,
)
from perijove_hub.users.known import Known
from perijove_hub.users.lifecycle import Place, Terms
from perijove_hub.users.person import Moving, Person, Standing

log = logging.getLogger(__name__)


def _unheard(_user: User) -> None:
    pass


class Users(Known):
    """See the module."""

    waits: Callable[[User], None] = staticmethod(_unheard)
    """Called with each newcomer who waits to be activated."""
    nodes: Callable[[], tuple[str, ...]] = staticmethod(tuple)
    """The names of all nodes that are known."""

    # ---- arrivals

    def rules(self, provider: str) -> ProviderRules:
        """What becomes of newcomers by `provider`."""
        if provider == LOCAL:
            return ProviderRules(people="members", accounts=True)
        section = self.settings.login.section(provider)
        if section is None:
            return ProviderRules()
        return ProviderRules(people=section.users, accounts=section.accounts, taken=section.taken)

    async def arrive(self, arrival: Arrival) -> Standing:
        """Somebody has logged in: who they are here, and whether they may come in."""
        async with self._changing:
            now, code = self.clock(), hashed(arrival.invitation or "")
            name = self._logins.get((arrival.provider, arrival.subject))
            decision = decide(
                arrival,
                None if name is None else self.people[name],
                self.rules(arrival.provider),
                self.invitations.get(code),
                Names(self.people.get, self.has_account, self._is_forbidden, self._is_claimed),
                now,
            )
            if isinstance(decision, Refused):
                return Standing(name=None, state="refused", message=decision.reason)
            used = decision.invitation if isinstance(decision, Admitted | Made) else None
            person = self._arrived(arrival, decision, used, now)
            await self._write(partial(_write_arrival, person=person, used=used))
            self._adopt([person])
            if used is not None:
                self.invitations[code] = used.model_copy(update={"used_by": person.user.name})
        if isinstance(decision, Made) and person.user.state is UserState.WAITING:
            self.waits(person.user)
        return self.standing(person.user.name)

    def _arrived(
        self, arrival: Arrival, decision: Admitted | Made | Any, used: Invitation | None, now: float
    ) -> Person:
        person = _newcomer(decision, now) if isinstance(decision, Made) else decision.person
        told = {"email": arrival.email, "full_name": arrival.full_name}
        login = LinkedIdentity(provider=arrival.provider, subject=arrival.subject, email=arrival.email)
        others = [one for one in person.user.identities if _key(one) != _key(login)]
        # A guest's provider is anybody's: what it says of groups grants nothing.
        told_groups = () if person.guest else arrival.groups
        groups = frozenset(group for group in told_groups if not is_invitation(group))
        person = replace(person, groups=groups).changed(
            **{name: value for name, value in told.items() if value},
            last_login=now,
            identities=[*others, login],
        )
        if used is not None:
            given = {"project": used.project, "budget": used.budget, "sponsor": used.by}
            person = person.changed(**given, expires=used.guest_until)
        if _enters(decision):
            try:
                return self._activated(person, Terms(), used.by if used else "", now)
            except ConflictError as error:
                log.warning("%s cannot be let in and waits: %s", person.user.name, error)
        return person

    def _activated(self, person: Person, terms: Terms, by: str, now: float) -> Person:
        """`person` with an account and a home; :class:`ConflictError` when there is none left."""
        lifecycle.must_wait(person)
        guests, user = self.settings.guests, person.user
        if not person.guest:
            place = Place() if self.has_account(user.name) else self._numbered(user)
            return lifecycle.activated(person, place, terms, by, now).changed(sponsor=by or None)
        if terms.expires is None and user.expires is None and guests.expires is not None:
            terms = Terms(now + guests.expires, terms.budget, terms.project)
        if guests.account is not None or guests.pool:
            place = Place(account=self.free_account(), home=home_of(user, self.settings))
        else:
            place = self._numbered(user)
        return lifecycle.activated(person, place, terms, by, now)

    def _numbered(self, user: User) -> Place:
        number = user.number if user.number is not None else self.free_number()
        return Place(number=number, home=home_of(user, self.settings))

    # ---- what administrators and leads do

    async def change(self, name: str, decision: Callable[[Person], Person]) -> User:
        """Let `decision` hold for `name`; what it raises changes nothing."""
        async with self._changing:
            person = decision(self.must_get(name))
            await self._write(partial(people.save, people=[person]))
            self._adopt([person])
        return person.user

    async def activate(self, name: str, terms: Terms, by: str) -> User:
        """Let somebody in who waits."""
        return await self.change(name, lambda person: self._activated(person, terms, by, self.clock()))

    async def disable(self, name: str, *, drain: bool | None = None) -> User:
        """Keep somebody out. `drain`: as :class:`GuestSettings` has it; None: what is set there."""

        def decision(person: Person) -> Person:
            usual = person.guest and self.settings.guests.on_disable == "drain"
            return lifecycle.disabled(person, self.clock(), drain=usual if drain is None else drain)

        return await self.change(name, decision)

    async def enable(self, name: str) -> User:
        """Let somebody in again."""
        return await self.change(name, lambda person: lifecycle.enabled(person, self.clock()))

    async def extend(self, name: str, terms: Terms) -> User:
        """Give a guest more time, or another budget."""
        return await self.change(name, lambda person: lifecycle.extended(person, terms, self.clock()))

    async def expire(self, name: str) -> User:
        """Note that somebody's time is over."""
        drain = self.settings.guests.on_disable == "drain"
        return await self.change(name, lambda person: lifecycle.expired(person, self.clock(), drain=drain))

    async def promote(self, name: str, account: str | None) -> User:
        """Make a guest a member: on a system account, or on a number of their own. Files follow.

        Durable before any node does anything; what they have done is noted one by one (:meth:`moved_on`).
        """

        def decision(person: Person) -> Person:
            user, before = person.user, self._account_of(person)
            if account is not None:
                self._must_be_free(account)
                place = Place(account=account, home=user.home)
            else:
                number = user.number if user.number is not None else self.free_number()
                place = Place(number=number, home=user.home or home_of(user, self.settings))
            after = lifecycle.promoted(person, place, None)
            if before is None or (now := self._account_of(after)) is None or before.uid == now.uid:
                return after
            assert user.home is not None
            moving = Moving(user.home, before.uid, now.uid, now.gid, nodes=self.nodes())
            return lifecycle.promoted(person, place, moving)

        return await self.change(name, decision)

    def _must_be_free(self, account: str) -> None:
        """Raise :class:`InvalidSpecError` unless somebody may work on that system account."""
        uid, guests = system_uid(account), self.settings.guests
        text = ""
        if uid is None or uid < FIRST_UID:
            text = "must be the system account of a person"
        elif account in {guests.account, *guests.pool}:
            text = "is one of the guests' accounts"
        else:
            users = (person.user for person in self.people.values())
            if other := next((one.name for one in users if account in {one.account, one.name}), None):
                text = f"is the account of {other}"
        if text:
            raise InvalidSpecError(errors=[FieldError("account", account[:80], text)])

    def _account_of(self, person: Person) -> Account | None:
        try:
            return resolve(person.user.name, self.settings, person.user).account
        except ForbiddenError:
            return None

    async def remove(self, name: str, files: str) -> User:
        """Let somebody be gone for good. `files`: ``kept``, ``deleted``, or whose they are from now on.

        Only a home that Perijove keeps is given or deleted; a system account's is its own.
        """

        def decision(person: Person) -> Person:
            moving, account = None, self._account_of(person)
            if files != "kept":
                if person.user.home is None or account is None:
                    raise ConflictError(f"{name} has no home that is kept here; say files: kept")
                moving = Moving(person.user.home, account.uid, remove=files == "deleted", nodes=self.nodes())
            if moving is not None and files != "deleted":
                heir = self.identity(files).account
                moving = replace(moving, uid=heir.uid, gid=heir.gid)
            return lifecycle.removed(person, self.clock(), moving)

        return await self.change(name, decision)

    async def moved_on(self, name: str, node: str) -> User:
        """Note that a node has done with the home what was to be done."""
        return await self.change(name, lambda person: lifecycle.moved_on(person, node))

    async def node_gone(self, node: str) -> None:
        """No home is waited for on a node that was removed."""
        for name in [name for name, person in self.people.items() if person.moving is not None]:
            await self.change(name, lambda person: lifecycle.moved_without(person, node))

    async def moved(self, name: str) -> User:
        """Note that all nodes have."""
        return await self.change(name, lifecycle.moved)

    def held_back(self, name: str, node: str) -> str:
        """Why no job of `name` can start on a node now, which is over by itself; empty when it can."""
        person = self.people.get(name)
        moving = person.moving if person is not None else None
        if moving is None or moving.remove or node in moving.done:
            return ""
        return f"the files of {name} on {node} change their owner"

    async def release(self, name: str) -> User:
        """Let another guest have the account of one who was removed."""
        return await self.change(name, lifecycle.released)

    async def sign_out(self, name: str) -> User:
        """End all sessions and tokens of somebody."""
        return await self.change(name, lambda person: lifecycle.signed_out(person, self.clock()))

    async def note_disk(self, name: str, used: int) -> None:
        """Note what a home takes."""
        await self.change(name, lambda person: person.changed(disk_used=used))

    async def link(self, name: str, login: LinkedIdentity) -> User:
        """Have another login mean `name`. :class:`ConflictError` when it means somebody already."""

        def decision(person: Person) -> Person:
            if (other := self._logins.get(_key(login))) is not None:
                raise ConflictError(f"that login means {other} already; unlink it there first")
            return lifecycle.linked(person, login)

        return await self.change(name, decision)

    async def unlink(self, name: str, provider: str, subject: str) -> User:
        """Have a login mean nobody."""
        return await self.change(name, lambda person: lifecycle.unlinked(person, provider, subject))

    async def add(self, person: Person, *, numbered: bool = True) -> User:
        """Make a user who has not come yet. :class:`ConflictError` when the name or a login is somebody's."""
        async with self._changing:
            name = person.user.name
            if name in self.people:
                raise ConflictError(f"there is a user {name} already")
            for login in person.user.identities:
                if (other := self._logins.get(_key(login))) is not None:
                    raise ConflictError(f"the login {login.subject[:80]} means {other} already")
            if numbered and not person.guest and person.user.number is None and not self.has_account(name):
                place = self._numbered(person.user)
                person = person.changed(number=place.number, home=place.home)
            if person.user.number in self._numbers and person.user.number is not None:
                raise ConflictError(f"number {person.user.number} is or was somebody else's")
            await self._write(partial(people.save, people=[person]))
            self._adopt([person])
        return person.user

    # ---- invitations

    async def invite(self, invitation: Invitation) -> Invitation:
        """Keep an invitation; the answer has the code that the link needs, which nobody is told again."""
        code = secrets.token_urlsafe(24)
        async with self._changing:
            made = await self._write(partial(people.add_invitation, hashed=hashed(code), one=invitation))
            self.invitations[hashed(code)] = made
        return made.model_copy(update={"code": code})

    def invitation(self, number: int) -> Invitation:
        """The one of that number. Raises :class:`NotFoundError`."""
        found = next((one for one in self.invitations.values() if one.id == number), None)
        if found is None:
            raise NotFoundError(f"there is no invitation {number}")
        return found

    async def withdraw(self, number: int) -> None:
        """Let an invitation open nothing any more."""
        async with self._changing:
            self.invitation(number)
            now = self.clock()
            await self._write(partial(people.end_invitation, number=number, at=now))
            for code, one in self.invitations.items():
                if one.id == number:
                    self.invitations[code] = one.model_copy(update={"expires": now})


def _newcomer(made: Made, now: float) -> Person:
    kind = UserKind.GUEST if made.guest else UserKind.MEMBER
    return Person(User(name=made.name, kind=kind, state=UserState.WAITING, created=now))


def _enters(decision: Decision) -> bool:
    """Whether the arrival itself activates somebody."""
    if isinstance(decision, Made):
        return decision.active
    used = decision.invitation if isinstance(decision, Admitted) else None
    return used is not None and used.email != ""


def _write_arrival(connection: Connection, person: Person, used: Invitation | None) -> None:
    people.save(connection, [person])
    if used is not None:
        people.use_invitation(connection, used.id, person.user.name)


def _key(login: LinkedIdentity) -> tuple[str, str]:
    return login.provider, login.subject


def hashed(code: str) -> str:
    """What is kept of a code: it has 192 random bits, which need no salt."""
    return sha256(code.encode()).hexdigest()
