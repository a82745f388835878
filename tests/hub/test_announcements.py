"""What administrators tell everybody."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.pages.session import COOKIE
from perijove_hub.settings import Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens

CALLERS = {"alice": Caller("alice"), "boss": Caller("boss", admin=True)}
TRICKY = '<script>alert(1)</script> & "quotes"'


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(CALLERS))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        found = {
            name: httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            for name in CALLERS
        }
        nobody = httpx.AsyncClient(transport=transport, base_url="http://s/api/v1")
        yield {**found, "nobody": nobody, "app": app}


async def announce(by: dict[str, Any], **said: Any) -> int:
    answer = await by["boss"].post("/announcements", json=said)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def texts(http: httpx.AsyncClient, path: str = "/announcements") -> list[str]:
    return [one["text"] for one in (await http.get(path)).json()]


async def test_all_read_what_holds_now_and_strangers_what_is_public(settings: Settings) -> None:
    now = time.time()
    async with site(settings) as by:
        await announce(by, text="  New\nGPUs  ", public=True)
        await announce(by, text="Power off at noon", level="warning")
        await announce(by, text="Later", begins=now + 3600, public=True)
        await announce(by, text="Long ago", begins=1.0, ends=2.0, public=True)
        assert await texts(by["alice"]) == ["Power off at noon", "New GPUs"]
        assert await texts(by["boss"], "/announcements?coming=true") == [
            "New GPUs",
            "Power off at noon",
            "Later",
        ]
        assert (await by["alice"].get("/announcements?coming=true")).status_code == 403
        public = (await by["nobody"].get("/announcements/public")).json()
        assert public == [{"id": 1, "text": "New GPUs", "level": "info"}]
        assert (await by["nobody"].get("/announcements")).status_code == 401


async def test_they_outlive_the_service_and_their_numbers_are_not_given_again(settings: Settings) -> None:
    async with site(settings) as by:
        await announce(by, text="one")
        two = await announce(by, text="two")
        assert (await by["boss"].delete(f"/announcements/{two}")).status_code == 204
        assert (await by["boss"].delete(f"/announcements/{two}")).status_code == 404
    async with site(settings) as by:
        assert await texts(by["alice"]) == ["one"]
        assert await announce(by, text="three") == 3
        entries = (await by["boss"].get("/audit")).json()["entries"]
        assert [(e["act"], e["by"]) for e in entries] == [
            ("announce", "boss"),
            ("withdraw", "boss"),
            ("announce", "boss"),
            ("announce", "boss"),
        ]
        assert entries[1]["before"]["text"] == "two"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 501}, "text"),
        ({"text": "bell\u0007"}, "text"),
        ({"text": "x", "level": "panic"}, "level"),
        ({"text": "x", "begins": 5, "ends": 5}, ""),
        ({"text": "x", "ends": 1e300}, "ends"),
        ({"text": "x", "by": "root"}, "by"),
    ],
)
async def test_what_is_wrong_is_named(settings: Settings, said: dict[str, Any], field: str) -> None:
    async with site(settings) as by:
        answer = await by["boss"].post("/announcements", json=said)
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert (await by["alice"].post("/announcements", json={"text": "x"})).status_code == 403
        assert (await by["alice"].delete("/announcements/1")).status_code == 403
        assert await texts(by["alice"]) == []


async def test_there_are_not_more_than_people_read(settings: Settings) -> None:
    async with site(settings) as by:
        for number in range(20):
            await announce(by, text=f"{number}")
        assert (await by["boss"].post("/announcements", json={"text": "x"})).status_code == 400


async def test_every_page_shows_them_as_text(settings: Settings) -> None:
    async with site(settings) as by:
        await announce(by, text=TRICKY, level="warning")
        page = by["nobody"]
        page.base_url = httpx.URL("http://s")
        cookie = by["app"].state.sessions.begin("boss").headers["set-cookie"]
        page.cookies.set(COOKIE, cookie.partition("=")[2].partition(";")[0])
        for path in ("/", "/nodes", "/usage", "/job/7"):
            text = (await page.get(path)).text
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text, path
            assert "<script>" not in text
            assert 'role="status"' in text
