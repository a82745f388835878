"""Devices that log in by a code: who lets them in, how often one may guess, and that a code serves once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from installation import Installation, installed

from perijove.model import ForbiddenError, Scope, UnavailableError
from perijove_hub.settings import Settings
from perijove_hub.tokens.device import (
    ALPHABET,
    FROM_ONE_ADDRESS,
    GRANT,
    GUESSES,
    LIFE,
    WINDOW,
    DeviceLogins,
    DeviceRefusal,
)

from .people import People, form_in, people


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people(Settings(state=tmp_path_factory.mktemp("site"))) as found:
        yield found


in_one_loop = pytest.mark.asyncio(loop_scope="module")


async def begun(site: People, **fields: str) -> dict[str, Any]:
    answer = await site.by("").post("/device/authorization", data={"device_name": "laptop", **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def polled(site: People, code: str) -> dict[str, Any]:
    asked = {"grant_type": GRANT, "device_code": code}
    found: dict[str, Any] = (await site.by("").post("/device/token", data=asked)).json()
    return found


async def decided(site: People, user: str, code: str, verb: str) -> httpx.Response:
    """What `user` says to a device, on its page."""
    browser = site.browser(user)
    page = await browser.get("/device", params={"code": code})
    fields = {"form": form_in(page.text), "code": code, "verb": verb}
    return await browser.post("/device", data=fields)


@in_one_loop
async def test_a_device_is_let_in_once_by_who_says_that_it_is_theirs(site: People) -> None:
    device = await begun(site, scope="read")
    assert device["verification_uri"] == "http://s/device"
    assert (await polled(site, device["device_code"]))["error"] == "authorization_pending"
    assert (await polled(site, device["device_code"]))["error"] == "slow_down"
    page = (await site.browser("alice").get("/device", params={"code": device["user_code"].lower()})).text
    for told in ("laptop", "127.0.0.1", device["user_code"], "change nothing", "alice"):
        assert told in page
    done = await decided(site, "alice", device["user_code"], "approve")
    assert "is logged in as alice" in done.text
    again = await decided_again(site, "bob", device["user_code"])
    assert "leads nowhere" in again
    granted = await polled(site, device["device_code"])
    assert (granted["scope"], granted["name"], granted["token_type"]) == ("read", "alice", "Bearer")
    assert (await site.by(granted["access_token"]).get("/me")).json()["name"] == "alice"
    assert (await polled(site, device["device_code"]))["error"] == "invalid_grant"
    acts = (await site.by("boss").get("/audit", params={"subject": "user alice"})).json()["entries"]
    assert {"login", "let device in"} <= {entry["act"] for entry in acts}
    assert granted["access_token"] not in json.dumps(acts)


async def decided_again(site: People, user: str, code: str) -> str:
    return (await site.browser(user).get("/device", params={"code": code})).text


@in_one_loop
async def test_a_device_that_is_not_theirs_stays_out(site: People) -> None:
    device = await begun(site)
    assert "was not let in" in (await decided(site, "alice", device["user_code"], "deny")).text
    assert (await polled(site, device["device_code"]))["error"] == "access_denied"
    assert (await polled(site, device["device_code"]))["error"] == "invalid_grant"


@in_one_loop
async def test_nobody_lets_a_device_do_more_than_they_may(site: People) -> None:
    device = await begun(site, scope="admin")
    assert (await decided(site, "alice", device["user_code"], "approve")).status_code == 422
    assert (await polled(site, device["device_code"]))["error"] == "authorization_pending"
    assert "logged in" in (await decided(site, "boss", device["user_code"], "approve")).text
    token = (await polled(site, device["device_code"]))["access_token"]
    assert (await site.by(token).get("/policy")).status_code == 200


@in_one_loop
async def test_another_page_cannot_say_yes(site: People) -> None:
    device = await begun(site)
    form = form_in((await site.browser("bob").get("/device", params={"code": device["user_code"]})).text)
    browser = site.browser("alice")
    fields = {"code": device["user_code"], "verb": "approve"}
    for forged in ("", form, "x.y.z"):
        answer = await browser.post("/device", data={"form": forged, **fields})
        assert answer.status_code == 403
    assert (await polled(site, device["device_code"]))["error"] == "authorization_pending"


@in_one_loop
async def test_the_name_of_a_device_cannot_become_markup(site: People) -> None:
    device = await begun(site, device_name="<script>alert(1)</script><img src=x>")
    page = (await site.browser("alice").get("/device", params={"code": device["user_code"]})).text
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page


@in_one_loop
@pytest.mark.parametrize(
    ("path", "fields", "error"),
    [
        ("authorization", {"scope": "all"}, "invalid_scope"),
        ("authorization", {"device_name": "a\nb"}, "invalid_request"),
        ("token", {"grant_type": "password", "device_code": "x"}, "unsupported_grant_type"),
        ("token", {"grant_type": GRANT, "device_code": "x"}, "invalid_grant"),
        ("token", {"grant_type": GRANT}, "invalid_grant"),
    ],
)
async def test_what_is_wrong_has_its_word(
    site: People, path: str, fields: dict[str, str], error: str
) -> None:
    answer = await site.by("").post(f"/device/{path}", data=fields)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.headers["cache-control"] == "no-store"


@in_one_loop
async def test_who_holds_a_token_gives_it_back_whatever_its_scope(site: People) -> None:
    token = (await site.token("alice", "read"))["token"]
    for revoked in (True, False):
        answer = await site.by("").post("/device/revocation", data={"token": token})
        assert answer.json() == {"revoked": revoked}
    assert await site.status(token) == 401


def test_guessing_codes_is_stopped() -> None:
    now = [1000.0]
    devices = DeviceLogins(clock=lambda: now[0])
    _, login = devices.begin("laptop", Scope.SUBMIT, "192.0.2.1")
    for _ in range(GUESSES):
        assert devices.seek("BBBBBBBB", "mallory") is None
    with pytest.raises(ForbiddenError):
        devices.seek(login.code, "mallory")
    assert devices.seek(login.code, "alice") is login
    now[0] += WINDOW
    devices.begin("phone", Scope.SUBMIT, "192.0.2.1")
    assert devices.seek("BBBBBBBB", "mallory") is None


def test_a_device_that_nobody_lets_in_waits_no_longer() -> None:
    now = [1000.0]
    devices = DeviceLogins(clock=lambda: now[0])
    code, login = devices.begin("laptop", Scope.SUBMIT, "192.0.2.1")
    now[0] += LIFE
    assert devices.seek(login.code, "alice") is None
    with pytest.raises(DeviceRefusal, match="ten minutes") as refused:
        devices.poll(code)
    assert refused.value.code == "expired_token"


def test_very_many_devices_do_not_wait_at_once() -> None:
    devices = DeviceLogins()
    for _ in range(FROM_ONE_ADDRESS):
        _, login = devices.begin("laptop", Scope.SUBMIT, "192.0.2.1")
        assert set(login.user_code) <= set(ALPHABET)
    with pytest.raises(UnavailableError):
        devices.begin("laptop", Scope.SUBMIT, "192.0.2.1")
    devices.begin("laptop", Scope.SUBMIT, "192.0.2.2")


def test_who_signs_out_lets_nobody_in_any_more() -> None:
    devices = DeviceLogins()
    code, login = devices.begin("laptop", Scope.SUBMIT, "192.0.2.1")
    devices.decide(login, "alice")
    with pytest.raises(ForbiddenError):
        devices.decide(login, "mallory")
    devices.sign_out("alice")
    with pytest.raises(DeviceRefusal):
        devices.poll(code)


# the command line, against a whole installation


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with installed(
        tmp_path_factory.mktemp("up") / "state", "--no-hub", "--port", "0", "--launcher", "process"
    ) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_terminal_logs_in_by_a_browser(installation: Installation, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERIJOVE_")}
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    env |= {"HOME": str(tmp_path), "BROWSER": str(browser), "PERIJOVE_STATE": str(tmp_path / "none")}
    env.pop("XDG_CONFIG_HOME", None)
    perijove = str(Path(sys.executable).with_name("perijove"))
    url = installation.endpoint["url"]
    words = [perijove, "login", url, "--name", "test bench", "--json"]
    with subprocess.Popen(
        words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as login:
        assert login.stderr is not None
        said = login.stderr.readline()
        page = said.split()[-1]
        with httpx.Client(follow_redirects=True, timeout=60) as pages:
            assert pages.get(f"{url}/", params={"token": installation.token}).status_code == 200
            shown = pages.get(page).text
            assert "test bench" in shown
            fields = {"form": form_in(shown), "code": page.rpartition("=")[2], "verb": "approve"}
            assert "is logged in" in pages.post(f"{url}/device", data=fields).text
        out, err = login.communicate(timeout=120)
    assert login.returncode == 0, err
    assert opened.read_text() == page
    kept = json.loads((tmp_path / ".config/perijove/login.json").read_text())
    assert re.fullmatch(r"pjt_.{43}", kept["token"])
    assert kept["token"] not in out + err

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([perijove, *words], env=env, capture_output=True, text=True, timeout=120)

    listed = json.loads(run("token", "ls", "--json").stdout)
    assert [(one["name"], one["scope"]) for one in listed] == [("test bench", "submit")]
    assert listed[0]["last_address"] == "127.0.0.1"
    made = run("token", "create", "cron", "--scope", "read", "--for", "7d")
    assert re.fullmatch(r"pjt_.{43}\n", made.stdout), made.stderr
    assert run("token", "revoke", str(listed[0]["id"] + 1)).returncode == 0
    assert run("token", "create", "x", "--scope", "admin").returncode == 1
    assert run("logout").returncode == 0
    headers = {"Authorization": f"Bearer {kept['token']}"}
    assert httpx.get(f"{url}/api/v1/me", headers=headers, timeout=60).status_code == 401
