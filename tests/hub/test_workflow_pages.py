"""Pages of runs: the graph and the tables, who may see and press what, and that texts of users stay texts."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree import ElementTree as ET

import httpx
from waiting import becomes

from perijove.model import Attempt
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.pages.run_parts import image_type, shortly
from perijove_hub.pages.session import COOKIE
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import Service, SimulatedNode, Tokens
from .test_pages import HOSTILE, Browser, Outline, token_in

FLOW = {
    "name": "digits",
    "parameters": {"lr": 0.1, "title": {"type": "text", "default": "none"}},
    "steps": {
        "prep": {"command": ["true"], "launcher": "process", "outputs": ["plot.png", "table"]},
        "train": {
            "command": ["true", "${{ item }}"],
            "launcher": "process",
            "map": [1, 2, 3],
            "after": ["prep"],
        },
        "report": {"script": "true", "launcher": "process", "after": ["train"]},
    },
}


class Flows:
    """A service with one node that the test ends jobs of, and people who are logged in."""

    def __init__(self, node: SimulatedNode, app: Any, people: dict[str, Browser]) -> None:
        self.node, self.app, self.people = node, app, people

    async def begin(self, who: str = "alice", flow: dict[str, Any] = FLOW, **more: Any) -> int:
        answer = await self.people[who].rest.post("/workflows", json={"workflow": flow, **more})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def jobs(self, run: int, step: str, count: int = 1) -> list[int]:
        """The jobs of a step, once they run."""

        async def reached() -> list[int] | None:
            found = [one for one in await self.app.state.runs.steps(run) if one.step == step and one.job]
            here = [one.job for one in found if Attempt(one.job, 1) in self.node.orders]
            return here if len(here) == count else None

        return await becomes(reached, f"{step} runs", 60)

    async def end(self, run: int, step: str, count: int = 1, exit_code: int = 0, **made: Any) -> None:
        for job in await self.jobs(run, step, count):
            self.node.finish(Attempt(job, 1), exit_code, **made)

    async def over(self, run: int, state: str) -> None:
        async def reached() -> bool:
            return bool((await self.app.state.runs.find(run)).state == state)

        await becomes(reached, state, 60)

    def keep(self, data: bytes) -> str:
        return str(self.app.state.store.put(io.BytesIO(data)).digest)


@asynccontextmanager
async def flows(settings: Settings) -> AsyncIterator[Flows]:
    names = ("alice", "bob")
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000) for i, name in enumerate(names)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {**{name: Caller(name) for name in names}, "boss": Caller("boss", admin=True)}
    node = SimulatedNode()
    app = create_app(settings, fabric=DirectFabric([node]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        people = {}
        for name in callers:
            cookie = app.state.sessions.begin(name).headers["set-cookie"]
            value = cookie.partition("=")[2].partition(";")[0]
            pages = httpx.AsyncClient(transport=transport, base_url="http://s", cookies={COOKIE: value})
            rest = httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            people[name] = Browser(pages, rest)
        yield Flows(node, app, people)


class Outlined(Outline):
    """Pages with images."""

    VOID = Outline.VOID | {"img"}


def png() -> bytes:
    """One white pixel (RFC 2083)."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\xff")),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def states(page: str) -> dict[str, str]:
    """The boxes of the picture: what their tooltip says, by step."""
    [picture, *_] = re.findall(r"<svg.*?</svg>", page, re.S)
    root = ET.fromstring(picture)
    titles = [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}title")][1:]
    return {title.partition(" ")[0]: title.partition(": ")[2] for title in titles}


