"""Rows of tokens with which nodes join."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from perijove_hub.store.people_tables import join_token

KEPT = 7 * 86400.0
"""Seconds after which tokens that expired are forgotten."""


@dataclass(frozen=True, slots=True)
class JoinRecord:
    """What is known of a token; of the token itself only the hash."""

    hash: str
    node: str
    by: str
    created: float
    expires: float
    used: float | None


def add(connection: Connection, token: JoinRecord) -> None:
    """Keep a token, in place of others for its node that were not used yet."""
    old = join_token.c.expires < token.created - KEPT
    withdraw(connection, token.node)
    connection.execute(delete(join_token).where(old))
    values = {name: getattr(token, name) for name in JoinRecord.__slots__}
    connection.execute(insert(join_token), values)


def tokens(connection: Connection) -> list[JoinRecord]:
    """All that are known, the newest first."""
    query = select(join_token).order_by(join_token.c.created.desc(), join_token.c.hash)
    return [JoinRecord(**row._mapping) for row in connection.execute(query)]


def find(connection: Connection, hash_: str) -> JoinRecord | None:
    """The token of that hash."""
    row = connection.execute(select(join_token).where(join_token.c.hash == hash_)).first()
    return None if row is None else JoinRecord(**row._mapping)


def use(connection: Connection, hash_: str, now: float) -> bool:
    """Use it up; False when it was before, or has expired."""
    good = (join_token.c.hash == hash_) & join_token.c.used.is_(None) & (join_token.c.expires > now)
    return connection.execute(update(join_token).where(good).values(used=now)).rowcount == 1


def withdraw(connection: Connection, node: str) -> int:
    """Remove those for a node that were not used; how many."""
    unused = (join_token.c.node == node) & join_token.c.used.is_(None)
    return connection.execute(delete(join_token).where(unused)).rowcount
