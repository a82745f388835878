"""Copies of the database, made while it is in use, and put back.

SQLite by its backup API (sqlite.org/backup.html), PostgreSQL by the server's own programs pg_dump(1),
pg_restore(1) and psql(1), which must be on PATH and of its major version or later.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel

from perijove.model import OperatorError
from perijove_hub.store.audit import Act, append
from perijove_hub.store.database import Database
from perijove_hub.store.engine import writing
from perijove_hub.store.lease import NAME
from perijove_hub.store.people_tables import audit

SKIPPED = 1_000_000
"""Numbers that a restore gives up: those given after the backup was made are on nodes and in logs."""


def backup(database: Database, file: Path) -> None:
    """Write a copy of all that is committed now to `file`, whole or not at all, readable by its owner only.

    :class:`OperatorError` when the database or the file cannot be used.
    """
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        if database.postgresql:
            argv = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(unfinished)]
            _run(argv, make_url(database.url))
        else:
            _copy(_sqlite_file(database), unfinished)
        _sync(unfinished)
        unfinished.replace(file)
        _sync(file.parent)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"no backup was made in {file}: {error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def restore(database: Database, file: Path, *, force: bool = False, skip: int = SKIPPED) -> None:
    """Put back what :func:`backup` wrote, from this or an earlier version, in place of all that is there.

    The next `skip` ids of jobs and events, and fences, are not given again. What the audit log has that the
    copy has not stays in it, with an entry of the restoration itself. :class:`OperatorError`, and
    nothing is changed, when the file is no backup or, unless `force`, while a service leads.
    """
    if not file.is_file():
        raise OperatorError(f"{file}: there is no such file")
    given, audited = _given(database, force=force), _audited(database)
    try:
        if database.postgresql:
            _restore_postgresql(database, file, given, skip, audited)
        else:
            _restore_sqlite(database, file, given, skip, audited)
    except (OSError, sqlite3.Error) as error:
        raise OperatorError(f"{file} was not restored: {error}") from error


Given = tuple[int, int, int]
"""Fence, job id and event number, the highest in use."""


def _given(database: Database, *, force: bool) -> Given:
    try:
        with database.engine.connect() as connection:
            lease = database.lease.read(connection)
            query = text(f"SELECT fence, last_job, last_seq FROM lease WHERE name = '{NAME}'")  # noqa: S608
            row = connection.execute(query).one()
    except SQLAlchemyError:
        return 0, 0, 0  # empty, or broken: that is what a backup is for
    if lease is not None and lease.left > 0 and not force:
        raise OperatorError(
            f"the service {lease.holder} ({lease.url}) uses the database;"
            f" stop all services, wait {lease.left:.0f} s, or give --force"
        )
    return row.fence, row.last_job, row.last_seq


Audited = list[dict[str, Any]]
"""Rows of the audit log."""


def _audited(database: Database) -> Audited:
    try:
        with database.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(audit).order_by(audit.c.seq))]
    except SQLAlchemyError:
        return []  # of an earlier form, or broken


def _carry_over(connection: Connection, audited: Audited, file: Path) -> None:
    last = connection.execute(select(func.max(audit.c.seq))).scalar() or 0
    newer = [row for row in audited if row["seq"] > last]
    if newer:
        connection.execute(insert(audit), newer)
    after = {"backup": file.name, "kept": len(newer)}
    append(connection, [Act(time.time(), getpass.getuser(), "restore", "database", after=after)])


def _skipping(given: Given, skip: int) -> str:
    columns = ("fence", "last_job", "last_seq")
    pairs = zip(columns, given, strict=True)
    changes = (
        f"{name} = CASE WHEN {name} < {seen} THEN {seen} ELSE {name} END + {skip}" for name, seen in pairs
    )
    return f"UPDATE lease SET {', '.join(changes)}, expires = 0 WHERE name = '{NAME}'"  # noqa: S608


def _restore_sqlite(database: Database, file: Path, given: Given, skip: int, audited: Audited) -> None:
    target = _sqlite_file(database)
    prepared = target.with_name(f".{target.name}.restored")
    try:
        prepared.unlink(missing_ok=True)
        _copy(file, prepared)
        with closing(sqlite3.connect(prepared)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise OperatorError(f"{file} is damaged")
            if not connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchone():
                raise OperatorError(f"{file} is no backup of Perijove's database")
        copy = Database.at(prepared)
        copy.migrate()
        with writing(copy.engine) as connection:
            connection.execute(text(_skipping(given, skip)))
            _carry_over(connection, audited, file)
        copy.close()
        database.close()
        try:
            _copy(prepared, target)
        except sqlite3.DatabaseError:
            for damaged in (f"{target}{end}" for end in ("", "-wal", "-shm")):
                if Path(damaged).exists():
                    Path(damaged).replace(f"{damaged}.damaged")
            _copy(prepared, target)
    finally:
        for end in ("", "-wal", "-shm"):
            Path(f"{prepared}{end}").unlink(missing_ok=True)


def _restore_postgresql(database: Database, file: Path, given: Given, skip: int, audited: Audited) -> None:
    argv = ["pg_restore", "--no-owner", "--no-privileges", "--file", "-", str(file)]
    script = _run(argv, None)
    # Of a later form there may be more tables than in the file; of the first one there was no lease.
    tables = ", ".join([*SQLModel.metadata.tables, "alembic_version"])
    lease = f"IF to_regclass('lease') IS NOT NULL THEN {_skipping(given, skip)}; END IF;"
    whole = (
        f"DROP TABLE IF EXISTS {tables} CASCADE;\nDROP FUNCTION IF EXISTS audit_is_kept;\n{script}\n"
        f"SET search_path = public;\nDO $$ BEGIN {lease} END $$;\n"
    )
    argv = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--output"]
    _run([*argv, os.devnull], make_url(database.url), whole)
    database.close()
    database.migrate()
    with writing(database.engine) as connection:
        if connection.execute(text("SELECT fence FROM lease")).scalar_one() == 0:  # just made
            connection.execute(text(_skipping(given, skip)))
        _carry_over(connection, audited, file)


def _copy(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as origin,
        closing(sqlite3.connect(target, timeout=30)) as copy,
    ):
        origin.backup(copy)


def _sqlite_file(database: Database) -> Path:
    return Path(make_url(database.url).database or "")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(argv: list[str], url: URL | None, given: str | None = None) -> str:
    """What the program printed. Its connection comes by variables: arguments can be read by everybody."""
    program = shutil.which(argv[0])
    if program is None:
        raise OperatorError(f"{argv[0]} is not on PATH; install PostgreSQL's client programs")
    env = {**os.environ, **(_variables(url) if url is not None else {})}
    ran = subprocess.run(
        [program, *argv[1:]], env=env, input=given, capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise OperatorError(f"{argv[0]} failed: {ran.stderr.strip()[-1000:]}")
    return ran.stdout


def _variables(url: URL) -> dict[str, str]:
    """Libpq's environment variables (PostgreSQL's documentation, 34.15)."""
    found = {
        "PGHOST": url.host,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    for option in ("host", "port", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile"):
        if isinstance(value := url.query.get(option), str):
            found[f"PG{option.upper()}"] = value
    return {name: value for name, value in found.items() if value}
