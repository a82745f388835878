"""How long a job may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perijove.model import FieldError, JobSpec, Kind, format_duration

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy


def time_limit_of(
    spec: JobSpec, policy: Policy, partition: str | None = None, *, longest: float | None = None
) -> tuple[float | None, FieldError | None]:
    """The time limit in seconds that a job in `partition` gets (None: none), or why not the one it asks for.

    Asked for: that, unless it is over one of the maxima (the partition's, the project's, the policy's and
    `longest`, the service's). Else the first default of partition, project and policy, cut to the least
    maximum; without any default the maximum itself, as in Slurm (slurm.conf(5), ``DefaultTime``). A notebook
    server gets no default: it ends when its user stops it, or at the maximum.
    """
    group = policy.partitions.get(partition) if partition else None
    project = policy.projects.get(spec.project) if spec.project else None
    maxima = [
        (group.max_time if group else None, f"in partition {partition}"),
        (project.max_time if project else None, f"in project {spec.project}"),
        (policy.max_time, "here"),
        (longest, "here"),
    ]
    most, where = min(
        ((limit, where) for limit, where in maxima if limit is not None),
        default=(None, ""),
        key=lambda m: m[0],
    )
    if spec.time_limit is not None:
        if most is not None and spec.time_limit > most:
            text = f"at most {format_duration(most)} {where}"
            return None, FieldError("time_limit", format_duration(spec.time_limit), text)
        return spec.time_limit, None
    defaults = (
        group.default_time if group else None,
        project.default_time if project else None,
        policy.default_time,
    )
    usual = next((limit for limit in defaults if limit is not None), None)
    if usual is None or spec.kind is Kind.SERVER:
        return most, None
    return usual if most is None else min(usual, most), None
