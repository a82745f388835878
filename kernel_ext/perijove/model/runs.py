"""What is known of a run of a workflow: its steps' states, what they made, why they ran, their records."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from perijove.model.records import Job, Machine, Reason, Record
from perijove.model.states import State
from perijove.model.workflow import Workflow


class StepState(StrEnum):
    """The states of a job, and those of a step that has none (yet)."""

    WAITING = "waiting"
    """For other steps."""
    PENDING = "pending"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    """An equal step's result was taken."""
    SKIPPED = "skipped"
    """Its condition did not hold, or it depends on a step that was skipped."""
    FAILED = "failed"
    KILLED = "killed"
    REJECTED = "rejected"
    """A step before it failed."""
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Nothing follows."""
        return self in _ENDED

    @property
    def good(self) -> bool:
        """Its outputs are there."""
        return self in {StepState.SUCCEEDED, StepState.CACHED}


_ENDED = frozenset(
    {
        StepState.SUCCEEDED,
        StepState.CACHED,
        StepState.SKIPPED,
        StepState.FAILED,
        StepState.KILLED,
        StepState.REJECTED,
        StepState.LOST,
    }
)


class Output(Record):
    """What a step made under one name: content of the store, or a value, or (for a pickle with JSON) both."""

    digest: str | None = None
    size: int | None = None
    """Bytes; of a folder, of all its files."""
    value: Any = None
    """JSON; only meaningful where `valued`."""
    valued: bool = False
    name: str = ""
    """What the file was called."""


class CauseKind(StrEnum):
    """What differs from the run that `explain` compares with."""

    FIRST = "first"  # nothing like it has run before
    IMAGE = "image"
    COMMAND = "command"
    ENVIRONMENT = "environment"
    PARAMETER = "parameter"
    INPUT = "input"
    CELL = "cell"
    FUNCTION = "function"
    OUTPUTS = "outputs"  # what is declared
    PLATFORM = "platform"
    UNCACHED = "uncached"  # neither sealed nor asked to be cached
    EXPIRED = "expired"  # an equal step ran, and its result is no longer in the store
    REFRESHED = "refreshed"  # the cache was not to be used
    FAILED = "failed"  # an equal step ran, and failed


class Cause(Record):
    """One reason why a step ran."""

    kind: CauseKind
    name: str = ""
    """Which parameter, input, variable, cell (from 1)."""
    before: str | None = None
    after: str | None = None
    message: str = ""
    """A sentence."""


class StepRun(Record):
    """One step of a run; of a mapped step one for each element of its list."""

    step: str
    index: int | None = None
    """Of the element, in a mapped step."""
    state: StepState = StepState.WAITING
    job: int | None = None
    reason: Reason | None = None
    key: str | None = None
    """What determines its result, as a digest; equal keys, equal results."""
    cached_from: int | None = None
    """The run whose result was taken."""
    causes: list[Cause] = []
    """Why it ran; empty when it was taken from the cache or has not come so far."""
    outputs: dict[str, Output] = {}
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    progress_text: str = ""

    @property
    def label(self) -> str:
        """``prep``, or ``train[3]``."""
        return self.step if self.index is None else f"{self.step}[{self.index}]"


class Run(Record):
    """A run of a workflow. Its id is of the same numbers as those of jobs."""

    id: int
    owner: str
    name: str
    project: str | None = None
    state: State
    """``running``, ``held`` (paused), then ``succeeded``, ``failed`` or ``killed``."""
    reason: Reason | None = None
    parameters: dict[str, Any] = {}
    priority: int = 50
    submitted: float
    ended: float | None = None
    steps: dict[StepState, int] = {}
    """How many are in each state."""
    resumed_from: int | None = None
    fail_fast: bool = False
    cache: str = "use"
    """``use``, ``refresh`` (run all, and keep the results) or ``off``."""
    labels: dict[str, str] = {}
    """Of all its jobs, beside the steps' own."""
    pinned: bool = False
    """Its results are kept whatever else is collected."""
    kill_requested: bool = False
    workflow: Workflow | None = None
    """The document; left out of lists."""

    @property
    def total(self) -> int:
        """How many steps are known so far."""
        return sum(self.steps.values())


class ResultRecord(Record):
    """What is worth knowing of one computation afterwards; stands on its own."""

    version: int = 1
    job: Job | None = None
    """None where many steps shared one, and of a cached step whose job is no longer kept."""
    run: int | None = None
    step: str = ""
    key: str | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, Output] = {}
    output_locations: dict[str, list[str]] = {}
    """URLs."""
    image: str | None = None
    image_digest: str | None = None
    image_manifest: str | None = None
    machine: Machine | None = None
    status: str = ""
    """``ok``, ``failed``, ``timeout``, ``killed``, ``lost``, ``rejected`` or ``cached``."""
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    memory_peak: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    cached_from: int | None = None
    values: dict[str, Any] = {}
    """What it recorded."""
