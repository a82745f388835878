"""How far a run is: which steps are due, and what the end of one means for those after it.

A step is due when all it needs have come to a good end. It is then opened with as many instances as its
list has elements (one, when it is not mapped), or skipped, or it fails. When an instance fails, all that
depend on its step are rejected at once, while other instances and steps go on. A skipped step has those
after it skipped, unless one of theirs fails: so the outcome does not depend on what ends first.

Pure: no clock and no I/O. All events of a run together take time linear in instances and edges.
"""

from __future__ import annotations

from dataclasses import dataclass

from perijove.model import StepState
from perijove_hub.workflows.graph import Graph


@dataclass(frozen=True, slots=True)
class Settled:
    """A step that came to its end as a whole, without instances: skipped, rejected, killed or failed."""

    step: int
    state: StepState
    because: int | None = None
    """The step that failed, or was skipped."""


class Progress:
    """Of one run. Whoever calls takes `due` and `settled`, and empties them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.whole: list[StepState | None] = [None] * len(graph)
        """States of steps that were settled as a whole."""
        self.size: list[int] = [-1] * len(graph)
        """How many instances; -1 until the step is opened."""
        self.left: list[int] = [0] * len(graph)
        """Instances that have not ended."""
        self.bad: list[bool] = [False] * len(graph)
        """An instance has failed."""
        self.stopped = False
        """Nothing begins any more."""
        self.unsettled = len(graph)
        """Steps that have not come to an end."""
        self.settled: list[Settled] = []
        self._missing = [len(before) for before in graph.needs]
        self._passed: list[int | None] = [None] * len(graph)
        """A step before it that was skipped."""
        self.due = [step for step in graph.order if not self._missing[step]]

    @property
    def finished(self) -> bool:
        """Whether all steps have come to an end."""
        return not self.unsettled

    def begun(self, step: int) -> bool:
        """Whether it was opened or settled."""
        return self.size[step] >= 0 or self.whole[step] is not None

    def open(self, step: int, instances: int) -> None:
        """A due step has so many instances; none is a good end already."""
        self.size[step] = self.left[step] = instances
        if not instances:
            self._complete(step)

    def settle(self, step: int, state: StepState, because: int | None = None) -> None:
        """A due step is skipped, or failed before it had instances."""
        self._settle(step, state, because)
        if state is StepState.SKIPPED:
            self._pass_on(step)
        elif not state.good:
            self._spoil(step)

    def end(self, step: int, state: StepState) -> None:
        """An instance of an opened step has come to its end. A skipped one is just not there."""
        self.left[step] -= 1
        if not (state.good or state is StepState.SKIPPED) and not self.bad[step]:
            self.bad[step] = True
            self._spoil(step)
        if not self.left[step]:
            self._complete(step)

    def stop(self, because: int | None = None) -> None:
        """Nothing begins any more: what was not opened is killed. Instances end by themselves."""
        self.stopped = True
        self.due.clear()
        for step in self.graph.order:
            if not self.begun(step):
                self._settle(step, StepState.KILLED, because)

    # ---- inside

    def _settle(self, step: int, state: StepState, because: int | None) -> None:
        self.whole[step] = state
        self.unsettled -= 1
        self.settled.append(Settled(step, state, because))

    def _complete(self, step: int) -> None:
        self.unsettled -= 1
        if self.bad[step]:
            return
        for after in self.graph.dependants[step]:
            self._meet(after)

    def _meet(self, step: int) -> None:
        """One of those that it needs has come to its end."""
        self._missing[step] -= 1
        if self._missing[step] or self.begun(step):
            return
        if (passed := self._passed[step]) is None:
            self.due.append(step)
        else:
            self._settle(step, StepState.SKIPPED, passed)
            self._pass_on(step)

    def _pass_on(self, step: int) -> None:
        """`step` was skipped."""
        skipped = [step]
        for one in skipped:  # grows on the way
            for after in self.graph.dependants[one]:
                if self._passed[after] is None:
                    self._passed[after] = one
                self._missing[after] -= 1
                if not self._missing[after] and not self.begun(after):
                    self._settle(after, StepState.SKIPPED, self._passed[after])
                    skipped.append(after)

    def _spoil(self, step: int) -> None:
        """`step` failed: what depends on it, however far, is rejected."""
        spoilt = [step]
        for one in spoilt:  # grows on the way
            for after in self.graph.dependants[one]:
                if not self.begun(after):
                    self._settle(after, StepState.REJECTED, step)
                    spoilt.append(after)
