"""A site with some people: alice, bob, a boss, and the hub's services, each by a token of their name."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from perijove.model import Scope
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.pages.session import COOKIE
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.users.arrival import Arrival
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens

NAMES = ("alice", "bob", "boss")


@dataclass
class People:
    """The application and who asks it."""

    app: FastAPI
    transport: httpx.ASGITransport

    def by(self, token: str) -> httpx.AsyncClient:
        """REST with a token; with none when it is empty."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=self.transport, base_url="http://s/api/v1", headers=headers)

    def browser(self, token: str) -> httpx.AsyncClient:
        """The pages, in a session that was begun with a token."""
        cookie = self.app.state.sessions.begin(token).headers["set-cookie"]
        value = cookie.partition("=")[2].partition(";")[0]
        return httpx.AsyncClient(transport=self.transport, base_url="http://s", cookies={COOKIE: value})

    async def token(self, owner: str, scope: Scope | str = Scope.SUBMIT, **more: Any) -> dict[str, Any]:
        """A token of `owner`, as they make it."""
        body = {"name": "a laptop", "scope": scope, **more}
        answer = await self.by(owner).post("/tokens", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def status(self, token: str, path: str = "/me") -> int:
        """What a request with `token` is answered."""
        return (await self.by(token).get(path)).status_code

    async def arrive(self, name: str) -> None:
        """A login through the hub."""
        await self.app.state.users.arrive(Arrival(provider="local", subject=name, username=name))


@asynccontextmanager
async def people(settings: Settings, node: SimulatedNode | None = None) -> AsyncIterator[People]:
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000) for i, name in enumerate(NAMES)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {
        "alice": Caller("alice", issued=None),
        "bob": Caller("bob", issued=None),
        "boss": Caller("boss", admin=True, scope=Scope.ADMIN),
        "reader": Caller("alice", scope=Scope.READ, issued=time.time()),
        "spawner": Caller("spawner", act_as=True, person=False),
    }
    app = create_app(settings, fabric=DirectFabric([node or SimulatedNode()]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        yield People(app, httpx.ASGITransport(app=app, raise_app_exceptions=False))


def form_in(page: str) -> str:
    """What the forms of a page carry."""
    match = re.search(r'name="form" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]
