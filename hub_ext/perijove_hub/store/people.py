"""Rows of people, their logins and invitations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from perijove.model import Invitation, LinkedIdentity, User
from perijove_hub.store.people_tables import identity, invitation, person
from perijove_hub.users.person import Moving, Person

_COLUMNS = ("name", "kind", "state", "number", "expires", "valid_from")


def load(connection: Connection) -> list[Person]:
    """Everybody there ever was."""
    logins: dict[str, list[LinkedIdentity]] = {}
    for row in connection.execute(select(identity).order_by(identity.c.at)):
        linked = LinkedIdentity(provider=row.provider, subject=row.subject, email=row.email)
        logins.setdefault(row.person, []).append(linked)
    return [_person(row, logins.get(row.name, [])) for row in connection.execute(select(person))]


def _person(row: Any, logins: list[LinkedIdentity]) -> Person:
    detail = dict(row.detail)
    groups, drain = frozenset(detail.pop("groups", ())), bool(detail.pop("drain", False))
    holds, moving = detail.pop("holds", None), detail.pop("moving", None)
    fields = {name: getattr(row, name) for name in _COLUMNS}
    user = User.model_validate({**detail, **fields, "identities": logins})
    return Person(user, groups, drain, holds, None if moving is None else _moving(moving))


def _moving(found: dict[str, Any]) -> Moving:
    lists = {name: tuple(found.get(name, ())) for name in ("nodes", "done")}
    return Moving(**{**found, **lists})


def save(connection: Connection, people: Sequence[Person]) -> None:
    """Write these, new or changed, with all of their logins."""
    for one in people:
        values = _values(one)
        found = connection.execute(
            update(person).where(person.c.name == one.user.name).values(**values)
        ).rowcount
        if not found:
            connection.execute(insert(person), {"name": one.user.name, **values})
        _save_logins(connection, one.user)


def _values(one: Person) -> dict[str, Any]:
    detail = one.user.model_dump(mode="json", exclude={*_COLUMNS, "identities"}, exclude_defaults=True)
    fields = one.user.model_dump(mode="json", include=set(_COLUMNS) - {"name"})
    detail["created"] = one.user.created
    if one.groups:
        detail["groups"] = sorted(one.groups)
    if one.drain:
        detail["drain"] = True
    if one.holds is not None:
        detail["holds"] = one.holds
    if one.moving is not None:
        detail["moving"] = asdict(one.moving)
    return {**fields, "detail": detail}


def _save_logins(connection: Connection, user: User) -> None:
    kept = {
        (row.provider, row.subject)
        for row in connection.execute(select(identity).where(identity.c.person == user.name))
    }
    wanted = {(one.provider, one.subject): one for one in user.identities}
    for provider, subject in kept - set(wanted):
        of_it = (identity.c.provider == provider, identity.c.subject == subject)
        connection.execute(delete(identity).where(*of_it))
    for key, one in wanted.items():
        if key in kept:
            of_it = (identity.c.provider == one.provider, identity.c.subject == one.subject)
            connection.execute(update(identity).where(*of_it).values(email=one.email))
        else:
            values = {"person": user.name, "email": one.email, "at": user.last_login or user.created}
            connection.execute(insert(identity), {"provider": one.provider, "subject": one.subject, **values})


def invitations(connection: Connection) -> list[tuple[str, Invitation]]:
    """All of them, each with the hash of its code; the oldest first."""
    rows = connection.execute(select(invitation).order_by(invitation.c.id))
    return [
        (
            row.hash,
            Invitation.model_validate(
                {**row.detail, "id": row.id, "expires": row.expires, "used_by": row.used_by}
            ),
        )
        for row in rows
    ]


def add_invitation(connection: Connection, hashed: str, one: Invitation) -> Invitation:
    """Keep a new invitation, under the next free number."""
    number = (connection.execute(select(func.max(invitation.c.id))).scalar() or 0) + 1
    detail = one.model_dump(mode="json", exclude={"id", "expires", "used_by", "code", "link"})
    row = {"id": number, "hash": hashed, "expires": one.expires, "used_by": None, "detail": detail}
    connection.execute(insert(invitation), row)
    return one.model_copy(update={"id": number})


def use_invitation(connection: Connection, number: int, name: str) -> None:
    """It was `name` who came by it."""
    connection.execute(update(invitation).where(invitation.c.id == number).values(used_by=name))


def end_invitation(connection: Connection, number: int, at: float) -> None:
    """Nobody can come by it any more."""
    connection.execute(update(invitation).where(invitation.c.id == number).values(expires=at))
