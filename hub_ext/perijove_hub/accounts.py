"""From a user's name to the system identity their jobs run under."""

from __future__ import annotations

import grp
import os
import pwd
import time
from dataclasses import dataclass
from functools import lru_cache

from perijove.model import Account, ForbiddenError
from perijove_hub.settings import Settings

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


def resolve(name: str, settings: Settings) -> Identity:
    """The identity of `name`.

    A system account first, then ``settings.accounts``. Raises :class:`ForbiddenError` when there is
    neither, or the account is a system one; only in mode ``single`` may the own account be any.
    """
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return _managed(name, settings)
    own = settings.mode == "single" and entry.pw_uid == os.geteuid()
    if entry.pw_uid < FIRST_UID and not own:
        raise ForbiddenError(f"the system account {name} (uid {entry.pw_uid}) runs no jobs")
    groups = tuple(sorted(set(os.getgrouplist(name, entry.pw_gid)) - {entry.pw_gid}))
    account = Account(name, entry.pw_uid, entry.pw_gid, entry.pw_dir, groups)
    return Identity(account, home_source=entry.pw_dir)


def _managed(name: str, settings: Settings) -> Identity:
    entry = settings.accounts.get(name)
    if entry is None:
        raise ForbiddenError(f"{name} has no account on this system; ask its administrator")
    account = Account(name, entry.uid, entry.gid, f"/home/{name}")
    return Identity(account, home_source=str(settings.state.absolute() / "homes" / name), managed=True)


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
