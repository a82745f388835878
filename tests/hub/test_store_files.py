"""Files and folders by REST and the client: whose they are, what is sent, signed URLs, quota, collection."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from bucket import s3_server
from waiting import becomes

import perijove
from perijove.model import InvalidSpecError, Job, NotFoundError, TooLargeError, UserError
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.jobs.controller import Controller
from perijove_hub.settings import Settings
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.store import Entry, Store

from .conftest import SimulatedNode, Tokens

pytestmark = pytest.mark.slow

ME, OTHER, ADMIN = "nobody", "daemon", "root"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@dataclass
class Site:
    """A service that listens, and clients of three users."""

    url: str
    controller: Controller
    node: SimulatedNode

    @property
    def store(self) -> Store:
        return self.controller.keeper.store

    @asynccontextmanager
    async def client(
        self, user: str = ME, seen: list[str] | None = None
    ) -> AsyncIterator[perijove.AsyncClient]:
        trace = None if seen is None else seen.append
        async with perijove.AsyncClient(self.url, f"token-of-{user}", trace=trace) as client:
            yield client

    async def finished(self, client: perijove.AsyncClient, **outputs: bytes) -> Job:
        """A job of the client's that left these."""
        job = await client.submit({"command": ["true"], "launcher": "process", "outputs": list(outputs)})
        live = await becomes(lambda: self._started(job.id), "the job starts")
        stored = {name: self.store.put([data]) for name, data in outputs.items()}
        digests = {name: one.digest for name, one in stored.items()}
        sizes = {name: one.size for name, one in stored.items()}
        self.node.finish(live, outputs=digests, sizes=sizes)

        async def ended() -> Job | None:
            found = await asyncio.to_thread(self.controller.database.job, int(job.id))
            return found if found is not None and found.state.ended else None

        return await becomes(ended, "the job ends")

    async def _started(self, job: int) -> Any:
        return next((one for one in self.node.orders if one.job == int(job)), None)


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    async def starting(**changes: Any) -> Site:
        node = SimulatedNode()
        callers = {f"token-of-{name}": Caller(name, admin=name == ADMIN) for name in (ME, OTHER, ADMIN)}
        settings = Settings(state=tmp_path / "state", mode="single", **changes)
        settings.state.mkdir(exist_ok=True)
        app = create_app(settings, fabric=DirectFabric([node]), identities=Tokens(callers))
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        running.append((server, asyncio.create_task(server.serve(sockets=[listening]))))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        site = Site(url, app.state.controller, node)

        async def up() -> bool:
            return server.started

        await becomes(up, "the service starts")
        await asyncio.wait_for(site.controller.joined.wait(), 30)
        return site

    yield starting
    for server, task in running:
        server.should_exit = True
        await task


@pytest.fixture
async def site(start: Start) -> Site:
    return await start()


# Files and folders there and back


async def test_a_file_goes_there_and_comes_back_and_is_sent_once(site: Site, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "data").write_bytes(data)
    seen: list[str] = []
    told: list[tuple[int, int]] = []
    async with site.client(seen=seen) as client:
        digest = await client.upload(tmp_path / "data", progress=lambda *done: told.append(done))
        assert (
            digest == digest_of(data) == await client.upload(tmp_path / "data") == await client.upload(data)
        )
        assert told[-1] == (len(data), len(data)) and told == sorted(told)
        assert (
            sum(" /files ->" in line or line.endswith("/files") or "v1/files ->" in line for line in seen)
            == 1
        )
        assert (await client.download(digest, tmp_path / "back")).read_bytes() == data
        with pytest.raises(NotFoundError):
            await client.download(digest_of(b"nothing"), tmp_path / "nothing")
    assert names_in(tmp_path) == {"back", "data", "state"}


