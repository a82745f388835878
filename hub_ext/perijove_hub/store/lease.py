"""The lease: the row that says which service may write, and what it has written last.

All of it is decided inside the database, by its clock: services whose clocks differ agree on who leads. A
lease is taken when it is free or has run out, each time with a higher fence (a fencing token, Kleppmann,
"How to do distributed locking"); whoever writes shows its fence in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from perijove.model import UnavailableError

NAME = "service"


class StaleLeaderError(UnavailableError):
    """Another service leads; this one may write nothing any more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads."""

    holder: str
    url: str
    fence: int
    left: float
    """Seconds until it runs out unless it is renewed; below 0 when it has."""


class Clock:
    """Seconds since the epoch as an SQL expression, at the moment it is evaluated."""

    SQLITE = "((julianday('now') - 2440587.5) * 86400.0)"
    # now() stands still in a transaction, also while it waits for a lock.
    POSTGRESQL = "extract(epoch FROM clock_timestamp())::float8"


class LeaseQueries:
    """The statements about the lease. `clock`: one of :class:`Clock`."""

    def __init__(self, clock: str, place: str) -> None:
        self._acquire = text(
            f"""UPDATE lease SET holder = :holder, url = :url, fence = fence + 1, number = 0,
                expires = {clock} + :ttl
            WHERE name = '{NAME}' AND (expires < {clock} OR (:alone AND holder = :holder))
            RETURNING fence"""  # noqa: S608
        )
        mine = f"name = '{NAME}' AND fence = :fence"
        self._renew = text(f"UPDATE lease SET expires = {clock} + :ttl WHERE {mine}")  # noqa: S608
        self._release = text(f"UPDATE lease SET expires = 0 WHERE {mine}")  # noqa: S608
        self._read = text(f"SELECT holder, url, fence, expires - {clock} FROM lease WHERE name = '{NAME}'")  # noqa: S608
        larger = f"CASE WHEN {{0}} < {place} THEN {place} ELSE {{0}} END"
        self.note = (
            f"UPDATE lease SET number = {place}, last_job = {larger.format('last_job')},"  # noqa: S608
            f" last_seq = {larger.format('last_seq')} WHERE name = '{NAME}'"
        )
        self.note_fenced = f"{self.note} AND fence = {place} AND number < {place}"
        self.written = f"SELECT fence, number FROM lease WHERE name = '{NAME}'"  # noqa: S608

    def acquire(
        self, connection: Connection, *, holder: str, url: str, ttl: float, alone: bool
    ) -> int | None:
        """Take the lease if it is free; the new fence. `alone`: a former process of `holder` is dead."""
        values = {"holder": holder, "url": url, "ttl": ttl, "alone": alone}
        return connection.execute(self._acquire, values).scalar()

    def renew(self, connection: Connection, fence: int, ttl: float) -> None:
        """Keep it for another `ttl` seconds. :class:`StaleLeaderError` when another has it."""
        if connection.execute(self._renew, {"fence": fence, "ttl": ttl}).rowcount != 1:
            raise StaleLeaderError(f"another service leads now ({self._who(connection)})")

    def release(self, connection: Connection, fence: int) -> None:
        """Let it go, so that another need not wait."""
        connection.execute(self._release, {"fence": fence})

    def read(self, connection: Connection) -> Lease | None:
        """Who leads, or led last; None before the first."""
        row = connection.execute(self._read).first()
        return Lease(*row) if row is not None and row[2] > 0 else None

    def check(self, connection: Connection, fence: int) -> None:
        """Raise unless `fence` is the current one; it stays so until the transaction's end."""
        mine = text(f"UPDATE lease SET number = number WHERE name = '{NAME}' AND fence = :fence")  # noqa: S608
        if connection.execute(mine, {"fence": fence}).rowcount != 1:
            raise StaleLeaderError(f"another service leads now ({self._who(connection)})")

    def _who(self, connection: Connection) -> str:
        lease = self.read(connection)
        return f"{lease.holder}, {lease.url}" if lease is not None else "unknown"


def queries_for(*, postgresql: bool) -> LeaseQueries:
    """The statements in the words of one of the two databases."""
    return LeaseQueries(Clock.POSTGRESQL, "%s") if postgresql else LeaseQueries(Clock.SQLITE, "?")


def note_values(number: int, last_job: int, last_seq: int, fence: int | None) -> tuple[Any, ...]:
    """What the places of ``note`` (without a fence) or ``note_fenced`` stand for, in order."""
    values = (number, last_job, last_job, last_seq, last_seq)
    return values if fence is None else (*values, fence, number)
