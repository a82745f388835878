"""Many rows at once, the fastest way each database has.

SQLAlchemy's work on each parameter of each row costs more than the database's on the row; so statements are
made once, as text. SQLite takes them a row at a time without a journey; PostgreSQL takes a whole column as
one array and makes rows of them (``unnest``), in one journey for any number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

from perijove_hub.store import rows, tables
from perijove_hub.store.batch import Batch

Rows = Sequence[tuple[Any, ...]]
Column = tuple[str, str]
"""Name and PostgreSQL's type."""


def _columns(table: Table, names: Iterable[str]) -> list[Column]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return [(name, str(table.c[name].type.compile(dialect))) for name in names]


JOB = _columns(tables.job, (*rows.COLUMNS[:-1], "project", "partition", "spec", "detail"))
EVENT = _columns(tables.event, ("seq", "job", "owner", "at", "event", "state", "attempt", "detail"))
LABEL = _columns(tables.label, ("job", "key", "value", "owner"))
ALLOCATION = _columns(
    tables.allocation,
    (
        *("job", "attempt", "began", "ended", "owner", "project", "kind", "image", "partition", "node"),
        *("cpu", "memory", "gpus", "label"),
    ),
)
SUBMISSION = _columns(tables.submission, ("owner", "key", "first", "count"))
UPDATED = _columns(tables.job, (*rows.UPDATED, "id"))
RESPECIFIED = _columns(tables.job, (*rows.RESPECIFIED, "id"))
_NOT_TWICE = "ON CONFLICT (job, attempt, began) DO UPDATE SET ended = excluded.ended"


class Writer:
    """Writes batches on a connection of SQLAlchemy's. `postgresql`: to which of the two databases."""

    def __init__(self, *, postgresql: bool) -> None:
        self._arrays = postgresql
        insert = _insert_unnested if postgresql else _insert_values
        update = _update_unnested if postgresql else _update_values
        self._insert_job = insert("job", JOB)
        self._insert_event = insert("event", EVENT)
        self._insert_label = insert("label", LABEL)
        self._insert_submission = insert("submission", SUBMISSION)
        self._upsert_allocation = f"{insert('allocation', ALLOCATION)} {_NOT_TWICE}"
        self._update_job = update("job", UPDATED)
        self._respecify_job = update("job", RESPECIFIED)

    def write(self, connection: Connection, batch: Batch) -> None:
        """Write all of `batch`, in the transaction that `connection` is in."""
        new, respecified = batch.new.values(), batch.respecified.values()
        self._many(connection, self._insert_job, JOB, [rows.row_of(job) for job in new])
        self._many(
            connection, self._insert_label, LABEL, [row for job in new for row in rows.label_rows(job)]
        )
        if respecified:
            some = [rows.respecified_of(job) for job in respecified]
            self._many(connection, self._respecify_job, RESPECIFIED, some)
            self._remove(connection, tables.label, "job", list(batch.respecified))
            labels = [row for job in respecified for row in rows.label_rows(job)]
            self._many(connection, self._insert_label, LABEL, labels)
        changed = [rows.update_of(job) for job in batch.changed.values()]
        self._many(connection, self._update_job, UPDATED, changed)
        self._many(connection, self._insert_event, EVENT, [rows.event_row(event) for event in batch.events])
        held = {(a.job, a.attempt, a.begin): a for a in batch.allocations}
        some = [rows.allocation_row(allocation) for allocation in held.values()]
        self._many(connection, self._upsert_allocation, ALLOCATION, some)
        accepted = [tuple(row[name] for name, _ in SUBMISSION) for row in batch.submissions]
        self._many(connection, self._insert_submission, SUBMISSION, accepted)
        if batch.removed:
            self._forget(connection, batch.removed)

    def _many(self, connection: Connection, statement: str, columns: list[Column], some: Rows) -> None:
        if not some:
            return
        if not self._arrays:
            connection.exec_driver_sql(statement, list(some))
            return
        arrays = zip(*some, strict=True)
        values = tuple(_array(values, kind) for values, (_, kind) in zip(arrays, columns, strict=True))
        connection.exec_driver_sql(statement, values)

    def _forget(self, connection: Connection, jobs: list[int]) -> None:
        members = [
            row.id
            for some in _slices(jobs)
            for row in connection.execute(
                tables.job.select().with_only_columns(tables.job.c.id).where(tables.job.c.array_id.in_(some))
            )
        ]
        for table, column in ((tables.event, "job"), (tables.label, "job"), (tables.job, "id")):
            self._remove(connection, table, column, [*jobs, *members])

    def _remove(self, connection: Connection, table: Table, column: str, jobs: list[int]) -> None:
        for some in _slices(jobs):
            connection.execute(table.delete().where(table.c[column].in_(some)))


def _insert_values(table: str, columns: list[Column]) -> str:
    return f"INSERT INTO {table} ({_names(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608


def _insert_unnested(table: str, columns: list[Column]) -> str:
    return f"INSERT INTO {table} ({_names(columns)}) SELECT * FROM {_unnest(columns)}"  # noqa: S608


def _update_values(table: str, columns: list[Column]) -> str:
    *changed, (key, _) = columns
    assignments = ", ".join(f'"{name}" = ?' for name, _ in changed)
    return f'UPDATE {table} SET {assignments} WHERE "{key}" = ?'  # noqa: S608


def _update_unnested(table: str, columns: list[Column]) -> str:
    *changed, (key, _) = columns
    assignments = ", ".join(f'"{name}" = given."{name}"' for name, _ in changed)
    given = f"{_unnest(columns)} AS given({_names(columns)})"
    return f'UPDATE {table} SET {assignments} FROM {given} WHERE {table}."{key}" = given."{key}"'  # noqa: S608


def _names(columns: list[Column]) -> str:
    return ", ".join(f'"{name}"' for name, _ in columns)


def _unnest(columns: list[Column]) -> str:
    return f"unnest({', '.join(f'%s::{kind}[]' for _, kind in columns)})"


def _array(values: tuple[Any, ...], kind: str) -> list[Any]:
    # psycopg makes one array of one type: of a column that holds 1 and 1.5 it could not.
    if kind == _FLOAT:
        return [None if value is None else float(value) for value in values]
    return list(values)


_FLOAT = dict(ALLOCATION)["began"]


def _slices(values: list[int], size: int = 500) -> Iterable[list[int]]:
    return (values[i : i + size] for i in range(0, len(values), size))
