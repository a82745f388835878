"""Lists, single jobs, members and usage with a million jobs in the database, on both databases.

python tests/bench/queries.py [sqlite] [postgresql]
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from measure import show
from postgres import postgres
from sqlalchemy import event, text

from perijove.model import Job, JobEvent, JobSpec, State
from perijove_hub.accounting import DAY, Allocation, Axis
from perijove_hub.store.database import Batch, Database, Page

JOBS, ROUNDS, CHUNK = 1_000_000, 40, 5000
GROUPS, MEMBERS = 5, 20_000
NOW = 1_700_000_000.0
YEAR = 365 * DAY
ENDED = [State.SUCCEEDED] * 90 + [State.FAILED] * 9 + [State.KILLED]


def job(number: int, chance: random.Random) -> Job:
    """One of a year's: the last 100,000 wait, 1,000 before them run, a few were lost long ago."""
    if number > JOBS - 100_000:
        state = State.HELD if number % 1000 == 0 else State.PENDING
    elif number > JOBS - 101_000:
        state = State.RUNNING
    else:
        state = State.LOST if number in {5, 70_000} else chance.choice(ENDED)
    began = NOW - max(1.0, YEAR * (1 - number / (JOBS - 101_000)))
    # Seldom ones, too: an owner, a name, a project and a label of 20 jobs in the oldest tenth.
    seldom = number % 5000 == 0 and number < JOBS / 10
    spec = JobSpec(
        command=["python", "train.py", "--epochs", "100"],
        env={"DATA": "/data/set", "SEED": str(number)},
        project="seldom" if seldom else f"project{number % 20}",
        labels={"run": "seldom" if seldom else f"r{number % 100}"} if number % 2 == 0 else {},
    )
    owner = "seldom" if seldom else f"user{number % 50}"
    name = "seldom" if seldom else f"name{number % 200}"
    ran: dict[str, Any] = {"attempt": 1, "node": f"n{number % 40}", "started": began, "launcher": "docker"}
    ended: dict[str, Any] = {"ended": began + 600, "exit_code": 0} if state.ended else {}
    more = ran if state.ended or state.on_node else {}
    return Job(id=number, owner=owner, name=name, state=state, submitted=began, spec=spec, **more, **ended)


def allocation(one: Job) -> Allocation:
    return Allocation(
        job=one.id,
        attempt=1,
        owner=one.owner,
        project=one.spec.project,
        kind="batch",
        image=f"image{one.id % 5}",
        partition=None,
        node=one.node or "",
        cpu=2.0,
        memory=4 << 30,
        gpus=one.id % 2,
        begin=one.submitted,
        end=one.submitted + 600 if one.state.ended else None,
        label=str(one.id),
    )


def fill(database: Database) -> None:
    """A million single jobs with their histories, and groups with members that have rows."""
    chance, seq = random.Random(1), 0
    for first in range(1, JOBS + 1, CHUNK):
        jobs = [job(number, chance) for number in range(first, first + CHUNK)]
        batch = Batch(new={one.id: one for one in jobs})
        for one in jobs:
            for name in ("submitted", "placed", "started", "ended"):
                seq += 1
                batch.events.append(JobEvent(seq, one.id, one.owner, one.submitted, name, one.state, 1))
        batch.allocations = [allocation(one) for one in jobs if one.node is not None]
        database.commit(batch)
    spec = JobSpec.model_validate({"command": ["true"], "array": f"1:{MEMBERS}"})
    for group in range(JOBS + 1, JOBS + 1 + GROUPS * (MEMBERS + 1), MEMBERS + 1):
        array = Job(id=group, owner="user1", name="a", state=State.RUNNING, submitted=NOW, spec=spec)
        members = [
            array.model_copy(update={"id": group + i, "array_id": group, "array_task": i, "state": state})
            for i in range(1, MEMBERS + 1)
            for state in [chance.choice(ENDED)]
        ]
        database.commit(Batch(new={one.id: one for one in (array, *members)}))
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()


