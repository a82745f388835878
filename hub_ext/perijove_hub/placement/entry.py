"""The words of placement: what waits, and what a pass decides about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from perijove.model import Gpu, Job

_NONE: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """A waiting job, or a group with its members that may start now."""

    job: Job
    count: int = 1
    """Array: members not yet placed that its limit lets start now. Gang: its nodes. Else 1."""

    @property
    def together(self) -> bool:
        """Whether its members start together or not at all: a gang."""
        return self.job.spec.nodes > 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Members of an entry start on a node, with these devices and units.

    An array may have several of the same pass, even several of the same node.
    """

    job: int
    """The entry's."""
    node: str
    count: int = 1
    gpus: tuple[Gpu, ...] = ()
    """As many as one member asks for, `count` times: the first member's first."""
    slots: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: _NONE)
    """Resource -> numbers of its units, likewise. Resources without numbered units are not in it."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """A running job has to make room."""

    job: int
    """The one that runs."""
    by: int
    """The entry that waits."""
