"""What `up` leaves for the client of the user who runs it, and what it asks of the service itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from perijove_hub.hub_config import SERVICE
from perijove_hub.identity import SUBMIT
from perijove_hub.private_files import write_private

WAIT_BETWEEN = 0.2


def write_endpoint(state: Path, url: str, token: str, launchers: Sequence[str]) -> None:
    """``DIR/endpoint.json``, mode 0600."""
    content = {"url": url, "token": token, "launchers": list(launchers)}
    write_private(state / "endpoint.json", json.dumps(content, indent=1) + "\n")


def read_endpoint(state: Path) -> dict[str, Any]:
    """What was written last; empty when there is nothing."""
    try:
        content = json.loads((state / "endpoint.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


async def wait_healthy(http: httpx.AsyncClient, url: str, host: str = "") -> None:
    """Return once `url` answers 200 to who calls it `host`, however long that takes."""
    headers = {"Host": host} if host else {}
    while True:
        try:
            if (await http.get(url, headers=headers)).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(WAIT_BETWEEN)


async def launchers_of(http: httpx.AsyncClient, api_url: str, token: str) -> list[str]:
    """Names of the launchers of the site, the default first; empty when the token is not accepted."""
    answer = await http.get(f"{api_url}/api/v1/site", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code != 200:
        return []
    site = answer.json()
    return list(dict.fromkeys(name for name in (site["default_launcher"], *site["launchers"]) if name))


async def new_user_token(http: httpx.AsyncClient, hub_api: str, setup_token: str, user: str) -> str:
    """A token of `user` for the command line; ``httpx.HTTPStatusError`` when the hub refuses."""
    answer = await http.post(
        f"{hub_api}/users/{user}/tokens",
        headers={"Authorization": f"token {setup_token}"},
        json={"note": "perijove up: endpoint.json", "scopes": [SUBMIT, f"access:services!service={SERVICE}"]},
    )
    token: str = answer.raise_for_status().json()["token"]
    return token


async def stop_jobs(http: httpx.AsyncClient, api_url: str, token: str, patience: float) -> int:
    """Kill every job that runs, let none start, and wait up to `patience` seconds; how many did not end.

    What is pending stays in the queue for the next `up`.
    """
    api, headers = f"{api_url}/api/v1", {"Authorization": f"Bearer {token}"}

    async def running() -> list[dict[str, Any]]:
        query = {"state": "starting,running,suspended", "limit": "1000"}
        answer = await http.get(f"{api}/jobs", headers=headers, params=query)
        jobs: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
        return jobs

    for view in (await http.get(f"{api}/nodes", headers=headers)).raise_for_status().json():
        body = {"reason": "perijove up is stopping"}
        await http.post(f"{api}/nodes/{view['node']['name']}/drain", headers=headers, json=body)
    deadline = asyncio.get_running_loop().time() + patience
    while jobs := await running():
        for job in jobs:
            if not job["kill_requested"]:
                await http.post(f"{api}/jobs/{job['id']}/kill", headers=headers)
        if asyncio.get_running_loop().time() > deadline:
            return len(jobs)
        await asyncio.sleep(WAIT_BETWEEN)
    return 0
