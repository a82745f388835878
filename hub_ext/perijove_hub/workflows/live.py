"""A run as the service holds it while it lives: its steps' instances and what they made. No I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from perijove.model import Job, JobSpec, Output, Reason, Run, State, Step, StepRun, StepState, Workflow
from perijove.model.workflow import IMPLICIT
from perijove_hub.store.workflow_rows import StepLine
from perijove_hub.store.workflow_tables import WHOLE
from perijove_hub.workflows.graph import Graph
from perijove_hub.workflows.keys import Keys
from perijove_hub.workflows.progress import Progress
from perijove_hub.workflows.resolve import Files, Scope, Unresolvable, holds_files, made

PLACES = 1 << 20
"""More than a step has elements."""
_BY_STATE = {state: StepState(state.value) for state in State}


@dataclass(slots=True, eq=False)
class Unit:
    """A step's instance; of a step that is not mapped the only one, with the number -1."""

    step: int
    item: int
    state: StepState = StepState.WAITING
    job: int | None = None
    number: int = 0
    key: str | None = None
    ingredients: dict[str, Any] | None = None
    cached_from: int | None = None
    outputs: dict[str, Output] = field(default_factory=dict)
    causes: list[Any] = field(default_factory=list)
    """As :class:`perijove.model.Cause`, or what JSON makes of it."""
    reason: Reason | None = None
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    progress_text: str = ""
    seq: int = 0


