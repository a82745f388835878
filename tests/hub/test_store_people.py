"""The tables of people on both sorts of database: what is written is read, and what is one stays one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from perijove.model import Budget, Invitation, LinkedIdentity, Scope, Token, User, UserKind, UserState
from perijove_hub.settings import Settings
from perijove_hub.store import joining, people, secrets, tokens
from perijove_hub.store.database import Database
from perijove_hub.store.joining import JoinRecord
from perijove_hub.store.secrets import Place, Sealed
from perijove_hub.users.person import Moving, Person

from .guests import guest_settings, site

TRICKY = "Däve \U0001f680 '\"; drop table person; -- \\ %s {}"
FULL = Person(
    User(
        name="dave",
        kind=UserKind.GUEST,
        state=UserState.EXPIRED,
        number=42,
        account="guest01",
        home="/srv/guests/dave",
        email="d@example.org",
        full_name=TRICKY,
        project="moon",
        sponsor="lena",
        budget=Budget(cpu_minutes=0.1, gpu_minutes=1e6, disk=2**53 + 1),
        disk_used=2**60,
        created=1.25,
        activated=2.5,
        expires=1e10 + 0.125,
        valid_from=3.75,
        last_login=4.0,
        identities=[
            LinkedIdentity(provider="github", subject="7", email="d@example.org"),
            LinkedIdentity(provider="university", subject=TRICKY, email=""),
        ],
    ),
    groups=frozenset({"lab", TRICKY}),
    drain=True,
    holds="guest02",
    moving=Moving("/srv/guests/dave", 1001, 1002, 1003, nodes=("n1", "n2"), done=("n1",)),
)


def loaded(database: Database) -> dict[str, Person]:
    return {one.user.name: one for one in database.read(people.load)}


def save(database: Database, *some: Person) -> None:
    database.write(partial(people.save, people=some))


def test_people_and_their_logins(database: Database) -> None:
    plain = Person(User(name="erin", created=1.0))
    save(database, FULL, plain)
    assert loaded(database) == {"dave": FULL, "erin": plain}
    # A login goes over to somebody else in one transaction, or not at all.
    [first, second] = FULL.user.identities
    left, more = FULL.changed(identities=[second]), plain.changed(identities=[first], last_login=5.0)
    save(database, left, more)
    assert loaded(database) == {"dave": left, "erin": more}
    for wrong in (plain.changed(name="eve", identities=[first]), plain.changed(name="eve", number=42)):
        with pytest.raises(IntegrityError):
            save(database, left.changed(email="other"), wrong)
        assert loaded(database) == {"dave": left, "erin": more}
    moved = replace(left, moving=None, holds=None, drain=False, groups=frozenset()).changed(home=None)
    save(database, moved)
    assert loaded(database)["dave"] == moved


def test_invitations_tokens_keys_secrets_and_join_tokens(database: Database) -> None:
    new = Invitation(id=0, project="moon", email=TRICKY, by="lena", created=1.0, expires=9.0)
    made = [
        database.write(partial(people.add_invitation, hashed=hashed, one=new))
        for hashed in ("a" * 64, "b" * 64)
    ]
    assert [one.id for one in made] == [1, 2]
    with pytest.raises(IntegrityError):
        database.write(partial(people.add_invitation, hashed="a" * 64, one=new))
    database.write(partial(people.use_invitation, number=1, name="dave"))
    database.write(partial(people.end_invitation, number=2, at=5.0))
    found = database.read(people.invitations)
    assert found == [
        ("a" * 64, made[0].model_copy(update={"used_by": "dave"})),
        ("b" * 64, made[1].model_copy(update={"expires": 5.0})),
    ]

    token = Token(id=2**53 + 1, name=TRICKY, owner="dave", scope=Scope.SUBMIT, created=1.0, expires=2e9)
    database.write(partial(tokens.add_token, digest="c" * 64, made=token))
    database.write(partial(tokens.note_uses, uses={token.id: (7.5, "2001:db8::1")}))
    used = token.model_copy(update={"last_used": 7.5, "last_address": "2001:db8::1"})
    assert database.read(tokens.all_tokens) == {"c" * 64: used}
    database.write(partial(tokens.remove_tokens, ids=[token.id, 1]))
    assert database.read(tokens.all_tokens) == {}

    for line in ("ssh-ed25519 AAAA one", "ssh-ed25519 AAAA two"):
        database.write(partial(tokens.add_key, owner="dave", fingerprint="SHA256:x", line=line, at=1.0))
    assert [row.line for row in database.read(partial(tokens.keys_of, owner="dave"))] == [line]
    assert database.write(partial(tokens.remove_key, owner="dave", fingerprint="SHA256:x")) is True
    assert database.write(partial(tokens.remove_key, owner="dave", fingerprint="SHA256:x")) is False

    place, every_byte = Place("user:dave", "job", TRICKY), bytes(range(256))
    for sealed in (Sealed(b"old", "dave", 1.0), Sealed(every_byte, "dave", 2.0)):
        database.write(partial(secrets.put, rows={place: sealed}))
    assert database.read(secrets.all_of_them) == {place: Sealed(every_byte, "dave", 2.0)}
    database.write(partial(secrets.remove, place=place))
    assert database.read(secrets.all_of_them) == {}

    rows = [JoinRecord(f"{i}" * 64, "n7", "boss", float(i), 100.0 + i, None) for i in (1, 2)]
    for row in rows:
        database.write(partial(joining.add, token=row))
    assert database.read(joining.tokens) == rows[1:]  # the first was withdrawn
    assert database.write(partial(joining.use, hash_=rows[1].hash, now=102.0)) is False  # too old
    assert database.write(partial(joining.use, hash_=rows[1].hash, now=50.0)) is True
    assert database.write(partial(joining.use, hash_=rows[1].hash, now=51.0)) is False
    assert database.read(partial(joining.find, hash_=rows[1].hash)) == replace(rows[1], used=50.0)


ODD: list[tuple[str, str, dict[str, Any]]] = [
    ("login", "/arrivals", {"provider": "github", "subject": "7\0"}),
    ("login", "/arrivals", {"provider": "github", "subject": "7", "email": "\0"}),
    ("login", "/arrivals", {"provider": "github", "subject": "7", "groups": ["\0"]}),
    ("boss", "/users", {"name": "eve", "email": "\0"}),
    ("boss", "/users", {"name": "eve", "identities": [{"provider": "github", "subject": "\0", "email": ""}]}),
    ("boss", "/users/eve/link", {"provider": "github", "subject": "\0"}),
    ("boss", "/users/eve/promote", {"account": "\0"}),
    ("boss", "/invitations", {"email": "\0"}),
    ("boss", "/invitations", {"budget": {"cpu_minutes": -1}}),
    ("boss", "/invitations", {"budget": {"disk": 2**70}}),
    ("boss", "/invitations", {"project": "\0"}),
    ("boss", "/tokens", {"name": "\0", "scope": "read"}),
    ("boss", "/nodes/join-tokens", {"node": "\0"}),
]


async def test_what_no_database_can_hold_is_refused(
    tmp_path: Path, migrated: Path, database_url: str
) -> None:
    settings = guest_settings(tmp_path, migrated)
    there = Settings.model_validate({**settings.model_dump(), "database_url": database_url})
    async with site(there) as here:
        await here.done("boss", "/users", {"name": "dora"})
        for who, path, body in ODD:
            answer = await here.ask(who, "POST", path.replace("eve/", "dora/"), body)
            assert answer.status_code == 422, (path, body, answer.text)
        assert sorted(here.users.people) == ["dora"]
        await here.arrive("7", full_name="ok")
