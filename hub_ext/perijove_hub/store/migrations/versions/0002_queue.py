"""Projects, partitions, labels to search by, what was held, documents and the lease; ids of 64 bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CHUNK = 5000
WAITING = ("pending", "held")
ENDED = ("succeeded", "failed", "killed", "rejected", "lost")


def upgrade() -> None:
    """Widen the old tables, make the new ones, fill what is derived."""
    _widen()
    _make_tables()
    _fill_jobs()
    _make_indexes()
    if op.get_bind().dialect.name == "postgresql":
        # Room on each page for the next version of all of its rows: then an update touches no index.
        op.execute("ALTER TABLE job SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)")
        op.execute("ALTER TABLE active SET (autovacuum_vacuum_scale_factor = 0.05)")


def _widen() -> None:
    op.drop_index("ix_job_state", "job")
    op.drop_index("ix_job_owner_id", "job")
    op.drop_index("ix_job_array", "job")
    with op.batch_alter_table("job") as job:
        job.alter_column("array_id", type_=sa.BigInteger(), existing_nullable=True)
        job.alter_column("array_task", type_=sa.BigInteger(), existing_nullable=True)
        job.add_column(sa.Column("final", sa.String()))
        job.add_column(sa.Column("project", sa.String()))
        job.add_column(sa.Column("partition", sa.String()))
        job.add_column(sa.Column("archived", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("job") as job:
        job.alter_column("archived", server_default=None)
    with op.batch_alter_table("event") as event:
        event.alter_column("job", type_=sa.BigInteger(), existing_nullable=False)
    with op.batch_alter_table("submission") as submission:
        submission.alter_column("first", type_=sa.BigInteger(), existing_nullable=False)


def _make_tables() -> None:
    op.create_table(
        "label",
        sa.Column("job", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
    )
    op.create_table("active", sa.Column("job", sa.BigInteger(), primary_key=True, autoincrement=False))
    op.create_table(
        "allocation",
        sa.Column("job", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("began", sa.Float(), primary_key=True),
        sa.Column("ended", sa.Float()),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("project", sa.String()),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("image", sa.String()),
        sa.Column("partition", sa.String()),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("cpu", sa.Float(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
    )
    op.create_table(
        "document",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("last_job", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
    )


def _make_indexes() -> None:
    top = sa.text("array_id IS NULL")
    _partial("ix_job_top", "job", ["id"], top)
    _partial("ix_job_owner", "job", ["owner", "id"], top)
    _partial("ix_job_owner_name", "job", ["owner", "name", "id"], top)
    _partial("ix_job_name", "job", ["name", "id"], top)
    _partial("ix_job_project", "job", ["project", "id"], sa.text("array_id IS NULL AND project IS NOT NULL"))
    _partial("ix_job_final", "job", ["final", "id"], top)
    _partial("ix_job_owner_final", "job", ["owner", "final", "id"], top)
    _partial("ix_job_array", "job", ["array_id", "array_task"], sa.text("array_id IS NOT NULL"))
    _partial("ix_job_live", "job", ["id"], sa.text("final IS NULL"))
    ended = sa.text("array_id IS NULL AND final IS NOT NULL")
    _partial("ix_job_kept", "job", ["archived", "ended", "id"], ended)
    op.create_index("ix_label_value", "label", ["key", "value", "job"])
    op.create_index("ix_label_owner", "label", ["owner", "key", "value", "job"])
    op.create_index("ix_allocation_began", "allocation", ["began"])
    _partial("ix_allocation_open", "allocation", ["began"], sa.text("ended IS NULL"))
    _partial("ix_allocation_long", "allocation", ["ended"], sa.text("ended - began > 86400.0"))


def _partial(name: str, table: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


_job = sa.table(
    "job",
    *(sa.column(name) for name in ("id", "owner", "state", "final", "array_id", "array_task", "project")),
    *(sa.column(name) for name in ("spec", "node", "attempt", "submitted", "started", "ended")),
    sa.column("detail", sa.JSON()),
)
_active = sa.table("active", sa.column("job"))
_label = sa.table("label", *(sa.column(name) for name in ("job", "key", "value", "owner")))
_allocation = sa.table(
    "allocation",
    *(sa.column(name) for name in ("job", "attempt", "began", "ended", "owner", "project", "kind", "image")),
    *(sa.column(name) for name in ("node", "cpu", "memory", "gpus", "label")),
)


def _fill_jobs() -> None:
    connection = op.get_bind()
    for chunk in _chunks(connection):
        projects, labels, held = [], [], []
        for row in chunk:
            spec = json.loads(row.spec)
            if (project := spec.get("project")) is not None:
                projects.append({"job_id": row.id, "new_project": project})
            if row.array_id is None:
                given = (spec.get("labels") or {}).items()
                labels += [{"job": row.id, "key": k, "value": v, "owner": row.owner} for k, v in given]
            if row.node is not None and row.attempt and row.state not in WAITING:
                held.append(_held(row, spec))
        if projects:
            project_of = _job.update().where(_job.c.id == sa.bindparam("job_id"))
            connection.execute(project_of.values(project=sa.bindparam("new_project")), projects)
        if labels:
            connection.execute(_label.insert(), labels)
        if held:
            connection.execute(_allocation.insert(), held)
    _count_members(connection)
    connection.execute(_job.update().where(_job.c.state.in_(ENDED)).values(final=_job.c.state))
    elsewhere = sa.select(_job.c.id).where(_job.c.state.not_in([*ENDED, "pending"]))
    first = (
        "INSERT INTO lease VALUES ('service', '', '', 0, 0, 0, (SELECT coalesce(max(id), 0) FROM job), {})"
    )
    connection.execute(sa.text(first.format("(SELECT coalesce(max(seq), 0) FROM event)")))
    connection.execute(sa.insert(_active).from_select(["job"], elsewhere))


def _chunks(connection: sa.Connection) -> Iterator[list[Any]]:
    last = 0
    while rows := connection.execute(
        sa.select(_job).where(_job.c.id > last).order_by(_job.c.id).limit(CHUNK)
    ).all():
        yield list(rows)
        last = rows[-1].id


def _held(row: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """What the last attempt held; of earlier ones nothing was kept."""
    began = row.started if row.started is not None else row.submitted
    gpus = spec.get("gpus") or {}
    return {
        "job": row.id,
        "attempt": row.attempt,
        "began": began,
        "ended": None if row.state not in ENDED else max(began, row.ended or began),
        "owner": row.owner,
        "project": spec.get("project"),
        "kind": spec.get("kind", "batch"),
        "image": spec.get("image"),
        "node": row.node,
        "cpu": float(spec.get("cpu", 1.0)),
        "memory": int(spec.get("memory", 1 << 30)),
        "gpus": int(gpus.get("count", 0)) if isinstance(gpus, dict) else 0,
        "label": str(row.id) if row.array_id is None else f"{row.array_id}_{row.array_task}",
    }


def _count_members(connection: sa.Connection) -> None:
    counted = sa.select(_job.c.array_id, _job.c.state, sa.func.count()).where(_job.c.array_id.is_not(None))
    tasks: dict[int, dict[str, int]] = {}
    for array, state, count in connection.execute(counted.group_by(_job.c.array_id, _job.c.state)):
        tasks.setdefault(array, {})[state] = count
    for array, counts in tasks.items():
        here = _job.c.id == array
        detail = connection.execute(sa.select(_job.c.detail).where(here)).scalar()
        connection.execute(_job.update().where(here).values(detail={**(detail or {}), "tasks": counts}))
