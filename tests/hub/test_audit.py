"""The audit log: written before the act, many acts at once, and by nobody changed or removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import binaries
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perijove.model import UnavailableError
from perijove_hub.app import create_app
from perijove_hub.auditing import AuditLog
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.store.audit import Act, Wanted, append, entries
from perijove_hub.store.backup import backup, restore
from perijove_hub.store.database import Database
from perijove_hub.store.engine import writing
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens

CALLERS = {name: Caller(name) for name in ("alice", "bob")} | {"boss": Caller("boss", admin=True)}
POLICY = "projects: {genomics: {members: [alice], leads: [bob]}}\n"


def opened(url: str, acts: int = 0) -> Database:
    database = Database(url)
    database.migrate()
    database.write(lambda connection: append(connection, [act(number) for number in range(acts)]))
    return database


def act(number: int, **more: Any) -> Act:
    return Act(float(number), "boss", "drain", f"node n{number}", **more)


def read(database: Database, **wanted: Any) -> list[str]:
    return [entry.subject for entry in database.read(lambda c: entries(c, Wanted(**wanted)))]


CHANGES = [
    "UPDATE audit SET subject = 'x' WHERE seq = 1",
    "UPDATE audit SET \"by\" = 'x'",
    "DELETE FROM audit WHERE seq = 1",
    "DELETE FROM audit",
]
UPSERT = "INTO audit (seq, at, \"by\", act, subject, address, token) VALUES (1, 0, 'x', 'x', 'x', '', '')"


def test_it_only_grows(database_url: str) -> None:
    database = opened(database_url, 3)
    more = (
        ["TRUNCATE audit", f"INSERT {UPSERT} ON CONFLICT (seq) DO UPDATE SET subject = 'x'"]
        if database.postgresql
        else [
            f"INSERT OR REPLACE {UPSERT}",
            f"INSERT {UPSERT} ON CONFLICT (seq) DO UPDATE SET subject = 'x'",
        ]
    )
    for statement in (*CHANGES, *more):
        with (
            pytest.raises(SQLAlchemyError, match="the audit log only grows"),
            writing(database.engine) as connection,
        ):
            connection.execute(text(statement))
    assert read(database) == ["node n2", "node n1", "node n0"]
    database.close()


def test_what_is_no_text_of_a_database_is_written_too(database_url: str) -> None:
    database = opened(database_url)
    odd = Act(1.0, "a\0b", "x", "\ud800", before={"a": "\0\ud800"}, after=[{1, 2}.__class__], project="\0")
    database.write(lambda connection: append(connection, [odd]))
    (found,) = database.read(lambda c: entries(c, Wanted()))
    assert (found.by, found.subject, found.project) == ("a\\x00b", "\\ud800", "\\x00")
    assert found.before == {"a": "\0\ud800"}
    database.close()


def test_it_is_read_by_who_what_when_and_page(database_url: str) -> None:
    database = opened(database_url, 5)
    database.write(
        lambda c: append(
            c, [Act(9.0, "ada", "kill", "job 1_%", project="p"), Act(9.0, "ada", "kill", "job 12")]
        )
    )
    assert read(database, by="ada") == ["job 12", "job 1_%"]
    assert read(database, act="drain", limit=2) == ["node n4", "node n3"]
    assert read(database, act="drain", limit=2, before=4) == ["node n2", "node n1"]
    assert read(database, after=5) == ["job 1_%", "job 12"]
    assert read(database, subject="node *") == [f"node n{i}" for i in (4, 3, 2, 1, 0)]
    assert read(database, subject="job 1_*") == ["job 1_%"]
    assert read(database, subject="job 12") == ["job 12"]
    assert read(database, since=4.0, act="drain") == ["node n4"]
    assert read(database, projects=frozenset({"p", "q"})) == ["job 1_%"]
    database.close()


def test_a_restoration_takes_nothing_out_of_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (found := binaries()) is not None:
        monkeypatch.setenv("PATH", f"{found}:{os.environ['PATH']}")
    database, file = opened(database_url, 2), tmp_path / "copy"
    backup(database, file)
    database.write(lambda connection: append(connection, [act(7), act(8)]))
    for restorations in (1, 2):
        restore(database, file, skip=10)
        kept = read(database)
        assert kept == [*["database"] * restorations, "node n8", "node n7", "node n1", "node n0"]
        with pytest.raises(SQLAlchemyError, match="only grows"), writing(database.engine) as connection:
            connection.execute(text("DELETE FROM audit"))
    database.write(lambda connection: append(connection, [act(9)]))
    assert read(database, limit=1) == ["node n9"]
    database.close()


async def test_acts_that_come_together_share_transactions(tmp_path: Path) -> None:
    database = opened(f"sqlite:///{tmp_path}/a.db")
    transactions = 0

    class Counted(Database):
        def write(self, act: Any) -> Any:
            nonlocal transactions
            transactions += 1
            return super().write(act)

    log = AuditLog(Counted(database.url))
    await asyncio.gather(*(log.note("boss", "kill", f"job {number}") for number in range(1000)))
    assert transactions <= 3
    found = database.read(lambda c: entries(c, Wanted(after=0, limit=2000)))
    assert [entry.seq for entry in found] == list(range(1, 1001))
    database.close()


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[tuple[Any, dict[str, httpx.AsyncClient]]]:
    accounts = {name: ManagedAccount(uid=22_000 + i, gid=22_000 + i) for i, name in enumerate(CALLERS)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(CALLERS))
    behind: Any = ProxyHeadersMiddleware(app, settings.trusted_proxies)  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        by = {}
        for name in CALLERS:
            transport = httpx.ASGITransport(app=behind, client=("127.0.0.1", 1))
            by[name] = httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
        yield app, by


async def test_what_is_not_written_is_not_done(settings: Settings) -> None:
    async with site(settings) as (app, by):
        await by["alice"].post("/jobs", json={"command": ["true"]})
        app.state.audit._database = Database("sqlite:////nowhere/at/all.db")
        with pytest.raises(UnavailableError):
            await app.state.audit.note("x", "y", "z")
        answer = await by["boss"].post("/jobs/1/kill")
        assert answer.status_code == 503, answer.text
        assert (await by["alice"].get("/jobs/1")).json()["state"] == "running"
        assert (await by["alice"].post("/jobs/1/kill")).status_code == 200  # one's own is nobody's business


async def test_who_what_before_after_and_from_where(settings: Settings) -> None:
    async with site(settings) as (_app, by):
        assert (await by["boss"].put("/policy", content=POLICY)).status_code == 200
        mine = {"command": ["true"], "project": "genomics", "env": {"TOKEN": "s3cret"}, "time_limit": "1h"}
        await by["alice"].post("/jobs", json=mine)
        forwarded = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}  # the client's own word, the proxy's
        await by["boss"].patch("/jobs/1", json={"time_limit": "30m"}, headers=forwarded)
        await by["bob"].post("/jobs/1/hold")
        await by["boss"].post("/nodes/n1/drain", json={"reason": "fan"})
        await by["alice"].post("/jobs/1/kill")
        page = (await by["boss"].get("/audit")).json()
        assert [(e["by"], e["act"], e["subject"]) for e in page["entries"]] == [
            ("boss", "drain", "node n1"),
            ("bob", "hold", "job 1"),
            ("boss", "change", "job 1"),
            ("boss", "policy", "policy"),
        ]
        drained, _, changed, applied = page["entries"]
        assert (drained["before"]["state"], drained["after"]) == ("up", {"reason": "fan"})
        assert changed["before"] == {"time_limit": 3600.0}
        assert changed["after"]["time_limit"] == 1800.0
        assert changed["address"] == "198.51.100.7"
        assert drained["address"] == "127.0.0.1"
        assert "+projects: {genomics: {members: [alice], leads: [bob]}}" in applied["after"]["difference"]
        assert "s3cret" not in (await by["boss"].get("/audit")).text
        lead = (await by["bob"].get("/audit")).json()["entries"]
        assert [(e["subject"], e["address"]) for e in lead] == [("job 1", ""), ("job 1", "")]
        assert (await by["alice"].get("/audit")).status_code == 403
        first = (await by["boss"].get("/audit", params={"after": 0, "limit": 2})).json()
        assert ([e["seq"] for e in first["entries"]], first["next"]) == ([1, 2], 2)
        assert (await by["boss"].get("/audit", params={"limit": 0})).status_code == 422


def test_only_configured_proxies_are_believed() -> None:
    assert Settings(mode="hub").trusted_proxies == ["127.0.0.1", "::1"]
    assert Settings(mode="single").trusted_proxies == []
    assert Settings(mode="hub", proxies=["10.0.0.0/8"]).trusted_proxies == ["10.0.0.0/8"]
    with pytest.raises(ValueError, match="proxies"):
        Settings(proxies=["everybody"])
