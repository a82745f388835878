"""Runs of workflows, their steps and results; jobs that are steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

LISTED = "array_id IS NULL AND run IS NULL"


def upgrade() -> None:
    """Make the new tables; lists of jobs leave out steps, so their indexes do too."""
    _make_tables()
    op.add_column("job", sa.Column("run", sa.BigInteger()))
    for name, columns, more in (
        ("ix_job_top", ["id"], ""),
        ("ix_job_owner", ["owner", "id"], ""),
        ("ix_job_owner_name", ["owner", "name", "id"], ""),
        ("ix_job_name", ["name", "id"], ""),
        ("ix_job_project", ["project", "id"], " AND project IS NOT NULL"),
        ("ix_job_final", ["final", "id"], ""),
        ("ix_job_owner_final", ["owner", "final", "id"], ""),
    ):
        op.drop_index(name, "job")
        _partial(name, "job", columns, LISTED + more)
    _partial("ix_job_run", "job", ["run", "id"], "run IS NOT NULL")


def _make_tables() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("final", sa.String()),
        sa.Column("submitted", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float()),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_table(
        "step",
        sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("step", sa.String(), primary_key=True),
        sa.Column("item", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("job", sa.BigInteger()),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key", sa.String()),
        sa.Column("cached_from", sa.BigInteger()),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_table(
        "result",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.BigInteger()),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("ingredients", sa.JSON(), nullable=False),
    )
    op.create_index("ix_step_key", "step", ["key"])
    op.create_index("ix_run_owner", "run", ["owner", "id"])
    _partial("ix_run_project", "run", ["project", "id"], "project IS NOT NULL")
    _partial("ix_run_live", "run", ["id"], "final IS NULL")
    op.create_index("ix_result_latest", "result", ["owner", "workflow", "step", "at"])
    op.create_index("ix_result_run", "result", ["run"])


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
