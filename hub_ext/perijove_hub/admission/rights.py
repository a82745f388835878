"""What a policy lets a user ask for: project, partition, reservation, volumes, time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from perijove.model import FieldError, JobSpec, Kind, format_duration
from perijove_hub.admission.site import Asker, Site
from perijove_hub.policy.document import Partition, Policy, Reservation, is_among
from perijove_hub.settings import Settings


def projects_of(policy: Policy, asker: Asker) -> list[str]:
    """Projects in which the user may have jobs: as a member, or leading them."""
    led = policy.leads(asker.name)
    mine = {*policy.projects_of(asker.name, asker.groups), *led}
    return sorted(mine)


def project_errors(spec: JobSpec, policy: Policy, asker: Asker) -> list[FieldError]:
    """Whether the user is in the job's project."""
    if spec.project is None:
        return []
    mine = projects_of(policy, asker)
    if spec.project in mine:
        return []
    # Whether somebody else's project exists is not told.
    known = ", ".join(mine) or "none"
    return [FieldError("project", spec.project, f"you are in no such project; yours: {known}")]


def may_use(partition: Partition, asker: Asker, project: str | None) -> bool:
    """Whether the user, with a job of `project`, may use the partition."""
    return _allowed(partition.users, partition.projects, asker, project)


def may_enter(reservation: Reservation, asker: Asker, project: str | None) -> bool:
    """Whether a job of the user and `project` may run inside the reservation."""
    named = project is not None and is_among(project, reservation.projects)
    return named or is_among(asker.name, reservation.users, asker.groups)


def _allowed(users: list[str], projects: list[str], asker: Asker, project: str | None) -> bool:
    """A list with ``*`` limits nothing; of two that limit, either lets one in."""
    limits = []
    if "*" not in users:
        limits.append(is_among(asker.name, users, asker.groups))
    if "*" not in projects:
        limits.append(project is not None and is_among(project, projects))
    return any(limits) if limits else True


@dataclass(frozen=True, slots=True)
class Chosen:
    """The partition a job will be in, if any, or why it cannot be."""

    partition: str | None = None
    errors: tuple[FieldError, ...] = ()


def choose_partition(spec: JobSpec, site: Site, asker: Asker) -> Chosen:
    """The partition asked for, else the default one."""
    policy = site.policy
    name = spec.partition or policy.default_partition
    if name is None:
        return Chosen()
    partition = policy.partitions.get(name)
    if partition is not None and may_use(partition, asker, spec.project):
        return Chosen(name)
    mine = [key for key, one in sorted(policy.partitions.items()) if may_use(one, asker, spec.project)]
    known = ", ".join(mine) or "none"
    within = f" in project {spec.project}" if spec.project else ""
    if spec.partition is None:
        text = f"the default partition is not for you{within}; name one of: {known}"
    else:
        text = f"there is no such partition for you{within}; you may use: {known}"
    return Chosen(None, (FieldError("partition", name, text),))


def reservation_errors(
    spec: JobSpec, limit: float | None, policy: Policy, asker: Asker, now: float
) -> list[FieldError]:
    """Whether the job may run inside the reservation that it names, and `limit` seconds are left in it."""
    name = spec.reservation
    if name is None:
        return []
    open_to = {
        key: one
        for key, one in sorted(policy.reservations.items())
        if instant(one.end) > now and may_enter(one, asker, spec.project)
    }
    reservation = open_to.get(name)
    if reservation is None:
        known = ", ".join(open_to) or "none"
        return [FieldError("reservation", name, f"there is no such reservation for you; yours: {known}")]
    left = instant(reservation.end) - max(now, instant(reservation.start))
    if limit is not None and limit > left:
        text = f"reservation {name} has {format_duration(left)} left for it"
        return [FieldError("time_limit", format_duration(limit), text)]
    return []


def instant(at: datetime) -> float:
    """Seconds since the epoch; UTC where no zone is given."""
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def volumes_of(settings: Settings, policy: Policy, asker: Asker, project: str | None) -> list[str]:
    """Volumes of the site's list that the user may ask for, beside ``home``."""
    mine = {
        name
        for name, volume in settings.volumes.items()
        if any(fnmatchcase(asker.name, pattern) for pattern in volume.users)
    }
    if project is not None and project in policy.projects:
        mine |= {name for name in policy.projects[project].volumes if name in settings.volumes}
    return sorted(mine)


def volume_errors(spec: JobSpec, site: Site, asker: Asker) -> list[FieldError]:
    """Whether the user has the volumes asked for."""
    wanted = [request.name for request in spec.volumes if request.name != "home"]
    if not wanted:
        return []
    mine = volumes_of(site.settings, site.policy, asker, spec.project)
    known = ", ".join(["home", *mine])
    return [
        FieldError("volumes", name, f"there is no such volume for you; you have: {known}")
        for name in wanted
        if name not in mine
    ]


@dataclass(frozen=True, slots=True)
class Time:
    """The time limit a job gets, or why not the one asked for."""

    limit: float | None = None
    errors: tuple[FieldError, ...] = ()


def time_limit(spec: JobSpec, site: Site, partition: str | None) -> Time:
    """What was asked for, unless it is too long; else the default, no longer than the longest.

    A notebook server gets no default: it ends when its user stops it, or at the longest time.
    """
    policy = site.policy
    project = policy.projects.get(spec.project) if spec.project else None
    group = policy.partitions.get(partition) if partition else None
    longest = [
        (limit, where)
        for limit, where in (
            (group.max_time if group else None, f"in partition {partition}"),
            (project.max_time if project else None, f"in project {spec.project}"),
            (policy.max_time, "here"),
            (site.settings.max_time, "here"),
        )
        if limit is not None
    ]
    most, where = min(longest, default=(None, ""))
    if spec.time_limit is not None:
        if most is not None and spec.time_limit > most:
            text = f"at most {format_duration(most)} {where}"
            return Time(None, (FieldError("time_limit", format_duration(spec.time_limit), text),))
        return Time(spec.time_limit)
    defaults = (
        group.default_time if group else None,
        project.default_time if project else None,
        policy.default_time,
    )
    usual = next((one for one in defaults if one is not None), None)
    if usual is None or spec.kind is Kind.SERVER:
        return Time(most)
    return Time(usual if most is None else min(usual, most))


def signal_errors(spec: JobSpec, limit: float | None) -> list[FieldError]:
    """A warning needs an end to come before."""
    if spec.signal is None:
        return []
    if limit is None:
        text = "without a time limit there is no end to warn of; give time_limit"
        return [FieldError("signal", str(spec.signal), text)]
    if spec.signal.before >= limit:
        text = f"must be less than the time limit, which is {format_duration(limit)}"
        return [FieldError("signal", str(spec.signal), text)]
    return []
