"""Steps of runs that have ended, a page at a time, as the database has them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from perijove.model import StepRun, StepState
from perijove_hub.store.workflow_queries import AT_ONCE, Workflows
from perijove_hub.store.workflow_rows import StepLine
from perijove_hub.store.workflow_tables import WHOLE
from perijove_hub.workflows.live import PLACES, place, step_run

REMEMBERED = 4
"""Runs whose order of steps is remembered between two pages."""


@dataclass(frozen=True, slots=True)
class Order:
    """Names of steps, in the order of the document, and which of them are mapped."""

    names: list[str]
    number: dict[str, int]
    mapped: list[bool]


class Ended:
    """All of it blocks: for threads."""

    def __init__(self, database: Workflows) -> None:
        self._database = database
        self._orders: OrderedDict[int, Order] = OrderedDict()

    def page(
        self, run: int, states: Collection[StepState], step: str | None, after: int, limit: int
    ) -> tuple[list[StepRun], int | None]:
        """See :meth:`perijove_hub.workflows.runs.Runs.page`."""
        order = self._order(run)
        if step is not None and step not in order.number:
            return [], None
        begin, end = 0, len(order.names)
        if step is not None:
            begin = order.number[step]
            end = begin + 1
        found: list[tuple[int, StepLine]] = []
        for line in self._lines(run, order, states, (max(after, begin * PLACES), end, limit + 1)):
            found.append((place(order.number[line.step], line.item), line))
            if len(found) > limit:
                break
        page = [step_run(line) for _, line in found[:limit]]
        return page, found[limit - 1][0] if len(found) > limit else None

    def _lines(
        self, run: int, order: Order, states: Collection[StepState], part: tuple[int, int, int]
    ) -> Iterator[StepLine]:
        """In order. `part`: the place to go on from, the step to end before, how many at most of a step."""
        after, end, most = part
        number, seen = divmod(after, PLACES)
        while number < end:
            if order.mapped[number]:
                names, following = [order.names[number]], number + 1
            else:
                following = number
                while following < min(end, number + AT_ONCE) and not order.mapped[following]:
                    following += 1
                names = order.names[number + (1 if seen else 0) : following]
            # What was settled as a whole, mapped or not, has the item WHOLE and stands at the first place.
            whole = not order.mapped[number]
            item = seen - 1 if seen and not whole else WHOLE - 1
            wanted = [state.value for state in states]
            lines = self._database.part(run, names, item, wanted, len(names) if whole else most)
            yield from sorted(lines, key=lambda line: (order.number[line.step], line.item))
            number, seen = following, 0

    def _order(self, run: int) -> Order:
        if (found := self._orders.get(run)) is None:
            steps = json.loads(self._database.document(run) or "{}").get("steps", {})
            names = list(steps)
            mapped = [step.get("map") is not None for step in steps.values()]
            found = self._orders[run] = Order(names, {name: i for i, name in enumerate(names)}, mapped)
            while len(self._orders) > REMEMBERED:
                self._orders.popitem(last=False)
        return found
