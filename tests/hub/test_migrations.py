"""The migrations make exactly the tables that the code expects, whatever was there, and lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from first_form import FIRST_FORM, old, to
from sqlalchemy import inspect, text
from sqlmodel import SQLModel

from perijove.model import Job, JobSpec, OperatorError, State
from perijove_hub.accounting import Spent
from perijove_hub.store.database import Batch, Database, Page
from perijove_hub.store.engine import writing

LATEST = "0004"


def revision(database: Database) -> str | None:
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def test_the_migrated_schema_is_that_of_the_tables(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    assert revision(database) == LATEST
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
        names = {
            table: {index["name"] for index in inspect(connection).get_indexes(table)}
            for table in SQLModel.metadata.tables
        }
    wanted = {name: {i.name for i in table.indexes} for name, table in SQLModel.metadata.tables.items()}
    assert names == wanted
    database.close()


def test_migrating_again_keeps_the_jobs(database_url: str) -> None:
    spec = JobSpec(command=["true"], env={"A": "ü\n"})
    job = Job(id=7, owner="alice", name="j", state=State.HELD, submitted=1.5, spec=spec)
    first = Database(database_url)
    first.migrate()
    first.commit(Batch(new={7: job}))
    first.close()
    second = Database(database_url)
    second.migrate()
    assert second.live() == [job]
    assert second.last() == (7, 0)
    second.close()


def test_sqlite_is_durable_at_each_commit(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "perijove.db")
    with database.engine.connect() as connection:
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"
        assert connection.execute(text("pragma synchronous")).scalar() == 2  # FULL


def test_the_first_form_becomes_the_latest_with_all_its_rows(database_url: str) -> None:
    ran = {"attempt": 1, "node": "n1", "started": 200.0}
    rows = [
        old(1, "succeeded", **ran, ended=260.0, exit_code=0, spec={"cpu": 2, "labels": {"k": "v"}}),
        old(2, "running", **ran, owner="bob", spec={"project": "p", "gpus": {"count": 2}}),
        old(3, "pending", **ran, detail='{"reason": {"code": "NodeFail", "message": "x"}}'),
        old(4, "running", spec={"array": {"start": 1, "end": 2}, "labels": {"k": "v"}}),
        old(5, "succeeded", **ran, ended=210.0, array_id=4, array_task=1, spec={"labels": {"k": "v"}}),
        old(6, "pending", array_id=4, array_task=2, spec={"labels": {"k": "v"}}),
        old(7, "held"),
        old(8, "rejected"),
    ]
    database = Database(database_url)
    with writing(database.engine) as connection:
        to(connection, "0001")
        connection.execute(text(FIRST_FORM), rows)
        event = "INSERT INTO event VALUES (9, 1, 'alice', 1.0, 'ended', 'succeeded', 1, '{\"a\": 1}')"
        connection.execute(text(event.replace(": 1}", "\\: 1}")))
        connection.execute(text("INSERT INTO submission VALUES ('alice', 'key', 4, 1)"))
        connection.execute(text("INSERT INTO file VALUES ('sha256', 'alice', 5, 1.0)"))
    database.migrate()
    assert [job.id for job in database.live()] == [2, 3, 4, 6, 7]
    assert database.last() == (8, 9)
    (event_found,) = database.events()
    assert (event_found.seq, event_found.detail) == (9, {"a": 1})
    assert database.submission("alice", "key") == range(4, 5)
    assert database.owns("alice", "sha256")
    listed = [job.id for job in database.jobs(Page(labels=(("k", "v"),)))]
    assert listed == [4, 1]
    assert [job.id for job in database.jobs(Page(project="p"))] == [2]
    assert [job.id for job in database.jobs(Page(states=(State.HELD, State.RUNNING)))] == [7, 4, 2]
    array = database.job(4)
    assert array is not None and array.tasks == {State.SUCCEEDED: 1, State.PENDING: 1}
    assert [found.job for found in database.allocations(0)] == [1, 2, 5]
    used = database.usage(("owner",), 0.0, 300.0)
    assert used["bob",] == Spent(100.0, 100.0 * (1 << 30), 200.0, 1)
    assert used["alice",].cpu_seconds == 2 * 60 + 10
    database.close()


def test_a_migration_that_is_cut_short_changes_nothing(database_url: str) -> None:
    database = Database(database_url)
    with writing(database.engine) as connection:
        to(connection, "0001")
        connection.execute(text(FIRST_FORM), [old(1, "held")])

    with database.engine.connect() as connection, connection.begin() as transaction:
        to(connection, LATEST)
        transaction.rollback()
    assert revision(database) == "0001"
    database.migrate()
    assert [job.id for job in database.live()] == [1]
    database.close()


def test_tables_of_a_later_version_are_left_alone(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    with writing(database.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(OperatorError, match="later version"):
        database.migrate()
    database.close()


def test_nothing_is_migrated_under_a_service_that_leads(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    with writing(database.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        database.lease.acquire(connection, holder="h", url="http://old", ttl=60, alone=False)
    with pytest.raises(OperatorError, match="http://old"):
        database.migrate()
    database.close()


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "postgresql+asyncpg://h/d"])
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(OperatorError, match="database_url"):
        Database(url)
