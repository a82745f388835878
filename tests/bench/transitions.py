"""Durable transitions: a job's row changed and a line added to its history, a hundred a transaction.

python tests/bench/transitions.py [sqlite] [postgresql]

The floor is the same database without Perijove: the plainest two tables, the fewest bytes, by the fastest way
its driver has, with the same durability, in turns with what is measured.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
from measure import seconds, show, spread
from postgres import Postgres, postgres

from perijove.model import Job, JobEvent, JobSpec, State
from perijove_hub.store.database import Batch, Database
from perijove_hub.store.leadership import Leadership

JOBS, ROUNDS = 20_000, 3
CHANGES = (
    ("placed", {"state": State.STARTING, "attempt": 1, "node": "n1", "allocated": 1.7e9}),
    ("started", {"state": State.RUNNING, "started": 1.7e9 + 1}),
    ("ended", {"state": State.SUCCEEDED, "ended": 1.7e9 + 9, "exit_code": 0, "memory_peak": 1 << 28}),
)

Floor = Callable[[int, int, int], None]
"""Changes and notes so many rows from an id on, in a round."""


def jobs(first: int) -> dict[int, Job]:
    spec = JobSpec(command=["python", "train.py"], env={"SEED": "1"})
    return {
        number: Job(
            id=number, owner=f"u{number % 50}", name="j", state=State.PENDING, submitted=1.7e9, spec=spec
        )
        for number in range(first, first + JOBS)
    }


def batches(some: dict[int, Job], name: str, seq: int, size: int) -> Iterator[Batch]:
    """What the board would hand over."""
    ids = list(some)
    for i in range(0, len(ids), size):
        part = {number: some[number] for number in ids[i : i + size]}
        events = [
            JobEvent(seq + number, number, job.owner, 1.7e9, name, job.state, job.attempt)
            for number, job in part.items()
        ]
        yield Batch(changed=part, events=events)


def ours(database: Database, first: int, size: int) -> float:
    """Transitions a second."""
    some = jobs(first)
    for i in range(first, first + JOBS, 1000):
        database.commit(Batch(new={number: some[number] for number in range(i, i + 1000)}))
    taken = 0.0
    for step, (name, changes) in enumerate(CHANGES):
        some = {number: job.model_copy(update=changes) for number, job in some.items()}
        # Numbers of events that no other round uses.
        made = list(batches(some, name, first * 10 + step * JOBS, size))
        taken += seconds(partial(_commit, database, made))
    return len(CHANGES) * JOBS / taken


def _commit(database: Database, made: list[Batch]) -> None:
    for batch in made:
        database.commit(batch)


def floor(write: Floor, first: int, size: int) -> float:
    """Transitions a second."""

    def work() -> None:
        for step in range(len(CHANGES)):
            for i in range(first, first + JOBS, size):
                write(i, size, step)

    return len(CHANGES) * JOBS / seconds(work)


@contextmanager
def sqlite_alone(folder: Path) -> Iterator[Floor]:
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"pragma {pragma}")
    connection.execute("create table job (id integer primary key, state text)")
    connection.execute("create table event (seq integer primary key, job integer, state text)")

    def write(first: int, size: int, step: int) -> None:
        ids = range(first, first + size)
        connection.execute("begin immediate")
        if step == 0:
            connection.executemany("insert into job values (?, 'pending')", [(i,) for i in ids])
        connection.executemany("update job set state = ? where id = ?", [("running", i) for i in ids])
        connection.executemany("insert into event values (?, ?, 'running')", [(i * 9 + step, i) for i in ids])
        connection.execute("commit")

    yield write
    connection.close()


@contextmanager
def postgresql_alone(server: Postgres) -> Iterator[Floor]:
    with server.connect() as connection:
        connection.execute("create table job (id bigint primary key, state text) with (fillfactor = 50)")
        connection.execute("create table event (seq bigint primary key, job bigint, state text)")
        connection.autocommit = False
        yield lambda first, size, step: _write(connection, first, size, step)


def _write(connection: psycopg.Connection, first: int, size: int, step: int) -> None:
    ids = list(range(first, first + size))
    with connection.pipeline():
        if step == 0:
            connection.execute("insert into job select i, 'pending' from unnest(%s::bigint[]) i", [ids])
        update = "update job set state = 'running' from unnest(%s::bigint[]) g(i) where id = i"
        connection.execute(update, [ids])
        insert = "insert into event select i * 9 + %s, i, 'running' from unnest(%s::bigint[]) i"
        connection.execute(insert, [step, ids])
        connection.commit()


@contextmanager
def both(kind: str) -> Iterator[tuple[Database, Floor]]:
    """Perijove's database and the plain one, on the same disk or server."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        if kind == "sqlite":
            with sqlite_alone(folder) as alone:
                yield Database.at(folder / "perijove.db"), alone
        else:
            with postgres(durable=True) as server, postgresql_alone(server) as alone:
                yield Database(server.new()), alone


def main(kinds: list[str]) -> None:
    rows = []
    for kind in kinds or ["sqlite", "postgresql"]:
        with both(kind) as (database, alone):
            database.migrate()
            leadership = Leadership(database, "bench", "http://bench")
            assert leadership.acquire()
            first = 1
            for size in (100, 1000):
                measured, plain = [], []
                for _ in range(ROUNDS):
                    plain.append(floor(alone, first, size))
                    measured.append(ours(database, first, size))
                    first += JOBS
                ratio = statistics.median(measured) / statistics.median(plain)
                rows.append([f"{kind}, {size} a transaction", spread(measured, 0), f"{ratio:.2f}"])
                rows.append([f"{kind} alone, {size} a transaction", spread(plain, 0), "1.00"])
            leadership.release()
            database.close()
    show("Durable transitions", ["what", "a second", "to the floor"], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