async def test_the_page_follows_a_run_to_its_end(settings: Settings) -> None:
    async with flows(settings) as by:
        alice = by.people["alice"]
        run = await by.begin(parameters={"lr": 0.5})
        [job] = await by.jobs(run, "prep")
        page = await alice.open(f"/workflows/{run}")
        assert 'http-equiv="refresh"' in page
        assert f'href="/job/{job}"' in page
        assert states(page)["prep"].startswith(("starting", "running"))
        assert states(page)["train"] == "waiting"
        assert "<dt>lr</dt><dd><code>0.5</code></dd>" in page
        of_job = await alice.open(f"/job/{job}")
        assert f'prep of <a href="/workflows/{run}">run {run}</a>' in of_job

        picture, table = by.keep(png()), by.keep(b"a,b\n")
        await by.end(run, "prep", outputs={"plot.png": picture, "table": table}, sizes={"table": 4})
        for value, number in zip((0.5, 0.25), (await by.jobs(run, "train", 3))[:2], strict=True):
            by.node.finish(Attempt(number, 1), values={"loss": value})
        last = (await by.jobs(run, "train", 3))[2]
        by.node.finish(Attempt(last, 1), 3)
        await by.over(run, "failed")
        page = await alice.open(f"/workflows/{run}")
        outline = Outlined()
        outline.feed(page)
        assert outline.open == []
        assert outline.headings[:2] == ["h1", "h2"]
        assert not [one for one in outline.unlabelled if "aria-label=" not in one]
        assert outline.outside == []
        assert 'http-equiv="refresh"' not in page
        assert "2 succeeded, 1 failed" in states(page)["train"]
        assert "rejected" in states(page)["report"]
        assert "train[2]" in page
        assert '<img alt="plot.png of step prep" src="data:image/png;base64,' in page
        one = await alice.open(f"/workflows/{run}?step=train")
        assert all(f"train[{i}]" in one for i in range(3))


async def test_an_output_is_saved_by_a_link_and_read_by_no_script(settings: Settings) -> None:
    async with flows(settings) as by:
        run = await by.begin()
        [job] = await by.jobs(run, "prep")
        content = b"<script>alert(1)</script>"
        by.node.finish(Attempt(job, 1), outputs={"plot.png": by.keep(content), "table": by.keep(b"t")})
        await by.jobs(run, "train", 3)
        link = f"/workflows/{run}/output?step=prep&name=plot.png"
        alice = by.people["alice"]
        got = await alice.pages.get(link)
        assert (got.content, got.headers["content-type"]) == (content, "application/octet-stream")
        assert got.headers["content-disposition"].startswith("attachment")
        assert got.headers["x-content-type-options"] == "nosniff"
        await alice.open(link, 403, {"sec-fetch-mode": "cors"})
        await by.people["bob"].open(link, 404)
        await alice.open(f"/workflows/{run}/output?step=prep&name=nothing", 404)
        await alice.open(f"/workflows/{run}/output?step=none&name=table", 404)
        fetched = await alice.open(f"/workflows/{run}", headers={"sec-fetch-mode": "cors"})
        assert 'name="form"' not in fetched
        assert "data:image" not in fetched


async def test_buttons_ask_and_act_for_those_who_may(settings: Settings) -> None:
    async with flows(settings) as by:
        alice, bob = by.people["alice"], by.people["bob"]
        run = await by.begin()
        await by.jobs(run, "prep")
        path = f"/workflows/{run}"
        page = await alice.open(path)
        assert 'value="kill"' not in page, "it is asked first"
        asked = await alice.open(f"{path}?ask=kill")
        assert 'http-equiv="refresh"' not in asked, "a question stays until it is answered"
        assert 'value="kill"' in asked
        token = token_in(page)
        assert (await alice.press(path, {"verb": "kill"})).status_code == 403
        of_bob = token_in(await bob.open(f"/workflows/{await by.begin('bob')}"))
        assert (await bob.press(path, {"verb": "kill", "form": of_bob})).status_code == 404
        assert (await alice.press(path, {"verb": "explode", "form": token})).status_code == 400
        assert (await alice.press(path, {"verb": "hold", "form": token})).status_code == 303
        page = await alice.open(path)
        assert 'value="release"' in page
        assert (await alice.press(path, {"verb": "release", "form": token})).status_code == 303
        assert (await alice.press(path, {"verb": "pin", "form": token})).status_code == 303
        assert 'value="unpin"' in await alice.open(path)
        assert (await alice.press(path, {"verb": "kill", "form": token})).status_code == 303
        await by.over(run, "killed")
        assert "pinned" in await alice.open("/workflows")


