"""Who owns which files of the content store, and which of them something in the database still needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Text, cast, delete, func, or_, select

from perijove_hub.store.database import Database
from perijove_hub.store.engine import writing
from perijove_hub.store.tables import active, file, job
from perijove_hub.store.workflow_tables import result, run, step

DIGEST = re.compile(r"sha256(?:-tree)?:[0-9a-f]{64}")
_SOME = 500
"""Digests named in one query."""


@dataclass(frozen=True, slots=True)
class Owned:
    """What one user owns."""

    owner: str
    files: int
    size: int
    """Bytes."""


def owned_sizes(database: Database, owner: str, digests: Collection[str]) -> dict[str, int]:
    """Those of `digests` that `owner` uploaded or whose job made them, with their bytes."""
    found: dict[str, int] = {}
    with database.engine.connect() as connection:
        for some in _portions(digests):
            query = select(file.c.digest, file.c.size).where(file.c.owner == owner, file.c.digest.in_(some))
            found.update((digest, size) for digest, size in connection.execute(query))
    return found


def add_files(database: Database, owner: str, sizes: dict[str, int], at: float) -> None:
    """Record that `owner` may use these; idempotent."""
    known = owned_sizes(database, owner, sizes)
    for digest, size in sizes.items():
        if digest not in known:
            database.add_file(digest, owner, size, at)


def owned(database: Database, owner: str | None = None) -> list[Owned]:
    """What everybody owns, or that one user, by name."""
    query = select(file.c.owner, func.count(), func.sum(file.c.size)).group_by(file.c.owner)
    if owner is not None:
        query = query.where(file.c.owner == owner)
    with database.engine.connect() as connection:
        rows = connection.execute(query.order_by(file.c.owner))
        return [Owned(name, int(files), int(size or 0)) for name, files, size in rows]


def forget_files(database: Database, digests: Iterable[str]) -> None:
    """Nobody owns these any more: they are gone."""
    for some in _portions(list(digests)):
        with writing(database.engine) as connection:
            connection.execute(delete(file).where(file.c.digest.in_(some)))


def trees(database: Database) -> set[str]:
    """All folders that somebody owns."""
    query = select(file.c.digest).where(file.c.digest.like("sha256-tree:%")).distinct()
    with database.engine.connect() as connection:
        return set(connection.execute(query).scalars())


def pinned_roots(database: Database) -> set[str]:
    """Digests that pinned runs name."""
    return set(_named(database, _of_runs(run.c.pinned.is_(True))))


def roots(database: Database) -> set[str]:
    """All digests that are needed: whatever live jobs and those that are not archived name anywhere, and runs
    that are live, pinned or not archived, with their steps and results.
    """
    wanted = or_(job.c.final.is_(None), job.c.archived.is_(False))
    jobs = [_mentions(column).where(wanted) for column in (job.c.spec, job.c.detail)]
    kept = or_(run.c.final.is_(None), run.c.pinned.is_(True), run.c.archived.is_(False))
    return set(_named(database, [*jobs, *_of_runs(kept)]))


def oldest_at_work(database: Database) -> float | None:
    """When the first of the jobs began that run now and may leave outputs: these are in the store before
    the database knows of them.
    """
    query = (
        select(func.min(job.c.started))
        .join(active, active.c.job == job.c.id)
        .where(cast(job.c.spec, Text).like('%"outputs"%'))
    )
    with database.engine.connect() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else float(found)


def _of_runs(which: Any) -> list[Select[Any]]:
    steps = [_mentions(step.c.detail).join(run, run.c.id == step.c.run).where(which)]
    results = _mentions(result.c.outputs).join(run, run.c.id == result.c.run).where(which)
    return [*(_mentions(column).where(which) for column in (run.c.document, run.c.detail)), *steps, results]


def _mentions(column: Any) -> Select[Any]:
    text = cast(column, Text)
    return select(text).where(text.like("%sha256%"))


def _named(database: Database, queries: Sequence[Select[Any]]) -> Iterator[str]:
    with database.engine.connect().execution_options(yield_per=2000) as connection:
        for query in queries:
            for text in connection.execute(query).scalars():
                yield from DIGEST.findall(text)


def _portions(digests: Collection[str]) -> Iterator[list[str]]:
    listed = list(digests)
    for i in range(0, len(listed), _SOME):
        yield listed[i : i + _SOME]
