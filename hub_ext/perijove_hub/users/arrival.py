"""Somebody has logged in: who that is here, and whether they may come in. Pure; the clock is passed in.

Somebody is who the provider's subject says, never who an e-mail address or a name says: those change hands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from perijove.model import Invitation, UserState
from perijove.model.values import LINE, Line, Title
from perijove_hub.users.names import free_name, is_name, normalised
from perijove_hub.users.person import MESSAGES, Person

TAKEN = "The name {} belongs to somebody else here; an administrator can link your login."
UNVERIFIED = "This invitation is for one e-mail address, and your login does not say that yours was verified."


class Arrival(BaseModel):
    """What a provider says of somebody whom it has let in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Annotated[str, Field(min_length=1, max_length=64, pattern=LINE)]
    subject: Line
    username: Line = ""
    email: Line = ""
    email_verified: bool = False
    full_name: Title = ""
    groups: Annotated[list[Line], Field(max_length=1000)] = []
    invitation: Annotated[str | None, Field(max_length=128, pattern=LINE)] = None
    address: Line = ""
    """Of the browser."""
    refused: Annotated[str, Field(max_length=1000, pattern=LINE)] = ""
    """Why the hub itself turned this login away; then there need be no subject."""


@dataclass(frozen=True, slots=True)
class ProviderRules:
    """What becomes of newcomers by one provider."""

    people: Literal["members", "guests", "closed"] = "guests"
    """``closed``: nobody comes that is not known or invited."""
    accounts: bool = False
    """Its names are those of the site's system accounts."""
    taken: Literal["rename", "refuse"] = "rename"
    """What becomes of a newcomer whose name is another's."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody known comes back; `invitation` activates one who waited."""

    person: Person
    invitation: Invitation | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A newcomer becomes a user; a guest without an invitation waits."""

    name: str
    guest: bool
    active: bool
    invitation: Invitation | None = None


@dataclass(frozen=True, slots=True)
class Linked:
    """Another of the site's ways to a system account that has a user already."""

    person: Person


@dataclass(frozen=True, slots=True)
class Refused:
    """They stay outside."""

    reason: str


Decision = Admitted | Made | Linked | Refused


@dataclass(frozen=True, slots=True)
class Names:
    """What is known of names."""

    user: Callable[[str], Person | None]
    """Who is called so."""
    account: Callable[[str], bool]
    """Whether it is a person's system account, or one that the settings keep."""
    forbidden: Callable[[str], bool]
    """Whether nobody may have it: of the system, or reserved."""
    claimed: Callable[[str], bool]
    """Whether settings or policy grant it something."""


def decide(
    arrival: Arrival,
    known: Person | None,
    rules: ProviderRules,
    invitation: Invitation | None,
    names: Names,
    now: float,
) -> Decision:
    """What becomes of `arrival`. `known`: whose login it is; `invitation`: what its code opens."""
    if not arrival.subject:
        return Refused("The login did not say who you are.")
    refusal = "" if arrival.invitation is None else _unusable(arrival, invitation, now)
    usable = None if refusal else invitation
    if known is not None:
        if known.user.state is UserState.REMOVED:
            return Refused(MESSAGES[UserState.REMOVED])
        waits = known.user.state is UserState.WAITING
        return Admitted(known, usable if waits else None)
    if refusal:
        return Refused(refusal)
    if rules.people == "closed" and usable is None:
        return Refused("Nobody new is let in by this login without an invitation; ask an administrator.")
    if rules.accounts:
        return _by_account(arrival, rules, usable, names)
    return _newcomer(arrival, rules, usable, names)


def _by_account(
    arrival: Arrival, rules: ProviderRules, invitation: Invitation | None, names: Names
) -> Decision:
    """The name is the account's: there is no other to give."""
    name = arrival.username.lower()
    account = names.account(name)
    if names.forbidden(name) or not (account or is_name(name)):
        return Refused(f"The account {name[:40]} is not one of a person.")
    there = names.user(name)
    if there is None:
        if rules.people == "guests" and not account:
            return Made(name, True, invitation is not None, invitation)
        return Made(name, False, True)
    user = there.user
    if user.state is UserState.REMOVED:
        return Refused(MESSAGES[UserState.REMOVED])
    if account and not there.guest and user.number is None and user.account is None:
        return Linked(there)
    return Refused(TAKEN.format(name))


def _newcomer(
    arrival: Arrival, rules: ProviderRules, invitation: Invitation | None, names: Names
) -> Decision:
    def taken(name: str) -> bool:
        held = names.user(name) is not None or names.account(name)
        return held or names.forbidden(name) or names.claimed(name)

    wish = normalised(arrival.username, arrival.email, arrival.full_name)
    if rules.taken == "refuse" and taken(wish):
        return Refused(TAKEN.format(wish))
    name = free_name(wish, taken)
    if invitation is None and rules.people == "members":
        return Made(name, False, True)
    return Made(name, True, invitation is not None and invitation.email != "", invitation)


def _unusable(arrival: Arrival, invitation: Invitation | None, now: float) -> str:
    """Why the invitation opens nothing; empty when it does."""
    if invitation is None or invitation.used_by is not None or invitation.expires <= now:
        return "This invitation is not valid, was used already, or is too old; ask for another."
    if invitation.email:
        if not arrival.email_verified:
            return UNVERIFIED
        if not same_address(invitation.email, arrival.email):
            return "This invitation is for another e-mail address; log in with the one that it was sent to."
    return ""


def same_address(one: str, other: str) -> bool:
    """Whether two e-mail addresses are the same but for case, which no server minds (RFC 5321, 2.4)."""
    return bool(one) and one.strip().casefold() == other.strip().casefold()
