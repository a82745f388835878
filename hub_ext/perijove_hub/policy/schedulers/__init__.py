"""Who is next: the contract of schedulers, and those that come with Perijove.

A scheduler is a class registered in the entry-point group ``perijove.schedulers``. It is given the lines, one
for each user within each project, and merges them into one order. It decides neither whether a job fits nor
whether a quota lets it start; that is the placement's and the gate's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.shares import Shares


class Line(Protocol):
    """What one user waits for within one project."""

    @property
    def owner(self) -> str:
        """The user."""
        ...

    @property
    def project(self) -> str | None:
        """None: in no project."""
        ...

    def __iter__(self) -> Iterator[Entry]:
        """From the first, by the jobs' priority and then their ids; made as they are asked for."""
        ...


class Scheduler(Protocol):
    """One way to order the queue. Made anew for each policy; keeps nothing from pass to pass."""

    def __init__(self, policy: Policy) -> None: ...

    def order(self, lines: Sequence[Line], shares: Shares, now: float) -> Iterator[Entry]:
        """All entries, the one to start first first; lazily.

        What the consumer placed so far stands in `shares` when the next entry is asked for. An array may come
        several times, each time with some of its members; it does not come back in a pass in which not all
        that were offered were taken.
        """
        ...
