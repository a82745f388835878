"""What administrators and leads decide about somebody, as pure functions: person in, person out.

Each raises :class:`ConflictError` where the state does not allow it, in a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from perijove.model import (
    Budget,
    ConflictError,
    FieldError,
    InvalidSpecError,
    LinkedIdentity,
    UserKind,
    UserState,
)
from perijove_hub.users.person import Moving, Person

LIVING = (UserState.WAITING, UserState.ACTIVE, UserState.DISABLED, UserState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Place:
    """On which account somebody works, and where their home lies. All None: their own."""

    number: int | None = None
    account: str | None = None
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a guest is given; None: what the site gives."""

    expires: float | None = None
    budget: Budget | None = None
    project: str | None = None


def must_wait(person: Person) -> None:
    """Raise unless they can be activated."""
    _must_be(person, "activated", UserState.WAITING)


def activated(person: Person, place: Place, terms: Terms, by: str, now: float) -> Person:
    """They may come in from now on."""
    must_wait(person)
    user = person.user
    where: dict[str, Any] = {"number": place.number, "account": place.account, "home": place.home}
    return extended_to(person, terms, now).changed(
        **where, state=UserState.ACTIVE, activated=now, sponsor=user.sponsor or by
    )


def disabled(person: Person, now: float, *, drain: bool) -> Person:
    """They may not come in, and have no jobs; sessions and tokens are of no use any more."""
    _must_be(person, "disabled", UserState.WAITING, UserState.ACTIVE, UserState.EXPIRED)
    return replace(person.changed(state=UserState.DISABLED, valid_from=now), drain=drain)


def enabled(person: Person, now: float) -> Person:
    """They may come in again; who was never activated waits for that again."""
    _must_be(person, "enabled", UserState.DISABLED)
    if person.user.activated is None:
        return replace(person.changed(state=UserState.WAITING), drain=False)
    if person.user.expires is not None and person.user.expires <= now:
        raise ConflictError(f"the time of {person.user.name} is over; extend it first")
    return replace(person.changed(state=UserState.ACTIVE), drain=False)


def extended(person: Person, terms: Terms, now: float) -> Person:
    """They may stay longer, or use more; who had expired is back."""
    _must_be(person, "extended", *LIVING)
    found = extended_to(person, terms, now)
    back = person.user.state is UserState.EXPIRED and found.state_at(now) is not UserState.ACTIVE
    later = found.user.expires is None or found.user.expires > now
    return replace(found.changed(state=UserState.ACTIVE), drain=False) if back and later else found


def extended_to(person: Person, terms: Terms, now: float) -> Person:
    """With those of `terms` that are given."""
    changes: dict[str, Any] = {}
    if terms.expires is not None:
        if terms.expires <= now:
            text = "must be later than now; to end it now, disable them"
            raise InvalidSpecError(errors=[FieldError("expires", f"{terms.expires:.0f}", text)])
        changes["expires"] = terms.expires
    if terms.budget is not None:
        given = terms.budget.model_dump(exclude_none=True)
        changes["budget"] = person.user.budget.model_copy(update=given)
    if terms.project is not None:
        changes["project"] = terms.project
    return person.changed(**changes)


def expired(person: Person, now: float, *, drain: bool) -> Person:
    """Their time is over."""
    return replace(person.changed(state=UserState.EXPIRED, valid_from=now), drain=drain)


def promoted(person: Person, place: Place, moving: Moving | None) -> Person:
    """A guest becomes a member, under the same name; what the guest was given is over."""
    _must_be(person, "promoted", UserState.WAITING, UserState.ACTIVE, UserState.DISABLED, UserState.EXPIRED)
    if not person.guest:
        raise ConflictError(f"{person.user.name} is a member already")
    state = UserState.DISABLED if person.user.state is UserState.DISABLED else UserState.ACTIVE
    where: dict[str, Any] = {"number": place.number, "account": place.account, "home": place.home}
    given: dict[str, Any] = {"expires": None, "budget": Budget(), "project": None}
    found = person.changed(**where, **given, kind=UserKind.MEMBER, state=state)
    return replace(found, drain=False, holds=person.user.account, moving=moving)


def removed(person: Person, now: float, moving: Moving | None) -> Person:
    """They are gone. The record stays, so that neither name nor number is anybody else's."""
    _must_be(person, "removed", *LIVING)
    gone = person.changed(state=UserState.REMOVED, valid_from=now, expires=None, account=None)
    return replace(gone, drain=False, holds=person.user.account or person.holds, moving=moving)


def moved_on(person: Person, node: str) -> Person:
    """A node has done it."""
    moving = person.moving
    if moving is None or node in moving.done:
        return person
    return replace(person, moving=moving.done_by(node))


def moved_without(person: Person, node: str) -> Person:
    """That node will never do it."""
    moving = person.moving
    if moving is None or node not in moving.nodes:
        return person
    return replace(person, moving=replace(moving, nodes=tuple(one for one in moving.nodes if one != node)))


def moved(person: Person) -> Person:
    """The nodes have done it."""
    gone = person.user.state is UserState.REMOVED
    return replace(person.changed(home=None) if gone else person, moving=None)


def released(person: Person) -> Person:
    """The account that somebody had as a guest may be another's: nothing of theirs is left."""
    if person.holds is None:
        raise ConflictError(f"{person.user.name} holds no account of the pool any more")
    if person.moving is not None:
        raise ConflictError(f"the files of {person.user.name} are not handed over yet; try again later")
    return replace(person, holds=None)


def signed_out(person: Person, now: float) -> Person:
    """All of their sessions and tokens are void; they may log in anew."""
    return person.changed(valid_from=now)


def linked(person: Person, login: LinkedIdentity) -> Person:
    """Another login means them too."""
    _must_be(person, "linked", *LIVING)
    return person.changed(identities=[*person.user.identities, login])


def unlinked(person: Person, provider: str, subject: str) -> Person:
    """That login means them no more; who comes by it is somebody new."""
    kept = [one for one in person.user.identities if (one.provider, one.subject) != (provider, subject)]
    if len(kept) == len(person.user.identities):
        raise ConflictError(f"{person.user.name} has no login {subject[:80]} of {provider[:40]}")
    return person.changed(identities=kept)


def _must_be(person: Person, verb: str, *states: UserState) -> None:
    if person.user.state not in states:
        allowed = " or ".join(state.value for state in states)
        text = f"{person.user.name} is {person.user.state.value}; only who is {allowed} can be {verb}"
        raise ConflictError(text)
