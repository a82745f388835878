"""Users of a site with several: what their jobs can read, write and end, with real launchers and as root."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import absent

from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.commands import make_launchers
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.store import Store

from .conftest import Tokens

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(120)]

UIDS = {"alice": 20_000, "bob": 20_001}
BOSS = "boss"
"""Administers the site and has no account on its node."""
ENDS = {"succeeded", "failed", "killed", "lost", "rejected"}


@dataclass
class Site:
    """The service with one node, and its users."""

    state: Path
    users: dict[str, httpx.AsyncClient]

    def home(self, user: str) -> Path:
        """As `up` and the agent make it."""
        home = self.state / "homes" / user
        if not home.exists():
            home.mkdir(parents=True, mode=0o700)
            os.chown(home, UIDS[user], UIDS[user])
        return home

    async def run(self, user: str, script: str, **more: Any) -> tuple[dict[str, Any], str]:
        """Run `script` to its end: the job, and what it wrote."""
        http = self.users[user]
        answer = await http.post("/jobs", json={"script": script, "cpu": 0.1, "memory": "64M", **more})
        assert answer.status_code == 201, answer.text
        return await self.ended(user, answer.json()["id"])

    async def ended(self, user: str, number: int) -> tuple[dict[str, Any], str]:
        """The user's job once it has ended, and what it wrote."""
        http = self.users[user]
        async with asyncio.timeout(40):
            while (job := (await http.get(f"/jobs/{number}")).json())["state"] not in ENDS:
                await asyncio.sleep(0.1)
        return job, (await http.get(f"/jobs/{number}/logs")).text


def make_state() -> Path:
    """Below tmp_path no other account gets."""
    folder = Path(tempfile.mkdtemp(prefix="pj-escape-"))
    folder.chmod(0o711)
    state = folder / "state"
    state.mkdir(mode=0o711)
    return state


@asynccontextmanager
async def opened(launcher: str, image: str, url: str) -> AsyncIterator[Site]:
    state = make_state()
    settings = Settings(
        state=state,
        mode="hub",
        default_image=image,
        accounts={name: ManagedAccount(uid=uid, gid=uid) for name, uid in UIDS.items()},
    )
    config = NodeConfig(name="n1", directory=state / "node", cpus=4, memory=4 << 30)
    launchers = make_launchers([launcher], config, "escape", {"docker.url": url, "docker.network": "none"})
    agent = NodeAgent(config, launchers, Store(settings.store))
    await agent.open()
    callers = {**{user: Caller(user) for user in UIDS}, BOSS: Caller(BOSS, admin=True)}
    app = create_app(settings, fabric=DirectFabric([agent]), identities=Tokens(callers))
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            yield Site(
                state,
                {
                    name: httpx.AsyncClient(
                        transport=transport,
                        base_url="http://s/api/v1",
                        headers={"Authorization": f"Bearer {name}"},
                    )
                    for name in callers
                },
            )
    finally:
        await agent.close()
        shutil.rmtree(state.parent)


@pytest.fixture(params=["process", "docker"])
async def site(request: pytest.FixtureRequest, test_image: str, docker_url: str) -> AsyncIterator[Site]:
    if os.geteuid() != 0:
        absent("only root runs jobs of several accounts")
    old = os.umask(0o022)
    async with opened(request.param, test_image, docker_url) as site:
        yield site
    os.umask(old)


async def test_outputs_are_what_the_job_itself_wrote(site: Site) -> None:
    """Links, pipes, directories and a log of rich output that points elsewhere."""
    script = """
    cd $PERIJOVE_JOB_DIR/output
    ln -s /etc/shadow link; mkfifo fifo; mkdir dir; ln -s .. up; echo mine > good
    ln -s /etc/passwd ../display.jsonl
    """
    names = ["link", "fifo", "dir", "up", "good"]
    job, _ = await site.run("alice", script, outputs=names)
    assert job["outputs"].keys() == {"good"}
    assert job["state"] == "failed"
    http = site.users["alice"]
    assert (await http.get(f"/jobs/{job['id']}/outputs/good")).text == "mine\n"
    assert (await http.get(f"/jobs/{job['id']}/outputs/link")).status_code == 404
    assert (await http.get(f"/jobs/{job['id']}/logs?stream=display")).text == ""


async def test_a_directory_of_the_job_turned_into_a_link_gives_nothing_away(site: Site) -> None:
    (site.home("bob") / "secret").write_text("bob's")
    script = f"""
    cd $PERIJOVE_JOB_DIR && rmdir output && ln -s {site.home("bob")} output
    """
    job, _ = await site.run("alice", script, outputs=["secret"])
    assert (job["state"], job["outputs"]) == ("failed", {})


async def test_nobody_elses_files_and_nothing_of_the_service_can_be_read(site: Site) -> None:
    (site.home("bob") / "secret").write_text("bob's")
    await site.run("bob", "echo said by bob; echo bobs > $PERIJOVE_JOB_DIR/output/kept", outputs=["kept"])
    script = f"""
    find {site.state} -type f \\( -readable -o -writable \\) 2>/dev/null
    find {site.state} -type p -writable 2>/dev/null
    find {site.state} -type s -writable 2>/dev/null
    find {site.state} -type d -writable 2>/dev/null
    ls {site.state}/node/attempts {site.home("bob")} 2>/dev/null
    cat {site.state}/node/attempts/*/stdout {site.state}/node/attempts/1.1/stdout 2>/dev/null
    find /run /var/run/ -name docker.sock -writable 2>/dev/null
    true
    """
    job, text = await site.run("alice", script)
    assert job["state"] == "succeeded"
    own = (f"{site.state}/node/attempts/{job['id']}.1", str(site.home("alice")))
    assert [line for line in text.splitlines() if not line.startswith(own)] == []


async def test_what_is_not_the_users_cannot_be_signalled(site: Site) -> None:
    script = f"kill -9 {os.getpid()} $PPID; kill -0 1; grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status"
    _, text = await site.run("alice", script)
    facts = dict(line.split(":\t") for line in text.splitlines())
    assert facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == 0
    assert (await site.run("bob", "echo still here"))[1] == "still here\n"


async def test_a_link_in_ones_home_does_not_tell_what_the_node_has(site: Site) -> None:
    """Not even whether it is there, by a working directory that leads through the link."""
    home = site.home("alice")
    (home / "link").symlink_to("/")
    me: dict[str, Any] = (await site.users["alice"].get("/me")).json()
    hidden = site.state / "only-here"
    hidden.mkdir(mode=0o700)
    seen = []
    for place in (hidden, site.state / "nowhere"):
        job, text = await site.run("alice", "ls", cwd=f"{me['home']}/link{place}")
        seen.append((job["state"], job["exit_code"], text))
    assert seen[0] == seen[1]


async def test_an_output_may_have_any_name_that_is_a_files(site: Site) -> None:
    name = "é漢.txt"
    job, _ = await site.run("alice", f"echo hi > $PERIJOVE_JOB_DIR/output/{name}", outputs=[name])
    answer = await site.users["alice"].get(f"/jobs/{job['id']}/outputs/{name}")
    assert (answer.status_code, answer.text) == (200, "hi\n")
    assert (await site.users["bob"].get(f"/jobs/{job['id']}/outputs/{name}")).status_code == 404
