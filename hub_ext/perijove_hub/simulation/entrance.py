"""What the site's policy makes of a submission, as far as a simulation knows of its user."""

from __future__ import annotations

from perijove.model import Job, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.board import Board
from perijove_hub.jobs.lifecycle import HELD
from perijove_hub.policy.times import time_limit_of
from perijove_hub.simulation.trace import Arrival


def enter(arrival: Arrival, board: Board, now: float) -> Job | None:
    """The new job, not on the board yet; None: the policy refuses it (time limits, quotas at submission)."""
    policy, spec = board.policy, arrival.spec
    size = arrays.size(spec)
    partition = arrival.partition or spec.partition
    if partition not in policy.partitions:
        partition = policy.default_partition
    limit, too_long = time_limit_of(spec, policy, partition)
    if too_long or board.standing.refusals(arrival.owner, [(spec, size or 1)], now):
        return None
    if limit != spec.time_limit or partition != spec.partition:
        spec = spec.model_copy(update={"time_limit": limit, "partition": partition})
    if arrival.id is not None:
        board.raise_ids(arrival.id + size)
    return Job(
        id=arrival.id if arrival.id is not None else board.new_ids([size])[0],
        owner=arrival.owner,
        name=arrival.name or spec.title,
        state=State.HELD if spec.hold else State.PENDING,
        reason=HELD if spec.hold else None,
        launcher=arrival.launcher,
        partition=partition,
        submitted=now,
        spec=spec,
    )
