"""What the site's policy makes of a submission, as far as a simulation knows of its user."""

from __future__ import annotations

from perijove.model import Job, State
from perijove_hub.admission.fit import fit_errors
from perijove_hub.admission.site import Site, shape_of
from perijove_hub.jobs import arrays
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.lifecycle import HELD
from perijove_hub.policy.times import time_limit_of
from perijove_hub.settings import Settings
from perijove_hub.simulation.trace import Arrival


def entrance_of(board: Board) -> Site:
    """What admission goes by, as nodes and policy are now. Nothing of the service's settings is asked for."""
    return Site(Settings.model_construct(), board.policy, board.ledger.nodes)


def enter(arrival: Arrival, board: Board, site: Site, now: float) -> Job | None:
    """The new job, not on the board yet; None: it is refused.

    As by the service: for its time limit, for its owner's quotas, or since no node could ever run it.
    """
    policy, spec = board.policy, arrival.spec
    size = arrays.size(spec)
    partition = arrival.partition or spec.partition
    if partition not in policy.partitions:
        partition = policy.default_partition
    limit, too_long = time_limit_of(spec, policy, partition)
    if too_long or board.standing.refusals(arrival.owner, [(spec, size or 1)], now):
        return None
    if not _fits(arrival, site, partition):
        return None
    if limit != spec.time_limit or partition != spec.partition:
        spec = spec.model_copy(update={"time_limit": limit, "partition": partition})
    if arrival.id is not None:
        board.raise_ids(arrival.id + size)
    # Checked already, all of it: the trace's own spec, and what the policy says.
    return Job.model_construct(
        id=arrival.id if arrival.id is not None else board.new_ids([size])[0],
        owner=arrival.owner,
        name=arrival.name or spec.title,
        state=State.HELD if spec.hold else State.PENDING,
        reason=HELD if spec.hold else None,
        launcher=arrival.launcher,
        partition=partition,
        submitted=min(arrival.at, now),
        spec=spec,
    )


def _fits(arrival: Arrival, site: Site, partition: str | None) -> bool:
    if not len(site.capacity):
        return True
    launcher = site.capacity.launchers.get(arrival.launcher)
    if launcher is None:
        return False
    reservation = arrival.spec.reservation
    if reservation is not None and reservation not in site.policy.reservations:
        return False
    return not fit_errors(shape_of(arrival.spec, launcher, partition), site)
