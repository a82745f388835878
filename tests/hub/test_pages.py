"""The pages: who may see and press what, that a user's text stays text, and that forms cannot be forged."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from perijove.model import ForbiddenError
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.pages.plots import bars, ceiling, columns, fractions, targets
from perijove_hub.pages.session import COOKIE, Sessions
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import TOKEN, Service, SimulatedNode, Tokens

ROOT = "http://service/"
POLICY = """
projects:
  genomics: {members: [alice], leads: [bob]}
reservations:
  course: {nodes: [n1], start: 2090-01-01T08:00:00, end: 2090-01-02T08:00:00, users: [alice], reason: "<i>x"}
"""


@dataclass
class Browser:
    """Somebody who is logged in."""

    pages: httpx.AsyncClient
    rest: httpx.AsyncClient

    async def open(self, path: str, status: int = 200, headers: dict[str, str] | None = None) -> str:
        answer = await self.pages.get(path, headers=headers)
        assert answer.status_code == status, answer.text[:500]
        return answer.text

    async def press(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        return await self.pages.post(path, data=fields, headers=headers)

    async def submit(self, **spec: Any) -> int:
        answer = await self.rest.post("/jobs", json={"command": ["true"], **spec})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])


@asynccontextmanager
async def browsers(settings: Settings) -> AsyncIterator[dict[str, Browser]]:
    """Alice, bob who leads a project, mallory, and an administrator; all logged in."""
    names = ("alice", "bob", "mallory")
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000) for i, name in enumerate(names)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {**{name: Caller(name) for name in names}, "boss": Caller("boss", admin=True)}
    app = create_app(settings, fabric=DirectFabric([SimulatedNode()]), identities=Tokens(callers))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        found = {}
        for name in callers:
            cookie = app.state.sessions.begin(name).headers["set-cookie"]
            value = cookie.partition("=")[2].partition(";")[0]
            pages = httpx.AsyncClient(transport=transport, base_url="http://s", cookies={COOKIE: value})
            rest = httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            found[name] = Browser(pages, rest)
        assert (await found["boss"].rest.put("/policy", content=POLICY)).status_code == 200
        yield found


def token_in(page: str) -> str:
    """What the forms of the page carry."""
    match = re.search(r'name="form" value="([^"]+)"', page)
    assert match is not None
    return match[1]


async def test_the_page_needs_a_login_and_takes_the_printed_link(service: Service) -> None:
    for path in ("", "usage", "share", "nodes", "job/1"):
        assert (await service.http.get(ROOT + path)).status_code == 401
    assert (await service.http.get(ROOT, params={"token": "wrong"})).status_code == 401
    entered = await service.http.get(ROOT, params={"token": TOKEN}, follow_redirects=True)
    assert entered.status_code == 200
    assert TOKEN not in str(entered.url)
    assert "HttpOnly" in entered.history[0].headers["set-cookie"]


TURNING = "\u202e"
"""Turns around the text that follows (UAX 9)."""
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}" + TURNING


async def test_a_users_text_cannot_become_markup_anywhere(settings: Settings) -> None:
    async with browsers(settings) as by:
        alice = by["alice"]
        job = await alice.submit(name=HOSTILE, labels={"a": HOSTILE}, project="genomics", hold=True)
        await alice.submit(name=HOSTILE, array="1:3", image=None, depends_on=[job])
        await by["boss"].rest.post("/nodes/n1/drain", json={"reason": HOSTILE})
        await by["boss"].rest.put("/maintenance", json={"on": True, "reason": HOSTILE})
        for who in ("alice", "bob", "boss"):
            for path in ("/", "/?project=genomics", "/usage", "/share", "/nodes", f"/job/{job}"):
                answer = await by[who].pages.get(path)
                assert answer.status_code == 200, (path, answer.text[:300])
                assert "<script" not in answer.text
                assert "<img" not in answer.text
                assert "<i>x" not in answer.text
                assert TURNING not in answer.text
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert answer.headers["cache-control"] == "no-store"
        assert "&lt;script&gt;alert(1)" in await alice.open("/")
        assert "&lt;script&gt;alert(1)" in await alice.open("/nodes")


async def test_the_cookie_opens_no_rest(service: Service) -> None:
    await service.http.get(ROOT, params={"token": TOKEN}, follow_redirects=True)
    service.http.headers.pop("Authorization")
    assert (await service.http.get(ROOT)).status_code == 200
    assert (await service.http.get("/jobs")).status_code == 401
    assert (await service.http.patch("/jobs/1", json={"name": "x"})).status_code == 401


async def test_an_array_is_one_row_with_its_members_counted(settings: Settings) -> None:
    async with browsers(settings) as by:
        array = await by["alice"].submit(array="1:5000%2", cpu=1, name="sweep")
        page = await by["alice"].open("/")
        assert page.count("sweep") == 1
        shown = await by["alice"].open(f"/job/{array}")
        assert re.search(r"\d+ (running|starting), \d+ pending of 5000", re.sub(r"\s+", " ", shown))
        assert "pending" in await by["alice"].open(f"/job/{array}_4000")


async def test_pages_of_others_jobs_are_not_there(settings: Settings) -> None:
    async with browsers(settings) as by:
        job = await by["alice"].submit(project="genomics", hold=True, env={"TOKEN": "s3cret"})
        assert "s3cret" not in await by["bob"].open(f"/job/{job}")
        for path in (f"/job/{job}", "/job/99", "/job/x", "/job/%00", "/job/..%2f1", "/job/1_1"):
            page = await by["mallory"].open(path, 404)
            assert "alice" not in page
        assert "alice" not in await by["mallory"].open("/?project=genomics")


@pytest.mark.parametrize(
    "path",
    [
        "/?state=x",
        "/?before=" + "9" * 40,
        "/?before=-1",
        "/?project=%00",
        "/?state=%ff",
        "/usage?days=-1",
        "/usage?days=" + "9" * 30,
        "/nodes?page=" + "9" * 18,
        "/nodes?page=x",
        "/job/1?before=x",
    ],
)
async def test_odd_links_are_answered_with_a_page(settings: Settings, path: str) -> None:
    async with browsers(settings) as by:
        answer = await by["alice"].pages.get(path)
        assert answer.status_code < 500
        assert answer.headers["content-type"].startswith("text/html")


# ---- buttons


async def test_a_button_does_what_it_says(settings: Settings) -> None:
    async with browsers(settings) as by:
        alice = by["alice"]
        spec = {"launcher": "docker", "image": "perijove-notebook:1", "project": "genomics"}
        job = await alice.submit(hold=True, **spec)
        page = await alice.open(f"/job/{job}")
        assert "<dt>Image</dt><dd>perijove-notebook:1</dd>" in page
        assert "Release" in page
        assert ">Hold<" not in page
        done = await alice.press(f"/job/{job}", {"form": token_in(page), "verb": "release"})
        assert (done.status_code, done.headers["location"]) == (303, f"/job/{job}")
        assert "Release" not in await alice.open(f"/job/{job}")
        lead = await by["bob"].open(f"/job/{job}")
        killed = await by["bob"].press(f"/job/{job}", {"form": token_in(lead), "verb": "kill"})
        assert killed.status_code == 303
        late = await alice.press(f"/job/{job}", {"form": token_in(page), "verb": "hold"})
        assert late.status_code == 409
        assert 'role="alert"' in late.text


FORGED: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"form": ""}, {}),
    ({"form": "x.y.z"}, {}),
    ({"form": "MALLORY"}, {}),
    ({"form": "HERS"}, {"sec-fetch-site": "cross-site"}),
    ({"form": "HERS"}, {"sec-fetch-site": "same-site"}),
    ({"form": "HERS"}, {"sec-fetch-mode": "cors"}),
    ({"form": "HERS"}, {"sec-fetch-mode": "no-cors"}),
]


@pytest.mark.parametrize(("fields", "headers"), FORGED)
async def test_a_forged_form_does_nothing(
    settings: Settings, fields: dict[str, str], headers: dict[str, str]
) -> None:
    async with browsers(settings) as by:
        job = await by["alice"].submit(hold=True)
        other = await by["mallory"].submit(hold=True)
        tokens = {
            "HERS": token_in(await by["alice"].open(f"/job/{job}")),
            "MALLORY": token_in(await by["mallory"].open(f"/job/{other}")),
        }
        sent = {"verb": "kill", **{name: tokens.get(value, value) for name, value in fields.items()}}
        answer = await by["alice"].press(f"/job/{job}", sent, **headers)
        assert answer.status_code == 403
        assert (await by["alice"].rest.get(f"/jobs/{job}")).json()["state"] == "held"


async def test_a_script_that_fetches_a_page_finds_no_form_in_it(settings: Settings) -> None:
    """Behind a hub, what a notebook server serves has the same origin as these pages."""
    async with browsers(settings) as by:
        job = await by["alice"].submit(hold=True)
        for mode in ("cors", "same-origin", "no-cors"):
            page = await by["alice"].open(f"/job/{job}", headers={"sec-fetch-mode": mode})
            assert 'name="form"' not in page
        answer = await by["alice"].pages.get(f"/job/{job}", headers={"sec-fetch-mode": "navigate"})
        assert 'name="form"' in answer.text
        assert answer.headers["cross-origin-opener-policy"] == "noopener-allow-popups"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


async def test_a_form_can_be_no_larger_than_one(settings: Settings) -> None:
    async with browsers(settings) as by:
        job = await by["alice"].submit(hold=True)
        assert (await by["alice"].press(f"/job/{job}", {"verb": "x" * 100_000})).status_code == 413
        many = {f"f{i}": "" for i in range(1000)}
        assert (await by["alice"].press(f"/job/{job}", many)).status_code == 400
        bad = await by["alice"].pages.post(f"/job/{job}", content=b"\xff\xfe=%zz")
        assert bad.status_code in {400, 403}


async def test_administrators_drain_and_maintain_by_buttons_and_others_see_none(settings: Settings) -> None:
    async with browsers(settings) as by:
        assert "<form" not in await by["alice"].open("/nodes")
        job = await by["alice"].submit(hold=True)
        hers = token_in(await by["alice"].open(f"/job/{job}"))
        for fields in ({"verb": "drain", "node": "n1"}, {"verb": "maintenance-on"}):
            answer = await by["alice"].press("/nodes", {"form": hers, **fields})
            assert answer.status_code == 403
        boss = by["boss"]
        form = token_in(await boss.open("/nodes"))
        fields = {"form": form, "verb": "drain", "node": "n1", "reason": "fan"}
        assert (await boss.press("/nodes", fields)).status_code == 303
        assert "drain</span>: fan" in await by["alice"].open("/nodes")
        await boss.press("/nodes", {"form": form, "verb": "undrain", "node": "n1"})
        await boss.press("/nodes", {"form": form, "verb": "maintenance-on", "reason": "disks"})
        assert "Maintenance: disks" in await by["alice"].open("/")
        await boss.press("/nodes", {"form": form, "verb": "maintenance-off"})
        assert "Maintenance: disks" not in await by["alice"].open("/")
        assert (await boss.press("/nodes", {"form": form, "verb": "burn"})).status_code == 400


async def test_reservations_are_listed_and_name_others_only_to_administrators(settings: Settings) -> None:
    async with browsers(settings) as by:
        assert "yours" in await by["alice"].open("/nodes")
        page = await by["mallory"].open("/nodes")
        assert "course" in page
        assert "alice" not in page
        assert "alice" in await by["boss"].open("/nodes")


# ---- accessible


class Outline(HTMLParser):
    """Headings, labels and ids of a page, and elements left open."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.unlabelled: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        hidden = given.get("type") == "hidden"
        if tag in {"input", "meter"} and not hidden and "aria-label" not in given:
            self.unlabelled.append(self.get_starttag_text() or "")
        if tag == "svg" and ("aria-label" not in given or given.get("role") != "img"):
            self.unlabelled.append(self.get_starttag_text() or "")
        for name in ("src", "href", "action"):
            if re.match("(https?:)?//", given.get(name) or ""):
                self.outside.append(str(given[name]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()


async def test_every_page_is_whole_labelled_and_loads_nothing_from_elsewhere(settings: Settings) -> None:
    async with browsers(settings) as by:
        job = await by["alice"].submit(project="genomics")
        array = await by["alice"].submit(array="1:20", cpu=4)
        paths = ("/", "/usage", "/share", "/nodes", f"/job/{job}", f"/job/{array}", f"/job/{array}_3")
        for who in ("alice", "boss"):
            for path in (*paths, "/job/999"):
                answer = await by[who].pages.get(path)
                outline = Outline()
                outline.feed(answer.text)
                outline.close()
                assert outline.open == [], path
                assert outline.headings[0] == "h1", path
                assert outline.headings.count("h1") == 1, path
                assert outline.unlabelled == [], path
                assert outline.outside == [], path
                assert '<html lang="en">' in answer.text
                assert "Skip" in answer.text or "To the content" in answer.text


# ---- plots

names = st.text(max_size=60)
values = st.floats(0, 1e12)


@given(st.lists(st.tuples(names, values), max_size=40))
def test_plots_are_whole_and_hold_no_markup_of_names(rows: list[tuple[str, float]]) -> None:
    made = [
        columns(rows, "hours"),
        bars(rows, "hours"),
        targets([(name, value / 1e12, value / 2e12) for name, value in rows]),
        fractions([(name, value, name) for name, value in rows]),
    ]
    for plot in made:
        outline = Outline()
        outline.feed(str(plot))
        outline.close()
        assert outline.open == []
        assert "nan" not in str(plot).lower() or any("nan" in name.lower() for name, _ in rows)
        assert set(re.findall(r"<(\w+)", str(plot))) <= {"svg", "text", "rect", "line", "title"}


@given(st.floats(1e-9, 1e12))
def test_scales_end_at_round_numbers_not_far_above(value: float) -> None:
    top = ceiling(value)
    assert value * 0.99999 <= top <= value * 2.6


def test_after_the_login_one_is_on_the_page_that_was_wanted() -> None:
    class Hub:
        oauth_client_id, oauth_redirect_uri, oauth_authorization_url = (
            "me",
            "http://here/back",
            "http://hub/in",
        )

    sessions = Sessions("key", "/services/perijove", Hub())
    wanted = "/services/perijove/workflows?state=running"
    away = sessions.login(wanted)
    state = parse_qs(urlsplit(away.headers["location"]).query)["state"][0]
    cookie = away.headers["set-cookie"].partition(";")[0]
    scope = {"type": "http", "headers": [(b"cookie", cookie.encode())]}
    assert sessions.check_state(Request(scope), state) == wanted
    assert sessions.begin("token", wanted).headers["location"] == wanted
    with pytest.raises(ForbiddenError):
        sessions.check_state(Request({"type": "http", "headers": []}), state)