async def test_a_folder_goes_there_and_comes_back(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    files = {"a.txt": b"one", "sub/deep/b.sh": b"#!/bin/sh\n", "sub/same": b"one", "\u00e4": b"" * 10}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "sub/deep/b.sh").chmod(0o755)
    (folder / "empty").mkdir()
    async with site.client() as client:
        digest = await client.upload(folder)
        assert digest.startswith("sha256-tree:") and digest == await client.upload(folder)
        back = await client.download(digest, tmp_path / "back")
        assert {
            p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()
        } == files
        assert os.access(back / "sub/deep/b.sh", os.X_OK) and not os.access(back / "a.txt", os.X_OK)
        with pytest.raises(FileExistsError):
            await client.download(digest, tmp_path / "back")
        (folder / "link").symlink_to("/etc/passwd")
        with pytest.raises(UserError, match="link is a link"):
            await client.upload(folder)
    async with site.client(OTHER) as other:
        with pytest.raises(NotFoundError):
            await other.download(digest, tmp_path / "stolen")
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "",
        ".",
        "a//b",
        "a/",
        "x" * 300,
        "a\0b",
        "d/" * 300 + "x",
        "\ud800",
    ],
)
async def test_paths_that_lead_out_of_a_folder_are_refused(site: Site, path: str) -> None:
    async with site.client() as client:
        digest = await client.upload(b"x")
        with pytest.raises(UserError, match="path"):
            await client.request_json(
                "POST", "/files/tree", body={"entries": [{"path": path, "digest": digest}]}
            )


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
async def test_a_path_is_one_file_or_one_folder(site: Site, paths: list[str]) -> None:
    async with site.client() as client:
        digest = await client.upload(b"x")
        entries = [{"path": path, "digest": digest} for path in paths]
        with pytest.raises(UserError, match=r"twice|cannot be a file and a folder"):
            await client.request_json("POST", "/files/tree", body={"entries": entries})


async def test_a_hostile_service_writes_nothing_outside(site: Site, tmp_path: Path) -> None:
    """A manifest with a path that leads out, put into the store by hand, is neither staged nor downloaded."""
    stored = site.store.put([b"x"])
    text = json.dumps(
        {"entries": [{"digest": stored.digest, "executable": False, "path": "../out", "size": 1}]},
        separators=(",", ":"),
    )
    tree = "sha256-tree:" + site.store.put([text.encode()]).digest.removeprefix("sha256:")
    await asyncio.to_thread(site.controller.database.add_file, tree, ME, 1, time.time())
    async with site.client() as client:
        with pytest.raises(perijove.PerijoveError, match="no folder"):
            await client.download(tree, tmp_path / "in" / "target")
    with pytest.raises(perijove.PerijoveError, match="no folder"):
        site.store.copy_out(tree, tmp_path / "copied")
    assert not (tmp_path / "out").exists()


# Whose they are


async def test_nobody_gains_a_file_by_knowing_its_digest(site: Site, tmp_path: Path) -> None:
    secret = b"what only I know" * 10_000
    async with site.client(OTHER) as me, site.client() as other, site.client(ADMIN) as admin:
        digest = await me.upload(secret)
        tree = (
            await me.request_json("POST", "/files/tree", body={"entries": [{"path": "a", "digest": digest}]})
        )["digest"]
        assert (await other.request_json("POST", "/files/missing", body={"digests": [digest]}))[
            "missing"
        ] == [digest]
        for wanted in (digest, tree):
            with pytest.raises(NotFoundError):
                await other.download(wanted, tmp_path / "stolen")
            with pytest.raises(UserError, match="uploaded by you"):
                await other.submit({"command": ["cat"], "launcher": "process", "inputs": {"x": wanted}})
            with pytest.raises(UserError):
                await other.sign_file(wanted)
        with pytest.raises(UserError, match=r"entries\.0\.digest"):
            await other.request_json(
                "POST", "/files/tree", body={"entries": [{"path": "a", "digest": digest}]}
            )
        assert (await admin.download(digest, tmp_path / "seen")).read_bytes() == secret
        assert await other.upload(secret) == digest
        assert (await other.download(digest, tmp_path / "own")).read_bytes() == secret


async def test_what_a_job_made_is_its_owners(site: Site, tmp_path: Path) -> None:
    async with site.client() as me, site.client(OTHER) as other:
        job = await site.finished(me, table=b"1,2\n")
        digest = job.outputs["table"]
        assert (await me.download(digest, tmp_path / "mine")).read_bytes() == b"1,2\n"
        await me.submit({"command": ["cat"], "launcher": "process", "inputs": {"x": digest}})
        with pytest.raises(NotFoundError):
            await other.download(digest, tmp_path / "theirs")
        [row] = (await me.store())["users"]
        assert (row["owner"], row["files"], row["size"]) == (ME, 1, 4)


# Signed URLs


