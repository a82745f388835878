"""The audit log's rows: added and read, and nothing else; triggers in the database refuse the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select

from perijove.model import AuditEntry
from perijove_hub.store.people_tables import audit


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody is about to do; it gets its number when it is written."""

    at: float
    by: str
    act: str
    subject: str
    before: Any = None
    after: Any = None
    address: str = ""
    token: str = ""
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries. Names match as a whole; a subject that ends with ``*`` matches what begins so."""

    by: str | None = None
    act: str | None = None
    subject: str | None = None
    projects: frozenset[str] | None = None
    """Only acts on what belongs to these; None: on anything."""
    since: float | None = None
    before: int | None = None
    """Entries with lower numbers, the newest first."""
    after: int | None = None
    """Entries with higher numbers, the oldest first."""
    limit: int = 100


def append(connection: Connection, acts: Sequence[Act]) -> None:
    """Write `acts` in their order, each with the next number.

    The transaction must be the leader's, so that no other one counts at the same time.
    """
    last = connection.execute(select(func.max(audit.c.seq))).scalar() or 0
    rows = [
        {
            "seq": number,
            "at": act.at,
            "by": _text(act.by),
            "act": _text(act.act),
            "subject": _text(act.subject),
            "address": _text(act.address),
            "token": _text(act.token),
            "project": None if act.project is None else _text(act.project),
            "before": _json(act.before),
            "after": _json(act.after),
        }
        for number, act in enumerate(acts, last + 1)
    ]
    if rows:
        connection.execute(insert(audit), rows)


def entries(connection: Connection, wanted: Wanted) -> list[AuditEntry]:
    """Those that are wanted, the newest first unless they are asked for from a number on."""
    query = select(audit).limit(wanted.limit)
    query = query.order_by(audit.c.seq if wanted.after is not None else audit.c.seq.desc())
    for column, value in ((audit.c.by, wanted.by), (audit.c.act, wanted.act)):
        if value is not None:
            query = query.where(column == _text(value))
    if wanted.subject is not None:
        subject = _text(wanted.subject)
        begins = audit.c.subject.startswith(subject.removesuffix("*"), autoescape=True)
        query = query.where(begins if subject.endswith("*") else audit.c.subject == subject)
    if wanted.projects is not None:
        query = query.where(or_(*(audit.c.project == project for project in sorted(wanted.projects))))
    if wanted.since is not None:
        query = query.where(audit.c.at >= wanted.since)
    if wanted.before is not None:
        query = query.where(audit.c.seq < wanted.before)
    if wanted.after is not None:
        query = query.where(audit.c.seq > wanted.after)
    return [AuditEntry(**row._mapping) for row in connection.execute(query)]


def _text(given: str) -> str:
    """`given` as every database takes it: PostgreSQL has no NUL in text, and UTF-8 no lone surrogates."""
    return given.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _json(given: Any) -> Any:
    return json.loads(json.dumps(given, default=str)) if given is not None else None
