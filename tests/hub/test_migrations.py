"""The migrations make exactly the tables that the code expects, and running them again changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from perijove.model import Job, JobSpec, State
from perijove_hub.store.database import Batch, Database


def test_the_migrated_schema_is_that_of_the_tables(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "perijove.db")
    database.migrate()
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_migrating_again_keeps_the_jobs(tmp_path: Path) -> None:
    spec = JobSpec(command=["true"], env={"A": "ü\n"})
    job = Job(id=7, owner="alice", name="j", state=State.HELD, submitted=1.5, spec=spec)
    first = Database.at(tmp_path / "perijove.db")
    first.migrate()
    first.commit(Batch(new={7: job}))
    first.close()
    second = Database.at(tmp_path / "perijove.db")
    second.migrate()
    assert second.live() == [job]
    assert second.last() == (7, 0)
    with second.engine.connect() as connection:
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"
        assert connection.execute(text("pragma synchronous")).scalar() == 2  # FULL: durable at each commit


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "perijove.db")
    database.migrate()
    job = Job(id=1, owner="a", name="j", state=State.PENDING, submitted=1.0, spec=JobSpec(command=["true"]))
    database.commit(Batch(new={1: job}))
    other = job.model_copy(update={"id": 2})
    with pytest.raises(IntegrityError):
        database.commit(Batch(new={2: other, 1: job}))
    assert [found.id for found in database.live()] == [1]
