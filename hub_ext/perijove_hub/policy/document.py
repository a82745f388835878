"""The policy of a site as one document, which an administrator applies and a rehearsal replaces.

Written in YAML. Everything has a default: the empty document is a site where all are equal.
"""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from perijove.model import parse_duration, parse_size
from perijove.model.spec import Title, Word

Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=0, le=100)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Part):
    """How much at most. What is not given is not limited."""

    # held at the same time: a job over one of these waits
    cpus: Amount | None = None
    memory: Size | None = None
    gpus: Count | None = None
    running: Count | None = None
    """Jobs on nodes at once."""
    # refused at submission
    pending: Count | None = None
    """Jobs waiting at once; each member of an array counts."""
    # over `window`, refused at submission or waited for, as the policy's `over_budget` says
    cpu_hours: Amount | None = None
    gpu_hours: Amount | None = None
    memory_hours: Amount | None = None
    """GiB times hours."""
    disk: Size | None = None
    """All job directories together."""


class UserPolicy(_Part):
    """What differs for one user."""

    priority: Priority = 50
    shares: Weight = 1.0
    """Of the fair share, in proportion to the others'."""
    limits: Limits = Limits()
    guest: bool = False


class Project(_Part):
    """Users who work together."""

    description: Title = ""
    members: list[str] = []
    """Names or patterns; ``@GROUP`` stands for a system group's members."""
    leads: list[str] = []
    """May see and manage all jobs of the project."""
    priority: Priority = 50
    shares: Weight = 1.0
    limits: Limits = Limits()
    """For all of it together."""
    member_limits: Limits = Limits()
    """For each of its members within it."""
    volumes: list[str] = []
    """Of the site's volumes, those that its members' jobs may also ask for."""
    default_time: Duration | None = None
    max_time: Duration | None = None


class Partition(_Part):
    """A group of nodes with rules of its own (slurm.conf(5), ``PartitionName``)."""

    nodes: list[str] = ["*"]
    """Names or patterns."""
    users: list[str] = ["*"]
    projects: list[str] = ["*"]
    """Who may use it: a user by one of `users` or through one of `projects`; ``*`` is everybody."""
    default: bool = False
    """Of jobs that name none. Without a default such jobs may go anywhere."""
    default_time: Duration | None = None
    max_time: Duration | None = None
    priority: Priority = 50
    preemptible: bool = False
    """All jobs in it are."""


class Reservation(_Part):
    """Nodes kept for some, from a date to a date (scontrol(1), ``create reservation``)."""

    nodes: list[str]
    """Names or patterns."""
    start: datetime
    """With a time zone; without one it is UTC."""
    end: datetime
    users: list[str] = []
    projects: list[str] = []
    reason: Title = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a reservation must end after it starts")
        return self


class UsageWeights(_Part):
    """What one hour of each counts in usage."""

    cpu: Weight = 1.0
    memory: Weight = 0.1
    """Of one GiB."""
    gpu: Weight = 10.0


class FairShare(_Part):
    """How usage is remembered and weighed."""

    half_life: Duration = 7 * 86400.0
    """After so long, usage counts half."""
    weights: UsageWeights = UsageWeights()


class MultifactorWeights(_Part):
    """Weights of ``multifactor`` (slurm.conf(5), ``PriorityWeight*``); each factor lies between 0 and 1."""

    age: Weight = 1000.0
    fairshare: Weight = 10000.0
    priority: Weight = 5000.0
    """The job's own."""
    user: Weight = 1000.0
    project: Weight = 1000.0
    partition: Weight = 1000.0
    size: Weight = 100.0
    """Its share of the site's cores."""
    max_age: Duration = 7 * 86400.0
    """Waiting longer than this counts no more."""


class GodockerWeights(_Part):
    """Weights of ``fairshare-godocker``, as GoDocker names them."""

    waiting_time: Weight = 0.1
    user_time: Weight = 1.0
    user_cpu: Weight = 0.2
    user_ram: Weight = 0.2
    group_time: Weight = 0.1
    group_cpu: Weight = 0.01
    group_ram: Weight = 0.01
    user: Weight = 1.0
    group: Weight = 1.0
    days: Annotated[int, Field(ge=1, le=3650)] = 30


class Backfill(_Part):
    """Small jobs around big ones (slurm.conf(5), ``SchedulerParameters``)."""

    reservations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """So many waiting jobs at the head of the queue have the resources they will need kept for them."""


