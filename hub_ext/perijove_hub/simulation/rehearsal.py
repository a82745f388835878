"""What happened once more, under the policy of then and under another: what would change for whom."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from perijove_hub.policy.document import Policy
from perijove_hub.simulation.engine import Simulation
from perijove_hub.simulation.measure import Measure, Report, Waiting, waiting_of
from perijove_hub.simulation.recorded import Record
from perijove_hub.simulation.site import Present, Site

if TYPE_CHECKING:
    from perijove.model import Node
    from perijove_hub.jobs.pending import Pending
    from perijove_hub.simulation.trace import Arrival

Through = Callable[[Iterable["Arrival"]], Iterable["Arrival"]]


@dataclass(frozen=True, slots=True)
class Change:
    """For one user: waiting times in seconds as replayed under the policy of then, and under the other."""

    user: str
    before: Waiting
    after: Waiting

    @property
    def median(self) -> float:
        """By so many seconds the median grows."""
        return self.after.median - self.before.median

    @property
    def mean(self) -> float:
        """By so many seconds the mean grows."""
        return self.after.mean - self.before.mean


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What it showed."""

    since: float
    until: float
    jobs: int
    recorded: Waiting
    before: Report
    """As replayed under the policy of then."""
    after: Report
    agreement: float
    """Of the recorded starts, the part that the replay under the policy of then has in the same order."""
    users: list[Change]

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        found = asdict(self)
        found["users"] = [
            {**asdict(one), "median_change": one.median, "mean_change": one.mean} for one in self.users
        ]
        return found


class Starts:
    """Watches who starts, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[float, str]] = []
        self.waits: dict[str, list[float]] = defaultdict(list)
        """User -> time between submission and first start."""

    def __call__(self, _now: float, pending: Pending) -> None:
        """Note what gathered."""
        for line, job in pending.published:
            if line.event == "placed":
                self.all.append((line.at, job.label))
                if job.attempt == 1:
                    self.waits[job.owner].append(max(0.0, line.at - job.submitted))

    @property
    def order(self) -> list[str]:
        """Their labels."""
        return [label for _, label in self.all]


def site_of(record: Record, policy: Policy | None = None, nodes: Sequence[Node] = ()) -> Site:
    """The recorded site; under `policy` from the beginning and throughout, if given."""
    awaited = frozenset(
        on.job for one in (*record.arrivals, *record.of.values()) for on in one.spec.depends_on
    )
    return Site(
        nodes=nodes or record.nodes,
        policy=policy or record.policy,
        policies=() if policy else record.policies,
        changes=() if nodes else record.changes,
        moments=record.moments,
        start=record.since,
        history=record.history,
        maintenance=record.maintenance,
        present=Present(record.present, record.states, record.of, record.past, awaited),
    )


def replay(record: Record, site: Site, through: Through = iter) -> tuple[Report, Starts]:
    """The record at that site."""
    measure, starts = Measure(), Starts()
    simulation = Simulation(site, through(record.arrivals), [measure, starts])
    simulation.run()
    return measure.report(simulation), starts


def rehearse(
    record: Record, policy: Policy, nodes: Sequence[Node] = (), through: Through = iter
) -> Rehearsal:
    """Both replays, and what differs."""
    before, was = replay(record, site_of(record, None, nodes), through)
    after, would = replay(record, site_of(record, policy, nodes), through)
    users = sorted(was.waits.keys() | would.waits.keys())
    changes = [
        Change(user, waiting_of(sorted(was.waits[user])), waiting_of(sorted(would.waits[user])))
        for user in users
    ]
    return Rehearsal(
        since=record.since,
        until=record.until,
        jobs=before.submitted,
        recorded=_recorded(record),
        before=before,
        after=after,
        agreement=agreement([label for _, label in record.starts], was.order),
        users=changes,
    )


def agreement(recorded: Sequence[str], replayed: Sequence[str]) -> float:
    """The longest common subsequence of both orders, as a part of what is recorded."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(replayed):
        places[label].append(place)
    rising: list[int] = []
    for label in recorded:
        for place in reversed(places.get(label, ())):
            at = bisect_left(rising, place)
            rising[at : at + 1] = [place]
    return len(rising) / len(recorded) if recorded else 1.0


def _recorded(record: Record) -> Waiting:
    submitted = {one.id: one.at for one in (*record.arrivals, *record.of.values())}
    first: dict[str, float] = {}
    for at, label in record.starts:
        first.setdefault(label, at)
    waits = []
    for label, at in first.items():
        top = int(label.partition("_")[0])
        if top in submitted:
            waits.append(max(0.0, at - submitted[top]))
    return waiting_of(sorted(waits))
