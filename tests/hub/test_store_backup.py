"""A backup made in the midst of work is whole, and what is restored goes on without giving a number twice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from first_form import FIRST_FORM, old, to
from postgres import binaries
from sqlalchemy import text

from perijove.model import Job, JobEvent, JobSpec, OperatorError, State
from perijove_hub.store.backup import backup, restore
from perijove_hub.store.database import Batch, Database, Page
from perijove_hub.store.engine import writing
from perijove_hub.store.leadership import Leadership

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    if (found := binaries()) is not None:
        monkeypatch.setenv("PATH", f"{found}:{os.environ['PATH']}")


def batch(number: int) -> Batch:
    spec = JobSpec(command=["true"], labels={"k": "\N{ROCKET} 'quoted'\\"})
    job = Job(id=number, owner="alice", name="j", state=State.HELD, submitted=1.0, spec=spec)
    return Batch(new={number: job}, events=[JobEvent(number, number, "alice", 1.0, "e", State.HELD, 0)])


def opened(url: str, jobs: int = 0) -> Database:
    database = Database(url)
    database.migrate()
    for number in range(1, jobs + 1):
        database.commit(batch(number))
    return database


def ids(database: Database) -> list[int]:
    return sorted(job.id for job in database.jobs(Page(limit=10**6)))


def test_a_backup_brings_back_what_was(database_url: str, tmp_path: Path) -> None:
    database, file = opened(database_url, 3), tmp_path / "copy"
    database.save_document("policy", "a: 1\n", "root", 1.0)
    jobs = database.jobs(Page())
    backup(database, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []
    for number in range(4, 10):
        database.commit(batch(number))
    database.commit(Batch(removed=[1]))
    restore(database, file, skip=1000)
    assert database.jobs(Page()) == jobs
    document = database.document("policy")
    assert document is not None and document.body == "a: 1\n"
    assert database.last() == (1009, 1009), "past all that was given before and after the backup"
    leadership = Leadership(database, "a", "http://a")
    assert leadership.acquire()
    assert leadership.fence == 1001
    leadership.release()
    database.commit(batch(1010))
    database.close()


def test_a_backup_in_the_midst_of_work_is_whole(database_url: str, tmp_path: Path) -> None:
    database, file, done = opened(database_url), tmp_path / "copy", threading.Event()

    def work() -> None:
        number = 1
        while not done.is_set():
            database.commit(batch(number))
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(3):
            backup(database, file)
    finally:
        done.set()
        worker.join()
    restore(database, file, skip=0)
    found = ids(database)
    assert found == list(range(1, len(found) + 1))
    assert [event.job for event in database.events(limit=10**6)] == found
    database.close()


def test_nothing_is_restored_under_a_service(database_url: str, tmp_path: Path) -> None:
    database, file = opened(database_url, 1), tmp_path / "copy"
    backup(database, file)
    beside = Database(database_url)
    leadership = Leadership(beside, "a", "http://leader")
    assert leadership.acquire()
    beside.commit(batch(2))
    with pytest.raises(OperatorError, match="http://leader"):
        restore(database, file)
    assert ids(database) == [1, 2]
    restore(database, file, force=True)
    assert ids(database) == [1]
    with pytest.raises(Exception, match="leads"):
        beside.commit(batch(3))
    leadership.release()
    beside.close()
    database.close()


def test_what_is_no_backup_changes_nothing(database_url: str, tmp_path: Path) -> None:
    database, file = opened(database_url, 1), tmp_path / "copy"
    file.write_bytes(b"no backup at all" * 1000)
    with pytest.raises(OperatorError):
        restore(database, file)
    with pytest.raises(OperatorError, match="no such file"):
        restore(database, tmp_path / "absent")
    with pytest.raises(OperatorError):
        backup(database, tmp_path / "no-folder" / "copy")
    assert ids(database) == [1]
    database.close()


def test_a_damaged_backup_changes_nothing(database_url: str, tmp_path: Path) -> None:
    database, file = opened(database_url, 200), tmp_path / "copy"
    backup(database, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    database.commit(batch(201))
    with pytest.raises(OperatorError):
        restore(database, file)
    assert len(ids(database)) == 201
    database.close()


def test_a_backup_of_the_first_form_is_migrated(database_url: str, tmp_path: Path) -> None:
    database, file = Database(database_url), tmp_path / "copy"
    with writing(database.engine) as connection:
        to(connection, "0001")
        connection.execute(text(FIRST_FORM), [old(5, "held")])
    backup(database, file)
    database.migrate()
    database.commit(batch(6))
    restore(database, file, skip=100)
    assert ids(database) == [5]
    assert database.last()[0] == 106
    database.close()


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    path, file = tmp_path / "perijove.db", tmp_path / "copy"
    database = opened(f"sqlite:///{path}", 2)
    backup(database, file)
    database.close()
    path.write_bytes(b"not a database" * 1000)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    restore(database, file)
    assert ids(database) == [1, 2]
    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


def test_the_commands(database_url: str, tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "copy"
    env = {**os.environ, "PERIJOVE_DATABASE_URL": database_url}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("perijove", path=str(Path(sys.executable).parent)) or "perijove"
        argv = [program, "database", *words, "--state", str(state)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    for words in (["migrate"], ["backup", str(file)], ["restore", str(file)]):
        ran = run(*words)
        assert ran.returncode == 0, ran.stderr
    assert "bytes" in run("backup", str(file)).stdout
    database = Database(database_url)
    leadership = Leadership(database, "a", "http://leader")
    assert leadership.acquire()
    refused = run("restore", str(file))
    assert (refused.returncode, "http://leader" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr
    leadership.release()
    database.close()