class Preemption(_Part):
    """What becomes of a preemptible job whose place is needed."""

    mode: Literal["off", "requeue", "suspend", "kill"] = "requeue"
    notice: Duration = 60.0
    """Seconds between the polite signal and the end."""
    exempt: Duration = 0.0
    """A job is left alone for so long after its start."""


class Retention(_Part):
    """How long what ended jobs leave behind is kept."""

    archive_after: Duration | None = None
    """Remove directories and logs of jobs that ended so long ago; their record stays."""
    purge_after: Duration | None = None
    """Remove their record too; the accounting stays."""
    keep: list[str] = []
    """Jobs bearing one of these labels (``KEY`` or ``KEY=VALUE``) are kept whatever their age."""


class Policy(_Part):
    """All of it."""

    scheduler: Word = "fairshare"
    """Who orders the queue: an entry point of ``perijove.schedulers``."""
    fairshare: FairShare = FairShare()
    multifactor: MultifactorWeights = MultifactorWeights()
    godocker: GodockerWeights = GodockerWeights()
    spread: bool = True
    """Prefer the emptiest node; else fill up one after the other."""
    backfill: Backfill = Backfill()
    preemption: Preemption = Preemption()
    suspended_keep: Literal["all", "memory", "nothing"] = "all"
    """What a suspended job goes on holding; ``memory``: memory and GPUs, not its cores."""
    grace: Duration | None = None
    """Between the polite signal and SIGKILL; the service's setting when not given."""
    default_time: Duration | None = None
    max_time: Duration | None = None
    users: dict[str, UserPolicy] = {}
    default_user: UserPolicy = UserPolicy()
    guests: Limits = Limits()
    """For each guest."""
    site: Limits = Limits(pending=1_000_000)
    """For all users together."""
    projects: dict[Word, Project] = {}
    partitions: dict[Word, Partition] = {}
    reservations: dict[Word, Reservation] = {}
    window: Duration = 30 * 86400.0
    """Over which the hours of limits are counted."""
    over_budget: Literal["refuse", "wait"] = "refuse"
    """What becomes of a job of somebody whose hours are used up."""
    updatable: dict[Literal["time_limit", "priority", "cpu", "memory", "name", "partition"], list[str]] = {
        "time_limit": ["admin"],
        "priority": ["owner", "lead", "admin"],
        "cpu": ["owner", "admin"],
        "memory": ["owner", "admin"],
        "name": ["owner", "lead", "admin"],
        "partition": ["owner", "admin"],
    }
    """Field of a job -> who may change it later: ``owner``, ``lead``, ``admin``. A user may always lower a
    time limit or a priority of their own job."""
    retention: Retention = Retention()

    @model_validator(mode="after")
    def _check(self) -> Self:
        defaults = [name for name, partition in self.partitions.items() if partition.default]
        if len(defaults) > 1:
            raise ValueError(f"only one partition can be the default, not {', '.join(defaults)}")
        return self

    def user(self, name: str) -> UserPolicy:
        """What holds for `name`."""
        return self.users.get(name, self.default_user)

    def projects_of(self, user: str, groups: frozenset[str] = frozenset()) -> list[str]:
        """Projects whose members `user` is among."""
        return [name for name, project in self.projects.items() if is_among(user, project.members, groups)]

    def leads(self, user: str) -> frozenset[str]:
        """Projects that `user` leads."""
        return frozenset(name for name, project in self.projects.items() if user in project.leads)

    @property
    def default_partition(self) -> str | None:
        """Of jobs that name none."""
        return next((name for name, partition in self.partitions.items() if partition.default), None)


def is_among(user: str, names: list[str], groups: frozenset[str] = frozenset()) -> bool:
    """Whether `names`, which may hold patterns and ``@GROUP``, mean `user`."""
    return any(entry[1:] in groups if entry.startswith("@") else fnmatchcase(user, entry) for entry in names)


def load(text: str) -> Policy:
    """The policy in YAML `text`. Raises :class:`~perijove.model.InvalidSpecError` naming each wrong field."""
    import yaml
    from pydantic import ValidationError

    from perijove.model import FieldError, InvalidSpecError

    try:
        content: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InvalidSpecError(errors=[FieldError("", "", f"not YAML: {error}")]) from None
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        found = [
            FieldError(".".join(map(str, e["loc"])), str(e["input"])[:80], e["msg"]) for e in error.errors()
        ]
        raise InvalidSpecError(errors=found) from None
