"""Between the records and their rows."""

from __future__ import annotations

import json
from operator import attrgetter
from typing import Any

from perijove.model import Job, JobEvent, JobSpec, State
from perijove_hub.accounting import Allocation

COLUMNS = (
    "id",
    "owner",
    "name",
    "state",
    "attempt",
    "exit_code",
    "node",
    "launcher",
    "submitted",
    "started",
    "ended",
    "array_id",
    "array_task",
    "partition",
    "archived",
    "run",
)
"""Columns of a job's row that are fields of :class:`perijove.model.Job`."""
INSERTED = (*COLUMNS[:4], "final", *COLUMNS[4:], "project", "spec", "detail")
UPDATED = ("state", "final", "attempt", "exit_code", "node", "started", "ended", "archived", "detail")
RESPECIFIED = ("name", "launcher", "project", "partition", "spec", *UPDATED)
_IN_DETAIL = (
    "memory_peak",
    "cpu_seconds",
    "gpu_seconds",
    "outputs",
    "sizes",
    "values",
    "progress_text",
    "slots",
    "failures",
    "suspended_seconds",
    "failed_nodes",
    "kill_requested",
    "requeue_requested",
)
"""Fields without a column that are left out where they are empty or zero."""
_IN_DETAIL_UNLESS_NONE = (
    "allocated",
    "suspended_at",
    "progress",
    "rerun_of",
    "image_digest",
    "image_manifest",
    "step",
)


def row_of(job: Job) -> tuple[Any, ...]:
    """The whole row, in the order of :data:`INSERTED`."""
    return (
        job.id,
        job.owner,
        job.name,
        job.state.value,
        job.state.value if job.state.ended else None,
        job.attempt,
        job.exit_code,
        job.node,
        job.launcher,
        job.submitted,
        job.started,
        job.ended,
        job.array_id,
        job.array_task,
        job.partition,
        job.archived,
        job.run,
        job.spec.project,
        job.spec.model_dump_json(exclude_unset=True),
        _json(detail_of(job)),
    )


def update_of(job: Job) -> tuple[Any, ...]:
    """What may have changed, in the order of :data:`UPDATED`, then the id."""
    state = job.state.value
    return (
        state,
        state if job.state.ended else None,
        job.attempt,
        job.exit_code,
        job.node,
        job.started,
        job.ended,
        job.archived,
        _json(detail_of(job)),
        job.id,
    )


def respecified_of(job: Job) -> tuple[Any, ...]:
    """What may have changed with the spec, in the order of :data:`RESPECIFIED`, then the id."""
    spec = job.spec.model_dump_json(exclude_unset=True)
    return (job.name, job.launcher, job.spec.project, job.partition, spec, *update_of(job))


def detail_of(job: Job) -> dict[str, Any]:
    """The fields without a column of their own, where they say anything."""
    detail: dict[str, Any] = {}
    if job.reason is not None:
        detail["reason"] = job.reason.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if job.gpus:
        detail["gpus"] = [gpu.model_dump(mode="json") for gpu in job.gpus]
    if job.endpoint is not None:
        detail["endpoint"] = job.endpoint.model_dump(mode="json")
    if job.kept != "all":
        detail["kept"] = job.kept
    if job.tasks:
        detail["tasks"] = {state.value: count for state, count in job.tasks.items() if count}
    detail.update((name, value) for name, value in zip(_IN_DETAIL, _rare(job), strict=True) if value)
    optional = zip(_IN_DETAIL_UNLESS_NONE, _optional(job), strict=True)
    detail.update((name, value) for name, value in optional if value is not None)
    return detail


def job_of(row: Any) -> Job:
    """The job a row holds."""
    fields = dict(zip(COLUMNS, _columns_of(row), strict=True))
    return Job.model_validate({**fields, **row.detail, "spec": JobSpec.model_validate_json(row.spec)})


def is_active(job: Job) -> bool:
    """Whether it neither waits in the queue nor has ended."""
    return job.state is not State.PENDING and not job.state.ended


def event_row(event: JobEvent) -> tuple[Any, ...]:
    """The row of an event, in the table's order."""
    return (
        event.seq,
        event.job,
        event.owner,
        event.at,
        event.event,
        event.state.value,
        event.attempt,
        _json(event.detail),
    )


def event_of(row: Any) -> JobEvent:
    """The event a row holds."""
    return JobEvent(row.seq, row.job, row.owner, row.at, row.event, State(row.state), row.attempt, row.detail)


def allocation_row(allocation: Allocation) -> tuple[Any, ...]:
    """The row of an allocation, in the table's order."""
    return _allocation_of(allocation)


def allocation_of(row: Any) -> Allocation:
    """The allocation a row holds."""
    return Allocation(
        job=row.job,
        attempt=row.attempt,
        owner=row.owner,
        project=row.project,
        kind=row.kind,
        image=row.image,
        partition=row.partition,
        node=row.node,
        cpu=row.cpu,
        memory=row.memory,
        gpus=row.gpus,
        begin=row.began,
        end=row.ended,
        label=row.label,
    )


def label_rows(job: Job) -> list[tuple[Any, ...]]:
    """The rows of its labels, in the table's order. A member is found by its group's."""
    if job.array_id is not None:
        return []
    return [(job.id, key, value, job.owner) for key, value in job.spec.labels.items()]


OWNED = ("digest", "owner", "size", "at")


def file_rows(job: Job) -> list[tuple[Any, ...]]:
    """Its owner may use what it made, in the order of :data:`OWNED`."""
    if not job.outputs or not job.state.ended or job.archived:
        return []
    sizes = {digest: job.sizes.get(name, 0) for name, digest in job.outputs.items()}
    return [(digest, job.owner, size, job.ended or job.submitted) for digest, size in sizes.items()]


_columns_of = attrgetter(*COLUMNS)
_rare = attrgetter(*_IN_DETAIL)
_optional = attrgetter(*_IN_DETAIL_UNLESS_NONE)
_allocation_of = attrgetter(
    "job",
    "attempt",
    "begin",
    "end",
    "owner",
    "project",
    "kind",
    "image",
    "partition",
    "node",
    "cpu",
    "memory",
    "gpus",
    "label",
)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value) if value else "{}"