class Live:
    """See the module. `lines` are what the database holds of its steps, after a restart."""

    def __init__(self, run: Run, workflow: Workflow, lines: Mapping[tuple[str, int], StepLine]) -> None:
        self.run, self.workflow = run, workflow
        self.graph = Graph.of(workflow)
        self.progress = Progress(self.graph)
        self.lines = dict(lines)
        """Those not yet taken over."""
        self.units: list[list[Unit]] = [[] for _ in self.graph.names]
        self.whole: dict[int, Unit] = {}
        """Of steps settled as a whole."""
        self.elements: dict[int, list[Any]] = {}
        self.ready: deque[Unit] = deque()
        self.by_job: dict[int, Unit] = {}
        self.ended: deque[tuple[Unit, Job]] = deque()
        """Jobs whose end is known and has not been looked at."""
        self.counts: Counter[StepState] = Counter({StepState.WAITING: len(self.graph)})
        self.contents: dict[str, Any] = {}
        self.earlier: dict[str, StepLine] = {}
        """Good results of the run that this one resumes, by label."""
        self.owned: set[str] = set()
        """Digests that were written in it and are the owner's."""
        self.replaying = True
        """What the database knows is being taken over; nothing is submitted."""
        self.unknown: list[Unit] = []
        """What it does not know of: to be run when all else is taken over."""
        self.nodes_until = 0.0
        """Until then, by the steady clock, nodes may still come back after a restart."""
        self.bundle = 0
        """Instances that are looked at together next time; 0: as many as usual."""
        self.broken = False
        """It cannot go on, and is being ended."""
        self.bases: dict[int, dict[str, Any]] = {}
        self.constants: dict[int, Any] = {}
        self.keys: dict[int, Keys] = {}
        self.shared: dict[int, JobSpec] = {}
        """What jobs of steps would be whose calls share warm ones."""
        self._gathered: dict[tuple[int, str], Any] = {}

    def replayed(self) -> None:
        """What the database knows has been taken over: the others may run."""
        self.replaying = False
        self.ready.extend(self.unknown)
        self.unknown.clear()

    # ---- names

    def step_of(self, unit: Unit) -> Step:
        """What it is an instance of."""
        return self.graph.steps[unit.step]

    def label(self, unit: Unit) -> str:
        """``prep``, or ``train[3]``."""
        name = self.graph.names[unit.step]
        return name if unit.item == WHOLE else f"{name}[{unit.item}]"

    def find(self, step: str, item: int | None) -> Unit | None:
        """The instance of that name."""
        number = self.graph.number.get(step)
        if number is None:
            return None
        if item is None:
            return self.whole.get(number) or next((u for u in self.units[number] if u.item == WHOLE), None)
        units = self.units[number]
        return units[item] if 0 <= item < len(units) and units[item].item == item else None

    def all_units(self) -> Iterator[Unit]:
        """Every instance there is, in the order of the document; of a step not begun, one that waits."""
        for step, units in enumerate(self.units):
            if units:
                yield from units
            elif step in self.whole:
                yield self.whole[step]
            elif not self.progress.begun(step):
                yield Unit(step, WHOLE)

    def part(self, after: int) -> Iterator[tuple[int, Unit]]:
        """:meth:`all_units` past the place `after`, with their places; see :func:`place`."""
        first, item = divmod(after, PLACES)
        for step in range(first, len(self.units)):
            units = self.units[step]
            if units and units[0].item != WHOLE:
                for unit in islice(units, item if step == first else 0, None):
                    yield place(step, unit.item), unit
            elif step > first or not item:
                unit = units[0] if units else self.whole.get(step) or Unit(step, WHOLE)
                if units or step in self.whole or not self.progress.begun(step):
                    yield place(step, WHOLE), unit

    # ---- what references come to

    def scope(self, unit: Unit | None = None, step: int | None = None) -> Scope:
        """What is known where an instance, or a step as a whole, stands."""
        scope = Scope(self.run.parameters, self.output, self.contents)
        if unit is not None and unit.item != WHOLE:
            scope.item, scope.index = self.elements[unit.step][unit.item], unit.item
        return scope

    def output(self, step: str, name: str) -> Any:
        """What a good step made; of a mapped one the list of all instances that ran."""
        number = self.graph.number[step]
        if (number, name) in self._gathered:
            return self._gathered[number, name]
        declared = self.graph.steps[number]
        if declared.map is None:
            found = self._made(declared, name, self.units[number][0])
        else:
            good = [unit for unit in self.units[number] if unit.state.good]
            some = [self._made(declared, name, unit) for unit in good]
            found = Files(some) if holds_files(declared, name) else some
        self._gathered[number, name] = found
        return found

    def _made(self, step: Step, name: str, unit: Unit) -> Any:
        if name not in unit.outputs:
            raise Unresolvable(f"{self.label(unit)} made no {name}")
        return made(step, name, unit.outputs[name])

    # ---- changes

    def open(self, step: int, elements: list[Any] | None) -> list[Unit]:
        """A due step has instances from now on; one, unless it is mapped."""
        if elements is None:
            units = [Unit(step, WHOLE)]
        else:
            self.elements[step] = elements
            units = [Unit(step, i) for i in range(len(elements))]
        self.units[step] = units
        self.counts[StepState.WAITING] += len(units) - 1
        self.progress.open(step, len(units))
        return units

    def move(self, unit: Unit, state: StepState) -> None:
        """Its state is another."""
        self.counts[unit.state] -= 1
        self.counts[state] += 1
        unit.state = state

    def attach(self, unit: Unit, job: Job) -> None:
        """This is its job."""
        unit.job = job.id
        self.by_job[job.id] = unit

    def follow(self, unit: Unit, job: Job) -> None:
        """Its job, which has not ended, is in another state, or further."""
        self.move(unit, _BY_STATE[job.state])
        unit.reason, unit.started = job.reason, job.started
        unit.progress, unit.progress_text = job.progress, job.progress_text

    def finish(self, unit: Unit, job: Job) -> StepState:
        """Its job has ended; the state that it is in then."""
        unit.reason, unit.started, unit.ended = job.reason, job.started, job.ended
        unit.progress, unit.progress_text = job.progress, job.progress_text
        self.by_job.pop(job.id, None)
        unit.outputs = outputs_of(self.step_of(unit), job)
        return _BY_STATE[job.state]

    # ---- records

    def view(self, unit: Unit) -> StepRun:
        """The instance as a client sees it."""
        return StepRun(
            step=self.graph.names[unit.step],
            index=None if unit.item == WHOLE else unit.item,
            state=unit.state,
            job=unit.job,
            reason=unit.reason,
            key=unit.key,
            cached_from=unit.cached_from,
            causes=unit.causes,
            outputs=unit.outputs,
            submitted=unit.submitted,
            started=unit.started,
            ended=unit.ended,
            progress=unit.progress,
            progress_text=unit.progress_text,
        )

    def line(self, unit: Unit) -> StepLine:
        """Its row."""
        detail: dict[str, Any] = {}
        if unit.outputs:
            detail["outputs"] = {name: brief(one) for name, one in unit.outputs.items()}
        if unit.causes:
            detail["causes"] = [
                one if isinstance(one, dict) else one.model_dump(mode="json") for one in unit.causes
            ]
        if unit.reason is not None:
            detail["reason"] = unit.reason.model_dump(mode="json", exclude_defaults=True)
        for name in ("submitted", "started", "ended"):
            if (at := getattr(unit, name)) is not None:
                detail[name] = at
        name = self.graph.names[unit.step]
        return StepLine(
            *(self.run.id, name, unit.item, unit.state.value, unit.job, unit.number),
            *(unit.key, unit.cached_from, unit.seq, detail),
        )

    def restore(self, unit: Unit, line: StepLine) -> None:
        """Take over what its row says."""
        detail = line.detail
        unit.job, unit.number, unit.key = line.job, line.number, line.key
        unit.cached_from, unit.seq = line.cached_from, line.seq
        unit.outputs = {name: Output.model_validate(one) for name, one in detail.get("outputs", {}).items()}
        unit.causes = detail.get("causes", [])
        reason = detail.get("reason")
        unit.reason = Reason.model_validate(reason) if reason else None
        unit.submitted, unit.started = detail.get("submitted"), detail.get("started")
        unit.ended = detail.get("ended")

    def record(self) -> Run:
        """The run with the numbers of its steps, without its document."""
        steps = {state: count for state, count in self.counts.items() if count}
        return self.run.model_copy(update={"steps": steps, "workflow": None})


