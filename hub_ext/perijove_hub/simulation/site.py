"""Where a trace is played, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perijove.model import Job, Node, State
from perijove_hub.accounting import Allocation
from perijove_hub.jobs.pending import Pending
from perijove_hub.policy.document import Policy
from perijove_hub.simulation.fleet import Failures, NodeChange
from perijove_hub.simulation.trace import Arrival

Watch = Callable[[float, Pending], None]
"""Is shown what gathered, as the database would be."""


@dataclass(frozen=True)
class Present:
    """What is there at the start."""

    jobs: Sequence[Job] = ()
    """Live ones."""
    states: Mapping[int, Mapping[int, State]] = field(default_factory=dict)
    """Of the members of groups: group -> task -> state."""
    known: Mapping[int, Arrival] = field(default_factory=dict)
    """What each job, or all of its group, does."""
    past: Mapping[int, Job] = field(default_factory=dict)
    """Ended jobs that others depend on."""
    awaited: frozenset[int] = frozenset()
    """All that others depend on, by id."""


@dataclass(frozen=True)
class Site:
    """Where the trace is played."""

    nodes: Sequence[Node]
    policy: Policy = field(default_factory=Policy)
    failures: Failures | None = None
    changes: Iterable[NodeChange] = ()
    """How the nodes changed, as recorded."""
    every: float = 0.0
    """Seconds between two passes at least. 0: a pass at each moment at which something changed."""
    moments: Sequence[float] = ()
    """When a service that was recorded made its passes, in order."""
    stopping: float = 1.0
    """Seconds that an attempt takes to end when it is told to."""
    start: float = 0.0
    history: Sequence[Allocation] = ()
    """What was held before, for the fair share."""
    maintenance: Sequence[tuple[float, str | None]] = ()
    """When nothing was to start any more, and why; None: from then on again."""
    policies: Sequence[tuple[float, Policy]] = ()
    """Those applied later, and when."""
    present: Present = field(default_factory=Present)
