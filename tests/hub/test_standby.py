"""Two whole services on one database: one leads; the other says who, and goes on where that one was."""

from __future__ import annotations

from pathlib import Path

import httpx
from sqlalchemy import text
from waiting import becomes, until

from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_hub.store.engine import writing

from .conftest import SimulatedNode, running


def settings_of(folder: Path, name: str, url: str, **more: object) -> Settings:
    state = folder / name
    state.mkdir(exist_ok=True)
    given = {"state": state, "database_url": url, "public_url": f"http://{name}", "lease": 2.0, **more}
    return Settings.model_validate(given)


async def status(http: httpx.AsyncClient) -> int:
    return (await http.get("/me")).status_code


async def test_a_standby_says_who_leads_and_follows(database_url: str, tmp_path: Path) -> None:
    agent = SimulatedNode()
    async with running(settings_of(tmp_path, "one", database_url), [agent]) as first:
        job = (await first.submit())["id"]
        await first.until(job, "running")
        async with running(settings_of(tmp_path, "two", database_url), [agent.restart()]) as second:
            refused = await second.http.post("/jobs", json={"command": ["true"]})
            assert refused.status_code == 503
            assert refused.headers["Perijove-Leader"] == "http://one"
            assert refused.json()["code"] == "unavailable"
            assert await status(first.http) == 200
            fence = first.fabric.fence
            await first.controller.close()
            await _followed(first.controller.database, second.http)
            assert second.fabric.fence > fence
            assert (await second.show(job))["state"] == "running"
            assert (await second.submit())["id"] > job


async def test_a_leader_that_was_followed_ends(database_url: str, tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, "one", database_url), []) as first:
        ended: list[bool] = []
        first.controller.died = lambda: ended.append(True)
        async with running(settings_of(tmp_path, "two", database_url), []) as second:
            await _followed(first.controller.database, second.http)
            await until(lambda: ended, "the end of the service that was followed")


async def _followed(database: Database, standby: httpx.AsyncClient) -> None:
    """As if the leader had been silent for the time of its lease, until the standby leads."""

    async def leads() -> bool:
        with writing(database.engine) as connection:
            connection.execute(text("UPDATE lease SET expires = 1 WHERE url = 'http://one'"))
        return await status(standby) == 200

    await becomes(leads, "the standby's lead")
