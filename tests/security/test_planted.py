"""Values that were planted, and looked for wherever a job or run leaves something that others get to see."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from perijove_hub.pages.session import COOKIE
from perijove_hub.settings import Settings

from .stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "planted-hunter2-secret"
"""The value of a secret of alice's."""
TOKEN = "planted-hunter2-token"
"""Of a variable whose name says that nobody should see it."""
VARIABLE = "planted-hunter2-variable"
"""Of any other variable: whoever is to run it again must have it."""
SPEC: dict[str, Any] = {
    "command": ["done"],
    "env": {"API_TOKEN": TOKEN, "DATA": VARIABLE},
    "secrets": {"planted": "env:SECRET"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    async with standing(Settings(state=tmp_path_factory.mktemp("state"))) as found:
        answer = await found.by["owner"].put("/secrets/planted", content=SECRET)
        assert answer.status_code == 200, answer.text
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def job(stand: Stand) -> str:
    number = await stand.job(**SPEC)
    await stand.ended(f"/jobs/{number}")
    return number


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(stand: Stand) -> str:
    body = {"workflow": {"name": "flow", "steps": {"a": SPEC}}, "project": "lab"}
    answer = await stand.by["owner"].post("/workflows", json=body)
    assert answer.status_code == 201, answer.text
    await stand.ended(f"/workflows/{answer.json()['id']}")
    return str(answer.json()["id"])


def unpacked(content: bytes) -> bytes:
    """What is in a zip file, names and all; anything else as it is."""
    if not content.startswith(b"PK"):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return b"".join(name.encode() + packed.read(name) for name in packed.namelist())


@pytest.mark.parametrize("kind", ["capsule?data=true", "crate", "record"])
async def test_what_is_handed_on_of_a_run_holds_no_secret(stand: Stand, run: str, kind: str) -> None:
    for role in ("owner", "lead", "administrator"):
        answer = await stand.by[role].get(f"/workflows/{run}/{kind}")
        assert answer.status_code == 200, answer.text
        content = unpacked(answer.content)
        assert b"planted" in content, "the secret's name is told"
        assert SECRET.encode() not in content
        assert TOKEN.encode() not in content


@pytest.mark.parametrize("role", ["owner", "lead", "administrator"])
async def test_no_page_shows_a_secret_or_an_environment(stand: Stand, job: str, run: str, role: str) -> None:
    """Whose run it is may have a file with what is no secret."""
    token = stand.by[role].headers["authorization"].removeprefix("Bearer ")
    cookie = stand.app.state.sessions.begin(token).headers["set-cookie"]
    cookies = {COOKIE: cookie.partition("=")[2].partition(";")[0]}
    transport = httpx.ASGITransport(app=stand.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://s", cookies=cookies) as browser:
        for path in (
            *("/", f"/job/{job}", f"/workflows/{run}"),
            *(f"/workflows/{run}/{kind}" for kind in ("record", "capsule", "crate")),
        ):
            page = await browser.get(path, headers={"Sec-Fetch-Mode": "navigate"})
            assert page.status_code == 200, (path, page.text)
            content = unpacked(page.content)
            hidden = [SECRET, TOKEN] if role == "owner" and path.count("/") == 3 else ["planted-hunter2"]
            assert [value for value in hidden if value.encode() in content] == [], (path, content)


async def test_the_audit_log_has_neither(stand: Stand, job: str, run: str) -> None:
    """Of what administrators do to jobs of others, and of what is done to secrets."""
    boss = stand.by["administrator"]
    for path in (f"/jobs/{job}/archive", f"/workflows/{run}/pin"):
        answer = await boss.post(path)
        assert answer.status_code == 200, answer.text
    again = await stand.by["owner"].put("/secrets/planted", content=SECRET)
    assert again.status_code == 200
    told = (await boss.get("/audit", params={"limit": 1000})).text
    assert "archive" in told
    assert "planted-hunter2" not in told


async def test_others_see_no_environment(stand: Stand, job: str, run: str) -> None:
    for role in ("lead", "administrator"):
        for path in (
            f"/jobs/{job}",
            f"/jobs/{job}/record",
            f"/jobs/{job}/events",
            f"/workflows/{run}",
            "/jobs",
        ):
            answer = await stand.by[role].get(path)
            assert answer.status_code == 200, answer.text
            assert "planted-hunter2" not in answer.text, (role, path)


async def test_no_file_of_the_service_has_the_value_of_a_secret(stand: Stand, job: str, run: str) -> None:
    """Environments are in the database, as docs/security.md says; secrets are sealed there."""
    files = await asyncio.to_thread(lambda: [path for path in stand.state.rglob("*") if path.is_file()])
    assert any(path.name == "perijove.db" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
