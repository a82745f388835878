"""How much of a line is offered in one go: between portions others get their turn."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perijove_hub.placement.entry import Entry
    from perijove_hub.policy.shares import Shares

EVENNESS = 16
"""A portion is at most one part in so many of what the array got in this pass, and at least one member."""

PATIENCE = 100
"""So many jobs of a line that do not start are offered in a row; the others come after those of all lines,
twice as many in the next round. Else thousands of jobs that wait for one thing would hide what could start,
since a pass looks at so many jobs only (slurm.conf(5), ``bf_max_job_user``)."""


def offer(entry: Entry, shares: Shares) -> Generator[Entry, None, Entry | None]:
    """Offer `entry`, an array only in part; what is left of it to offer in this pass, after others."""
    if entry.count == 1 or entry.together:
        yield entry
        return None
    job = entry.job.id
    before = shares.taken.get(job, 0)
    portion = min(entry.count, max(1, before // EVENNESS))
    yield replace(entry, count=portion)
    if shares.taken.get(job, 0) - before < portion:  # no room for one, none for the others
        return None
    return replace(entry, count=entry.count - portion) if entry.count > portion else None
