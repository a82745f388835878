"""One service writes at a time, whatever is stopped, killed or cut; real processes on real databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from cutting import ANSWERED, ASKED, Wire
from leading import OWN
from postgres import Postgres, postgres
from sqlalchemy import text
from waiting import wait_until

from perijove.model import Job, JobEvent, JobSpec, State
from perijove_hub.store.database import TRANSIENT, Batch, Database, Page, StaleLeaderError
from perijove_hub.store.engine import driver_transaction, writing
from perijove_hub.store.leadership import LOCK, Leadership, holder_at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
PROGRAM = Path(__file__).parents[1] / "support" / "leading.py"
TTL = 4.0
"""In seconds: a busy machine renews it in time."""


def job(number: int) -> Job:
    spec = JobSpec(command=["true"])
    return Job(id=number, owner="alice", name="j", state=State.HELD, submitted=1.0, spec=spec)


def batch(number: int) -> Batch:
    event = JobEvent(number, number, "alice", 1.0, "submitted", State.HELD, 0)
    return Batch(new={number: job(number)}, events=[event])


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    try:
        yield database
    finally:
        database.close()


@contextmanager
def leader(url: str, holder: str, ttl: float = 60.0, lock: Path | None = None) -> Iterator[Leadership]:
    """One that stops when the test ends; it need not lead."""
    with opened(url) as database:
        leadership = Leadership(database, holder, f"http://{holder}", ttl=ttl, lock=lock)
        try:
            yield leadership
        finally:
            leadership.release()


class Service:
    """`leading.py` as a process."""

    def __init__(self, folder: Path, url: str, holder: str, lock: Path | None = None) -> None:
        self._log = folder / f"{holder}-{time.monotonic_ns()}.log"
        argv = [sys.executable, str(PROGRAM), url, holder, str(TTL), *([str(lock)] if lock else [])]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def fence(self) -> int:
        """Wait until it leads."""
        return wait_until(lambda: self._number("leads"), f"a leader\n{self._log.read_text()}")

    def wrote(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines() if line.startswith("wrote")]

    def writes(self, more: int = 3) -> None:
        """Wait until it has written something now."""
        before = len(self.wrote())
        wait_until(lambda: len(self.wrote()) >= before + more, "commits of the leader")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def _number(self, word: str) -> int | None:
        return next((int(line.split()[1]) for line in self.lines() if line.startswith(word)), None)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        service.signal(signal.SIGCONT)
        service.process.kill()
        service.process.communicate()


def written(database: Database) -> set[int]:
    return {found.id for found in database.jobs(Page(limit=10**6))}


# In one process


def test_each_leader_has_a_higher_fence(database_url: str) -> None:
    with leader(database_url, "a") as first, leader(database_url, "b") as second:
        assert first.leader() is None
        assert first.acquire()
        assert not second.acquire()
        found = second.leader()
        assert found is not None
        assert (found.holder, found.url, found.fence) == ("a", "http://a", 1)
        assert 50 < found.left <= 60
        first.release()
        assert second.acquire()
        assert second.fence == 2


def test_of_many_who_ask_at_once_one_leads(database_url: str) -> None:
    with opened(database_url) as database:
        some = [Leadership(database, f"s{i}", f"http://s{i}", ttl=60) for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(Leadership.acquire, some)) == 1
        for one in some:
            one.release()


def test_who_was_followed_changes_nothing(database_url: str) -> None:
    with leader(database_url, "a", ttl=3600) as first, leader(database_url, "b") as second:
        assert first.acquire()
        first.database.commit(batch(1))
        _let_it_run_out(first.database)
        assert second.acquire()
        second.database.commit(batch(2))
        for some in (batch(3), Batch(changed={1: job(1)})):
            with pytest.raises(StaleLeaderError, match="leads"):
                first.database.commit(some)
            with pytest.raises(StaleLeaderError, match="leads"):
                first.database.commit_piecemeal(some)
        with pytest.raises(StaleLeaderError, match="leads"):
            first.database.save_document("policy", "x", "a", 1.0)
        assert written(second.database) == {1, 2}
        assert second.database.document("policy") is None
        second.database.commit(batch(4))


def test_a_lease_that_ran_out_is_good_until_another_has_it(database_url: str) -> None:
    with leader(database_url, "a", ttl=3600) as first, leader(database_url, "b") as second:
        assert first.acquire()
        _let_it_run_out(first.database)
        first.database.commit(batch(1))
        assert second.acquire()


def test_a_batch_that_was_written_is_not_written_again(database_url: str) -> None:
    with leader(database_url, "a") as first:
        assert first.acquire()
        one, two = batch(1), batch(2)
        first.database.commit(one)
        first.database.commit(one)
        first.database.commit(two)
        first.database.commit(two)
        assert written(first.database) == {1, 2}


def test_a_dead_service_is_followed_at_once_on_its_own_host(database_url: str, tmp_path: Path) -> None:
    holder, lock = holder_at(tmp_path), tmp_path / LOCK
    assert holder == holder_at(tmp_path)
    with leader(database_url, holder, lock=lock) as first:
        assert first.acquire()
        with leader(database_url, holder, lock=lock) as second:
            assert not second.acquire(), "the first one lives"
            # its lock goes with the process; the lease would last
            first._ended.set()
            os.close(first._descriptor)
            first._descriptor = -1
            assert second.acquire()
            assert second.fence == 2


def test_a_dead_service_elsewhere_is_waited_for(database_url: str, tmp_path: Path) -> None:
    with leader(database_url, "a") as first, leader(database_url, "b", lock=tmp_path / LOCK) as second:
        assert first.acquire()
        assert not second.acquire()


def _let_it_run_out(database: Database) -> None:
    with writing(database.engine) as connection:
        connection.execute(text("UPDATE lease SET expires = 1"))


# Processes


def test_a_leader_that_was_stopped_past_its_lease_changes_nothing(
    database_url: str, tmp_path: Path, services: list[Service]
) -> None:
    with opened(database_url) as database:
        first = Service(tmp_path, database_url, "first")
        services.append(first)
        assert first.fence() == 1
        second = Service(tmp_path, database_url, "second")
        services.append(second)
        first.writes()
        assert second.lines() == []
        _stop_between_commits(first, database)
        assert second.fence() == 2
        before = {number for number in written(database) if number < 2 * OWN}
        first.signal(signal.SIGCONT)
        assert first.process.wait(30) == 3
        assert first.lines()[-1] == "stale"
        second.writes()
        assert {number for number in written(database) if number < 2 * OWN} == before
        # What it had been told is written is written.
        assert set(first.wrote()) <= before


def test_a_killed_leader_is_followed_and_loses_nothing(
    database_url: str, tmp_path: Path, services: list[Service]
) -> None:
    with opened(database_url) as database:
        first = Service(tmp_path, database_url, "first")
        services.append(first)
        first.fence()
        first.writes()
        first.signal(signal.SIGKILL)
        first.process.wait()
        second = Service(tmp_path, database_url, "second")
        services.append(second)
        assert second.fence() == 2
        assert set(first.wrote()) <= written(database)


def test_a_standby_on_the_same_state_directory_need_not_wait(
    database_url: str, tmp_path: Path, services: list[Service]
) -> None:
    with opened(database_url):
        lock = tmp_path / LOCK
        first = Service(tmp_path, database_url, "same", lock)
        services.append(first)
        first.fence()
        second = Service(tmp_path, database_url, "same", lock)
        services.append(second)
        first.writes()
        assert second.lines() == []
        first.signal(signal.SIGKILL)
        assert second.fence() == 2


def _stop_between_commits(service: Service, database: Database) -> None:
    """SIGSTOP. A writer of SQLite that stands still in a commit has the file's lock: nobody can follow it."""

    def stopped() -> bool:
        service.signal(signal.SIGSTOP)
        wait_until(lambda: psutil.Process(service.process.pid).status() == psutil.STATUS_STOPPED, "its stop")
        if database.postgresql or _free(Path(database.url.removeprefix("sqlite:///"))):
            return True
        service.signal(signal.SIGCONT)
        return False

    wait_until(stopped, "a moment between two commits")


