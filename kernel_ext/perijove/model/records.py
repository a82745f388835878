"""What is known of jobs and nodes: the records that travel between service, nodes and clients.

They are pydantic models where a client sees them (they make the OpenAPI schema) and frozen
dataclasses where only the servers do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from perijove.model.spec import JobSpec
from perijove.model.states import State


class Record(BaseModel):
    """A frozen record; unknown fields are dropped, so that old clients can read newer services."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One try at running one job; ``str()`` is its key everywhere: in Dask, on disk, as a label."""

    job: int
    number: int

    def __str__(self) -> str:
        return f"{self.job}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Attempt:
        """The attempt whose key is `text`; ``ValueError`` when it is none."""
        job, _, number = text.partition(".")
        attempt = cls(int(job), int(number))
        if str(attempt) != text:  # one attempt, one key: int() also takes "07" and "1_0"
            raise ValueError(f"not the key of an attempt: {text[:80]!r}")
        return attempt


@dataclass(frozen=True, slots=True)
class Account:
    """The system identity a job runs under."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


class ReasonCode(StrEnum):
    """Why a job waits, or why it ended other than by its own success. Slurm's words where it has one."""

    # waiting
    PRIORITY = "Priority"  # others are before it
    RESOURCES = "Resources"  # nodes that could run it are full
    DEPENDENCY = "Dependency"
    HELD = "JobHeldUser"
    NODE_DOWN = "NodeDown"  # nodes that could run it are not reachable, or drained
    ARRAY_LIMIT = "JobArrayTaskLimit"  # as many members run as may at once
    QUOTA = "Quota"
    RESERVATION = "Reservation"  # nodes are kept for others, or its own reservation has not begun
    MAINTENANCE = "Maintenance"
    BEGIN_TIME = "BeginTime"  # waits before another try
    SUSPENDED_BY_SITE = "Suspended"  # for a job of a higher class, or until its resources are free again
    # on its way
    LAUNCHING = "Launching"  # includes staging files and pulling an image
    # ended
    NON_ZERO_EXIT = "NonZeroExitCode"
    SIGNALLED = "RaisedSignal"
    OUT_OF_MEMORY = "OutOfMemory"
    TIME_LIMIT = "TimeLimit"
    KILLED_BY_USER = "KilledByUser"
    LAUNCH_FAILED = "JobLaunchFailure"
    NODE_LOST = "NodeFail"
    DEPENDENCY_NEVER_SATISFIED = "DependencyNeverSatisfied"
    OUTPUT_MISSING = "OutputMissing"
    PREEMPTED = "Preempted"
    GANG_FAILED = "GangFailed"  # another of its nodes failed
    BUDGET = "BudgetUsedUp"  # its owner, a guest, may use no more


class BlockerKind(StrEnum):
    """What sort of thing keeps a job from starting."""

    JOB = "job"  # holds what it needs
    AHEAD = "ahead"  # a job before it in the queue that would take what it needs
    NODE = "node"  # down or drained
    QUOTA = "quota"
    DEPENDENCY = "dependency"
    HOLD = "hold"
    LIMIT = "limit"  # members of an array at once
    RESERVATION = "reservation"
    MAINTENANCE = "maintenance"
    DELAY = "delay"  # before another try


class Blocker(Record):
    """One thing that keeps a job from starting: without all those of its reason the next pass starts it."""

    kind: BlockerKind
    name: str
    """Of the job (``12``, ``12_7``), node, quota or reservation."""
    message: str = ""


class Reason(Record):
    """A machine-readable cause with a sentence for people."""

    code: ReasonCode
    message: str = ""
    blockers: list[Blocker] = []
    position: int | None = None
    """Place in the queue, from 1, while pending."""


class Endpoint(Record):
    """Where a running job's ports are reached: container port -> ``host:port``."""

    ports: dict[int, str] = {}


class Gpu(Record):
    """One device of a node."""

    index: int
    uuid: str
    model: str = ""
    memory: int = 0
    """Bytes."""
    device: str | None = None
    """Path of a device node to hand into the container instead of a driver request."""


class Slot(Record):
    """One unit of a countable resource of a node, with the devices that come with it."""

    devices: list[str] = []
    """Paths of device nodes that a job holding it may open."""


class Stats(Record):
    """What a running job uses now."""

    cpu: float = 0.0
    """Cores in use, over the time since the last sample."""
    memory: int = 0
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0
    gpu: float = 0.0
    """Of its GPUs, how many are at work: 1.5 for one that is busy and one half of the time."""
    gpu_memory: int = 0
    """Bytes in use on its GPUs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, whatever the ending: the only thing a node says of it at the end."""

    exit_code: int | None = None
    """As a shell would give it (128 + signal for a signal); None when nothing ran."""
    reason: ReasonCode | None = None
    """None for success."""
    message: str = ""
    started: float | None = None
    ended: float | None = None
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    """Device-seconds in which a GPU was at work, as its driver says."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Declared output name -> digest in the store."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Likewise -> bytes."""
    values: dict[str, Any] = field(default_factory=dict)
    """What it recorded: name -> JSON."""
    image_digest: str | None = None
    """Of the image that it really ran in: the engine's id."""
    image_manifest: str | None = None
    """REPOSITORY@DIGEST of that image, where it came from a registry."""
    transient: bool = False
    """Nothing ran and the cause may pass (engine down, node leaving): the job may queue again."""

    @property
    def state(self) -> State:
        """The final state that this outcome means."""
        if self.reason is None:
            return State.SUCCEEDED
        if self.reason is ReasonCode.KILLED_BY_USER:
            return State.KILLED
        return State.LOST if self.reason is ReasonCode.NODE_LOST else State.FAILED


