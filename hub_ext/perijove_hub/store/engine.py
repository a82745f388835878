"""Connections to either database, and transactions on the bare driver for what must be fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from perijove.model import OperatorError

DRIVERS = ("sqlite", "postgresql+psycopg")
TRANSIENT = (OperationalError, InterfaceError, InternalError, PoolTimeoutError, OSError)
"""Errors after which the same may be tried again: a lost or starting server, a full disk, a lock."""
BEGIN_WRITING = "BEGIN IMMEDIATE"
"""SQLite: waits for other writers now; one that has read first could not, and would fail."""
IDLE_TIMEOUT = 5.0
"""Seconds after which PostgreSQL ends a transaction whose client says nothing."""
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    # With a million jobs the inner pages of all indexes are more than the 2 MiB it would keep; KiB.
    "cache_size=-65536",
    "wal_autocheckpoint=4000",
)
CONNECT_TIMEOUT = 5
"""Seconds to wait for a server that does not answer."""


def open_engine(url: str) -> Engine:
    """An engine for `url`. :class:`OperatorError` when that is no URL of a database that Perijove uses."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise OperatorError(f"database_url: {error}") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in DRIVERS:
        accepted = "sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        raise OperatorError(f"database_url: {parsed.drivername} is not supported; give {accepted}")
    return _sqlite(parsed) if parsed.drivername == "sqlite" else _postgresql(parsed)


def is_postgresql(engine: Engine) -> bool:
    """Which of the two it is."""
    return engine.dialect.name == "postgresql"


class Transaction:
    """Statements on a cursor of the driver. With PostgreSQL they travel together until one is asked for."""

    def __init__(self, cursor: Any, pipeline: Any | None) -> None:
        self.cursor, self._pipeline = cursor, pipeline

    def change(self, statement: str, values: Sequence[Any]) -> int:
        """How many rows the statement changed."""
        self.cursor.execute(statement, values)
        self._answer()
        changed: int = self.cursor.rowcount
        return changed

    def row(self, statement: str) -> tuple[Any, ...]:
        """The first row of its answer."""
        self.cursor.execute(statement)
        self._answer()
        found: tuple[Any, ...] = self.cursor.fetchone()
        return found

    def commit(self) -> None:
        """Make it durable; returns when it is."""
        self.cursor.connection.commit()

    def _answer(self) -> None:
        if self._pipeline is not None:
            self._pipeline.sync()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write, from its first statement on."""
    with engine.connect().execution_options(perijove_writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def driver_transaction(engine: Engine) -> Iterator[Transaction]:
    """A transaction that is rolled back unless it was committed. Raises SQLAlchemy's errors."""
    with _sqlalchemy_errors(engine), closing(engine.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        try:
            if is_postgresql(engine):
                with driver.pipeline() as pipeline:
                    yield Transaction(driver.cursor(), pipeline)
            else:
                driver.execute(BEGIN_WRITING)
                yield Transaction(driver.cursor(), None)
        except engine.dialect.loaded_dbapi.Error as error:
            if engine.dialect.is_disconnect(error, driver, None):
                connection.invalidate(error)
            raise


@contextmanager
def _sqlalchemy_errors(engine: Engine) -> Iterator[None]:
    base = engine.dialect.loaded_dbapi.Error
    try:
        yield
    except base as error:
        raise DBAPIError.instance(None, None, error, base, dialect=engine.dialect) from error


def _postgresql(url: Any) -> Engine:
    # A server that went away without a word (power, network) is noticed by the kernel's probes.
    arguments = {
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "application_name": "perijove",
        # One that was stopped in the midst of a commit keeps the lease locked no longer than this.
        "options": f"-c idle_in_transaction_session_timeout={int(IDLE_TIMEOUT * 1000)}",
    }
    given = {name: value for name, value in arguments.items() if name not in url.query}
    return create_engine(url, connect_args=given, pool_pre_ping=True, pool_timeout=10)


def _sqlite(url: Any) -> Engine:
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # Left to itself the driver begins no transaction for statements that change tables (migrations).
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("perijove_writes")
        connection.exec_driver_sql(BEGIN_WRITING if writes else "BEGIN")

    return engine
