"""Somebody logs in: who that is here, also when two come at once, names are taken, and after a restart."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from perijove.model import UserKind, UserState
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import Settings
from perijove_hub.users.users import Users
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens, ask_as

CALLERS = {
    "login": Caller("perijove-login", login=True, person=False),
    "boss": Caller("boss", admin=True),
    "alice": Caller("alice"),
}


class Site:
    """A running service with requests in several names."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.users: Users = app.state.users

    async def ask(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return await ask_as(self.app, who, method, path, body)

    async def arrive(self, provider: str, subject: str, **more: Any) -> dict[str, Any]:
        body = {"provider": provider, "subject": subject, "username": subject, **more}
        answer = await self.ask("login", "POST", "/arrivals", body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def site(settings: Settings) -> AsyncIterator[Site]:
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(CALLERS))
    async with app.router.lifespan_context(app):
        yield Site(app)


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    providers = {
        "idp": {"client_id": "x", "issuer": "https://idp.example.org", "users": "members"},
        "github": {"client_id": "x", "preset": "github"},
        "shut": {"client_id": "x", "preset": "github", "users": "closed"},
        "strict": {"client_id": "x", "preset": "github", "users": "members", "taken": "refuse"},
    }
    made = Settings.model_validate(
        {"state": tmp_path, "mode": "hub", "admins": ["boss"], "login": {"providers": providers}}
    )
    shutil.copy(migrated, made.database)
    return made


async def test_a_member_comes_in_and_a_guest_waits(settings: Settings) -> None:
    async with site(settings) as here:
        member = await here.arrive("idp", "carol")
        assert (member["name"], member["state"]) == ("carol", "active")
        guest = await here.arrive("github", "77", username="Dave.D", email="d@example.org")
        assert (guest["name"], guest["state"]) == ("dave-d", "waiting")
        assert "activation" in guest["message"]
        assert here.users.identity("carol").account.uid == 20_001
    async with site(settings) as again:
        found = await again.ask("login", "GET", "/users/carol/standing")
        assert found.json()["state"] == "active"
        assert again.users.identity("carol").account.uid == 20_001
        assert (await again.arrive("github", "77"))["name"] == "dave-d"


async def test_two_arrivals_at_once_make_one_user(settings: Settings) -> None:
    async with site(settings) as here:
        answers = await asyncio.gather(*(here.arrive("idp", "carol") for _ in range(20)))
        assert {answer["name"] for answer in answers} == {"carol"}
        assert list(here.users.people) == ["carol"]
        others = await asyncio.gather(*(here.arrive("github", str(i), username="carol") for i in range(20)))
        assert {answer["name"] for answer in others} == {f"carol-{i}" for i in range(2, 22)}


async def test_only_the_hubs_login_may_tell_who_arrived(settings: Settings) -> None:
    async with site(settings) as here:
        body = {"provider": "idp", "subject": "x"}
        for who in ("alice", "boss"):
            assert (await here.ask(who, "POST", "/arrivals", body)).status_code == 403
        assert (await here.ask("alice", "GET", "/users/boss/standing")).status_code == 403


async def test_what_was_known_is_still_known(settings: Settings) -> None:
    async with site(settings) as here:
        await here.arrive("idp", "carol", email="c@example.org", full_name="Carol", groups=["lab"])
        await here.users.disable("carol")
        before = here.users.people["carol"]
        assert (await here.arrive("idp", "carol"))["state"] == "disabled"
    async with site(settings) as again:
        after = again.users.people["carol"]
        assert after.user.kind is UserKind.MEMBER
        assert after.user.state is UserState.DISABLED
        assert after.user.email == before.user.email == "c@example.org"
        assert after.user.number == 1


async def test_a_provider_may_be_closed_and_names_may_be_refused(settings: Settings) -> None:
    async with site(settings) as here:
        shut = await here.arrive("shut", "eve")
        assert (shut["name"], shut["state"]) == (None, "refused") and "invitation" in shut["message"]
        assert (await here.arrive("strict", "1", username="frank"))["name"] == "frank"
        taken = await here.arrive("strict", "2", username="frank")
        assert (taken["name"], taken["state"]) == (None, "refused") and "frank" in taken["message"]
        assert (await here.arrive("idp", "3", username="frank"))["name"] == "frank-2"
