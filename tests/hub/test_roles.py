"""Whose jobs one sees: one's own, and no trace of anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    accounts = {
        name: ManagedAccount(uid=20_000 + i, gid=20_000 + i) for i, name in enumerate(("alice", "bob"))
    }
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {
        "alice": Caller("alice"),
        "bob": Caller("bob"),
        "root": Caller("root"),
        "boss": Caller("boss", admin=True),
        "spawner": Caller("spawner", act_as=True),
    }
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        yield {
            name: httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            for name in callers
        }


async def test_somebody_elses_job_is_as_if_it_were_not_there(settings: Settings) -> None:
    async with site(settings) as by:
        answer = await by["alice"].post("/jobs", json={"command": ["true"], "name": "secret"})
        assert answer.status_code == 201, answer.text
        missing = await by["bob"].get("/jobs/2")
        for method, path in [
            ("GET", "/jobs/1"),
            ("GET", "/jobs/1/logs"),
            ("GET", "/jobs/1/logs?stream=engine"),
            ("GET", "/jobs/1/events"),
            ("GET", "/jobs/1/stats"),
            ("GET", "/jobs/1/outputs/x"),
            ("GET", "/events?job=1"),
            ("POST", "/jobs/1/kill"),
            ("POST", "/jobs/1/hold"),
            ("POST", "/jobs/1/suspend"),
        ]:
            answer = await by["bob"].request(method, path)
            assert answer.status_code == 404, path
            assert answer.json() == {**missing.json(), "detail": "there is no job 1"}
        assert (await by["bob"].get("/jobs")).json()["jobs"] == []
        assert (await by["bob"].get("/jobs", params={"owner": "alice"})).status_code == 404
        depends = await by["bob"].post("/jobs", json={"command": ["true"], "depends_on": [1]})
        assert depends.json()["errors"][0]["message"] == "you have no such job"
        assert (await by["boss"].get("/jobs/1")).json()["name"] == "secret"


async def test_an_administrator_does_not_see_what_is_in_environments(settings: Settings) -> None:
    async with site(settings) as by:
        await by["alice"].post("/jobs", json={"command": ["true"], "env": {"TOKEN": "s3cret"}})
        assert (await by["alice"].get("/jobs/1")).json()["spec"]["env"] == {"TOKEN": "s3cret"}
        for path in ("/jobs/1", "/jobs"):
            for who in ("boss", "spawner"):
                assert "s3cret" not in (await by[who].get(path)).text
        assert "s3cret" not in (await by["boss"].post("/jobs/1/kill")).text


async def test_the_token_of_a_notebook_server_is_shown_to_nobody(settings: Settings) -> None:
    async with site(settings) as by:
        spec = {"command": ["true"], "kind": "server", "env": {"JUPYTERHUB_API_TOKEN": "s3cret"}}
        submitted = await by["spawner"].post("/jobs", params={"owner": "alice"}, json=spec)
        assert submitted.status_code == 201
        for path in ("/jobs/1", "/jobs"):
            assert "s3cret" not in (await by["alice"].get(path)).text


async def test_only_a_service_with_the_scope_submits_for_others(settings: Settings) -> None:
    async with site(settings) as by:
        for who, status in (("bob", 403), ("boss", 403), ("spawner", 201)):
            answer = await by[who].post("/jobs", params={"owner": "alice"}, json={"command": ["true"]})
            assert answer.status_code == status
        assert (await by["alice"].get("/jobs")).json()["jobs"][0]["owner"] == "alice"


@pytest.mark.parametrize("who", ["root", "boss"])
async def test_accounts_of_the_system_run_nothing(settings: Settings, who: str) -> None:
    async with site(settings) as by:
        answer = await by[who].post("/jobs", json={"command": ["true"]})
        assert answer.status_code == 403


async def test_an_upload_serves_only_who_made_it(settings: Settings) -> None:
    async with site(settings) as by:
        uploaded = (await by["alice"].post("/files", content=b"data")).json()
        assert uploaded["size"] == 4
        spec = {"command": ["true"], "inputs": {"x": uploaded["digest"]}}
        assert (await by["bob"].post("/jobs", json=spec)).status_code == 422
        assert (await by["alice"].post("/jobs", json=spec)).status_code == 201
        again = await by["bob"].post("/files", content=b"data")
        assert again.json() == uploaded
        assert (await by["bob"].post("/jobs", json=spec)).status_code == 201


async def test_events_of_others_do_not_arrive(settings: Settings) -> None:
    async with site(settings) as by:
        await by["alice"].post("/jobs", json={"command": ["true"]})
        await by["bob"].post("/jobs", json={"command": ["true"]})
        await asyncio.sleep(0.1)
        listed = (await by["bob"].get("/jobs/2/events")).json()
        assert {event["owner"] for event in listed} == {"bob"}