def _free(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0.1, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


# A database that goes away


@pytest.fixture
def durable() -> Iterator[Postgres]:
    with postgres(durable=True) as server:
        yield server


def test_a_killed_database_costs_time_and_nothing_else(
    durable: Postgres, tmp_path: Path, services: list[Service]
) -> None:
    url = durable.new()
    with opened(url) as database:
        service = Service(tmp_path, url, "first")
        services.append(service)
        service.fence()
        for _ in range(2):
            service.writes()
            durable.kill()
            durable.start()
            service.writes()
        assert service.process.poll() is None
        assert [line for line in service.lines() if line.startswith("leads")] == ["leads 1"]
        numbers = service.wrote()
        assert numbers == list(range(OWN, OWN + len(numbers))), "in order, each once"
        assert set(numbers) <= written(database)


def test_sessions_that_the_server_ends_are_replaced(postgresql: Postgres) -> None:
    url = postgresql.new()
    with leader(url, "a") as first:
        assert first.acquire()
        for number in range(1, 6):
            with postgresql.connect() as other:
                mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                other.execute(mine, [url.rpartition("/")[2]])
            _patiently(first.database, batch(number))
        assert written(first.database) == {1, 2, 3, 4, 5}


def test_a_leader_that_stands_still_in_a_commit_is_followed(postgresql: Postgres) -> None:
    url = postgresql.new()
    with leader(url, "a", ttl=3600) as first, leader(url, "b") as second:
        assert first.acquire()
        _let_it_run_out(first.database)
        with pytest.raises(TRANSIENT):
            _stand_still(first.database, until=second.acquire)
        assert second.fence == 2
        assert written(second.database) == set()


@pytest.mark.parametrize("moment", [ASKED, ANSWERED], ids=["asked", "answered"])
def test_a_commit_without_an_answer_is_made_once(postgresql: Postgres, moment: bytes) -> None:
    url = postgresql.new()
    with opened(url), Wire(postgresql.port) as wire:
        over_the_wire = url.replace(f":{postgresql.port}/", f":{wire.port}/")
        with leader(over_the_wire, "a") as first:
            assert first.acquire()
            first.database.commit(batch(1))
            two = batch(2)
            two.changed = {1: job(1).model_copy(update={"state": State.RUNNING})}
            wire.cut_at(moment)
            with pytest.raises(TRANSIENT):
                first.database.commit(two)
            assert wire.cuts == 1
            with opened(url) as beside:
                assert written(beside) == ({1, 2} if moment == ANSWERED else {1})
            _patiently(first.database, two)
            _patiently(first.database, batch(3))
            assert written(first.database) == {1, 2, 3}
            assert [event.seq for event in first.database.events()] == [1, 2, 3]


def _stand_still(database: Database, until: Callable[[], bool]) -> None:
    """Commit, but stop between the note of the batch and the end."""
    with driver_transaction(database.engine) as standing:
        assert database._note(standing, Batch(number=1))
        assert until(), "the server ends what says nothing for a while"
        standing.commit()


def _patiently(database: Database, some: Batch) -> None:
    def commit() -> bool:
        try:
            database.commit(some)
        except TRANSIENT:
            return False
        return True

    wait_until(commit, "a commit")
