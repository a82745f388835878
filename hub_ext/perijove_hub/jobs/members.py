"""How the members of one group stand, those that are no jobs yet included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from perijove.model import Job, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.events import (
    Change,
    Eligible,
    Ended,
    Event,
    GangFell,
    Hold,
    Kill,
    Preempt,
    Reject,
    Release,
    Reschedule,
    Resume,
    Suspend,
)

_ON_NODE = (State.STARTING, State.RUNNING, State.SUSPENDED)


@dataclass(slots=True)
class Members:
    """Of one live group."""

    size: int
    limit: int
    """So many of an array may be on nodes at once."""
    counts: Counter[State]
    known: set[int]
    """Which of them, by index, are jobs of their own, live or ended."""
    live: set[int] = field(default_factory=set)
    """Ids of those that have not ended."""
    finished: dict[int, Ended] = field(default_factory=dict)
    """Of a gang: successful ends by id, kept until the others have ended as well."""
    fell: GangFell | None = None
    """Of a gang: what its members were told when the first of them did not go on."""
    _next: int = 0

    @classmethod
    def of(cls, group: Job, seen: Mapping[int, State] | None = None) -> Members:
        """Of `group`, where `seen` are the states, by index, of those that are jobs of their own."""
        states = seen or {}
        size = arrays.size(group.spec)
        counts = Counter(states.values())
        if size > len(states):
            counts[arrays.state_of_rest(group)] += size - len(states)
        array = group.spec.array
        limit = array.limit if array is not None and array.limit else size
        return cls(size, limit, counts, set(states))

    @property
    def rest(self) -> int:
        """How many are no jobs yet."""
        return self.size - len(self.known)

    @property
    def on_nodes(self) -> int:
        """How many hold resources."""
        return sum(self.counts[state] for state in _ON_NODE)

    @property
    def room(self) -> int:
        """How many more may be on nodes at once."""
        return self.limit - self.on_nodes

    def next(self) -> int:
        """The first, by index, that is no job yet; there must be one."""
        while self._next in self.known:
            self._next += 1
        return self._next

    def tasks(self) -> dict[State, int]:
        """How many are in each state."""
        return {state: count for state, count in self.counts.items() if count}

    def moved(self, before: State, after: State, count: int = 1) -> None:
        """That many changed their state."""
        self.counts[before] -= count
        self.counts[after] += count


def meant(event: Event, state: State) -> Event | None:
    """What `event`, which happens to a group, means for a member in `state`; None: nothing.

    An array that is suspended starts no more members until it is resumed: those that wait are held.
    """
    waits, held = state is State.PENDING, state is State.HELD
    match event:
        case Kill() | Reject() | Change():
            return None if state.ended else event
        case Hold() | Eligible():
            return event if waits else None
        case Release():
            return event if held else None
        case Reschedule() | Preempt():
            return event if state.on_node else None
        case Suspend(by):
            return event if state is State.RUNNING else Hold(by) if waits else None
        case Resume(by):
            return event if state is State.SUSPENDED else Release(by) if held else None
        case _:
            return None


def refusal(event: Event, group: Job, members: Members) -> str | None:
    """Why `event` cannot happen to `group`; None when it can."""
    counts = members.counts
    match event:
        case Hold() if not counts[State.PENDING] and not counts[State.HELD]:
            return f"no member of job {group.label} waits; only pending ones can be held"
        case Release() if not counts[State.HELD] and not counts[State.PENDING]:
            return f"no member of job {group.label} is held"
        case Suspend() if not counts[State.RUNNING]:
            return f"no member of job {group.label} is running; only a running one can be told to suspend"
        case Resume() if not counts[State.SUSPENDED]:
            return f"no member of job {group.label} is suspended"
        case Reschedule() if not members.on_nodes:
            return f"no member of job {group.label} is on a node: they wait for a start already"
        case _:
            return None
