"""What a policy lets a user ask for: project, partition, reservation, a warning in time."""

from __future__ import annotations

from dataclasses import dataclass

from perijove.model import FieldError, JobSpec, format_duration
from perijove_hub.admission.site import Asker, Site
from perijove_hub.policy.document import Policy


def project_errors(spec: JobSpec, asker: Asker) -> list[FieldError]:
    """Whether the user is in the job's project."""
    if spec.project is None or spec.project in asker.projects:
        return []
    # Whether somebody else's project exists is not told.
    known = ", ".join(asker.projects) or "none"
    return [FieldError("project", spec.project, f"you are in no such project; yours: {known}")]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The partition a job will be in, if any, or why it cannot be."""

    partition: str | None = None
    errors: tuple[FieldError, ...] = ()


def choose_partition(spec: JobSpec, site: Site, asker: Asker) -> Chosen:
    """The partition asked for, else the default one."""
    name = spec.partition or site.policy.default_partition
    if name is None:
        return Chosen()
    if asker.may_use(name, spec.project):
        return Chosen(name)
    known = ", ".join(asker.partitions(spec.project)) or "none"
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
        if one.end.timestamp() > now and policy.may_enter(key, asker.name, spec.project, asker.groups)
    }
    reservation = open_to.get(name)
    if reservation is None:
        known = ", ".join(open_to) or "none"
        return [FieldError("reservation", name, f"there is no such reservation for you; yours: {known}")]
    left = reservation.end.timestamp() - max(now, reservation.start.timestamp())
    if limit is not None and limit > left:
        text = f"reservation {name} has {format_duration(left)} left for it"
        return [FieldError("time_limit", format_duration(limit), text)]
    return []


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
