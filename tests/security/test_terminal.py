"""Whatever texts a service answers with, a terminal shows them, and nothing else."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from perijove.cli.app import app
from perijove.loop import LOOP
from perijove.sync import Client
from perijove.sync_runs import Run
from perijove.tables import JobTable, NodeTable
from perijove_hub.app import listen
from perijove_hub.settings import Settings

from .served import Served, served

pytestmark = pytest.mark.slow

MARKUP = "<script>alert(1)</script>[red]x[/red]**y**"
STEERING = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b2J\u202egnp.exe\u2066\r\x08\x7f"
"""A terminal's title, screen, colours and cursor (ECMA-48), and the order of letters (UAX 9)."""
FREE = {
    "name", "owner", "project", "message", "description", "node", "title", "text", "detail", "value", "key",
    "username", "full_name", "email", "by", "subject", "act", "address", "blocker", "source", "target",
}  # fmt: skip
"""Fields that hold a text of somebody's, or of a node."""


def spoilt(value: Any, field: str = "") -> Any:
    """An answer whose every free text has been made hostile."""
    if isinstance(value, dict):
        return {
            name: one if name in {"spec", "workflow"} else spoilt(one, name) for name, one in value.items()
        }
    if isinstance(value, list):
        return [spoilt(one, field) for one in value]
    return f"{value}{MARKUP}{STEERING}" if isinstance(value, str) and field in FREE else value


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(Settings(state=tmp_path_factory.mktemp("state"))) as found:
        yield found


@pytest.fixture(scope="module")
def there(service: Served) -> dict[str, str]:
    """One of each that commands show."""

    async def make() -> dict[str, str]:
        stand = service.stand
        boss = stand.by["administrator"]
        for path, body in (
            ("/projects/zoo", {"members": ["alice"], "description": "d"}),
            ("/volumes/data", {"source": "/srv/data", "target": "/data", "description": "d"}),
            ("/images/plain", {"image": "perijove-notebook:latest", "description": "d"}),
            ("/reservations/r", {"nodes": ["n1"], "start": "2030-01-01", "end": "2030-01-02"}),
        ):
            assert (await boss.put(path, json=body)).status_code in {200, 422}
        await stand.made("/announcements", {"text": "hello"}, "administrator")
        await stand.made("/invitations", {"project": "lab"}, "administrator")
        await stand.made("/tokens", {"name": "laptop"}, "administrator")
        assert (await boss.put("/secrets/s", content="x")).status_code == 200
        login = {"username": "u", "password": "p"}
        assert (await boss.put("/registries/r.example", json=login)).status_code == 200
        return {"job": await stand.job(), "run": await stand.run()}

    return asyncio.run_coroutine_threadsafe(make(), service.loop).result(60)


@pytest.fixture(scope="module")
def spoiling(service: Served) -> Iterator[str]:
    """The service as it looks through somebody who makes every text hostile."""
    ready: Future[tuple[str, uvicorn.Server]] = Future()

    async def answer(request: Request) -> Response:
        async with httpx.AsyncClient(base_url=service.address, timeout=60) as client:
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            found = await client.request(
                request.method,
                path,
                content=await request.body(),
                headers={"Authorization": service.token("administrator")},
            )
        body, kind = found.content, found.headers.get("content-type", "")
        if "json" in kind:
            body = json.dumps(spoilt(found.json())).encode()
        return Response(body, found.status_code, media_type=kind)

    async def serve() -> None:
        [socket] = listen(["127.0.0.1:0"])
        everything = [Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])]
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=everything), log_config=None, lifespan="off"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server.serve(sockets=[socket]))
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        ready.set_result((f"http://127.0.0.1:{socket.getsockname()[1]}", server))
        await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    address, server = ready.result(60)
    yield address
    server.should_exit = True
    thread.join(30)


COMMANDS = [
    "ls", "show {job}", "show {run}", "nodes", "top", "usage --by owner,project", "share", "projects",
    "images", "volumes", "workflows", "explain {run}", "record {job}", "user ls", "user show gast",
    "user invitations",
    "token ls", "secret ls", "registry ls", "announcement ls", "audit", "reservation ls", "policy versions",
    "show 999999",
]  # fmt: skip


@pytest.mark.parametrize("form", ["", " --json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_of_others_steers_a_terminal(
    command: str, form: str, spoiling: str, there: dict[str, str]
) -> None:
    env = {"PERIJOVE_URL": spoiling, "PERIJOVE_TOKEN": "x", "COLUMNS": "2000", "HOME": "/nonexistent"}
    words = (command.format(**there) + form).split()
    done = CliRunner().invoke(app, words, env=env)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    steered = sorted({c for c in done.output if not c.isprintable() and c not in "\n\t"})
    assert steered == [], done.output
    assert MARKUP in done.output, "Rich reads no markup in what others wrote, and it is shown"


INERT = {
    *("div", "span", "p", "small", "b", "details", "summary", "ul", "li"),
    *("table", "thead", "tbody", "tr", "th", "td", "caption", "svg", "g", "rect", "path", "text", "title"),
    *("class", "style", "role", "scope", "xmlns", "aria-label", "id", "d", "x", "y", "width", "height"),
    *("viewbox", "fill", "stroke", "transform", "rx", "stroke-width", "font-size", "text-anchor"),
    *("open", "desc", "aria-hidden", "opacity"),
}
"""Elements and attributes of HTML and SVG that run and fetch nothing."""


class Tags(HTMLParser):
    """What is markup in a text, and what is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_of_others_is_markup_in_a_notebook(spoiling: str, there: dict[str, str]) -> None:
    """Nor does it steer the terminal of a console."""
    with Client(spoiling, token="x") as client:
        tables: list[JobTable | NodeTable] = [JobTable(client.jobs()), NodeTable(client.nodes())]
        shown = [(repr(one), one._repr_html_()) for one in tables]
        job, run = client.job(there["job"]), Run(LOOP.run(client.async_client.workflow(there["run"])))
        run.refresh()
        bundles = (job._repr_mimebundle_(), run._repr_mimebundle_())
        shown += [(bundle["text/plain"], bundle["text/html"]) for bundle in bundles]
    for plain, html in shown:
        page = Tags(html)
        assert page.found <= INERT
        for text in (plain, page.text):
            assert [c for c in text if not c.isprintable() and c not in "\n\t"] == []
        assert MARKUP in page.text
