"""Many rows at once, the fastest way each database has.

SQLAlchemy's work on each parameter of each row costs more than the database's on the row; so statements are
made once, as text. SQLite takes them a row at a time without a journey; PostgreSQL takes a whole column as
one array and makes rows of them (``unnest``), and all statements of a batch travel together (pipeline).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from perijove.model import Job
from perijove_hub.store import rows, tables
from perijove_hub.store import workflow_rows as lines
from perijove_hub.store import workflow_tables as flows
from perijove_hub.store.batch import Batch

Rows = Sequence[tuple[Any, ...]]

ALLOCATED = (
    *("job", "attempt", "began", "ended", "owner", "project", "kind", "image", "partition", "node"),
    *("cpu", "memory", "gpus", "label"),
)
LABELLED = ("job", "key", "value", "owner")
RECORDED = ("seq", "job", "owner", "at", "event", "state", "attempt", "detail")
SUBMITTED = ("owner", "key", "first", "count")


class Form(Protocol):
    """How a database takes many rows."""

    def insert(self, table: Table, columns: Sequence[str], conflict: str = "") -> str:
        """Text that adds rows."""
        ...

    def update(self, table: Table, columns: Sequence[str]) -> str:
        """Text that changes the columns but the last, which is the key."""
        ...

    def delete(self, table: Table, column: str) -> str:
        """Text that removes the rows whose `column` is among those given."""
        ...

    def run(self, cursor: Any, text: str, kinds: Sequence[str], some: Rows) -> None:
        """Execute it for `some` rows; `kinds` are PostgreSQL's types of their columns."""
        ...


class ByRow:
    """SQLite: each row by itself; there is no journey to save."""

    def insert(self, table: Table, columns: Sequence[str], conflict: str = "") -> str:
        """See :class:`Form`."""
        places = ", ".join("?" * len(columns))
        return f"INSERT INTO {table.name} ({_names(columns)}) VALUES ({places}) {conflict}"  # noqa: S608

    def update(self, table: Table, columns: Sequence[str]) -> str:
        """See :class:`Form`."""
        *changed, key = columns
        assignments = ", ".join(f'"{name}" = ?' for name in changed)
        return f'UPDATE {table.name} SET {assignments} WHERE "{key}" = ?'  # noqa: S608

    def delete(self, table: Table, column: str) -> str:
        """See :class:`Form`."""
        return f'DELETE FROM {table.name} WHERE "{column}" = ?'  # noqa: S608

    def run(self, cursor: Any, text: str, kinds: Sequence[str], some: Rows) -> None:
        """See :class:`Form`."""
        cursor.executemany(text, some)


class ByColumn:
    """PostgreSQL: each column as an array."""

    def insert(self, table: Table, columns: Sequence[str], conflict: str = "") -> str:
        """See :class:`Form`."""
        given = _given(table, columns)
        return f"INSERT INTO {table.name} ({_names(columns)}) SELECT * FROM {given} {conflict}"  # noqa: S608

    def update(self, table: Table, columns: Sequence[str]) -> str:
        """See :class:`Form`."""
        *changed, key = columns
        assignments = ", ".join(f'"{name}" = given."{name}"' for name in changed)
        given = _given(table, columns)
        where = f'{table.name}."{key}" = given."{key}"'
        return f"UPDATE {table.name} SET {assignments} FROM {given} WHERE {where}"  # noqa: S608

    def delete(self, table: Table, column: str) -> str:
        """See :class:`Form`."""
        given = _given(table, [column])
        where = f'{table.name}."{column}" = given."{column}"'
        return f"DELETE FROM {table.name} USING {given} WHERE {where}"  # noqa: S608

    def run(self, cursor: Any, text: str, kinds: Sequence[str], some: Rows) -> None:
        """See :class:`Form`."""
        # psycopg makes an array of one type: of a column that holds 1 and 1.5 it could not.
        arrays = [
            [None if value is None else float(value) for value in values] if kind == FLOAT else list(values)
            for kind, values in zip(kinds, zip(*some, strict=True), strict=True)
        ]
        cursor.execute(text, arrays, prepare=True)


class Statement:
    """An SQL text with the types of what it takes."""

    def __init__(self, form: Form, text: str, table: Table, columns: Sequence[str]) -> None:
        self._form, self.text = form, text
        self._kinds = [kind_of(table, name) for name in columns]

    def run(self, cursor: Any, some: Iterable[tuple[Any, ...]]) -> None:
        """Execute it for all of `some`."""
        if given := list(some):
            self._form.run(cursor, self.text, self._kinds, given)