@pytest.fixture(params=["folder", "s3"])
async def signing(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "folder":
        yield await start()
        return
    with s3_server(tmp_path / "s3") as server:
        yield await start(store=f"s3://{server.bucket()}/p", store_options=server.options)


async def test_signed_urls_need_no_token(signing: Site) -> None:
    data = os.urandom(100_000)
    async with signing.client() as me, httpx.AsyncClient() as anybody:
        digest = await me.upload(data)
        signed = await me.sign_file(digest)
        assert (await anybody.get(signed["url"])).content == data
        assert (await anybody.get(signed["url"].replace("/signed/", "/signed/x")[:-4])).status_code >= 400

        sent = b"sent by a URL" * 5000
        to = await me.sign_file(digest_of(sent), method="PUT")
        answer = await anybody.put(to["url"], content=sent)
        if to["finish"]:
            answer = await anybody.post(to["finish"])
        assert answer.status_code == 201, answer.text
        assert (await me.request("GET", f"/files/{digest_of(sent)}")).content == sent


async def test_a_signed_url_takes_only_what_was_announced(signing: Site) -> None:
    async with signing.client() as me, httpx.AsyncClient() as anybody:
        to = await me.sign_file(digest_of(b"announced"), method="PUT")
        answer = await anybody.put(to["url"], content=b"something else")
        if to["finish"]:
            answer = await anybody.post(to["finish"])
        assert answer.status_code == 400 and "and not" in answer.json()["detail"]
        with pytest.raises(NotFoundError):
            await me.request("GET", f"/files/{digest_of(b'announced')}")
        with pytest.raises(NotFoundError):
            await me.request("GET", f"/files/{digest_of(b'something else')}")


async def test_a_signed_url_ends(site: Site) -> None:
    async with site.client() as me, httpx.AsyncClient() as anybody:
        digest = await me.upload(b"data")
        url = (await me.sign_file(digest, seconds=60))["url"]
        put = (await me.sign_file(digest, method="PUT"))["url"]
        assert (await anybody.get(put)).status_code == 403
        assert (await anybody.put(url, content=b"data")).status_code == 403
        now = time.time()
        site.controller.clock = lambda: now + 61
        assert (await anybody.get(url)).status_code == 403


# URLs


async def test_a_url_is_checked_against_its_digest(site: Site) -> None:
    async with site.client() as me:
        digest = await me.upload(b"data")
        url = (await me.sign_file(digest))["url"]
        assert await me.fetch_url(f"{url}#sha256={digest[7:]}") == digest == await me.fetch_url(url)
        with pytest.raises(UserError, match="and not sha256:0000"):
            await me.fetch_url(f"{url}#sha256={'0' * 64}")
        with pytest.raises(UserError, match=r"404|403"):
            await me.fetch_url(url[:-5])
        for broken in ("http://127.0.0.1:1/", "http://[", f"{url}#md5=1"):
            with pytest.raises(UserError):
                await me.fetch_url(broken)


# Quota


async def test_a_users_quota_and_a_full_store_refuse_uploads(start: Start) -> None:
    site = await start(store_quota="1M")
    await site.controller.set_policy("users:\n  nobody: {limits: {store: 300K}}\n", "root")
    async with site.client() as me, site.client(OTHER) as other:
        await me.upload(os.urandom(200 << 10))
        with pytest.raises(TooLargeError, match=r"200.*of 300"):
            await me.upload(os.urandom(200 << 10))
        await other.upload(os.urandom(900 << 10))
        await site.controller.keeper.round()
        with pytest.raises(perijove.PerijoveError, match="the store is full"):
            await other.upload(b"more")
        site.controller.keeper.grace = 0.0
        await site.controller.keeper.collect()
        await other.upload(b"more")


# Collection


async def test_a_collection_keeps_what_is_needed_and_what_is_new(site: Site, tmp_path: Path) -> None:
    keeper = site.controller.keeper
    async with site.client() as me, site.client(ADMIN) as admin:
        job = await site.finished(me, table=b"made")
        live = await me.upload(b"an input")
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "part").write_bytes(b"part of a folder")
        tree = await me.upload(folder)
        await me.submit(
            {"command": ["a"], "launcher": "process", "inputs": {"x": live, "t": tree}, "hold": True}
        )
        unused = await me.upload(b"forgotten")
        with pytest.raises(perijove.ForbiddenError):
            await me.collect()
        assert (await admin.collect())["files"] == 0, "all of it is new"
        keeper.grace = 0.0
        assert (await admin.store())["collectable"] == len(b"forgotten")
        assert (await admin.collect(dry_run=True))["files"] == 1 and site.store.exists(unused)
        assert (await admin.collect(older_than="30d"))["files"] == 0
        done = await admin.collect()
        assert (done["files"], done["size"]) == (1, len(b"forgotten"))
        assert not site.store.exists(unused)
        for digest in (job.outputs["table"], live, tree):
            site.store.check(digest)
        assert (await me.request_json("POST", "/files/missing", body={"digests": [unused]}))["missing"]
        with pytest.raises(UserError, match="uploaded by you"):
            await me.submit({"command": ["a"], "launcher": "process", "inputs": {"x": unused}})
        await site.controller.archive([job.id], "test")
        assert (await admin.collect())["files"] == 1


