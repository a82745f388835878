"""The database of intentions: one writer, many readers; SQLite in WAL mode, or PostgreSQL.

Synchronous on purpose: the controller calls it in a thread of its own. A commit returns when the batch
is on the disk (``synchronous=FULL``; PostgreSQL's ``synchronous_commit`` as the server has it).
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from perijove.model import Job, JobEvent, OperatorError, State
from perijove_hub.accounting import Allocation, Axis, Spent, day_of
from perijove_hub.store import documents, people_tables
from perijove_hub.store.batch import Batch, Page
from perijove_hub.store.documents import Document
from perijove_hub.store.engine import (
    TRANSIENT,
    Transaction,
    driver_transaction,
    is_postgresql,
    open_engine,
    writing,
)
from perijove_hub.store.lease import StaleLeaderError, note_values, queries_for
from perijove_hub.store.migrating import upgrade
from perijove_hub.store.queries import days, overlapping, page_queries, spent_of, usage_query
from perijove_hub.store.rows import allocation_of, event_of, job_of
from perijove_hub.store.tables import EventRow, FileRow, JobRow, SubmissionRow
from perijove_hub.store.tables import allocation as _allocation
from perijove_hub.store.tables import event as _event
from perijove_hub.store.tables import file as _file
from perijove_hub.store.tables import job as _job
from perijove_hub.store.tables import lease as _lease
from perijove_hub.store.tables import submission as _submission
from perijove_hub.store.workflow_queries import Workflows
from perijove_hub.store.writing import ByColumn, ByRow, Writer

log = logging.getLogger(__name__)
T = TypeVar("T")

__all__ = [
    "TRANSIENT",
    "Batch",
    "Database",
    "Document",
    "EventRow",
    "FileRow",
    "JobRow",
    "Page",
    "StaleLeaderError",
    "SubmissionRow",
    "people_tables",
]


class Database:
    """Opens (and migrates) the database at `url`, an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = open_engine(url)
        self.postgresql = is_postgresql(self.engine)
        self.lease = queries_for(postgresql=self.postgresql)
        self.workflows = Workflows(self.engine)
        self._writer = Writer(ByColumn() if self.postgresql else ByRow())
        self._fence: int | None = None
        self._number = 0

    @classmethod
    def at(cls, path: Path) -> Database:
        """The SQLite database in the file `path`."""
        return cls(f"sqlite:///{path}")

    def migrate(self) -> None:
        """Bring the tables to this version's form, from any earlier one."""
        with writing(self.engine) as connection:
            upgrade(connection)

    def migrate_patiently(self, seconds: float = 60.0) -> None:
        """The same, of a database that may just be starting. :class:`OperatorError` when it does not."""
        deadline, pause = time.monotonic() + seconds, 0.1
        while True:
            try:
                self.migrate()
            except TRANSIENT as error:
                if time.monotonic() > deadline:
                    cause = str(getattr(error, "orig", error)).strip()
                    raise OperatorError(f"database_url: the database cannot be used: {cause}") from error
                log.warning("the database does not answer: %s", error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)
            else:
                return

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def commit(self, batch: Batch) -> None:
        """Write `batch` in one transaction, durably or not at all.

        May be repeated with the same batch after any error of :data:`TRANSIENT`, also one that came instead
        of the answer to a commit that was made. Raises :class:`StaleLeaderError` when another service leads.
        """
        if batch.number is None:
            self._number += 1
            batch.number = self._number
        members = self._members_of(batch.removed) if batch.removed else []
        with driver_transaction(self.engine) as transaction:
            if self._note(transaction, batch):
                self._writer.write(transaction.cursor, batch, members)
                transaction.commit()

    def commit_piecemeal(self, batch: Batch) -> None:
        """Write each job of `batch` with its events by itself, leaving out what cannot be written."""
        if batch.parts is None:
            batch.parts = [batch.of(job) for job in batch.jobs()]
        while batch.parts:
            part = batch.parts[0]
            try:
                self.commit(part)
            except (*TRANSIENT, StaleLeaderError):
                raise
            except Exception:
                log.critical("job %s cannot be written and is not", part.jobs()[0], exc_info=True)
            del batch.parts[0]

    def lead(self, fence: int | None) -> None:
        """From now on write as the leader of that fence, and only while it is one; None: without a lease."""
        self._fence, self._number = fence, 0

    def live(self) -> list[Job]:
        """Every job that has not ended, by id."""
        return self._jobs(select(_job).where(_job.c.final.is_(None)).order_by(_job.c.id))

    def last(self) -> tuple[int, int]:
        """The highest job id and event number ever given."""
        with self._read() as connection:
            job, seq = connection.execute(select(_lease.c.last_job, _lease.c.last_seq)).one()
        return job, seq

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
        parts = [self._jobs(query) for query in page_queries(page)]
        newest = heapq.merge(*parts, key=lambda job: job.id, reverse=True)
        return list(islice(newest, page.limit))

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

    def members(self, group: int) -> list[Job]:
        """Those members of a group that have rows of their own, by task."""
        return self._jobs(select(_job).where(_job.c.array_id == group).order_by(_job.c.array_task))

    def expired(self, before: float, archived: bool, limit: int) -> list[Job]:
        """Jobs and groups that ended before a time and are archived, or are not; the oldest first."""
        top = _job.c.array_id.is_(None)
        query = select(_job).where(top, _job.c.final.is_not(None), _job.c.archived.is_(archived))
        oldest = query.where(_job.c.ended < before).order_by(_job.c.ended, _job.c.id)
        return self._jobs(oldest.limit(limit))

    def cleared(self, jobs: Sequence[int]) -> set[int]:
        """Those of `jobs` that are archived, or of which nothing is left but what they were charged.

        A job that the database knows nothing of is none of them: it may be older than that job.
        """
        found: set[int] = set()
        with self._read() as connection:
            for i in range(0, len(jobs), 500):
                some = jobs[i : i + 500]
                rows = connection.execute(select(_job.c.id, _job.c.archived).where(_job.c.id.in_(some)))
                there = {row.id: bool(row.archived) for row in rows}
                found.update(job for job, archived in there.items() if archived)
                gone = [job for job in some if job not in there]
                charged = select(_allocation.c.job).where(_allocation.c.job.in_(gone)).distinct()
                found.update(connection.execute(charged).scalars())
        return found

    def group_tasks(self, group: int) -> dict[int, State]:
        """The members of a group that have rows of their own: task number (or rank) -> state."""
        query = select(_job.c.array_task, _job.c.state).where(_job.c.array_id == group)
        with self._read() as connection:
            return {task: State(state) for task, state in connection.execute(query)}

    def allocations(self, since: float) -> list[Allocation]:
        """What was held at some time after `since`, or is held still; by its begin."""
        now_on = overlapping(since, float("inf"))
        query = select(_allocation).where(or_(*now_on)).order_by(_allocation.c.began, _allocation.c.job)
        with self._read() as connection:
            return [allocation_of(row) for row in connection.execute(query)]

    def usage(
        self,
        by: Sequence[Axis],
        since: float,
        until: float,
        *,
        owner: str | None = None,
        project: str | None = None,
    ) -> dict[tuple[str | None, ...], Spent]:
        """:func:`perijove_hub.accounting.usage` of what is kept. `until` is at most now."""
        columns = [axis for axis in by if axis != "day"]
        found: dict[tuple[str | None, ...], Spent] = {}
        with self._read() as connection:
            first = connection.execute(select(func.min(_allocation.c.began))).scalar()
            since = max(since, until if first is None else first)
            periods = days(since, until) if "day" in by else [(since, until)]
            for begin, end in periods:
                query = usage_query(columns, begin, end, owner=owner, project=project)
                for row in connection.execute(query):
                    values = dict(zip(columns, row, strict=False))
                    key = tuple(day_of(begin) if axis == "day" else values[axis] for axis in by)
                    found[key] = spent_of(row)
        return found

    def document(self, name: str) -> Document | None:
        """The version in force."""
        with self._read() as connection:
            return documents.latest(connection, name)

    def documents(self, name: str) -> list[Document]:
        """All versions, the newest first."""
        with self._read() as connection:
            return documents.versions(connection, name)

    def write(self, act: Callable[[Connection], T]) -> T:
        """Do `act` in one transaction as the leader, durably or not at all; raises as :meth:`commit` does."""
        with writing(self.engine) as connection:
            if self._fence is not None:
                self.lease.check(connection, self._fence)
            return act(connection)

    def read(self, act: Callable[[Connection], T]) -> T:
        """What `act` reads."""
        with self._read() as connection:
            return act(connection)

    def save_document(self, name: str, body: str, by: str, at: float) -> Document:
        """Make `body` the version in force, durably. May be repeated; raises as :meth:`commit` does."""
        return self.write(lambda connection: documents.save(connection, name, body, by, at))

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
        with suppress(IntegrityError), writing(self.engine) as connection:
            connection.execute(insert(_file), {"digest": digest, "owner": owner, "size": size, "at": at})

    def owns(self, owner: str, digest: str) -> bool:
        """Whether `owner` uploaded that file."""
        query = select(_file.c.digest).where(_file.c.digest == digest, _file.c.owner == owner)
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def _note(self, transaction: Transaction, batch: Batch) -> bool:
        """Show the fence and note the batch's number; False when that batch has been written before."""
        number = batch.number or 0
        statement = self.lease.note if self._fence is None else self.lease.note_fenced
        values = note_values(number, batch.last_job, batch.last_seq, self._fence)
        if transaction.change(statement, values) == 1:
            return True
        fence, written = transaction.row(self.lease.written)
        if fence != self._fence:
            raise StaleLeaderError(f"another service leads, with fence {fence}; this one had {self._fence}")
        return bool(written < number)

    def _members_of(self, groups: list[int]) -> list[int]:
        found: list[int] = []
        with self._read() as connection:
            for i in range(0, len(groups), 500):
                query = select(_job.c.id).where(_job.c.array_id.in_(groups[i : i + 500]))
                found += connection.execute(query).scalars()
        return found

    def _jobs(self, query: Any) -> list[Job]:
        with self._read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            yield connection
