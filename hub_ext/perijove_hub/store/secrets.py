"""Rows of secrets, encrypted as they are."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from perijove_hub.store.people_tables import secret


class Place(NamedTuple):
    """What tells one secret from all others."""

    holder: str
    """``user:NAME`` or ``project:NAME``."""
    purpose: str
    """``job``, or ``registry``: the login at the registry of that name."""
    name: str


class Sealed(NamedTuple):
    """An encrypted secret, who set it and when."""

    sealed: bytes
    by: str
    at: float


def all_of_them(connection: Connection) -> dict[Place, Sealed]:
    """Every secret there is."""
    return {
        Place(row.holder, row.purpose, row.name): Sealed(bytes(row.sealed), row.by, row.at)
        for row in connection.execute(select(secret))
    }


def put(connection: Connection, rows: dict[Place, Sealed]) -> None:
    """Set secrets, in the place of earlier ones."""
    for place, row in rows.items():
        remove(connection, place)
        connection.execute(insert(secret), {**place._asdict(), **row._asdict()})


def remove(connection: Connection, place: Place) -> None:
    """Remove a secret; nothing happens when there is none."""
    c = secret.c
    connection.execute(
        delete(secret).where(c.holder == place.holder, c.purpose == place.purpose, c.name == place.name)
    )
