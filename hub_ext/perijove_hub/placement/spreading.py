"""Many equal members over many nodes at once: what placing them one by one would come to."""

from __future__ import annotations

import numpy as np

from perijove_hub.placement.table import Counts


def level(score: Counts, step: int, rooms: Counts, count: int) -> Counts:
    """Each member to the node with the highest score, which it lowers by `step`; the first of equals.

    Placed one by one, a node's members find the scores ``s, s - step, s - 2 step, ...``; together they are
    the `count` highest of all these. So the score of the last is searched for by halving.
    """
    if int(rooms.sum()) <= count:
        return rooms
    rows = np.flatnonzero(rooms)
    if len(rows) > count:
        # Only nodes whose own score is among the `count` highest get any.
        low = int(np.partition(score[rows], -count)[-count])
        better, equal = rows[score[rows] > low], rows[score[rows] == low]
        rows = np.sort(np.concatenate([better, equal[: count - len(better)]]))
    else:
        low = int((score[rows] - rooms[rows] * step).min())
    score, rooms_there = score[rows], rooms[rows]
    high = int(score.max()) + 1

    def above(bound: int) -> Counts:
        """How many members of each node find at least `bound`: at `low` enough, at `high` none."""
        return np.clip((score - bound) // step + 1, 0, rooms_there)

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if int(above(middle).sum()) >= count else (low, middle)
    counts = above(high)
    ties = np.flatnonzero(above(low) - counts)
    counts[ties[: count - int(counts.sum())]] += 1
    result = np.zeros_like(rooms)
    result[rows] = counts
    return result


def fill(score: Counts, step: int, rooms: Counts, count: int) -> Counts:
    """Each node full before the next, beginning with the lowest score; `step` does not matter."""
    order = np.argsort(score, kind="stable")
    before = np.cumsum(rooms[order]) - rooms[order]
    result = np.zeros_like(rooms)
    result[order] = np.clip(count - before, 0, rooms[order])
    return result
