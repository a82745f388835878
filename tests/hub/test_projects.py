"""Projects and quotas, changed one by one; who may change what; and what the audit log says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import yaml

from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens

POLICY = """\
projects:
  genomics: {members: [alice, 'lab-*'], leads: [bob], limits: {cpus: 8}, volumes: [data]}
  other: {members: [carol]}
"""
PEOPLE = ("alice", "bob", "carol", "dave")


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    accounts = {name: ManagedAccount(uid=21_000 + i, gid=21_000 + i) for i, name in enumerate(PEOPLE)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {**{name: Caller(name) for name in PEOPLE}, "boss": Caller("boss", admin=True)}
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        by = {
            name: httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            for name in callers
        }
        assert (await by["boss"].put("/policy", content=POLICY)).status_code == 200
        yield by


async def policy(by: dict[str, httpx.AsyncClient]) -> Any:
    return yaml.safe_load((await by["boss"].get("/policy")).text)


async def test_an_administrator_makes_changes_and_removes_projects(settings: Settings) -> None:
    async with site(settings) as by:
        boss = by["boss"]
        made = await boss.put("/projects/physics", json={"members": ["dave"], "limits": {"cpus": 2}})
        assert made.status_code == 200, made.text
        await boss.put("/projects/physics", json={"description": "LHC", "limits": {"gpus": 1}})
        assert (await policy(by))["projects"]["physics"] == {
            "members": ["dave"],
            "limits": {"gpus": 1},
            "description": "LHC",
        }
        await boss.put("/projects/physics", json={"limits": None})
        assert "limits" not in (await policy(by))["projects"]["physics"]
        assert [p["name"] for p in (await by["dave"].get("/projects")).json()] == ["physics"]
        assert (await boss.delete("/projects/physics")).status_code == 204
        assert (await boss.delete("/projects/physics")).status_code == 404
        assert (await by["dave"].get("/projects")).json() == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"members": "dave"}, "projects.physics.members"),
        ({"limits": {"cpus": -1}}, "projects.physics.limits.cpus"),
        ({"limits": {"cpu": 1}}, "projects.physics.limits.cpu"),
        ({"boss": "dave"}, "projects.physics.boss"),
        ([], ""),
        ({"members": [[[]] * 300]}, ""),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_changes(settings: Settings, given: Any, field: str) -> None:
    async with site(settings) as by:
        answer = await by["boss"].put("/projects/physics", json=given)
        assert answer.status_code == 422, answer.text
        assert field in [error["field"] for error in answer.json()["errors"]]
        assert await policy(by) == yaml.safe_load(POLICY)


async def test_a_lead_adds_and_removes_members_and_splits_what_there_is(settings: Settings) -> None:
    async with site(settings) as by:
        bob = by["bob"]
        added = await bob.post("/projects/genomics/members", json={"user": "dave"})
        assert added.status_code == 200, added.text
        assert "dave" in added.json()["project"]["members"]
        assert [p["name"] for p in (await by["dave"].get("/projects")).json()] == ["genomics"]
        await bob.put("/projects/genomics/member-limits", json={"cpus": 2})
        await bob.put("/projects/genomics/members/dave/limits", json={"cpus": 3})
        (hers,) = (await by["alice"].get("/projects")).json()
        (his,) = (await by["dave"].get("/projects")).json()
        assert (hers["member_limits"], his["member_limits"]) == ({"cpus": 2}, {"cpus": 3})
        wide = {"command": ["true"], "project": "genomics", "cpu": 3}
        assert (await by["dave"].post("/jobs", json=wide)).status_code == 201
        refused = await by["alice"].post("/jobs", json=wide)
        waits = refused.status_code == 422 or (await why(by["alice"], refused.json()["id"])) == "quota_member"
        assert waits, refused.text
        await bob.delete("/projects/genomics/members/dave")
        assert (
            "limits_of" not in (await policy(by))["projects"]["genomics"]
            or not (await policy(by))["projects"]["genomics"]["limits_of"]
        )
        assert (await by["dave"].get("/projects")).json() == []
        assert (await bob.delete("/projects/genomics/members/dave")).status_code == 404


async def why(http: httpx.AsyncClient, job: int) -> str:
    found = (await http.get(f"/jobs/{job}/why")).json()
    return "quota_member" if "member alice" in found["reason"]["message"] else str(found)


REFUSED = [
    ("PUT", "/projects/genomics", {"limits": {"cpus": 99}}, 403),
    ("DELETE", "/projects/genomics", None, 403),
    ("POST", "/projects/genomics/members", {"user": "dave", "lead": True}, 403),
    ("DELETE", "/projects/genomics/members/bob?lead=true", None, 403),
    ("POST", "/projects/genomics/members", {"user": "*"}, 403),
    ("POST", "/projects/genomics/members", {"user": "@wheel"}, 403),
    ("PUT", "/users/bob/limits", {"cpus": 99}, 403),
    ("POST", "/projects/other/members", {"user": "bob"}, 404),
    ("PUT", "/projects/other/member-limits", {"cpus": 1}, 404),
    ("PUT", "/projects/none/member-limits", {"cpus": 1}, 404),
]


async def test_a_lead_raises_nothing_and_reaches_no_other_project(settings: Settings) -> None:
    async with site(settings) as by:
        for method, path, body, status in REFUSED:
            answer = await by["bob"].request(method, path, json=body)
            assert answer.status_code == status, (method, path, answer.text)
        for method, path, body, _ in REFUSED:
            if "genomics" in path and method != "PUT":  # alice is a member; dave is nobody there
                assert (await by["alice"].request(method, path, json=body)).status_code == 403, path
        assert (await by["dave"].post("/projects/genomics/members", json={"user": "dave"})).status_code == 404
        assert await policy(by) == yaml.safe_load(POLICY)


async def test_what_was_changed_is_in_the_audit_log_and_leads_read_of_theirs(settings: Settings) -> None:
    async with site(settings) as by:
        await by["bob"].post("/projects/genomics/members", json={"user": "dave"})
        await by["boss"].put("/projects/other", json={"limits": {"cpus": 1}})
        limited = await by["boss"].put("/users/carol/limits", json={"cpus": 4, "memory": "8G"})
        assert limited.json() == {"name": "carol", "limits": {"cpus": 4.0, "memory": 8 << 30}}
        entries = (await by["boss"].get("/audit")).json()["entries"]
        assert [(e["by"], e["subject"]) for e in entries] == [
            ("boss", "user carol"),
            ("boss", "project other"),
            ("bob", "project genomics"),
            ("boss", "policy"),
        ]
        assert entries[2]["before"]["members"] == ["alice", "lab-*"]
        assert entries[2]["after"]["members"] == ["alice", "lab-*", "dave"]
        assert entries[0]["after"]["difference"]
        (seen,) = (await by["bob"].get("/audit")).json()["entries"]
        assert (seen["subject"], seen["address"], seen["token"]) == ("project genomics", "", "")
        assert "carol" not in (await by["bob"].get("/audit")).text
        assert (await by["alice"].get("/audit")).status_code == 403
