"""The tables of workflows: runs, their steps, and the results that later runs take."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel

WHOLE = -1
"""``item`` of a step that is not mapped, or came to its end as a whole."""


class RunRow(SQLModel, table=True):
    """A run of a workflow; its id is one of those of jobs."""

    __tablename__ = "run"

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    owner: str
    name: str
    project: str | None = None
    state: str
    final: str | None = None
    """The state, once the run has ended."""
    submitted: float
    ended: float | None = None
    pinned: bool = False
    archived: bool = False
    """Its results are no longer kept for it."""
    document: str = Field(sa_column=Column(Text, nullable=False))
    """The workflow as JSON."""
    detail: Any = Field(sa_column=Column(JSON, nullable=False))
    """The remaining fields of :class:`perijove.model.Run`."""


class StepRow(SQLModel, table=True):
    """A step of a run, or an instance of a mapped one, that has a job or has ended."""

    __tablename__ = "step"
    __table_args__ = (Index("ix_step_key", "key"),)

    run: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    step: str = Field(primary_key=True)
    item: int = Field(primary_key=True)
    """The number of the element, from 0; -1 when not mapped."""
    state: str
    """Once it has ended, the state it ended in; until then what it was when this was written."""
    job: int | None = Field(sa_column=Column(BigInteger))
    number: int = 0
    """Of the try, where tries are no jobs of their own."""
    key: str | None = None
    cached_from: int | None = Field(sa_column=Column(BigInteger))
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Of the same numbers as events: larger ones were written later."""
    detail: Any = Field(sa_column=Column(JSON, nullable=False))
    """Outputs, causes, reason, times."""


class ResultRow(SQLModel, table=True):
    """What a step came to, by what determined it: the latest of each owner."""

    __tablename__ = "result"

    key: str = Field(primary_key=True)
    owner: str = Field(primary_key=True)
    sealed: bool
    """Everybody may take it."""
    workflow: str
    step: str
    """``train[3]`` of a mapped one."""
    run: int = Field(sa_column=Column(BigInteger, nullable=False))
    job: int | None = Field(sa_column=Column(BigInteger))
    at: float
    outputs: Any = Field(sa_column=Column(JSON, nullable=False))
    ingredients: Any = Field(sa_column=Column(JSON, nullable=False))


run = SQLModel.metadata.tables["run"]
step = SQLModel.metadata.tables["step"]
result = SQLModel.metadata.tables["result"]

_named = run.c.project.is_not(None)
_live = run.c.final.is_(None)
Index("ix_run_owner", run.c.owner, run.c.id)
Index("ix_run_project", run.c.project, run.c.id, sqlite_where=_named, postgresql_where=_named)
Index("ix_run_live", run.c.id, sqlite_where=_live, postgresql_where=_live)
Index("ix_result_latest", result.c.owner, result.c.workflow, result.c.step, result.c.at)
Index("ix_result_run", result.c.run)
