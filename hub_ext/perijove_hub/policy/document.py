"""The policy of a site as one document, which an administrator applies and a rehearsal replaces.

Written in YAML. Everything has a default: the empty document is a site where all are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from perijove.model import FieldError, InvalidSpecError
from perijove.model.validation import field_errors
from perijove.model.values import Title, Word
from perijove_hub.policy import registry
from perijove_hub.policy.grants import Grants
from perijove_hub.policy.guests import invited
from perijove_hub.policy.images import Convention, ImageEntry, Rules, default_errors
from perijove_hub.policy.limits import Duration, Limits, Part, Priority, Weight
from perijove_hub.policy.volumes import HOME, VolumeEntry
from perijove_hub.policy.who import Audience, is_among

__all__ = ["Limits", "Policy", "is_among", "load"]

Changeable = Literal["time_limit", "priority", "cpu", "memory", "name", "partition"]
Role = Literal["owner", "lead", "admin"]

DEPTH = 32
"""Levels within each other in the text of a policy; ten are enough for all there is."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError)
"""What PyYAML lets through of values it cannot make: ``2026-13-45``, ``!!bool maybe``, ``!!timestamp x``."""


class UserPolicy(Part):
    """What differs for one user."""

    priority: Priority = 50
    shares: Weight = 1.0
    """Of the fair share, in proportion to the others'."""
    limits: Limits = Limits()
    guest: bool = False
    """`guests` limits them too."""
    default_project: Word | None = None
    """Of jobs that name none (sacctmgr(1), ``DefaultAccount``); else the first project that they are in."""


class Project(Part):
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
    limits_of: dict[Word, Limits] = {}
    """For single members, in place of `member_limits`."""
    volumes: list[str] = []
    """Of the site's volumes, those that its members' jobs may also ask for."""
    images: Rules = []
    """What its jobs may also be run in."""
    default_time: Duration | None = None
    max_time: Duration | None = None

    def limits_for(self, member: str) -> Limits:
        """What one member may use within it."""
        return self.limits_of.get(member, self.member_limits)


class Partition(Audience):
    """A group of nodes with rules of its own (slurm.conf(5), ``PartitionName``)."""

    nodes: list[str] = ["*"]
    """Names or patterns."""
    default: bool = False
    """Of jobs that name none. Without a default such jobs may go anywhere."""
    default_time: Duration | None = None
    max_time: Duration | None = None
    priority: Priority = 50
    preemptible: bool = False
    """All jobs in it are."""


class Reservation(Part):
    """Nodes kept for some, from a date to a date (scontrol(1), ``create reservation``)."""

    nodes: list[str]
    """Names or patterns."""
    start: datetime
    """With a time zone; without one it is UTC."""
    end: datetime
    users: list[str] = []
    """Names, patterns or ``@GROUP`` for whom the nodes are kept."""
    projects: list[str] = []
    """Likewise. When neither is given, nobody's jobs run there meanwhile."""
    reason: Title = ""

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end <= self.start:
            raise ValueError("a reservation must end after it starts")
        return self


class UsageWeights(Part):
    """What one hour of each counts in usage."""

    cpu: Weight = 1.0
    memory: Weight = 0.1
    """Of one GiB."""
    gpu: Weight = 10.0


class FairShare(Part):
    """How usage is remembered and weighed."""

    half_life: Duration = 7 * 86400.0
    """After so long, usage counts half."""
    weights: UsageWeights = UsageWeights()
    foresight: Duration = 3600.0
    """What is held counts as if it had been held so much longer already."""
    default_shares: Weight = 1.0
    """Of all jobs in no project, against the projects' shares."""


class MultifactorWeights(Part):
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


class GodockerWeights(Part):
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


class Backfill(Part):
    """Small jobs around big ones (slurm.conf(5), ``SchedulerParameters``)."""

    reservations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """So many waiting jobs at the head of the queue have the resources they will need kept for them."""


class Preemption(Part):
    """What becomes of a preemptible job whose place is needed."""

    mode: Literal["off", "requeue", "suspend", "kill"] = "requeue"
    notice: Duration = 60.0
    """Seconds between the polite signal and the end."""
    exempt: Duration = 0.0
    """A job is left alone for so long after its start."""


class Retention(Part):
    """How long what ended jobs leave behind is kept."""

    archive_after: Duration | None = None
    """Remove directories and logs of jobs that ended so long ago; their record stays."""
    purge_after: Duration | None = None
    """Remove their record too; the accounting stays."""
    keep: list[str] = []
    """Jobs bearing one of these labels (``KEY`` or ``KEY=VALUE``) are kept whatever their age."""