async def test_resuming_takes_parameters_and_leads_to_the_new_run(settings: Settings) -> None:
    async with flows(settings) as by:
        alice = by.people["alice"]
        run = await by.begin()
        await by.end(run, "prep", exit_code=1)
        await by.over(run, "failed")
        path = f"/workflows/{run}"
        asked = await alice.open(f"{path}?ask=resume")
        assert 'name="p.lr"' in asked
        fields = {"verb": "resume", "form": token_in(asked), "p.title": "7", "p.lr": "no number"}
        wrong = await alice.press(path, fields)
        assert wrong.status_code == 422
        assert "parameters.lr" in wrong.text
        went = await alice.press(path, {**fields, "p.lr": "2.5"})
        assert went.status_code == 303
        again = await alice.open(went.headers["location"])
        assert f'Goes on from</dt><dd><a href="{path}">' in again
        assert "<code>2.5</code>" in again
        assert "<dt>title</dt><dd><code>7</code></dd>" in again
        boss = by.people["boss"]
        asked = await boss.open(f"{path}?ask=resume")
        refused = await boss.press(path, {"verb": "resume", "form": token_in(asked)})
        assert refused.status_code == 403


async def test_the_list_shows_ones_own_and_administrators_everybodys(settings: Settings) -> None:
    async with flows(settings) as by:
        mine = await by.begin("alice", {**FLOW, "name": HOSTILE[:60]}, hold=True)
        yours = await by.begin("bob")
        page = await by.people["alice"].open("/workflows")
        assert f'href="/workflows/{mine}"' in page
        assert f'href="/workflows/{yours}"' not in page
        assert "<script" not in page
        assert f'href="/workflows/{yours}"' not in await by.people["boss"].open("/workflows?state=held")
        page = await by.people["boss"].open("/workflows")
        assert f'href="/workflows/{mine}"' in page
        assert f'href="/workflows/{yours}"' in page
        assert "No such runs" in await by.people["bob"].open("/workflows?state=failed")
        await by.people["alice"].open("/workflows?state=none", 400)
        await by.people["bob"].open(f"/workflows/{mine}", 404)
        for path in ("0", "x", "99999999", str(10**30)):
            await by.people["alice"].open(f"/workflows/{path}", 404)


async def test_texts_of_users_stay_texts(settings: Settings) -> None:
    async with flows(settings) as by:
        flow = {
            "name": HOSTILE[:60],
            "parameters": {"a": {"type": "text", "default": HOSTILE}},
            "steps": {"a": {"command": [HOSTILE], "launcher": "process"}},
        }
        run = await by.begin("alice", flow)
        [job] = await by.jobs(run, "a")
        by.node.finish(Attempt(job, 1), 1, values={"x": HOSTILE}, message=HOSTILE)
        await by.over(run, "failed")
        for path in (
            f"/workflows/{run}",
            f"/workflows/{run}?ask=resume",
            f"/workflows/{run}?step=a",
            f"/job/{job}",
        ):
            answer = await by.people["alice"].pages.get(path)
            assert answer.status_code == 200
            assert "<script" not in answer.text
            assert "<img" not in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["cache-control"] == "no-store"


async def test_the_pages_need_a_login(service: Service) -> None:
    for path in ("workflows", "workflows/1", "workflows/1/output?step=a&name=b"):
        assert (await service.http.get(f"http://service/{path}")).status_code == 401


def test_an_image_is_known_by_its_first_bytes() -> None:
    assert image_type(png()) == "image/png"
    assert image_type(b"RIFF1234WEBPVP8 ") == "image/webp"
    assert image_type(b"<svg onload='x()'/>") is None
    assert image_type(b"") is None
    assert shortly({"a": "x" * 500}).endswith("\u2026")


async def test_what_is_to_be_kept_is_saved_by_links(settings: Settings) -> None:
    async with flows(settings) as by:
        alice = by.people["alice"]
        run = await by.begin("alice", {"steps": {"a": {"command": ["true"], "launcher": "process"}}})
        page = await alice.open(f"/workflows/{run}")
        assert f'href="/workflows/{run}/record"' in page
        assert f'href="/workflows/{run}/capsule"' not in page, "what goes on is not handed on"
        await by.end(run, "a")
        await by.over(run, "succeeded")
        page = await alice.open(f"/workflows/{run}")
        for name, kind in (("record", "json"), ("capsule", "zip"), ("crate", "zip")):
            assert f'href="/workflows/{run}/{name}"' in page
            path = f"/workflows/{run}/{name}"
            got = await alice.pages.get(path)
            assert got.headers["content-type"] == f"application/{kind}"
            assert got.headers["content-disposition"].startswith("attachment")
            await alice.open(path, 403, {"sec-fetch-mode": "no-cors"})
            await by.people["bob"].open(path, 404)
