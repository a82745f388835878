"""What holds for a guest beside the policy: their budget, their home's cap, their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perijove_hub.policy.limits import Limits

_NONE = Limits()
_INVITED = "guest of "
"""Begins what stands for a guest's membership among groups; names of groups have no spaces."""


@dataclass(frozen=True, slots=True)
class GuestTerms:
    """Of one guest."""

    project: str | None = None
    budget: Limits = _NONE
    """Hours in all, whatever the policy's window."""
    disk: int | None = None
    """Bytes that the home may take."""
    disk_used: int | None = None
    """When it was last measured."""
    networks: tuple[str, ...] = ()
    """Those that their jobs may have; none given: what the site allows."""
    launchers: tuple[str, ...] = ()
    """Likewise of launchers."""
    containers: bool = False
    """Their jobs run in containers only, since others have the same account."""

    @property
    def full(self) -> bool:
        """Whether the home takes more than it may."""
        return self.disk is not None and self.disk_used is not None and self.disk_used >= self.disk


TermsOf = Callable[[str], GuestTerms | None]
"""What holds for a user; None: they are no guest."""


def nobody(_name: str) -> None:
    """Where there are no guests."""
    return


def invited(project: str) -> str:
    """What stands for the membership of guests of `project` among their groups."""
    return f"{_INVITED}{project}"


def is_invitation(group: str) -> bool:
    """Whether `group` would be taken for such a membership; a provider's may not."""
    return group.startswith(_INVITED)
