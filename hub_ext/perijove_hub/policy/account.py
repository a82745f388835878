"""What one account (a user, a project, a member within it, the site) waits for, holds and has used.

All in constant time per change. Two memories of use: one that fades, for the fair share, in closed form; and
the sum over the policy's window, for budgets, as the difference of a running total now and then.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from math import exp, expm1, log
from typing import NamedTuple

from perijove_hub.accounting import Held

MARKS = 1000
"""How finely the beginning of the window is known: to one part in so many of its length."""


class Amounts(NamedTuple):
    """Core-seconds, byte-seconds, device-seconds."""

    cpu: float
    memory: float
    gpu: float


class Account:
    """Counts and sums. Times never go back: an earlier one is taken as the last one seen."""

    __slots__ = (
        "at",
        "before",
        "cpu",
        "disk",
        "faded",
        "gpus",
        "marks",
        "memory",
        "pending",
        "running",
        "total",
    )

    def __init__(self) -> None:
        self.pending = 0
        self.running = 0
        self.cpu = 0.0
        self.memory = 0
        self.gpus = 0
        self.disk = 0
        """Bytes of job directories."""
        self.at: float | None = None
        self.total = [0.0, 0.0, 0.0]
        """Seconds times cores, bytes, devices, since the history that was read begins."""
        self.before = [0.0, 0.0, 0.0]
        """The same before that, of whom it matters."""
        self.faded = [0.0, 0.0, 0.0]
        """The same, each second weighing the less the longer ago it was."""
        self.marks = (array("d"), array("d"), array("d"), array("d"))
        """When, and what the totals were then."""

    def settle(self, now: float, rate: float, window: float) -> None:
        """Count what has been held until `now`. `rate`: by how much a second's weight falls each second."""
        at = self.at
        if at is None:
            self.at = now
            self._mark(now, window)
            return
        span = now - at
        if span <= 0:
            return
        self.at = now
        total, faded = self.total, self.faded
        keep = exp(-rate * span)
        if self.running:
            gain = -expm1(-rate * span) / rate
            total[0] += self.cpu * span
            total[1] += self.memory * span
            total[2] += self.gpus * span
            faded[0] = faded[0] * keep + self.cpu * gain
            faded[1] = faded[1] * keep + self.memory * gain
            faded[2] = faded[2] * keep + self.gpus * gain
        else:
            faded[0] *= keep
            faded[1] *= keep
            faded[2] *= keep
        if now - self.marks[0][-1] >= window / MARKS:
            self._mark(now, window)

    def change(self, held: Held, sign: int) -> None:
        """Begin (`sign` 1) or cease (-1) to hold; after :meth:`settle`."""
        self.running += sign
        if not self.running:  # leaves nothing of rounding
            self.cpu, self.memory, self.gpus = 0.0, 0, 0
            return
        self.cpu += sign * held.cpu
        self.memory += sign * held.memory
        self.gpus += sign * held.gpus

    def faded_by(self, now: float, rate: float) -> Amounts:
        """The fading sums at `now`, which is not before the last change."""
        span = max(0.0, now - self.at) if self.at is not None else 0.0
        keep, gain = exp(-rate * span), -expm1(-rate * span) / rate
        cpu, memory, gpu = self.faded
        return Amounts(
            cpu * keep + self.cpu * gain, memory * keep + self.memory * gain, gpu * keep + self.gpus * gain
        )

    def within(self, now: float, window: float) -> Amounts:
        """What was used between `now` - `window` and `now`."""
        begin = now - window
        return Amounts(*(self._upto(now, axis) - self._upto(begin, axis) for axis in range(3)))

    def ever(self, now: float) -> Amounts:
        """What was used until `now`."""
        return Amounts(*(self._upto(now, axis) + self.before[axis] for axis in range(3)))

    def remember(self, used: Amounts, now: float) -> None:
        """Have `used` be what was used until `now`."""
        self.before = [used[axis] - self._upto(now, axis) for axis in range(3)]

    def free_again(self, axis: int, amount: float, now: float, window: float) -> float:
        """When at the earliest the sum of `axis` over the window is no more than `amount`.

        That is, when nothing is used from `now` on.
        """
        goal = self._upto(now, axis) - amount
        times, totals = self.marks[0], self.marks[axis + 1]
        if goal <= self._upto(now - window, axis) or not times:
            return now
        following = bisect_right(totals, goal)
        if following == 0:
            return times[0] + window
        before, least = times[following - 1], totals[following - 1]
        if following < len(times):
            after, most = times[following], totals[following]
        else:
            after, most = now, self._upto(now, axis)
        return before + (after - before) * ((goal - least) / (most - least) if most > least else 0.0) + window

    def _upto(self, when: float, axis: int) -> float:
        times, totals = self.marks[0], self.marks[axis + 1]
        if self.at is None or not times or when <= times[0]:
            return totals[0] if totals else 0.0
        if when >= self.at:
            return self.total[axis] + (self.cpu, self.memory, self.gpus)[axis] * (when - self.at)
        following = bisect_right(times, when)
        before, least = times[following - 1], totals[following - 1]
        if following < len(times):
            after, most = times[following], totals[following]
        else:
            after, most = self.at, self.total[axis]
        return least + (most - least) * (when - before) / (after - before) if after > before else least

    def _mark(self, now: float, window: float) -> None:
        for values, value in zip(self.marks, (now, *self.total), strict=True):
            values.append(value)
        times = self.marks[0]
        if len(times) > 2 * MARKS:  # one mark older than the window stays, to measure from
            old = max(0, bisect_right(times, now - window) - 1)
            for values in self.marks:
                del values[:old]


def fading(half_life: float) -> float:
    """The rate at which a weight falls to half in `half_life` seconds."""
    return log(2) / half_life
