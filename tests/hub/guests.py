"""A site with guests: who asks, the service, and its node."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from waiting import becomes

from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import Settings
from perijove_hub.users.users import Users
from perijove_hub.users.watch import Watch
from perijove_spawners.fabric.port import DirectFabric

from .conftest import SimulatedNode, Tokens, ask_as

POLICY = "projects:\n  moon: {leads: [lena], members: [lena]}\n  sun: {leads: [sam]}\n"
CALLERS = {
    "login": Caller("perijove-login", login=True, person=False),
    "spawner": Caller("perijove-spawner", act_as=True, person=False),
    "boss": Caller("boss", admin=True),
    "lena": Caller("lena"),
    "sam": Caller("sam"),
    "gina": Caller("gina"),
}


SPEC = {"command": ["true"], "launcher": "docker"}


class Site:
    """A running service, asked in several names, and its node."""

    def __init__(self, app: Any, there: Sequence[SimulatedNode]) -> None:
        self.app = app
        self.users: Users = app.state.users
        self.watch: Watch = app.state.watch
        self.controller, self.node = app.state.controller, there[0]
        self.fabric: DirectFabric = self.controller.fabric

    async def ask(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return await ask_as(self.app, who, method, path, body)

    async def done(self, who: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.ask(who, "POST", path, body)
        assert answer.status_code in {200, 201}, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def arrive(self, subject: str, **more: Any) -> dict[str, Any]:
        body = {"provider": "github", "subject": subject, "username": subject, **more}
        return await self.done("login", "/arrivals", body)

    async def guest(self, name: str = "gina", **terms: Any) -> None:
        await self.arrive(name)
        await self.done("boss", f"/users/{name}/activate", terms)

    async def submit(self, **spec: Any) -> dict[str, Any]:
        return await self.done("gina", "/jobs", {"command": ["true"], "launcher": "docker", **spec})

    async def state(self, job: int) -> str:
        return str((await self.ask("boss", "GET", f"/jobs/{job}")).json()["state"])

    async def until(self, job: int, *states: str) -> None:
        async def reached() -> bool:
            return await self.state(job) in states

        await becomes(reached, f"{job}: {states}", 60)


@asynccontextmanager
async def site(
    settings: Settings, guests: dict[str, Any] | None = None, *there: SimulatedNode
) -> AsyncIterator[Site]:
    changed = settings.model_validate({**settings.model_dump(), "guests": guests or {}})
    nodes = there or (SimulatedNode(),)
    app = create_app(changed, fabric=DirectFabric(nodes), identities=Tokens(CALLERS))
    async with app.router.lifespan_context(app):
        yield Site(app, nodes)


def guest_settings(tmp_path: Path, migrated: Path) -> Settings:
    """Settings of such a site, over an empty database."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    made = Settings.model_validate(
        {
            "state": tmp_path,
            "mode": "hub",
            "images": ["*"],
            "login": {"providers": {"github": {"client_id": "x", "preset": "github"}}},
        }
    )
    shutil.copy(migrated, made.database)
    return made
