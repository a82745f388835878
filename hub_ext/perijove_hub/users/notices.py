"""What one user alone is told, where announcements are: who waits for them, what is nearly used up."""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from perijove.model import Announcement, UserState
from perijove_hub.policy.standing import Standing
from perijove_hub.users.users import Users
from perijove_hub.users.warnings import warnings

BY = "perijove"


def notices(
    users: Users, standing: Standing, name: str, now: float, *, admin: bool, leads: Collection[str]
) -> list[Announcement]:
    """Those for `name`, who leads these projects. Their numbers are below 0 and follow from what they say."""
    told = [*waiting(users, admin=admin, leads=leads), *own_warnings(users, standing, name, now)]
    return [
        Announcement(id=-1 - crc32(text.encode()), text=text, level="warning", by=BY, begins=now)
        for text in told
    ]


def waiting(users: Users, *, admin: bool, leads: Collection[str]) -> list[str]:
    """Whom an administrator, or a lead, could let in, and why that is not possible."""
    some = sorted(
        user.name
        for person in users.people.values()
        if (user := person.user).state is UserState.WAITING and (admin or user.project in leads)
    )
    if not some:
        return []
    who = some[0] if len(some) == 1 else f"{some[0]} and {len(some) - 1} more"
    verb = "waits" if len(some) == 1 else "wait"
    found = [f"{who} {verb} for activation: perijove user ls --waiting"]
    if admin and (lack := users.lack_of_accounts()):
        found.append(lack)
    return found


def own_warnings(users: Users, standing: Standing, name: str, now: float) -> list[str]:
    """Of a guest: what is nearly used up, or over."""
    user, terms = users.get(name), users.terms_of(name)
    if user is None or terms is None:
        return []
    return warnings(terms, standing.account("user", name, None).ever(now), user.expires, now)
