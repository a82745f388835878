"""The record of a service's database, opened so that nothing can be written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from perijove.model import OperatorError, PerijoveError
from perijove_hub.policy.document import Policy, load
from perijove_hub.settings import Settings
from perijove_hub.simulation.recorded import Record, read
from perijove_hub.store.database import Database

_READ_ONLY = {
    "sqlite": ("PRAGMA query_only = ON",),
    "postgresql": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
        "COMMIT",
    ),
}


def record_of(state: Path | None, url: str | None, back: float, now: float | None = None) -> Record:
    """The last `back` seconds, of the database at `url`, else of the one that the settings name.

    A policy that was never applied is that of the state directory's ``policy.yaml``. Raises
    ``OperatorError`` when there is nothing to read.
    """
    until = time.time() if now is None else now
    settings = Settings.read(state)
    database = opened(url or settings.database_at)
    try:
        return read(database, until - back, until, policy_in(settings.state))
    except DBAPIError as error:
        cause = str(error.orig).strip()
        raise OperatorError(f"database: it cannot be read ({cause}); was a service started on it?") from error
    finally:
        database.close()


def opened(url: str) -> Database:
    """The database, for reading."""
    database = Database(url)
    path = database.engine.url.database
    if not database.postgresql and (path is None or not Path(path).is_file()):
        raise OperatorError(f"database: there is no {path}; give --state or --database")
    event.listen(database.engine, "connect", _read_only)
    return database


def _read_only(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    kind = "sqlite" if type(connection).__module__.startswith("sqlite3") else "postgresql"
    for statement in _READ_ONLY[kind]:
        cursor.execute(statement)
    cursor.close()


def policy_in(state: Path) -> Policy:
    """That of a state directory without an applied one."""
    path = state / "policy.yaml"
    try:
        return load(path.read_text()) if path.is_file() else Policy()
    except (OSError, PerijoveError) as error:
        raise OperatorError(f"{path} cannot be used: {error}") from error
