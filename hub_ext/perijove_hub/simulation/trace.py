"""What comes to a simulated site: submissions in the order of time, with what the board is not told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perijove.model import JobSpec, ReasonCode
from perijove_hub.jobs.events import Event

LAUNCHER = "simulated"
"""The launcher of jobs that name none, and of nodes that are given by their size."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one attempt does, left alone. The board sees nothing of it before it happens."""

    seconds: float
    """From its start to its end, suspended time left out."""
    reason: ReasonCode | None = None
    """Why it ends other than by success."""
    exit_code: int | None = None
    launch: float = 0.0
    """Seconds from its placement to its start."""
    placed: float | None = None
    """When it was placed as recorded; None: it is not of a record, and its time limit is kept."""
    ended: float | None = None
    """When it gave its node back, as recorded."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One submission: a job, or a group with all its members."""

    at: float
    owner: str
    spec: JobSpec
    runs: Sequence[Run]
    """Of its attempts, in order; further ones are like the last. Of a group: of each of its members."""
    members: Mapping[int, Sequence[Run]] = field(default_factory=dict)
    """Of a group: runs of single members, by index from 0."""
    name: str = ""
    id: int | None = None
    """As recorded; else the next one."""
    launcher: str = LAUNCHER
    partition: str | None = None
    wishes: Sequence[tuple[float, int, Event]] = ()
    """What people asked for later: when, of what (0: of it all; else of member 1, 2, ...), and what."""

    def run(self, index: int, attempt: int) -> Run:
        """Of member `index` (0 of a job that has none), attempt `attempt`, counted from 1."""
        runs = self.members.get(index) or self.runs
        return runs[min(attempt, len(runs)) - 1]


Trace = Iterable[Arrival]
