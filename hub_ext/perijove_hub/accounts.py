"""From a user's name to the system identity their jobs run under."""

from __future__ import annotations

import grp
import os
import pwd
import time
from dataclasses import dataclass, replace
from functools import lru_cache

from perijove.model import Account, ForbiddenError, OperatorError, User, UserKind
from perijove_hub.settings import Settings
from perijove_hub.users.uids import name_of, uid_of

FIRST_UID = 1000
"""Lower ones belong to the system (Debian policy 9.2.2) and never run a user's job."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An account and where its home lies on the nodes."""

    account: Account
    home_source: str
    """Path of the home on the node; ``account.home`` is where a container finds it."""
    managed: bool = False
    """The home is Perijove's to create."""
    home_limit: int | None = None
    """Bytes that it may take, where the node can see to that."""


def resolve(name: str, settings: Settings, user: User | None = None) -> Identity:
    """The identity of `name`; `user`: what is known of them.

    What their record says, else the system account of that name, then ``settings.accounts``. So an account
    that is made later takes nothing from who was called so before. Raises :class:`ForbiddenError` when there
    is none, or the account is a system one; only in mode ``single`` may the own account be any.
    """
    if user is not None and (user.number is not None or user.account is not None):
        return _recorded(user, settings)
    if user is not None and user.kind is UserKind.GUEST:
        raise ForbiddenError(f"{name} is a guest who has not been activated yet")
    entry = _entry(name)
    if entry is None:
        return _managed(name, settings)
    own = settings.mode == "single" and entry.pw_uid == os.geteuid()
    if entry.pw_uid < FIRST_UID and not own:
        raise ForbiddenError(f"the system account {name} (uid {entry.pw_uid}) runs no jobs")
    return Identity(_account(entry), home_source=entry.pw_dir)


def _recorded(user: User, settings: Settings) -> Identity:
    home, limit = user.home or home_of(user, settings), None
    if user.kind is UserKind.GUEST:
        limit = settings.guests.disk if user.budget.disk is None else user.budget.disk
    if user.account is None:
        assert user.number is not None
        uid, called = uid_of(user.number, settings.uids), name_of(user.number, settings.uids)
        if (other := owner_of(uid)) not in {None, called}:
            text = f"uid {uid} of {user.name} belongs to the system account {other}"
            raise OperatorError(f"{text}; change that account's, or the range of `uids`")
        return Identity(Account(called, uid, uid, f"/home/{user.name}"), home, True, limit)
    entry = _entry(user.account)
    if entry is None or entry.pw_uid < FIRST_UID:
        raise OperatorError(f"the account {user.account} of {user.name} is not there, or is a system one")
    account = _account(entry)
    if user.home is None and user.kind is UserKind.MEMBER:
        return Identity(account, home_source=entry.pw_dir)
    # By their own name: several guests may have one account.
    named = replace(account, name=user.name, home=f"/home/{user.name}")
    return Identity(named, home, True, limit)


def home_of(user: User, settings: Settings) -> str:
    """Where Perijove keeps the home of somebody whose account has none of its own, on the nodes."""
    folder = settings.guests.homes if user.kind is UserKind.GUEST else settings.uids.homes
    return f"{folder or settings.state.absolute() / 'homes'}/{user.name}"


def _account(entry: pwd.struct_passwd) -> Account:
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {entry.pw_gid}))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, groups)


def _managed(name: str, settings: Settings) -> Identity:
    entry = settings.accounts.get(name)
    if entry is None:
        raise ForbiddenError(f"{name} has no account on this system; ask its administrator")
    account = Account(name, entry.uid, entry.gid, f"/home/{name}")
    return Identity(account, home_source=str(settings.state.absolute() / "homes" / name), managed=True)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None


def system_uid(name: str) -> int | None:
    """The uid of the system account `name`."""
    entry = _entry(name)
    return None if entry is None else entry.pw_uid


def owner_of(uid: int) -> str | None:
    """The system account, or else the group, that has this number."""
    return _owner(uid, int(time.monotonic() // GROUPS_KEPT))


@lru_cache(20_000)
def _owner(uid: int, _period: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return _group_name(uid)


GROUPS_KEPT = 60
"""Seconds for which a user's groups are remembered: directories on the network answer slowly."""


def groups_of(name: str) -> frozenset[str]:
    """Names of the system groups of `name`; none for users without a system account."""
    return _groups(name, int(time.monotonic() // GROUPS_KEPT))


@lru_cache(4096)
def _groups(name: str, _period: int) -> frozenset[str]:
    try:
        primary = pwd.getpwnam(name).pw_gid
        numbers = os.getgrouplist(name, primary)
    except (KeyError, ValueError, OSError):
        return frozenset()
    return frozenset(found for number in numbers if (found := _group_name(number)) is not None)


def _group_name(number: int) -> str | None:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return None
