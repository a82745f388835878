"""The tables. A job's row is its latest version; ``event`` is its history, ``allocation`` what it held.

Ids, sequence numbers and task numbers are 64 bits wide. Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, ColumnElement, Index, Text, and_
from sqlmodel import Field, SQLModel

LONG = 86400.0
"""Seconds beyond which an allocation counts as long: those that overlap a period are looked for apart."""


class JobRow(SQLModel, table=True):
    """One job (or group, or member of one that has been materialised)."""

    __tablename__ = "job"

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    owner: str
    name: str
    state: str
    """In no index, so that PostgreSQL need not touch any while the job's state changes (heap-only tuples)."""
    final: str | None = None
    """The state, once the job has ended."""
    attempt: int = 0
    exit_code: int | None = None
    node: str | None = None
    launcher: str | None = None
    submitted: float
    started: float | None = None
    ended: float | None = None
    array_id: int | None = Field(sa_column=Column(BigInteger))
    array_task: int | None = Field(sa_column=Column(BigInteger))
    project: str | None = None
    partition: str | None = None
    archived: bool = False
    run: int | None = Field(sa_column=Column(BigInteger))
    """Of a workflow, whose step it is."""
    spec: str = Field(sa_column=Column(Text, nullable=False))
    """The JobSpec as JSON, only the fields that were given."""
    detail: Any = Field(sa_column=Column(JSON, nullable=False))
    """The remaining fields of :class:`perijove.model.Job`, where they differ from its defaults."""


class ActiveRow(SQLModel, table=True):
    """A job that neither waits in the queue nor has ended: few, whatever waits and whatever was."""

    __tablename__ = "active"

    job: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))


class LabelRow(SQLModel, table=True):
    """A label of a job (of a group, not of its members), to be found by."""

    __tablename__ = "label"
    __table_args__ = (
        Index("ix_label_value", "key", "value", "job"),
        Index("ix_label_owner", "owner", "key", "value", "job"),
    )

    job: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    key: str = Field(primary_key=True)
    value: str
    owner: str


class EventRow(SQLModel, table=True):
    """One line of a job's history."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_job", "job"),)

    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    job: int = Field(sa_column=Column(BigInteger, nullable=False))
    owner: str
    at: float
    event: str
    state: str
    attempt: int
    detail: Any = Field(sa_column=Column(JSON, nullable=False))


class AllocationRow(SQLModel, table=True):
    """What an attempt held of a node from `began` to `ended`; outlives the job's own row."""

    __tablename__ = "allocation"

    job: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    attempt: int = Field(primary_key=True)
    began: float = Field(primary_key=True)
    ended: float | None = None
    """None: held still."""
    owner: str
    project: str | None = None
    kind: str
    image: str | None = None
    partition: str | None = None
    node: str
    cpu: float
    memory: int = Field(sa_column=Column(BigInteger, nullable=False))
    gpus: int
    label: str


class DocumentRow(SQLModel, table=True):
    """A version of something that administrators set while the service runs: the policy, drains."""

    __tablename__ = "document"

    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    at: float
    by: str
    body: str = Field(sa_column=Column(Text, nullable=False))


class LeaseRow(SQLModel, table=True):
    """Who may write: one row. `fence` grows with each leader, `number` with each of its commits.

    It also keeps the highest numbers ever given, since their rows may be gone or not there yet (members).
    """

    __tablename__ = "lease"

    name: str = Field(primary_key=True)
    holder: str
    url: str
    fence: int = Field(sa_column=Column(BigInteger, nullable=False))
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    expires: float
    """By the database's clock."""
    last_job: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_seq: int = Field(sa_column=Column(BigInteger, nullable=False))


class FileRow(SQLModel, table=True):
    """Who may name a file of the store as an input: whoever uploaded it or owns the job that made it."""

    __tablename__ = "file"

    digest: str = Field(primary_key=True)
    owner: str = Field(primary_key=True)
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: float


class SubmissionRow(SQLModel, table=True):
    """A submission's ``Idempotency-Key``, so that one repeated after a lost answer makes no second job."""

    __tablename__ = "submission"

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    first: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Id of the first of its jobs."""
    count: int


def _partial(name: str, *columns: Column[Any], where: ColumnElement[Any]) -> None:
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


job = SQLModel.metadata.tables["job"]
event = SQLModel.metadata.tables["event"]
allocation = SQLModel.metadata.tables["allocation"]
document = SQLModel.metadata.tables["document"]
active = SQLModel.metadata.tables["active"]
lease = SQLModel.metadata.tables["lease"]
label = SQLModel.metadata.tables["label"]
file = SQLModel.metadata.tables["file"]
submission = SQLModel.metadata.tables["submission"]

# Lists show groups as one row: members, of which there may be many more, are in none of their indexes. Nor
# are steps of workflows, which are listed by their run.
_plain = job.c.array_id.is_(None)
_top = and_(_plain, job.c.run.is_(None))
_partial("ix_job_top", job.c.id, where=_top)
_partial("ix_job_owner", job.c.owner, job.c.id, where=_top)
_partial("ix_job_owner_name", job.c.owner, job.c.name, job.c.id, where=_top)
_partial("ix_job_name", job.c.name, job.c.id, where=_top)
_partial("ix_job_project", job.c.project, job.c.id, where=and_(_top, job.c.project.is_not(None)))
_partial("ix_job_final", job.c.final, job.c.id, where=_top)
_partial("ix_job_owner_final", job.c.owner, job.c.final, job.c.id, where=_top)
_partial("ix_job_array", job.c.array_id, job.c.array_task, where=job.c.array_id.is_not(None))
_partial("ix_job_run", job.c.run, job.c.id, where=job.c.run.is_not(None))
_partial("ix_job_live", job.c.id, where=job.c.final.is_(None))

_partial("ix_job_kept", job.c.archived, job.c.ended, job.c.id, where=and_(_plain, job.c.final.is_not(None)))

Index("ix_allocation_began", allocation.c.began)
_partial("ix_allocation_open", allocation.c.began, where=allocation.c.ended.is_(None))
_partial(
    "ix_allocation_long",
    allocation.c.ended,
    where=allocation.c.ended - allocation.c.began > LONG,
)