class Policy(Part):
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
    images: dict[Word, ImageEntry] = {}
    """Those with names."""
    allowed_images: Rules = []
    """What everybody's jobs may be run in, beside these and what the setting ``images`` allows."""
    images_by_convention: Convention | None = None
    """Where images are whose names say what they hold."""
    volumes: dict[Word, VolumeEntry] = {}
    """Beside those of the settings."""
    grants: Grants = Grants()
    window: Duration = 30 * 86400.0
    """Over which the hours of limits are counted."""
    over_budget: Literal["refuse", "wait"] = "refuse"
    """What becomes of a new job of somebody whose hours are used up; one accepted before waits."""
    updatable: dict[Changeable, list[Role]] = {
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
        if HOME in self.volumes:
            raise ValueError(f"the volume {HOME} is everybody's own; give this one another name")
        return self

    def user(self, name: str) -> UserPolicy:
        """What holds for `name`."""
        return self.users.get(name, self.default_user)

    def projects_of(self, user: str, groups: frozenset[str] = frozenset()) -> list[str]:
        """Projects whose members `user` is among."""
        return [
            name
            for name, project in self.projects.items()
            if is_among(user, project.members, groups) or invited(name) in groups
        ]

    def leads(self, user: str, groups: frozenset[str] = frozenset()) -> frozenset[str]:
        """Projects that `user` leads."""
        return frozenset(
            name for name, project in self.projects.items() if is_among(user, project.leads, groups)
        )

    def shares_of(self, project: str | None) -> float:
        """Of a project, or of all jobs in none. A project that is in the policy no more has one share."""
        if project is None:
            return self.fairshare.default_shares
        found = self.projects.get(project)
        return found.shares if found else 1.0

    def project_of(self, user: str, groups: frozenset[str] = frozenset()) -> str | None:
        """Of `user`'s jobs that name none: their default project, else the first that they are a member of.

        As Slurm's default account (sacctmgr(1), ``DefaultAccount``).
        """
        mine = self.projects_of(user, groups)
        default = self.user(user).default_project
        return default if default in mine else next(iter(mine), None)

    def may_use(
        self, partition: str, user: str, project: str | None, groups: frozenset[str] = frozenset()
    ) -> bool:
        """Whether jobs of `user` in `project` may run in `partition`."""
        return self.partitions[partition].admits(user, project, groups)

    def may_enter(
        self, reservation: str, user: str, project: str | None, groups: frozenset[str] = frozenset()
    ) -> bool:
        """Whether jobs of `user` in `project` may run on the nodes kept by `reservation`."""
        kept = self.reservations[reservation]
        named = project is not None and is_among(project, kept.projects)
        return named or is_among(user, kept.users, groups)

    @property
    def default_partition(self) -> str | None:
        """Of jobs that name none."""
        return next((name for name, partition in self.partitions.items() if partition.default), None)


def load(text: str) -> Policy:
    """The policy in YAML `text`. Raises :class:`~perijove.model.InvalidSpecError` naming each wrong field."""
    content = _read(text)
    try:
        policy = Policy.model_validate({} if content is None else content)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error, Policy)) from None
    if unknown := list(_unknown(policy)):
        raise InvalidSpecError(errors=unknown)
    return policy


def _read(text: str) -> Any:
    try:
        depth = 0
        # Beforehand, since the loader in C calls itself for each level until the stack ends.
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise InvalidSpecError(
                    errors=[FieldError("", "", f"no policy has more than {DEPTH} levels within each other")]
                )
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - one of the safe ones
    except yaml.YAMLError as error:
        raise InvalidSpecError(errors=[FieldError("", "", f"not YAML: {error}")]) from None
    except _UNREADABLE as error:
        raise InvalidSpecError(errors=[FieldError("", "", f"a value cannot be read: {error}")]) from None


def _unknown(policy: Policy) -> Iterator[FieldError]:
    """Names of schedulers and projects that are not there, and images that are the default twice."""
    for name, text in default_errors(policy.images):
        yield FieldError(f"images.{name}.default", "true", text)
    if policy.scheduler not in (there := registry.names()):
        text = f"there is no such scheduler; there are: {', '.join(there)}"
        yield FieldError("scheduler", policy.scheduler, text)
    users = {"default_user": policy.default_user, **{f"users.{name}": u for name, u in policy.users.items()}}
    named = [(f"{path}.default_project", [user.default_project or "*"]) for path, user in users.items()]
    named += [(f"partitions.{name}.projects", part.projects) for name, part in policy.partitions.items()]
    for part in ("reservations", "images", "volumes"):
        named += [(f"{part}.{name}.projects", one.projects) for name, one in getattr(policy, part).items()]
    known = ", ".join(sorted(policy.projects)) or "none"
    for field, patterns in named:
        for pattern in patterns:
            if pattern != "*" and not any(fnmatchcase(name, pattern) for name in policy.projects):
                yield FieldError(field, pattern, f"there is no such project; there are: {known}")