def place(step: int, item: int) -> int:
    """Where an instance stands in a run, as a number that stays the same while others begin and end."""
    return step * PLACES + max(item, 0) + 1


def step_run(line: StepLine) -> StepRun:
    """What a row says to a client."""
    return StepRun.model_validate(
        {
            **line.detail,
            "step": line.step,
            "index": None if line.item == WHOLE else line.item,
            "state": line.state,
            "job": line.job,
            "key": line.key,
            "cached_from": line.cached_from,
        }
    )


def brief(output: Output) -> dict[str, Any]:
    """An output as JSON, without what it does not have."""
    found: dict[str, Any] = {}
    if output.digest is not None:
        found["digest"] = output.digest
    if output.size is not None:
        found["size"] = output.size
    if output.valued:
        found["valued"], found["value"] = True, output.value
    if output.name:
        found["name"] = output.name
    return found


def outputs_of(step: Step, job: Job) -> dict[str, Output]:
    """What a job made, under the names of the step's outputs."""
    found = {}
    places = dict(job.spec.outputs)
    for name, place in places.items():
        kind, _, rest = place.partition(":")
        returned = name if step.what == "function" and name == IMPLICIT["function"] else None
        recorded = rest if kind == "record" else returned
        valued = recorded is not None and recorded in job.values
        digest = job.outputs.get(name)
        if digest is None and not valued:
            continue
        found[name] = Output(
            digest=digest,
            size=job.sizes.get(name),
            value=job.values[recorded] if valued and recorded is not None else None,
            valued=valued,
            name=rest.rpartition("/")[2] if kind in {"file", "dir"} else name,
        )
    return found