class Writer:
    """Writes batches. `form`: how its database takes many rows."""

    def __init__(self, form: Form) -> None:
        def insert(table: Table, columns: Sequence[str], conflict: str = "") -> Statement:
            return Statement(form, form.insert(table, columns, conflict), table, columns)

        def update(columns: Sequence[str], table: Table = tables.job) -> Statement:
            return Statement(form, form.update(table, columns), table, columns)

        def delete(table: Table, column: str) -> Statement:
            return Statement(form, form.delete(table, column), table, [column])

        self._insert_job = insert(tables.job, rows.INSERTED)
        self._insert_label = insert(tables.label, LABELLED)
        self._insert_event = insert(tables.event, RECORDED)
        self._insert_submission = insert(tables.submission, SUBMITTED)
        self._insert_active = insert(tables.active, ["job"], "ON CONFLICT DO NOTHING")
        self._insert_file = insert(tables.file, rows.OWNED, "ON CONFLICT DO NOTHING")
        ended = "ON CONFLICT (job, attempt, began) DO UPDATE SET ended = excluded.ended"
        self._hold = insert(tables.allocation, ALLOCATED, ended)
        self._update_job = update((*rows.UPDATED, "id"))
        self._respecify_job = update((*rows.RESPECIFIED, "id"))
        self._delete_active = delete(tables.active, "job")
        self._delete_label = delete(tables.label, "job")
        self._forget = [
            delete(tables.event, "job"),
            delete(tables.label, "job"),
            delete(tables.active, "job"),
            delete(tables.job, "id"),
        ]
        self._insert_run = insert(flows.run, lines.RUN_INSERTED)
        self._update_run = update((*lines.RUN_UPDATED, "id"), flows.run)
        self._put_step = insert(flows.step, lines.STEP, _replacing(lines.STEP, ("run", "step", "item")))
        self._put_result = insert(flows.result, lines.RESULT, _replacing(lines.RESULT, ("key", "owner")))
        self._archive_run = update(("archived", "id"), flows.run)
        self._forget_results = delete(flows.result, "run")
        self._forget_runs = [
            delete(flows.step, "run"),
            delete(flows.result, "run"),
            delete(flows.run, "id"),
        ]

    def write(self, cursor: Any, batch: Batch, members: Iterable[int] = ()) -> None:
        """Write all of `batch` by a cursor of the driver, in the transaction it is in.

        `members`: those of the removed groups.
        """
        new, respecified = batch.new.values(), batch.respecified.values()
        self._insert_job.run(cursor, map(rows.row_of, new))
        self._respecify_job.run(cursor, map(rows.respecified_of, respecified))
        self._delete_label.run(cursor, _keys(batch.respecified))
        self._insert_label.run(cursor, (row for job in (*new, *respecified) for row in rows.label_rows(job)))
        self._update_job.run(cursor, map(rows.update_of, batch.changed.values()))
        self._insert_file.run(cursor, (row for job in batch.changed.values() for row in rows.file_rows(job)))
        self._follow(cursor, {**batch.respecified, **batch.changed}, batch.new)
        self._insert_event.run(cursor, map(rows.event_row, batch.events))
        held = {(one.job, one.attempt, one.begin): one for one in batch.allocations}
        self._hold.run(cursor, map(rows.allocation_row, held.values()))
        self._insert_submission.run(cursor, (tuple(row[c] for c in SUBMITTED) for row in batch.submissions))
        for statement in self._forget:
            statement.run(cursor, _keys([*batch.removed, *members]))
        if batch.flows:
            self._write_flows(cursor, batch.flows)

    def _write_flows(self, cursor: Any, given: lines.Flows) -> None:
        self._insert_run.run(cursor, (lines.run_row(run, text) for run, text in given.new.values()))
        self._update_run.run(cursor, map(lines.run_update, given.changed.values()))
        self._put_step.run(cursor, map(lines.step_row, given.steps.values()))
        self._put_result.run(cursor, map(lines.result_row, given.results.values()))
        self._archive_run.run(cursor, ((True, run) for run in given.archived))
        self._forget_results.run(cursor, _keys(given.archived))
        for statement in self._forget_runs:
            statement.run(cursor, _keys(given.removed))

    def _follow(self, cursor: Any, changed: dict[int, Job], new: dict[int, Job]) -> None:
        idle = [job.id for job in changed.values() if not rows.is_active(job)]
        busy = [job.id for job in (*new.values(), *changed.values()) if rows.is_active(job)]
        self._delete_active.run(cursor, _keys(idle))
        self._insert_active.run(cursor, _keys(busy))


def kind_of(table: Table, column: str) -> str:
    """PostgreSQL's name of a column's type."""
    return str(table.c[column].type.compile(_POSTGRESQL))


def _given(table: Table, columns: Sequence[str]) -> str:
    # In binary form: as text, an array's quoting takes five times as long.
    arrays = ", ".join(f"%b::{kind_of(table, name)}[]" for name in columns)
    return f"unnest({arrays}) AS given ({_names(columns)})"


def _replacing(columns: Sequence[str], keys: Sequence[str]) -> str:
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in keys)
    return f"ON CONFLICT ({_names(keys)}) DO UPDATE SET {changed}"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _keys(jobs: Iterable[int]) -> Iterator[tuple[int]]:
    return ((job,) for job in jobs)


_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]
FLOAT = kind_of(tables.allocation, "began")
