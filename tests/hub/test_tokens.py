"""API tokens: whose they are, what they open, and that nothing of them is kept."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import InvalidSpecError, Scope, Token, UserError
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_hub.tokens.book import DAY, MOST, Tokens
from perijove_hub.tokens.secret import PREFIX, digest, new_secret

from .conftest import SimulatedNode, running
from .people import People, form_in, people
from .test_standby import _followed, settings_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people(Settings(state=tmp_path_factory.mktemp("site"))) as found:
        yield found


async def test_a_token_opens_what_its_scope_says(site: People) -> None:
    for scope, reads, submits, administers in (
        ("read", 200, 403, 403),
        ("submit", 200, 201, 403),
        ("admin", 200, 201, 200),
    ):
        owner = "boss" if scope == "admin" else "alice"
        made = await site.token(owner, scope)
        assert re.fullmatch(r"pjt_[A-Za-z0-9_-]{43}", made["token"])
        http = site.by(made["token"])
        assert (await http.get("/jobs")).status_code == reads
        assert (await http.get("/policy")).status_code == administers
        job = await http.post("/jobs", json={"command": ["true"]})
        assert job.status_code == submits, job.text
        told = [one for one in (await http.get("/tokens")).json() if one["id"] == made["id"]]
        assert told[0]["token"] is None
        assert told[0]["last_address"] == "127.0.0.1"


async def test_an_administrators_token_of_less_scope_administers_nothing(site: People) -> None:
    made = await site.token("boss", "submit")
    assert (await site.by(made["token"]).get("/me")).json()["admin"] is False
    assert (await site.by(made["token"]).get("/policy")).status_code == 403


async def test_a_read_token_changes_nothing_by_any_route(site: People) -> None:
    reader, stranger = site.by((await site.token("boss", "read"))["token"]), site.by("")
    document = site.app.openapi()
    closed = 0
    for path, item in document["paths"].items():
        url = path.removeprefix("/api/v1")
        url = re.sub(r"\{[^}]+\}", "1", url)
        for method in set(item) - {"get", "head", "parameters"}:
            if (await stranger.request(method, url)).status_code != 401:
                continue  # of those that need no token
            answer = await reader.request(method, url)
            assert (answer.status_code, answer.json()["detail"]) == (
                403,
                "this token may only read; make one with the scope submit",
            ), (method, path)
            closed += 1
    assert closed > 40


async def test_a_read_tokens_session_presses_no_button(site: People) -> None:
    browser = site.browser((await site.token("alice", "read"))["token"])
    form = form_in((await browser.get("/account")).text)
    fields = {"form": form, "verb": "make", "name": "x", "scope": "submit", "lifetime": "7d"}
    assert (await browser.post("/account", data=fields)).status_code == 403


async def test_a_token_makes_no_wider_one(site: People) -> None:
    narrow = site.by((await site.token("boss", "submit"))["token"])
    for scope, status in (("read", 201), ("submit", 201), ("admin", 422)):
        answer = await narrow.post("/tokens", json={"name": "x", "scope": scope})
        assert answer.status_code == status
    refused = await site.by("alice").post("/tokens", json={"name": "x", "scope": "admin"})
    assert refused.json()["errors"][0]["field"] == "scope"
    assert (await site.by("spawner").post("/tokens", json={"name": "x"})).status_code == 403


async def test_somebody_elses_token_is_as_if_it_were_not_there(site: People) -> None:
    made = await site.token("alice")
    missing = await site.by("bob").delete("/tokens/99")
    answer = await site.by("bob").delete(f"/tokens/{made['id']}")
    assert answer.json() == {**missing.json(), "detail": f"you have no token {made['id']}"}
    assert (await site.by("bob").get("/tokens")).json() == []
    assert (await site.by("bob").get("/tokens", params={"owner": "alice"})).status_code == 403
    assert (await site.by("bob").get("/tokens", params={"all_users": True})).status_code == 403
    listed = (await site.by("boss").get("/tokens", params={"owner": "alice"})).json()
    assert made["id"] in [one["id"] for one in listed]
    assert (await site.by("boss").delete(f"/tokens/{made['id']}")).status_code == 204
    assert await site.status(made["token"]) == 401
    acts = (await site.by("boss").get("/audit", params={"act": "revoke token"})).json()["entries"]
    assert (acts[0]["by"], acts[0]["subject"]) == ("boss", "user alice")


async def test_of_a_token_nothing_is_on_the_disk_or_in_the_log(
    site: People, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = (await site.token("alice"))["token"]
    assert await site.status(secret) == 200
    assert secret not in repr(site.app.state.tokens.of("alice"))
    files = [path for path in site.app.state.settings.state.rglob("*") if path.is_file()]
    assert any(digest(secret).encode() in path.read_bytes() for path in files)
    for part in (secret, secret.removeprefix(PREFIX), secret[-20:]):
        assert [path for path in files if part.encode() in path.read_bytes()] == []
    assert secret not in caplog.text


async def test_a_token_expires_and_no_longer_than_the_site_allows(tmp_path: Path) -> None:
    now = [1_000_000.0]
    tokens = Tokens(opened(tmp_path), longest=30 * DAY, clock=lambda: now[0])
    await tokens.open()
    usual = await tokens.make("alice", "laptop", Scope.SUBMIT)
    assert usual.expires == now[0] + 30 * DAY
    with pytest.raises(InvalidSpecError, match="30d"):
        await tokens.make("alice", "laptop", Scope.SUBMIT, 31 * DAY)
    assert tokens.find(str(usual.token)) is not None
    now[0] = usual.expires
    assert tokens.find(str(usual.token)) is None
    assert tokens.of("alice") == []
    again = await tokens.make("alice", "laptop", Scope.READ)
    assert again.id > usual.id
    assert tokens.get(usual.id) is None
    await tokens.close()


async def test_who_has_very_many_tokens_gets_no_more(tmp_path: Path) -> None:
    tokens = Tokens(opened(tmp_path))
    await tokens.open()
    for _ in range(MOST):
        await tokens.make("alice", "laptop", Scope.SUBMIT)
    with pytest.raises(UserError, match="revoke"):
        await tokens.make("alice", "laptop", Scope.SUBMIT)
    await tokens.make("bob", "laptop", Scope.SUBMIT)
    await tokens.close()


async def test_what_was_used_when_and_what_was_revoked_outlives_the_service(tmp_path: Path) -> None:
    now = [1_000_000.0]
    database = opened(tmp_path)
    tokens = Tokens(database, clock=lambda: now[0])
    await tokens.open()
    kept = await tokens.make("alice", "laptop", Scope.SUBMIT)
    gone = await tokens.make("alice", "phone", Scope.READ)
    tokens.used(kept.id, "192.0.2.1")
    now[0] += 5
    tokens.used(kept.id, "192.0.2.1")
    now[0] += 60
    tokens.used(kept.id, "192.0.2.1")
    await tokens.revoke(gone.id)
    tokens.used(gone.id, "192.0.2.1")
    await tokens.close()
    after = Tokens(database, clock=lambda: now[0])
    await after.open()
    assert after.find(str(gone.token)) is None
    found = after.find(str(kept.token))
    assert found is not None
    assert (found.last_used, found.last_address) == (1_000_065.0, "192.0.2.1")
    assert found.model_copy(update={"last_used": None, "last_address": ""}) == Token.model_validate(
        kept.model_dump(exclude={"token"})
    )
    await after.close()


@given(st.text(), st.integers(0, 46))
async def test_nothing_else_than_the_very_secret_is_found(text: str, place: int) -> None:
    tokens = Tokens(Database("sqlite://"))
    secret = new_secret()
    made = Token(id=1, owner="a", name="n", created=0, expires=1e12)
    tokens._by_hash, tokens._hashes = {digest(secret): made}, {1: digest(secret)}
    assert tokens.find(secret) == made
    changed = secret[:place] + ("A" if secret[place] != "A" else "B") + secret[place + 1 :]
    for other in (text, secret + text[:1] if text else "", changed, secret[:-1], digest(secret), "\ud800"):
        assert tokens.find(other) is None


async def test_a_standby_that_takes_over_knows_the_tokens(tmp_path: Path) -> None:
    agent, database_url = SimulatedNode(), f"sqlite:///{tmp_path / 'perijove.db'}"
    async with running(settings_of(tmp_path, "one", database_url), [agent]) as first:
        made = (await first.http.post("/tokens", json={"name": "laptop"})).json()
        gone = (await first.http.post("/tokens", json={"name": "phone"})).json()
        async with running(settings_of(tmp_path, "two", database_url), [agent.restart()]) as second:
            assert (await first.http.delete(f"/tokens/{gone['id']}")).status_code == 204
            await first.controller.close()
            await _followed(first.controller.database, second.http)
            for token, status in ((made, 200), (gone, 401)):
                headers = {"Authorization": f"Bearer {token['token']}"}
                assert (await second.http.get("/me", headers=headers)).status_code == status


def opened(folder: Path) -> Database:
    database = Database.at(folder / "perijove.db")
    database.migrate()
    return database
