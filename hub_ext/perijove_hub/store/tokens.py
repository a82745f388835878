"""Rows of API tokens and of SSH keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from perijove.model import Token
from perijove_hub.store.people_tables import ssh_key, token


def all_tokens(connection: Connection) -> dict[str, Token]:
    """Every token by its hash."""
    found = {}
    for row in connection.execute(select(token).order_by(token.c.id)):
        fields = dict(row._mapping)
        found[fields.pop("hash")] = Token.model_validate(fields)
    return found


def add_token(connection: Connection, digest: str, made: Token) -> None:
    """Write a token; of its secret only the hash."""
    fields = made.model_dump(mode="json", exclude={"token"})
    connection.execute(insert(token), {"hash": digest, **fields})


def remove_tokens(connection: Connection, ids: list[int]) -> None:
    """Remove tokens; those that are not there are none."""
    connection.execute(delete(token).where(token.c.id == bindparam("one")), [{"one": id_} for id_ in ids])


def note_uses(connection: Connection, uses: Mapping[int, tuple[float, str]]) -> None:
    """When and from where tokens were used last: by id."""
    statement = (
        update(token)
        .where(token.c.id == bindparam("one"))
        .values(last_used=bindparam("at"), last_address=bindparam("from_"))
    )
    rows = [{"one": id_, "at": at, "from_": address} for id_, (at, address) in uses.items()]
    connection.execute(statement, rows)


def keys_of(connection: Connection, owner: str) -> list[Any]:
    """Rows of a user's keys, the oldest first."""
    query = select(ssh_key).where(ssh_key.c.owner == owner).order_by(ssh_key.c.at, ssh_key.c.fingerprint)
    return list(connection.execute(query))


def add_key(connection: Connection, owner: str, fingerprint: str, line: str, at: float) -> None:
    """Write a key, or its other comment."""
    remove_key(connection, owner, fingerprint)
    values = {"owner": owner, "fingerprint": fingerprint, "line": line, "at": at}
    connection.execute(insert(ssh_key), values)


def remove_key(connection: Connection, owner: str, fingerprint: str) -> bool:
    """Remove a key; False when there is none."""
    mine = (ssh_key.c.owner == owner, ssh_key.c.fingerprint == fingerprint)
    return connection.execute(delete(ssh_key).where(*mine)).rowcount == 1
