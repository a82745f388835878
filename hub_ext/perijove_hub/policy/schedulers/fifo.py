"""``fifo``: by the jobs' priority, then in the order of submission, whosever they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.schedulers import Line
    from perijove_hub.policy.shares import Shares


class Fifo:
    """First come, first served among jobs of the same priority."""

    def __init__(self, policy: Policy) -> None:
        """No part of the policy matters."""

    def order(self, lines: Sequence[Line], shares: Shares, now: float) -> Iterator[Entry]:
        """See :class:`~perijove_hub.policy.schedulers.Scheduler`."""
        heads = []
        for line in lines:
            rest = iter(line)
            if (first := next(rest, None)) is not None:
                heads.append((-first.job.spec.priority, first.job.id, first, rest))
        heapify(heads)
        while heads:
            _, _, entry, rest = heads[0]
            yield entry
            if (following := next(rest, None)) is None:
                heappop(heads)
            else:
                heapreplace(heads, (-following.job.spec.priority, following.job.id, following, rest))
