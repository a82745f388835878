"""A lost laptop: after a sign-out nothing opens that was let in before, here and at a real hub."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from installation import Installation
from waiting import becomes, until, wait_until

from perijove_hub.settings import Settings

from .conftest import SimulatedNode
from .people import People, form_in, people


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people(Settings(state=tmp_path_factory.mktemp("site")), SimulatedNode()) as found:
        yield found


in_one_loop = pytest.mark.asyncio(loop_scope="module")


@in_one_loop
async def test_a_followed_log_ends_with_the_token_that_follows(site: People) -> None:
    follower, listener = await site.token("alice", "read"), await site.token("alice", "read")
    job = (await site.by("alice").post("/jobs", json={"command": ["true"]})).json()["id"]
    log = {"follow": True}
    streams = [
        asyncio.create_task(site.by(follower["token"]).get(f"/jobs/{job}/logs", params=log, timeout=60)),
        asyncio.create_task(site.by(listener["token"]).get("/events", timeout=60)),
    ]
    tokens = site.app.state.tokens
    for made in (follower, listener):
        await until(lambda made=made: tokens.get(made["id"]).last_used, "the stream's begin")  # type: ignore[misc]
        assert (await site.by("alice").delete(f"/tokens/{made['id']}")).status_code == 204

    async def over() -> bool:
        await site.by("alice").patch(f"/jobs/{job}", json={"name": str(time.monotonic())})
        return all(stream.done() for stream in streams)

    await becomes(over, "the end of what was followed", 60)
    assert [stream.result().status_code for stream in streams] == [200, 200]
    assert "event: end" not in streams[0].result().text
    assert [await site.status(made["token"]) for made in (follower, listener)] == [401, 401]


@in_one_loop
async def test_what_was_let_in_before_a_sign_out_is_of_no_use(site: People) -> None:
    await site.arrive("bob")
    old, session = await site.token("bob"), site.browser("bob")
    stored = (await site.by("bob").post("/files", content=b"x")).json()["digest"]
    link = (await site.by("bob").post("/files/sign", json={"digest": stored})).json()["url"]
    assert (await session.get(link)).status_code == 200
    assert (await session.get("/account")).status_code == 200
    assert (await site.by("boss").post("/users/bob/sign-out")).status_code == 200
    assert await site.status(old["token"]) == 401
    refused = await site.by("bob").get("/me")  # a hub token from before
    assert (refused.status_code, refused.json()["detail"]) == (
        401,
        "you were signed out everywhere; log in again",
    )
    assert (await session.get("/account")).status_code == 401
    assert (await session.get(link)).status_code == 403
    assert site.app.state.tokens.of("bob") == []


@in_one_loop
async def test_who_is_disabled_is_told_so_whatever_they_hold(site: People) -> None:
    await site.arrive("alice")
    made, session = await site.token("alice"), site.browser("alice")
    device = (await site.by("").post("/device/authorization", data={"device_name": "x"})).json()
    form = form_in((await session.get("/device", params={"code": device["user_code"]})).text)
    fields = {"form": form, "code": device["user_code"], "verb": "approve"}
    assert "is logged in" in (await session.post("/device", data=fields)).text
    assert (await site.by("boss").post("/users/alice/disable")).status_code == 200
    for token in ("alice", "reader"):
        answer = await site.by(token).get("/jobs")
        assert (answer.status_code, "disabled" in answer.json()["detail"]) == (403, True)
    assert await site.status(made["token"]) == 401
    page = await session.get("/account")
    assert page.status_code == 403
    assert "is disabled" in page.text
    asked = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", **device}
    assert (await site.by("").post("/device/token", data=asked)).json()["error"] == "invalid_grant"


# a real hub with a real server


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    found = Installation(tmp_path / "state", "--port", "0", "--launcher", "docker", "--on-exit", "stop")
    try:
        yield found.start(240)
    finally:
        if found.process is not None and found.process.poll() is None:
            found.stop()


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_laptop(docker_url: str, installation: Installation, tmp_path: Path) -> None:
    """Logs in everywhere as the trial user, who is signed out then."""
    from .test_hub_installation import browser_of

    browser = browser_of(installation)
    root = f"{installation.url}/services/perijove"
    assert browser.ask("POST", "/server", json={"cpus": 0.5}).status_code in {201, 202}
    hub_token = browser.ask("POST", "/tokens", json={}).json()["token"]
    own_token = logged_in(root, browser.http, tmp_path)
    by_hub = {"Authorization": f"Bearer {hub_token}"}
    by_own = {"Authorization": f"Bearer {own_token}"}
    wait_until(lambda: browser.ready, "the start of the server", 120)
    assert browser.works()
    assert browser.http.get(f"{root}/account").status_code == 200
    for headers in (by_hub, by_own):
        assert httpx.get(f"{root}/api/v1/me", headers=headers, timeout=60).status_code == 200

    admin = administrator(installation)
    answer = admin.post(f"/users/{browser.user}/sign-out")
    assert answer.status_code == 200, answer.text

    def dead() -> bool:
        kept = dict(browser.http.cookies)
        with httpx.Client(base_url=installation.url, cookies=kept, timeout=60) as stolen:
            opened = [
                httpx.get(f"{root}/api/v1/me", headers=by_own, timeout=60),
                httpx.get(f"{root}/api/v1/me", headers=by_hub, timeout=60),
                httpx.get(f"{installation.url}/hub/api/user", headers=by_hub, timeout=60),
                stolen.get("/services/perijove/account"),
                stolen.get("/hub/home"),
                stolen.get(f"/user/{browser.user}/api/contents"),
            ]
        return all(answer.status_code != 200 for answer in opened)

    wait_until(dead, "the end of all that was let in", 120)
    again = browser_of(installation)
    assert again.http.get(f"{root}/account").status_code == 200


def logged_in(root: str, pages: httpx.Client, home: Path) -> str:
    """`perijove login`, let in by a browser that is logged in at the hub; the token."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERIJOVE_")}
    env |= {"HOME": str(home), "PERIJOVE_STATE": str(home / "none"), "XDG_CONFIG_HOME": str(home / "config")}
    words = [str(Path(sys.executable).with_name("perijove")), "login", root, "--no-browser"]
    with subprocess.Popen(
        words, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as login:
        assert login.stderr is not None
        page = login.stderr.readline().split()[-1]
        shown = pages.get(page)
        fields = {"form": form_in(shown.text), "code": page.rpartition("=")[2], "verb": "approve"}
        assert "is logged in" in pages.post(f"{root}/device", data=fields).text
        _, err = login.communicate(timeout=120)
    assert login.returncode == 0, err
    kept: dict[str, Any] = json.loads((home / "config/perijove/login.json").read_text())
    return str(kept["token"])


def administrator(installation: Installation) -> httpx.Client:
    """REST with the account that sets the installation up."""
    token = (installation.state / "hub" / "setup.token").read_text().strip()
    base = f"{installation.url}/services/perijove/api/v1"
    return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=60)
