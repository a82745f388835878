"""A user as the service keeps them: what is shown, and what only decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from perijove.model import User, UserKind, UserState


@dataclass(frozen=True, slots=True)
class Moving:
    """What is to become of a home on the nodes: another account's, or removed."""

    path: str
    old_uid: int
    uid: int = 0
    gid: int = 0
    remove: bool = False
    nodes: tuple[str, ...] = ()
    """Those that were known when it was decided, whether they were there or not."""
    done: tuple[str, ...] = ()
    """Those that have done it."""

    def done_by(self, node: str) -> Moving:
        """`node` has done it too."""
        return replace(self, done=(*self.done, node))


@dataclass(frozen=True, slots=True)
class Person:
    """A user with what is not shown of them."""

    user: User
    groups: frozenset[str] = frozenset()
    """Those that a provider told of at the last login."""
    drain: bool = False
    """Of somebody disabled: jobs that run go on to their end."""
    holds: str | None = None
    """An account of the pool that they had, and that is nobody else's until it is released."""
    moving: Moving | None = None
    """What the nodes have not done yet."""

    @property
    def guest(self) -> bool:
        """Whether they are one."""
        return self.user.kind is UserKind.GUEST

    def changed(self, **changes: Any) -> Person:
        """With other values of the user's fields."""
        return replace(self, user=self.user.model_copy(update=changes))

    def state_at(self, now: float) -> UserState:
        """Their state; somebody whose time is over has expired before anybody has noted it."""
        user = self.user
        over = user.expires is not None and user.expires <= now
        return UserState.EXPIRED if over and user.state is UserState.ACTIVE else user.state


class Standing(BaseModel):
    """Whether somebody may come in: what the login is told."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    state: str
    """``active``, ``waiting``, ``disabled``, ``expired`` or ``refused``."""
    message: str = ""
    """For them to read."""
    admin: bool | None = None
    """None: as the hub has it."""
    groups: list[str] = []
    valid_from: float = 0.0


MESSAGES = {
    UserState.ACTIVE: "",
    UserState.WAITING: "Your account waits for its activation; an administrator has been told.",
    UserState.DISABLED: "Your account is disabled; ask an administrator.",
    UserState.EXPIRED: "The time of your account is over; ask who invited you, or an administrator.",
    UserState.REMOVED: "Your account was removed; ask an administrator.",
}
"""What people read who want to come in."""


def standing_of(person: Person, now: float, admin: bool | None, groups: frozenset[str]) -> Standing:
    """Whether `person` may come in now."""
    state, user = person.state_at(now), person.user
    gone = state is UserState.REMOVED
    return Standing(
        name=None if gone else user.name,
        state="refused" if gone else state.value,
        message=MESSAGES[state],
        admin=admin if state is UserState.ACTIVE else False,
        groups=sorted(groups) if state is UserState.ACTIVE else [],
        valid_from=user.valid_from,
    )
