"""JobSpec: what to run, where, with what, on what, and how.

Field names are the wire format. Every field is checked here, once, for its own shape; what a site,
a node or a launcher makes of it is checked at submission by the service.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perijove.model.places import OutputPlace, output_places
from perijove.model.values import (
    ENV_BYTES,
    NAME_LENGTH,
    SCRIPT_BYTES,
    Argument,
    ArrayRange,
    Dependency,
    Digest,
    Duration,
    Factor,
    FileName,
    GpuRequest,
    Identifier,
    ImageRef,
    Parameters,
    Path,
    Real,
    RetryCause,
    SecretPlace,
    SignalRequest,
    Size,
    Text,
    Title,
    VolumeRequest,
    Whole,
    Word,
)

WHAT = ("command", "script", "notebook", "function")
SIZES = frozenset({"memory", "shm_size", "tmp_disk"})
"""The fields that are sizes."""
TMP_DISK, MIB = "tmp_disk", 1 << 20
"""Scratch space is counted on nodes as a resource of this name, in units of so many bytes."""


class Kind(StrEnum):
    """What sort of job it is; all share queue, ledger and launchers."""

    BATCH = "batch"
    INTERACTIVE = "interactive"
    NOTEBOOK = "notebook"
    SERVER = "server"
    STEP = "step"
    DASK = "dask"


_HOME = VolumeRequest(name="home")


def _rule(field: str, message: str) -> PydanticCustomError:
    """The error of a rule about several fields, which names the one to change."""
    return PydanticCustomError("rule", "{message}", {"field": field, "message": message})


class JobOptions(BaseModel):
    """Where, with what and how something runs: what jobs and the steps of workflows have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)

    # where
    launcher: Word | None = None
    node: Word | None = None
    constraints: dict[Word, Title] = Field(default_factory=dict)
    """Labels that the node must bear."""
    os: Word | None = None
    partition: Word | None = None
    """A group of nodes with rules of its own (Slurm's word); the site's default when not given."""
    reservation: Word | None = None
    """Run on the nodes that this reservation keeps free."""

    # with what
    exclusive: bool = False
    """Share its node with no other job."""
    cpu: Real = Field(
        default=1.0,
        ge=0.01,
        le=100_000,
        allow_inf_nan=False,
        validation_alias=AliasChoices("cpu", "cpus"),
    )
    """Cores; ``cpus`` is accepted too."""
    memory: Annotated[Size, Field(ge=4 << 20)] = 1 << 30
    gpus: GpuRequest = GpuRequest()
    resources: dict[Word, Annotated[Whole, Field(ge=1, le=1_000_000)]] = Field(default_factory=dict)
    time_limit: Duration | None = Field(default=None, validation_alias=AliasChoices("time_limit", "time"))
    """Seconds of run time after which the job is stopped; ``time`` is accepted too."""
    signal: SignalRequest | None = None
    """Warn it some time before that."""
    shm_size: Size | None = None
    tmp_disk: Size | None = None
    """Scratch space of its own on the node, ``$PERIJOVE_SCRATCH``; gone after its end."""

    # on what
    volumes: list[VolumeRequest] = Field(default_factory=lambda: [_HOME])
    cwd: Path | None = None
    """Working directory; the home by default."""
    env: dict[Identifier, Text] = Field(default_factory=dict)

    # how
    sealed: bool = False
    """No network, no volumes, read-only root: only declared inputs come in, only declared outputs go out."""
    secrets: dict[Word, SecretPlace] = Field(default_factory=dict, max_length=100)
    """Secrets of the user or the project that it is given: name -> ``file``, ``env`` or ``env:VARIABLE``."""
    network: Literal["none", "bridge", "host", "user", "project"] | None = None
    """The launcher's default when not given. ``user``, ``project``: one that only their jobs are on."""
    user: Literal["self", "root"] = "self"
    priority: Annotated[Whole, Field(ge=0, le=100)] = 50
    preemptible: bool = False
    """It may be stopped, with notice, for a job that is not; then it waits again."""
    retries: Annotated[Whole, Field(ge=0, le=100)] = 0
    """So often it is run again after a failure."""
    retry_on: list[RetryCause] = Field(default_factory=list, max_length=100)
    """Only after these; any failure when empty."""
    oom_retry: Factor | None = None
    """After it ran out of memory, run it once more (and again, up to the largest node) with so many times as
    much; written ``2x``."""
    labels: dict[Word, Title] = Field(default_factory=dict)

    @field_validator("resources")
    @classmethod
    def _not_by_another_name(cls, value: dict[str, int]) -> dict[str, int]:
        if TMP_DISK in value:
            raise PydanticCustomError("rule", "scratch space is asked for by tmp_disk: tmp_disk=10G")
        return value

    @property
    def units(self) -> dict[str, int]:
        """All countable resources that it holds of a node: `resources`, and scratch space in MiB."""
        if self.tmp_disk is None:
            return self.resources
        return {**self.resources, TMP_DISK: -(-self.tmp_disk // MIB)}


class JobSpec(JobOptions):
    """What a user asks for.

    Exactly one of ``command``, ``script``, ``notebook``, ``function`` says what to run.
    """

    # what to run
    command: Annotated[list[Argument], Field(min_length=1, max_length=10_000)] | None = None
    """Program and arguments; no shell is involved."""
    script: Annotated[Text, StringConstraints(min_length=1, max_length=SCRIPT_BYTES)] | None = None
    """Text of a script; run by the program its ``#!`` line names, else ``/bin/bash`` or ``/bin/sh``."""
    notebook: Path | None = None
    """Path of a notebook, run by papermill. Its result is ``output_notebook``."""
    output_notebook: Path | None = None
    parameters: Parameters = Field(default_factory=dict)
    function: Digest | None = None
    """A cloudpickled ``(function, args, kwargs)`` in the store."""
    args: list[Argument] = Field(default_factory=list)
    """Arguments of ``script``."""

    entrypoint: Literal["image"] | None = None
    """``image``: keep the image's, of which ``command`` are the arguments then; it may be left out."""

    # which and where
    name: Title = ""
    kind: Kind = Kind.BATCH
    image: ImageRef | None = None
    """A reference, or ``archive:sha256:...``: a Docker or OCI archive in the store."""
    runenv: Word | None = None
    require: list[Title] = Field(default_factory=list)
    nodes: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    """So many nodes at once, each with all of cpu, memory, gpus: started together or not at all."""

    # what goes in and out
    storage: dict[Identifier, Path] = Field(default_factory=dict)
    inputs: dict[FileName, Digest] = Field(default_factory=dict)
    """Files and folders placed in ``$PERIJOVE_JOB_DIR/input`` before the start: name -> digest in the store.

    In containers they are at ``/in/NAME`` too, and everywhere ``INPUT_NAME`` is the path.
    """
    outputs: dict[FileName, OutputPlace] = Field(default_factory=dict)
    """What is kept after the end: name -> where the job leaves it. A missing one fails the job.

    A list of names stands for files of ``$PERIJOVE_JOB_DIR/output``.
    """
    stdin: FileName | None = None
    """The name of the input that is its standard input."""
    stdout: Path | None = None
    stderr: Path | None = None

    # how
    array: ArrayRange | None = None
    depends_on: list[Dependency] = Field(
        default_factory=list, max_length=10_000, validation_alias=AliasChoices("depends_on", "depends")
    )
    project: Word | None = None
    ports: list[Annotated[Whole, Field(ge=1, le=65535)]] = Field(default_factory=list, max_length=100)
    interactive: bool = False
    ipc: Literal["private", "host"] = "private"
    gui: bool = False
    hold: bool = False
    cache: bool = False
    notify: list[Title] = Field(default_factory=list)

    @field_validator("outputs", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return output_places(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = (
            (self.command is not None)
            + (self.script is not None)
            + (self.notebook is not None)
            + (self.function is not None)
        )
        if given != 1 and not (given == 0 and self.entrypoint):
            raise _rule("command", f"exactly one of {', '.join(WHAT)} must be given, not {given or 'none'}")
        if self.env and sum(len(k) + len(v.encode()) + 2 for k, v in self.env.items()) > ENV_BYTES:
            raise _rule("env", f"all variables together must stay below {ENV_BYTES // 1024} KiB")
        if self.parameters and self.notebook is None:
            raise _rule("parameters", "only a notebook takes parameters")
        if self.args and self.script is None:
            raise _rule("args", "only a script takes args; put them into command instead")
        if self.entrypoint and given and self.command is None:
            raise _rule("entrypoint", "only a command has one")
        if self.stdin is not None and self.stdin not in self.inputs:
            raise _rule("stdin", f"there is no input {self.stdin}")
        if self.nodes > 1 and self.array is not None:
            raise _rule("nodes", "a member of an array runs on one node; leave out nodes or array")
        if self.nodes > 1 and self.node is not None:
            raise _rule("node", "several nodes were asked for, and one was named")
        if self.sealed and self.network not in {None, "none"}:
            raise _rule("network", "a sealed job has none; leave out network or sealed")
        if self.sealed and "volumes" in self.model_fields_set and self.volumes:
            raise _rule("volumes", "a sealed job has none: declare what it reads as inputs")
        if self.signal and self.time_limit is not None and self.signal.before >= self.time_limit:
            raise _rule("signal", "the warning would come before the start: its time limit is shorter")
        if self.sealed:
            self.__dict__["volumes"] = []  # so that what is written out in full can be read back
        return self

    @property
    def title(self) -> str:
        """The job's name, or one made from what it runs."""
        if self.name:
            return self.name
        if self.command:
            text = self.command[0].rpartition("/")[2]
        elif self.notebook:
            text = self.notebook.rpartition("/")[2]
        else:
            text = "script" if self.script else "function"
        return text[:NAME_LENGTH]


FEATURES: dict[str, str] = {
    "archives": "images given as archives",
    "constraints": "node constraints",
    "cpu": "CPU limits",
    "devices": "resources that are devices",
    "gpus": "GPUs",
    "gui": "X11",
    "interactive": "interactive sessions",
    "ipc": "a shared IPC namespace",
    "memory": "memory limits",
    "ports": "published ports",
    "root": "root in the container",
    "shm_size": "a size of /dev/shm",
    "signal": "signals to a job",
    "stderr": "redirecting standard error",
    "stdout": "redirecting standard output",
    "sealed": "sealed jobs",
    "stdin": "an input as standard input",
    "suspend": "suspending",
    "time_limit": "keeping the time limit by itself",
    "tmp_disk": "sized scratch space",
    "volumes": "volumes other than home",
}
"""What launchers differ in: feature name -> words for people. ``Capabilities.features`` draws from these."""
