"""Secrets at the service: who may set and see which, what is written down of them, what jobs are given."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from waiting import becomes, until

from perijove.model import OperatorError, SecretPlace, UserError
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.secrets.keeper import Secrets
from perijove_hub.secrets.keys import KeyRing, UnreadableError
from perijove_hub.secrets.registries import RegistrySetting, is_registry
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.store.database import Database
from perijove_hub.store.secrets import Place
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.launcher import RegistryLogin
from perijove_spawners.protocol import Order

from .conftest import SimulatedNode, Tokens

VALUE = "hunter2-is-no-good"
FILE = SecretPlace()
POLICY = """
projects:
  lab: {members: [ada, bob], leads: [lou]}
"""


class Site:
    """The service with a few users and one simulated node."""

    def __init__(self, by: dict[str, httpx.AsyncClient], node: SimulatedNode, app: Any) -> None:
        self.by, self.node, self.app = by, node, app

    async def order(self, who: str, **spec: Any) -> Order:
        answer = await self.by[who].post("/jobs", json={"command": ["true"], **spec})
        assert answer.status_code == 201, answer.text
        job = answer.json()["id"]
        orders = self.node.orders
        return await until(lambda: next((o for a, o in orders.items() if a.job == job), None), "the order")


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[Site]:
    names = ("ada", "bob", "eve", "lou")
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000 + i) for i, name in enumerate(names)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub", "images": ["*"]})
    callers = {name: Caller(name) for name in names} | {"boss": Caller("boss", admin=True)}
    node = SimulatedNode()
    app = create_app(settings, fabric=DirectFabric([node]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        by = {
            name: httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            for name in callers
        }
        answer = await by["boss"].put("/policy", content=POLICY)
        assert answer.status_code == 200, answer.text
        yield Site(by, node, app)


async def test_a_secret_is_one_s_own_and_its_value_is_never_told(settings: Settings) -> None:
    async with site(settings) as at:
        ada, bob = at.by["ada"], at.by["bob"]
        made = await ada.put("/secrets/token", content=VALUE)
        assert made.status_code == 200, made.text
        assert made.json() == {
            "name": "token",
            "project": None,
            "purpose": "job",
            "by": "ada",
            "changed": made.json()["changed"],
        }
        assert [one["name"] for one in (await ada.get("/secrets")).json()] == ["token"]
        assert (await bob.get("/secrets")).json() == []
        assert (await ada.get("/secrets/token")).status_code == 405
        refused = await bob.post("/jobs", json={"command": ["true"], "secrets": {"token": "env"}})
        assert refused.json()["errors"] == [
            {
                "field": "secrets.token",
                "value": "token",
                "message": "there is no such secret of yours or project lab; there are: none",
            }
        ]
        order = await at.order("ada", secrets={"token": "env:TOKEN"})
        assert [(one.name, one.value, one.variable) for one in order.secrets] == [
            ("token", VALUE.encode(), "TOKEN")
        ]
        assert VALUE not in repr(order)
        shown = (await ada.get(f"/jobs/{order.attempt.job}")).text
        assert '"secrets":{"token":' in shown.replace(" ", "")
        for path in (f"/jobs/{order.attempt.job}", f"/jobs/{order.attempt.job}/events", "/jobs", "/audit"):
            for who in ("ada", "boss"):
                assert VALUE not in (await at.by[who].get(path)).text
        assert (await bob.delete("/secrets/token")).status_code == 404
        assert (await ada.delete("/secrets/token")).status_code == 204
        assert (await ada.delete("/secrets/token")).status_code == 404
    _written_nowhere(settings.state, VALUE)


def _written_nowhere(state: Path, value: str) -> None:
    found = [path for path in state.rglob("*") if path.is_file()]
    assert any(path.name == "perijove.db" for path in found)
    for path in found:
        assert value.encode() not in path.read_bytes(), path


async def test_leads_set_what_members_jobs_may_have(settings: Settings) -> None:
    async with site(settings) as at:
        by, params = at.by, {"project": "lab"}
        for who, code in {"eve": 404, "bob": 403, "lou": 200, "boss": 200}.items():
            answer = await by[who].put("/secrets/shared", params=params, content=f"{VALUE} of {who}")
            assert answer.status_code == code, (who, answer.text)
        for who, code in {"eve": 404, "bob": 200, "lou": 200, "boss": 200}.items():
            assert (await by[who].get("/secrets", params=params)).status_code == code
        assert (
            await by["boss"].put("/secrets/x", params={"project": "nosuch"}, content="x")
        ).status_code == 404
        order = await at.order("bob", project="lab", secrets={"shared": "file"})
        assert order.secrets[0].value == f"{VALUE} of boss".encode()
        # One's own comes first.
        await by["bob"].put("/secrets/shared", content="bob's own")
        assert (await at.order("bob", project="lab", secrets={"shared": "file"})).secrets[
            0
        ].value == b"bob's own"
        assert (await by["bob"].delete("/secrets/shared", params=params)).status_code == 403
        entries = (await by["lou"].get("/audit")).json()["entries"]
        told = [(e["act"], e["subject"], e["after"]) for e in entries]
        assert ("set secret", "project lab", {"secret": "shared"}) in told


async def test_what_cannot_be_is_refused_and_says_what_could(settings: Settings) -> None:
    async with site(settings) as at:
        ada = at.by["ada"]
        assert (await ada.put("/secrets/-x", content="x")).status_code == 422
        assert (await ada.put("/secrets/x", content="")).status_code == 400
        assert (await ada.put("/secrets/x", content=b"x" * (64 << 10))).status_code == 200
        assert (await ada.put("/secrets/x", content=b"x" * ((64 << 10) + 1))).status_code == 413
        for name in ("with-dash", "a", "b"):
            await ada.put(f"/secrets/{name}", content=VALUE)
        for secrets, field, said in (
            ({"with-dash": "env"}, "secrets.with-dash", "cannot be the name of a variable; write env:NAME"),
            ({"a": "env:PERIJOVE_JOB_ID"}, "secrets.a", "Perijove's own"),
            ({"a": "env:T", "b": "env:T"}, "secrets.a", "2 secrets would be the variable T"),
            ({"a": "env:HOME_OF"}, "secrets.a", "is in env, too"),
        ):
            spec = {"command": ["true"], "secrets": secrets, "env": {"HOME_OF": "x"}}
            errors = (await ada.post("/jobs", json=spec)).json()["errors"]
            assert errors[0]["field"] == field
            assert said in errors[0]["message"]


async def test_a_job_whose_secret_has_gone_says_so_and_does_not_run(settings: Settings) -> None:
    async with site(settings) as at:
        ada = at.by["ada"]
        await ada.put("/secrets/token", content=VALUE)
        await ada.put("/secrets/binary", content=b"\0\1\2")
        held = await ada.post("/jobs", json={"command": ["true"], "secrets": {"token": "env"}, "hold": True})
        await ada.delete("/secrets/token")
        binary = await ada.post("/jobs", json={"command": ["true"], "secrets": {"binary": "env:B"}})
        await ada.post(f"/jobs/{held.json()['id']}/release")
        for job, said in ((held, "no secret token any more"), (binary, "holds a NUL byte")):

            async def ended(job: httpx.Response = job) -> dict[str, Any] | None:
                found: dict[str, Any] = (await ada.get(f"/jobs/{job.json()['id']}")).json()
                return found if found["state"] == "failed" else None

            found = await becomes(ended, "the end of the job")
            assert found["reason"]["code"] == "JobLaunchFailure"
            assert said in found["reason"]["message"]
        assert not at.node.orders


async def test_after_a_restart_they_are_there_and_another_key_comes_first(settings: Settings) -> None:
    async with site(settings) as at:
        await at.by["ada"].put("/secrets/token", content=VALUE)
        assert (await at.by["ada"].post("/secrets/rotate")).status_code == 403
        assert (await at.by["boss"].post("/secrets/rotate")).json() == {"secrets": 1}
    key_file = settings.secret_keys
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    first, second = key_file.read_text().split()
    async with site(settings) as at:
        assert (await at.order("ada", secrets={"token": "file"})).secrets[0].value == VALUE.encode()
    # By hand: a new key in front; at the next start all is sealed with it, and the others may go.
    newest = Fernet.generate_key().decode()
    key_file.write_text(f"{newest}\n{first}\n{second}\n")
    async with site(settings):
        pass
    key_file.write_text(f"# keys\n{newest}\n")
    async with site(settings) as at:
        assert (await at.order("ada", secrets={"token": "file"})).secrets[0].value == VALUE.encode()


async def test_logins_at_registries_go_with_the_image_s_host(settings: Settings, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of-the-site-itself\n")
    registries = {"quay.io": RegistrySetting(username="site", password_file=password)}
    settings = settings.model_copy(update={"registries": registries})

    async with site(settings) as at:
        by, spec = at.by, {"launcher": "docker", "image": "reg.example.org:5000/lab/x:1"}
        body = {"username": "ada", "password": VALUE}
        assert (await by["ada"].put("/registries/reg.example.org:5000", json=body)).status_code == 200
        lab = {"username": "robot", "password": "of-the-lab-alone"}
        made = await by["lou"].put("/registries/reg.example.org:5000", params={"project": "lab"}, json=lab)
        assert made.json()["purpose"] == "registry"
        assert VALUE not in (await by["ada"].get("/registries")).text
        assert [one["name"] for one in (await by["ada"].get("/registries")).json()] == [
            "reg.example.org:5000"
        ]
        assert (await at.order("ada", **spec)).registry == RegistryLogin("ada", VALUE)
        assert (await at.order("bob", **spec, project="lab")).registry == RegistryLogin(
            "robot", lab["password"]
        )
        assert (await at.order("eve", **spec)).registry is None
        quay = await at.order("eve", launcher="docker", image="quay.io/lab/x")
        assert quay.registry == RegistryLogin("site", "of-the-site-itself")
        assert (await by["ada"].put("/registries/python", json=body)).status_code == 400
        bad = await by["ada"].put("/registries/ghcr.io", json={"username": "x", "password": [VALUE]})
        assert bad.status_code == 422
        assert VALUE not in bad.text
        assert (await by["ada"].delete("/registries/reg.example.org:5000")).status_code == 204
    password.unlink()
    for value in (VALUE, lab["password"], "of-the-site-itself"):
        _written_nowhere(settings.state, value)


@pytest.mark.parametrize(
    ("name", "good"),
    [("ghcr.io", True), ("localhost:5000", True), ("docker.io", True), ("python", False), ("a/b", False)],
)
def test_what_is_a_registry(name: str, good: bool) -> None:
    assert is_registry(name) is good


def test_a_sealed_secret_is_of_use_in_its_own_place_alone(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    ada, bob = Place("user:ada", "job", "token"), Place("user:bob", "job", "token")
    sealed = ring.seal(ada, b"value")
    assert ring.open(ada, sealed) == b"value"
    for place, text in ((bob, sealed), (ada, sealed[:-4] + b"AAAA"), (ada, b"x")):
        with pytest.raises(UnreadableError):
            ring.open(place, text)
    (tmp_path / "keys").write_text("no key at all\n")
    with pytest.raises(OperatorError, match="key 1 is none") as refused:
        ring.read()
    assert "no key at all" not in str(refused.value)


def test_without_its_key_a_secret_is_lost_and_the_service_goes_on(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "perijove.db")
    database.migrate()
    try:
        kept = Secrets(database, tmp_path / "keys")
        kept.open()
        kept.put("user:ada", "job", "token", b"value", "ada", 1.0)
        (tmp_path / "keys").unlink()
        kept = Secrets(database, tmp_path / "keys")
        kept.open()
        assert [one.name for one in kept.names("user:ada")] == ["token"]
        with pytest.raises(UserError, match="secret token cannot be read"):
            kept.of_job("ada", None, {"token": FILE})
        kept.put("user:ada", "job", "token", b"again", "ada", 2.0)
        assert kept.of_job("ada", None, {"token": FILE})[0].value == b"again"
    finally:
        database.close()
