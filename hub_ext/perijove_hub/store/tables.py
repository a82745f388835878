"""The tables. A job's row is its latest version; ``event`` is its history, append-only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel


class JobRow(SQLModel, table=True):
    """One job (or array, or member of one). Times are seconds since the epoch, UTC."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_owner_id", "owner", "id"), Index("ix_job_array", "array_id"))

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    owner: str
    name: str
    state: str = Field(index=True)
    attempt: int = 0
    exit_code: int | None = None
    node: str | None = None
    launcher: str | None = None
    submitted: float
    started: float | None = None
    ended: float | None = None
    array_id: int | None = None
    array_task: int | None = None
    spec: str = Field(sa_column=Column(Text, nullable=False))
    """The JobSpec as JSON, only the fields that were given."""
    detail: Any = Field(sa_column=Column(JSON, nullable=False))
    """The remaining fields of :class:`perijove.model.Job`, where they differ from its defaults."""


class EventRow(SQLModel, table=True):
    """One line of a job's history."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_job", "job"),)

    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    job: int
    owner: str
    at: float
    event: str
    state: str
    attempt: int
    detail: Any = Field(sa_column=Column(JSON, nullable=False))


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
    first: int
    """Id of the first of its jobs."""
    count: int
