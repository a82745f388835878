"""How the steps of a run stand, one by one and drawn together: what every picture and table of it shows.

Pure: documents in, standings out; :mod:`perijove.dag_svg` and :mod:`perijove.dag_text` draw them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from perijove.dag_layout import layers_of
from perijove.model.quantities import format_duration
from perijove.model.runs import CauseKind, StepRun, StepState
from perijove.model.workflow import Step, Workflow

MOST = 120
"""Boxes in a picture; steps of a larger graph share boxes."""

ORDER = (
    StepState.SUCCEEDED,
    StepState.CACHED,
    StepState.SKIPPED,
    StepState.FAILED,
    StepState.LOST,
    StepState.KILLED,
    StepState.REJECTED,
    StepState.RUNNING,
    StepState.STARTING,
    StepState.SUSPENDED,
    StepState.PENDING,
    StepState.HELD,
    StepState.WAITING,
)
"""As bars and sums show them."""

_LIVE = (
    StepState.RUNNING,
    StepState.STARTING,
    StepState.SUSPENDED,
    StepState.PENDING,
    StepState.HELD,
    StepState.WAITING,
)
_ENDS = (
    StepState.FAILED,
    StepState.LOST,
    StepState.KILLED,
    StepState.REJECTED,
    StepState.SUCCEEDED,
    StepState.CACHED,
    StepState.SKIPPED,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a step stands: the only one of its name, all instances of a mapped one, or several steps."""

    name: str
    title: str = ""
    """What to show; the name when empty."""
    kind: str = ""
    """``command``, ``script``, ``notebook``, ``function``; ``map`` is put before that of a mapped step."""
    states: Mapping[StepState, int] = field(default_factory=lambda: {StepState.WAITING: 1})
    many: bool = False
    """It may stand for more than one job."""
    job: int | None = None
    """Its job, or of many one that failed or runs."""
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    """From 0 to 1; of a mapped step the part of it that has ended."""
    progress_text: str = ""
    said: str = ""
    """Why it runs, waits or failed, or whose result was taken: a sentence, or empty."""
    source: str = ""
    """Whose result was taken: ``of run 12``, or empty."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.title or self.name

    @property
    def total(self) -> int:
        """How many steps or instances it stands for."""
        return sum(self.states.values())

    @property
    def done(self) -> int:
        """How many of them have ended."""
        return sum(count for state, count in self.states.items() if state.ended)

    @property
    def state(self) -> StepState:
        """Of many: ``running`` as soon as one has begun, and when all have ended the worst end."""
        there = [state for state in (*_LIVE, *_ENDS) if self.states.get(state)]
        if not there:
            return StepState.WAITING
        begun = any(state.ended for state in there) and not there[0].ended
        return StepState.RUNNING if begun and there[0] != StepState.HELD else there[0]

    def elapsed(self, now: float) -> float | None:
        """Seconds from the first start to the last end, or to `now`; None before any start."""
        if self.started is None:
            return None
        return max(0.0, (now if self.ended is None else self.ended) - self.started)

    def time_text(self, now: float) -> str:
        """``2m05s``, or nothing before it has started."""
        elapsed = self.elapsed(now)
        return "" if elapsed is None else format_duration(elapsed)


def standings(workflow: Workflow, steps: Iterable[StepRun]) -> list[Standing]:
    """Each step of `workflow` in its order, with what `steps` tell of it."""
    by_name = by_step(steps)
    return [standing_of(name, step, by_name.get(name, ())) for name, step in workflow.steps.items()]


def by_step(steps: Iterable[StepRun]) -> dict[str, list[StepRun]]:
    """The instances of each step; what stood for a mapped step before it had any is left out."""
    found: dict[str, list[StepRun]] = defaultdict(list)
    for step in steps:
        found[step.step].append(step)
    for name, runs in found.items():
        if len(runs) > 1:
            found[name] = [run for run in runs if run.index is not None] or runs
    return found


def standing_of(name: str, step: Step, runs: Sequence[StepRun]) -> Standing:
    """One step, from its instances."""
    mapped = step.map is not None
    kind = f"map {step.what}" if mapped else step.what
    if not runs:
        return Standing(name, kind=kind, many=mapped)
    states = Counter(run.state for run in runs)
    starts = [run.started for run in runs if run.started is not None]
    ends = [run.ended for run in runs if run.ended is not None]
    ended = all(run.state.ended for run in runs)
    standing = Standing(
        name,
        kind=kind,
        states=states,
        many=mapped or len(runs) > 1,
        started=min(starts, default=None),
        ended=max(ends, default=None) if ended else None,
    )
    told = min(runs, key=lambda run: _TELLING.index(run.state))
    far = standing.done / len(runs) if len(runs) > 1 else told.progress
    return replace(
        standing,
        job=told.job,
        progress=far,
        progress_text="" if standing.many else told.progress_text,
        said=reason_of(told) if not standing.many or told.state not in _PLAIN else "",
        source=f"of run {told.cached_from}" if told.cached_from and not standing.many else "",
    )


_TELLING = (*_ENDS[:3], *_LIVE[:-1], StepState.REJECTED, *_ENDS[4:], StepState.WAITING)
"""Of many, whose reason is told: the first of these."""
_PLAIN = {StepState.SUCCEEDED, StepState.WAITING, StepState.RUNNING, StepState.STARTING}


def reason_of(run: StepRun) -> str:
    """Why a step stands as it does, in a sentence; may be empty."""
    if run.state is StepState.CACHED:
        return f"result of run {run.cached_from} taken" if run.cached_from else "an earlier result taken"
    if run.reason is not None and (run.state not in _PLAIN or not run.causes):
        return run.reason.message or str(run.reason.code)
    return causes_text(run)


def causes_text(run: StepRun, most: int = 3) -> str:
    """Why it ran, and what differs from before; empty when nothing is known, or when it is run each time."""
    said = [
        cause.message or " ".join(filter(None, (cause.kind, cause.name)))
        for cause in run.causes
        if cause.kind is not CauseKind.UNCACHED
    ]
    more = f"; and {len(said) - most} more" if len(said) > most else ""
    return "; ".join(said[:most]) + more


def planned(workflow: Workflow) -> list[Standing]:
    """Its steps before anything runs; each says what it will do."""
    return [replace(standing_of(name, step, ()), said=_does(step)) for name, step in workflow.steps.items()]


def _does(step: Step) -> str:
    match step.what:
        case "notebook":
            return "" if "sha256:" in (step.notebook or "") else (step.notebook or "")
        case "script":
            lines = (step.script or "").splitlines()
            return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
        case "command":
            return " ".join(step.command or ["the image's entry point"])
        case _:
            return ""


def needs_of(workflow: Workflow) -> dict[str, list[str]]:
    """What each step waits for."""
    return {name: step.needs() for name, step in workflow.steps.items()}


@dataclass(frozen=True, slots=True)
class Graph:
    """What is drawn: boxes, who needs whom, and a note when boxes stand for several steps."""

    boxes: list[Standing]
    needs: dict[str, list[str]]
    note: str = ""


def graph_of(shown: Sequence[Standing], needs: Mapping[str, Sequence[str]], most: int = MOST) -> Graph:
    """The graph with `most` boxes at most.

    In a larger one these share a box, as far as it takes: steps that need the same and are needed by the
    same; steps at the same depth whose names differ in their numbers only; all of the same depth;
    neighbouring depths. What shares a box is of one depth, or the depths between are
    in it too, so there are no cycles.
    """
    graph = Graph(list(shown), {box.name: list(needs.get(box.name, ())) for box in shown})
    for together in (_alike, _named_alike, _as_deep, _near(most)):
        if len(graph.boxes) <= most:
            break
        graph = _merged(graph, together(graph))
    if len(graph.boxes) < len(shown):
        note = f"{len(shown):,} steps in {len(graph.boxes):,} boxes: those that are alike share one"
        return replace(graph, note=note)
    return graph


Groups = Mapping[str, Hashable]


def _alike(graph: Graph) -> Groups:
    after: dict[str, list[str]] = {name: [] for name in graph.needs}
    for name, others in graph.needs.items():
        for other in others:
            after[other].append(name)
    return {name: (frozenset(needs), frozenset(after[name])) for name, needs in graph.needs.items()}


def _named_alike(graph: Graph) -> Groups:
    layers = layers_of(graph.needs)
    return {name: (layers[name], _stem(name)) for name in graph.needs}


def _stem(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _as_deep(graph: Graph) -> Groups:
    return layers_of(graph.needs)


def _near(most: int) -> Callable[[Graph], Groups]:
    def together(graph: Graph) -> Groups:
        layers = layers_of(graph.needs)
        per_box = -(-(1 + max(layers.values())) // most)
        return {name: layer // per_box for name, layer in layers.items()}

    return together


def _merged(graph: Graph, groups: Groups) -> Graph:
    members: dict[Hashable, list[Standing]] = defaultdict(list)
    for box in graph.boxes:
        members[groups[box.name]].append(box)
    name_of = {group: boxes[0].name for group, boxes in members.items()}
    needs = {
        name_of[group]: list(
            dict.fromkeys(
                name_of[groups[other]]
                for box in boxes
                for other in graph.needs[box.name]
                if groups[other] != group
            )
        )
        for group, boxes in members.items()
    }
    return Graph([_together(boxes) for boxes in members.values()], needs)


def _together(boxes: Sequence[Standing]) -> Standing:
    if len(boxes) == 1:
        return boxes[0]
    states: Counter[StepState] = Counter()
    for box in boxes:
        states.update(box.states)
    starts = [box.started for box in boxes if box.started is not None]
    ends = [box.ended for box in boxes]
    steps = sum(box.total for box in boxes)
    return Standing(
        boxes[0].name,
        title=_title(boxes),
        kind=f"{steps:,} steps",
        states=states,
        many=True,
        started=min(starts, default=None),
        ended=None if None in ends else max(end for end in ends if end is not None),
        progress=sum(box.done for box in boxes) / max(1, steps),
    )


def _title(boxes: Sequence[Standing]) -> str:
    stems = {_stem(box.label) for box in boxes}
    return next(iter(stems)).replace("#", "*") if len(stems) == 1 else f"{boxes[0].label}, ..."


def sum_text(states: Mapping[StepState, int]) -> str:
    """For example ``3 succeeded, 1 running, 2 waiting``."""
    return ", ".join(f"{states[state]:,} {state}" for state in ORDER if states.get(state))


__all__ = [
    "MOST",
    "ORDER",
    "Graph",
    "Standing",
    "by_step",
    "causes_text",
    "graph_of",
    "needs_of",
    "planned",
    "reason_of",
    "standing_of",
    "standings",
    "sum_text",
]
