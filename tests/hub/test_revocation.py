"""A lost laptop: after a sign-out nothing opens that was let in before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from waiting import becomes, until

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