def questions(database: Database) -> dict[str, Callable[[], Any]]:
    """What is asked, by name."""
    ids = iter(random.Random(2).choices(range(1, JOBS), k=10_000))
    pages = {
        "newest": Page(),
        "newest, one owner": Page(owner="user7"),
        "a page in the middle": Page(before=JOBS // 2),
        "running": Page(states=(State.RUNNING,)),
        "pending": Page(states=(State.PENDING,)),
        "held": Page(states=(State.HELD,)),
        "failed or killed, one owner": Page(states=(State.FAILED, State.KILLED), owner="user7"),
        "lost (two, long ago)": Page(states=(State.LOST,)),
        "name": Page(name="name7"),
        "name, seldom": Page(name="seldom"),
        "name, one owner": Page(name="name7", owner="user7"),
        "name of another owner's": Page(name="name8", owner="user7"),
        "project": Page(project="project7"),
        "project, seldom": Page(project="seldom"),
        "label": Page(labels=(("run", "r8"),)),
        "label, seldom": Page(labels=(("run", "seldom"),)),
        "label, one owner": Page(labels=(("run", "r8"),), owner="user8"),
        "members of an array": Page(array=JOBS + 1),
        "failed members of an array": Page(array=JOBS + 1, states=(State.FAILED,)),
        "seldom owner": Page(owner="seldom"),
    }
    asked: dict[str, Callable[[], Any]] = {name: partial(database.jobs, page) for name, page in pages.items()}
    asked["one job"] = lambda: database.job(next(ids))
    asked["one job's history"] = lambda: database.events(job=next(ids))
    asked["one member"] = lambda: database.member(JOBS + 1, random.randint(1, MEMBERS))
    asked["array's members by state"] = lambda: database.array_counts(JOBS + 1)
    since = NOW - 30 * DAY
    axes: list[tuple[Axis, ...]] = [("owner",), ("project",), ("day",), ("owner", "image")]
    for by in axes:
        asked[f"usage of 30 days by {', '.join(by)}"] = partial(database.usage, by, since, NOW)
    asked["usage of 30 days, one owner"] = lambda: database.usage(("day",), since, NOW, owner="user7")
    asked["expired, oldest 100"] = lambda: database.expired(NOW - 30 * DAY, False, 100)
    return asked


@contextmanager
def hasty(database: Database) -> Iterator[None]:
    """Without durability, which filling it needs not; afterwards as a service opens it."""

    def configure(connection: Any, _record: Any, _proxy: Any) -> None:
        cursor = connection.cursor()
        if database.postgresql:
            cursor.execute("SET synchronous_commit = off")
            connection.commit()
        else:
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA cache_size = -1000000")

    event.listen(database.engine, "checkout", configure)
    yield
    event.remove(database.engine, "checkout", configure)
    database.close()


def percentiles(ask: Callable[[], Any]) -> list[float]:
    """Milliseconds: median, 95 %, worst."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - begun) * 1000)
    taken.sort()
    return [statistics.median(taken), taken[int(len(taken) * 0.95)], taken[-1]]


@contextmanager
def database_of(kind: str) -> Iterator[Database]:
    """An empty one on a disk, not in memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if kind == "sqlite":
            yield Database.at(Path(folder) / "perijove.db")
        else:
            with postgres(durable=True) as server:
                yield Database(server.new())


def main(kinds: list[str]) -> None:
    for kind in kinds or ["sqlite", "postgresql"]:
        with database_of(kind) as database:
            database.migrate()
            begun = time.perf_counter()
            with hasty(database):
                fill(database)
            print(f"{kind}: filled in {time.perf_counter() - begun:.0f} s", flush=True)
            rows = [
                [name, *(f"{value:.1f}" for value in percentiles(ask))]
                for name, ask in questions(database).items()
            ]
            show(f"{kind}: {JOBS:,} jobs, milliseconds", ["question", "median", "95 %", "worst"], rows)
            database.close()


if __name__ == "__main__":
    main(sys.argv[1:])
