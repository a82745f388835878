"""Versions of what administrators set while the service runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from perijove_hub.store.tables import document


@dataclass(frozen=True, slots=True)
class Document:
    """One version of the policy, of the drains, of the maintenance; versions count from 1."""

    name: str
    version: int
    at: float
    by: str
    body: str


def latest(connection: Connection, name: str) -> Document | None:
    """The version in force."""
    query = _of(name).order_by(document.c.version.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else Document(*row)


def versions(connection: Connection, name: str) -> list[Document]:
    """All of them, the newest first."""
    query = _of(name).order_by(document.c.version.desc())
    return [Document(*row) for row in connection.execute(query)]


def save(connection: Connection, name: str, body: str, by: str, at: float) -> Document:
    """Add a version. What is in force already is not written again, so that this may be repeated."""
    now = latest(connection, name)
    if now is not None and (now.body, now.by) == (body, by):
        return now
    version = connection.execute(select(func.max(document.c.version)).where(document.c.name == name)).scalar()
    saved = Document(name, (version or 0) + 1, at, by, body)
    values = {"name": name, "version": saved.version, "at": at, "by": by, "body": body}
    connection.execute(insert(document), values)
    return saved


def _of(name: str) -> Any:
    columns = (document.c[field] for field in Document.__slots__)
    return select(*columns).where(document.c.name == name)