async def test_a_collection_never_takes_what_a_job_was_just_given(site: Site) -> None:
    """Collections follow each other while jobs are submitted with inputs that nothing had needed before."""
    keeper, store = site.controller.keeper, site.store
    keeper.grace, stop = 60.0, asyncio.Event()
    rounds = 0

    async def collecting() -> None:
        nonlocal rounds
        while not stop.is_set():
            await keeper.collect()
            rounds += 1

    async def old(data: bytes) -> str:
        digest = store.put([data]).digest
        os.utime(store.url(digest).removeprefix("file://"), (1.0, 1.0))
        await asyncio.to_thread(site.controller.database.add_file, digest, ME, len(data), 1.0)
        return digest

    collector, taken = asyncio.create_task(collecting()), []
    async with site.client() as me:
        for number in range(60):
            digest = await old(b"old input %d" % number)
            try:
                job = await me.submit(
                    {"command": ["a"], "launcher": "process", "inputs": {"x": digest}, "hold": True}
                )
            except InvalidSpecError:  # it had gone before
                continue
            taken.append((job, digest))
    begun = rounds

    async def another() -> bool:
        return rounds > begun + 1

    await becomes(another, "another collection")
    stop.set()
    await collector
    await keeper.collect()
    for job, digest in taken:
        assert store.exists(digest), job
    assert rounds > 1


async def test_what_a_running_job_leaves_is_kept_though_the_service_learns_of_it_late(site: Site) -> None:
    site.controller.keeper.grace = 0.0
    async with site.client() as me:
        job = await me.submit({"command": ["a"], "launcher": "process", "outputs": ["out"]})
        await becomes(lambda: site._started(job.id), "the job starts")
        await site.controller.committed()

        async def runs() -> bool:
            return (await asyncio.to_thread(site.controller.database.job, int(job.id))).started is not None  # type: ignore[union-attr]

        await becomes(runs, "it is known to run")
        left = site.store.put([b"left behind"]).digest
        await site.controller.keeper.collect()
        assert site.store.exists(left)


async def test_a_damaged_folder_hinders_no_collection(site: Site) -> None:
    tree = site.store.put_tree([Entry("a", site.store.put([b"x"]).digest, 1)]).digest
    await asyncio.to_thread(Path(site.store.url(tree).removeprefix("file://")).write_bytes, b"{}")
    await asyncio.to_thread(site.controller.database.add_file, tree, ME, 1, 1.0)
    async with site.client() as me:
        await me.submit({"command": ["a"], "launcher": "process", "env": {"NAMED": tree}, "hold": True})
        site.controller.keeper.grace = 0.0
        assert (await site.controller.keeper.collect()).files == 1


async def test_the_command_line_shows_and_collects(site: Site) -> None:
    async def perijove_store(*words: str, user: str = ADMIN) -> tuple[int | None, str, str]:
        env = {**os.environ, "PERIJOVE_URL": site.url, "PERIJOVE_TOKEN": f"token-of-{user}"}
        program = Path(sys.executable).with_name("perijove")
        process = await asyncio.create_subprocess_exec(
            program, "store", *words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    async with site.client() as me:
        await me.upload(b"x" * 2048)
    site.controller.keeper.grace = 0.0
    code, out, _ = await perijove_store("usage")
    assert code == 0 and ME in out and "could go: 2K" in out
    code, _, err = await perijove_store("gc", "--dry-run")
    assert code == 0 and "1 file, 2K would be removed" in err
    code, _, err = await perijove_store("gc", user=ME)
    assert code == 1 and "administrator" in err
    code, out, _ = await perijove_store("gc", "--json")
    assert code == 0 and json.loads(out)["files"] == 1


async def test_an_archive_as_an_image_is_its_owners(site: Site) -> None:
    spec = {"command": ["true"], "launcher": "docker", "hold": True}
    async with site.client() as me, site.client(OTHER) as other:
        digest = await me.upload(b"an archive")
        for image in (digest, await other.upload(b"another's")):
            with pytest.raises(UserError) as refused:
                await me.submit({**spec, "image": f"archive:{image}"})
            uploaded = any("uploaded by you" in each.message for each in refused.value.errors)
            assert uploaded == (image != digest)
