"""The database of intentions: one writer, many readers, SQLite in WAL mode.

Synchronous on purpose: the controller calls it in a thread of its own. A commit returns when the batch
is on the disk (``synchronous=FULL``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, bindparam, create_engine, event, func, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from perijove.model import Job, JobEvent, State
from perijove_hub.store.rows import UPDATED, event_of, event_row, job_of, row_of, update_of
from perijove_hub.store.tables import EventRow, FileRow, JobRow, SubmissionRow

log = logging.getLogger(__name__)

_job = SQLModel.metadata.tables["job"]
_event = SQLModel.metadata.tables["event"]
_file = SQLModel.metadata.tables["file"]
_submission = SQLModel.metadata.tables["submission"]

__all__ = ["Batch", "Database", "EventRow", "FileRow", "JobRow", "Page", "SubmissionRow"]


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    new: dict[int, Job] = field(default_factory=dict)
    changed: dict[int, Job] = field(default_factory=dict)
    events: list[JobEvent] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.events)


@dataclass(frozen=True, slots=True)
class Page:
    """What to list: newest first, ids below `before`."""

    states: tuple[State, ...] = ()
    owner: str | None = None
    name: str | None = None
    array: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    limit: int = 100
    before: int | None = None


class Database:
    """Opens (and migrates) the database at `url`, an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        # Compiled once: SQLAlchemy's work on each parameter of each row costs more than SQLite's on the row.
        self._insert_job, self._update_job, self._insert_event = (
            str(statement.compile(self.engine)) for statement in (insert(_job), _UPDATE, insert(_event))
        )

    @classmethod
    def at(cls, path: Path) -> Database:
        """The SQLite database in the file `path`."""
        return cls(f"sqlite:///{path}")

    def migrate(self) -> None:
        """Bring the tables to this version's form, from any earlier one."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def commit(self, batch: Batch) -> None:
        """Write `batch` in one transaction, durably or not at all."""
        with self.engine.begin() as connection:
            if batch.new:
                connection.exec_driver_sql(self._insert_job, [row_of(job) for job in batch.new.values()])
            if batch.changed:
                rows = [update_of(job) for job in batch.changed.values()]
                connection.exec_driver_sql(self._update_job, rows)
            if batch.events:
                connection.exec_driver_sql(self._insert_event, [event_row(e) for e in batch.events])
            if batch.submissions:
                connection.execute(insert(_submission), batch.submissions)

    def commit_piecemeal(self, batch: Batch) -> None:
        """Write each job of `batch` with its events by itself, leaving out what cannot be written."""
        for job_id in [*batch.new, *(job for job in batch.changed if job not in batch.new)]:
            part = Batch(
                new={job_id: batch.new[job_id]} if job_id in batch.new else {},
                changed={job_id: batch.changed[job_id]} if job_id in batch.changed else {},
                events=[event for event in batch.events if event.job == job_id],
                submissions=[row for row in batch.submissions if row["first"] == job_id],
            )
            try:
                self.commit(part)
            except OperationalError:
                raise
            except Exception:
                log.critical("job %d cannot be written and is not", job_id, exc_info=True)

    def live(self) -> list[Job]:
        """Every job that has not ended, by id."""
        states = [state.value for state in State if not state.ended]
        return self._jobs(select(_job).where(_job.c.state.in_(states)).order_by(_job.c.id))

    def last(self) -> tuple[int, int]:
        """The highest job id and event number ever given."""
        with self._read() as connection:
            job = connection.execute(select(func.max(_job.c.id))).scalar()
            seq = connection.execute(select(func.max(_event.c.seq))).scalar()
        return job or 0, seq or 0

    def job(self, job: int) -> Job | None:
        """The job of that id."""
        found = self._jobs(select(_job).where(_job.c.id == job))
        return found[0] if found else None

    def member(self, array: int, task: int) -> Job | None:
        """Member `task` of an array."""
        query = select(_job).where(_job.c.array_id == array, _job.c.array_task == task)
        found = self._jobs(query)
        return found[0] if found else None

    def jobs(self, page: Page) -> list[Job]:
        """One page of jobs."""
        query = select(_job).order_by(_job.c.id.desc()).limit(page.limit)
        if page.states:
            query = query.where(_job.c.state.in_([state.value for state in page.states]))
        if page.owner is not None:
            query = query.where(_job.c.owner == page.owner)
        if page.name is not None:
            query = query.where(_job.c.name == page.name)
        if page.array is not None:
            query = query.where(_job.c.array_id == page.array)
        for key, value in page.labels:
            query = query.where(func.json_extract(_job.c.spec, f'$.labels."{key}"') == value)
        if page.before is not None:
            query = query.where(_job.c.id < page.before)
        return self._jobs(query)

    def events(
        self, *, after: int = 0, job: int | None = None, owner: str | None = None, limit: int = 1000
    ) -> list[JobEvent]:
        """History in order, from the event past `after` on."""
        query = select(_event).where(_event.c.seq > after).order_by(_event.c.seq).limit(limit)
        if job is not None:
            query = query.where(_event.c.job == job)
        if owner is not None:
            query = query.where(_event.c.owner == owner)
        with self._read() as connection:
            return [event_of(row) for row in connection.execute(query)]

    def array_counts(self, array: int) -> dict[State, int]:
        """How many members of an array are in each state."""
        query = select(_job.c.state, func.count()).where(_job.c.array_id == array).group_by(_job.c.state)
        with self._read() as connection:
            return {State(state): count for state, count in connection.execute(query)}

    def submission(self, owner: str, key: str) -> range | None:
        """The job ids that a submission of that key was given."""
        query = select(_submission).where(_submission.c.owner == owner, _submission.c.key == key)
        with self._read() as connection:
            row = connection.execute(query).first()
        return range(row.first, row.first + row.count) if row else None

    def add_file(self, digest: str, owner: str, size: int, at: float) -> None:
        """Record that `owner` may use the file; idempotent."""
        if self.owns(owner, digest):
            return
        with self.engine.begin() as connection:
            connection.execute(
                insert(_file).prefix_with("OR IGNORE", dialect="sqlite"),
                {"digest": digest, "owner": owner, "size": size, "at": at},
            )

    def owns(self, owner: str, digest: str) -> bool:
        """Whether `owner` uploaded that file."""
        query = select(_file.c.digest).where(_file.c.digest == digest, _file.c.owner == owner)
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def _jobs(self, query: Any) -> list[Job]:
        with self._read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            yield connection


_UPDATE = (
    update(_job).where(_job.c.id == bindparam("job_id")).values({name: bindparam(name) for name in UPDATED})
)


def _engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
