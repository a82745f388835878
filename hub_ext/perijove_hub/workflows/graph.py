"""The graph of a workflow: which steps wait for which, by number, and an order that keeps to that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perijove.model import InvalidSpecError, Step, Workflow
from perijove.model.errors import FieldError
from perijove.model.workflow import cycle_in, cycle_text


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps by number, in the order of the document. Plain lists: a graph may have a million steps."""

    names: list[str]
    steps: list[Step]
    number: dict[str, int]
    needs: list[list[int]]
    """Of each step, those that must come before it."""
    dependants: list[list[int]]
    order: list[int]
    """All steps, each after those it needs; of several that could come next, the first of the document."""

    @classmethod
    def of(cls, workflow: Workflow) -> Graph:
        """The graph of a workflow. Time is linear in steps and edges."""
        return cls.made(workflow.steps)

    @classmethod
    def made(cls, steps: Mapping[str, Step]) -> Graph:
        """From steps by name. :class:`InvalidSpecError` names a cycle, or a step that is not there."""
        names, listed = list(steps), list(steps.values())
        number = {name: i for i, name in enumerate(names)}
        needs: list[list[int]] = []
        dependants: list[list[int]] = [[] for _ in names]
        for i, step in enumerate(listed):
            wanted = step.needs()
            if any(name not in number for name in wanted):
                missing = next(name for name in wanted if name not in number)
                raise _wrong(f"steps.{names[i]}", f"there is no step {missing}")
            before = [number[name] for name in wanted]
            needs.append(before)
            for one in before:
                dependants[one].append(i)
        order = _order(needs, dependants)
        if len(order) < len(names):
            cycle = cycle_in({name: steps[name].needs() for name in names})
            raise _wrong(f"steps.{cycle[0]}", f"steps wait for each other: {cycle_text(cycle)}")
        return cls(names, listed, number, needs, dependants, order)

    def __len__(self) -> int:
        return len(self.names)


def _order(needs: list[list[int]], dependants: list[list[int]]) -> list[int]:
    """Kahn's algorithm."""
    missing = [len(before) for before in needs]
    order = [i for i, count in enumerate(missing) if not count]
    for i in order:  # grows on the way
        for after in dependants[i]:
            missing[after] -= 1
            if not missing[after]:
                order.append(after)
    return order


def _wrong(field: str, message: str) -> InvalidSpecError:
    return InvalidSpecError(errors=[FieldError(field, "", message)])
