"""Accounts as the history leaves them: all of it at once, as arrays, since a month has many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from perijove_hub.policy.account import MARKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perijove_hub.accounting import Allocation
    from perijove_hub.policy.account import Account

    Floats = NDArray[np.float64]


class History:
    """The columns of `allocations`. `at` is the last time in it: what is open is counted until then."""

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        count = len(allocations)
        self.begin = np.fromiter((one.begin for one in allocations), np.float64, count)
        ends = (np.nan if one.end is None else one.end for one in allocations)
        self.end = np.fromiter(ends, np.float64, count)
        self.at = max(float(self.begin.max()), float(np.nanmax(self.end, initial=-np.inf)))
        self.end = np.fmax(np.where(np.isnan(self.end), self.at, self.end), self.begin)
        self.held = np.array([[one.cpu, one.memory, one.gpus] for one in allocations], np.float64)

    def fill(self, account: Account, rows: Sequence[int], rate: float, window: float) -> None:
        """Let `account`, which is new, have held what these rows say; it is settled at :attr:`at`."""
        begin, end, held = self.begin[rows], self.end[rows], self.held[rows]
        account.at = self.at
        left = np.exp(-rate * (self.at - end)) - np.exp(-rate * (self.at - begin))
        account.faded = [float(value) for value in left @ held / rate]
        times = np.linspace(self.at - window, self.at, MARKS + 1)
        totals = _totals(begin, end, held, times)
        account.total = [float(value) for value in totals[-1]]
        for marks, values in zip(account.marks, (times, *totals.T), strict=True):
            marks.frombytes(np.ascontiguousarray(values).tobytes())


def _totals(begin: Floats, end: Floats, held: Floats, times: Floats) -> Floats:
    """Seconds times what was held, from the first on until each of `times`."""
    when = np.concatenate([begin, end])
    change = np.concatenate([held, -held])
    order = np.argsort(when, kind="stable")
    when, rates = when[order], np.cumsum(change[order], axis=0)
    steps = rates[:-1] * np.diff(when)[:, None]
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    return np.stack([np.interp(times, when, sums[:, axis]) for axis in range(3)], axis=1)