class Job(Record):
    """A job as its owner sees it."""

    id: int
    owner: str
    name: str
    state: State
    reason: Reason | None = None
    attempt: int = 0
    """0 before the first start."""
    exit_code: int | None = None
    node: str | None = None
    launcher: str | None = None
    gpus: list[Gpu] = []
    slots: dict[str, list[int]] = {}
    """Which units of each countable resource it holds."""
    partition: str | None = None
    endpoint: Endpoint | None = None
    submitted: float
    allocated: float | None = None
    """When it took hold of its resources: what it is charged from."""
    started: float | None = None
    suspended_at: float | None = None
    """Since when, while it is."""
    suspended_seconds: float = 0.0
    """How long this attempt was suspended before: no run time."""
    ended: float | None = None
    memory_peak: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    outputs: dict[str, str] = {}
    """Declared output name -> digest in the store."""
    sizes: dict[str, int] = {}
    """Likewise -> bytes."""
    values: dict[str, Any] = {}
    """What it recorded: name -> JSON."""
    image_digest: str | None = None
    """Of the image that it really ran in: the engine's id."""
    image_manifest: str | None = None
    """REPOSITORY@DIGEST of that image, where it came from a registry."""
    run: int | None = None
    """The run of a workflow that it is a step of."""
    step: str | None = None
    """Which step; ``train[3]`` in a mapped one."""
    progress: float | None = None
    """0 to 1, as the job itself reports it."""
    progress_text: str = ""
    array_id: int | None = None
    """For a member of an array: the array's job id."""
    array_task: int | None = None
    tasks: dict[State, int] = {}
    """For an array: how many members are in each state."""
    failures: int = 0
    """Attempts that counted towards its retries."""
    kept: Literal["all", "memory", "nothing"] = "all"
    """Of its resources, what it goes on holding while suspended."""
    failed_nodes: list[str] = []
    """Where an attempt failed: avoided while there are others."""
    rerun_of: int | None = None
    archived: bool = False
    """Its directory and logs have been removed."""
    kill_requested: bool = False
    requeue_requested: bool = False
    """It is being stopped in order to wait again: rescheduled, or preempted."""
    spec: JobSpec

    @property
    def label(self) -> str:
        """The id as people write it: ``12``, or ``12_7`` for member 7 of array 12."""
        return f"{self.array_id}_{self.array_task}" if self.array_id is not None else str(self.id)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history; ``seq`` orders all events of an installation."""

    seq: int
    job: int
    owner: str
    at: float
    event: str
    """What happened: submitted, placed, started, suspended, resumed, kill, ended, requeued, progress..."""
    state: State
    attempt: int
    detail: dict[str, Any] = field(default_factory=dict)


class Capabilities(Record):
    """What a launcher can do, as data: the service refuses at submission what is not in here."""

    name: str
    containers: bool = False
    """Runs images; without it a spec that names one is refused."""
    features: frozenset[str] = frozenset()
    """Names of :data:`perijove.model.spec.FEATURES` that are honoured."""
    networks: frozenset[str] = frozenset({"host"})
    version: str = ""
    """Of its engine, as ``docker 20.10.24``."""


class NodeState(StrEnum):
    """Whether a node takes jobs."""

    UP = "up"
    DOWN = "down"
    DRAIN = "drain"


class Machine(Record):
    """Facts of a host that a result may depend on; a node announces them."""

    host: str = ""
    kernel: str = ""
    os: str = ""
    arch: str = ""
    cpu_model: str = ""
    cores: int = 0
    memory: int = 0
    gpus: list[str] = []
    gpu_driver: str = ""
    runtime: str = ""
    """Of containers, with its version."""


class Node(Record):
    """A host (or a cluster's login node) that runs jobs, as it announces itself."""

    name: str
    incarnation: str = ""
    """Changes each time the node agent starts."""
    address: str = ""
    cpus: float
    memory: int
    gpus: list[Gpu] = []
    resources: dict[str, int] = {}
    slots: dict[str, list[Slot]] = {}
    """For resources that are devices, one for each unit."""
    labels: dict[str, str] = {}
    launchers: list[Capabilities] = []
    images: list[str] = []
    """Image references present on the node."""
    image_digests: dict[str, str] = {}
    """Of those whose engine says it: reference -> digest."""
    machine: Machine = Machine()
    state: NodeState = NodeState.UP
    reason: str = ""
    seen: float = 0.0
    """When it last spoke."""
