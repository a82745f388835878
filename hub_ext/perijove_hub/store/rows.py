"""Between :class:`perijove.model.Job` and its row."""

from __future__ import annotations

import json
from operator import attrgetter
from typing import Any

from perijove.model import Job, JobEvent, JobSpec, State

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
)
UPDATED = ("state", "attempt", "exit_code", "node", "started", "ended", "detail")


def row_of(job: Job) -> tuple[Any, ...]:
    """The whole row, in the table's order: :data:`COLUMNS`, then spec and detail as JSON."""
    spec = job.spec.model_dump_json(exclude_unset=True)
    return (*_columns_of(job), spec, _json(detail_of(job)))


def update_of(job: Job) -> tuple[Any, ...]:
    """What may have changed, in the order of :data:`UPDATED`, then the id."""
    changed = (job.state.value, job.attempt, job.exit_code, job.node, job.started, job.ended)
    return (*changed, _json(detail_of(job)), job.id)


def detail_of(job: Job) -> dict[str, Any]:
    """The fields without a column of their own, where they say anything."""
    detail: dict[str, Any] = {}
    if job.reason is not None:
        detail["reason"] = job.reason.model_dump(mode="json", exclude_none=True)
    if job.gpus:
        detail["gpus"] = [gpu.model_dump(mode="json") for gpu in job.gpus]
    if job.endpoint is not None:
        detail["endpoint"] = job.endpoint.model_dump(mode="json")
    for name in ("memory_peak", "cpu_seconds", "outputs", "progress_text", "kill_requested"):
        if value := getattr(job, name):
            detail[name] = value
    if job.progress is not None:
        detail["progress"] = job.progress
    return detail


def job_of(row: Any) -> Job:
    """The job a row holds."""
    fields = {name: getattr(row, name) for name in COLUMNS}
    return Job.model_validate({**fields, **row.detail, "spec": JobSpec.model_validate_json(row.spec)})


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


_columns_of = attrgetter(*COLUMNS)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value) if value else "{}"
