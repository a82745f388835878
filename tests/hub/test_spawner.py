"""JupyterHub's spawner against the real service over a simulated node, by HTTP."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from jupyterhub import orm
from tornado.web import HTTPError
from waiting import becomes, until

from perijove.model import Attempt, Endpoint, Node
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.hub.spawner import SERVER_LABEL, PerijoveSpawner
from perijove_spawners.protocol import Order, ReportKind

from .conftest import SimulatedNode, Tokens, node

pytestmark = pytest.mark.slow

TOKEN = "token-of-the-spawner"


def reachable() -> Node:
    """A node whose launchers publish ports."""
    usual = node()
    features = {"cpu", "gpus", "memory", "ports"}
    offered = [launcher.model_copy(update={"features": features}) for launcher in usual.launchers]
    return usual.model_copy(update={"launchers": offered})


@dataclass
class ServerNode(SimulatedNode):
    """Says where the ports of what it starts are reached."""

    described: Node = field(default_factory=reachable)
    listening: list[socket.socket] = field(default_factory=list)
    silent: bool = False
    """What it starts never opens its port."""

    def listen(self) -> str:
        """The address of a server's port; it is open, and nobody answers there."""
        self.listening.append(socket.create_server(("127.0.0.1", 0)))
        host, port = self.listening[-1].getsockname()
        if self.silent:
            self.listening.pop().close()
        return f"{host}:{port}"

    async def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.orders[order.attempt] = order
            ports = {port: self.listen() for port in order.ports}
            self.say(order.attempt, ReportKind.STARTED, endpoint=Endpoint(ports=ports))


@dataclass
class Site:
    """The service on a TCP port, and a hub's worth of spawners."""

    node: ServerNode
    url: str
    tmp: Path
    hub: Any = field(default_factory=lambda: orm.new_session_factory("sqlite:///:memory:")())
    """The hub's database."""

    def spawner(self, name: str = "", *, user: str = "ada-lovelace", **options: Any) -> PerijoveSpawner:
        """The spawner of one server, as a hub makes it: with what it kept of an earlier one."""
        token = self.tmp / "token"
        token.write_text(TOKEN + "\n")
        made = PerijoveSpawner(
            api_url=self.url,
            notebook_api_url="http://172.17.0.1:1/services/perijove",
            token_file=str(token),
            api_token="token-of-the-notebook",
            user=SimpleNamespace(name=user, url=f"/user/{user}/", escaped_name=user),
            hub=SimpleNamespace(public_host="", api_url="http://127.0.0.1:1/hub/api", base_url="/hub/"),
            oauth_client_id="jupyterhub-user",
        )
        made.orm_spawner = self.record(name, user)
        made.user_options = options
        made.load_state(made.orm_spawner.state or {})
        return made

    def record(self, name: str, user: str = "ada-lovelace") -> orm.Spawner:
        """The row of a server in the hub's database."""
        found = self.hub.query(orm.Spawner).filter_by(name=name).first()
        if found is None:
            owner = self.hub.query(orm.User).filter_by(name=user).first() or orm.User(name=user)
            found = orm.Spawner(name=name, user=owner)
            self.hub.add(found)
            self.hub.commit()
        return found

    def order(self, spawner: PerijoveSpawner) -> Order:
        """What its node was told."""
        assert spawner.job_id is not None
        return self.node.orders[Attempt(spawner.job_id, 1)]

    async def running(self, **options: Any) -> PerijoveSpawner:
        """A server that has started."""
        spawner = self.spawner(**options)
        await asyncio.wait_for(spawner.start(), 10)
        return spawner


@asynccontextmanager
async def serving(settings: Settings, node: SimulatedNode, port: int = 0) -> AsyncIterator[int]:
    """The service, by TCP."""
    app = create_app(
        settings,
        fabric=DirectFabric([node]),
        identities=Tokens({TOKEN: Caller("perijove-spawner", act_as=True)}),
    )
    bound = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    await until(lambda: server.started, "the service")
    try:
        yield int(bound.getsockname()[1])
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def site_settings(tmp_path: Path) -> Settings:
    account = {"ada-lovelace": ManagedAccount(uid=20_000, gid=20_000)}
    return Settings(
        state=tmp_path, mode="hub", default_launcher="docker", prefix="/services/perijove", accounts=account
    )


@pytest.fixture
async def site(site_settings: Settings, tmp_path: Path) -> AsyncIterator[Site]:
    host = ServerNode()
    async with serving(site_settings, host) as port:
        yield Site(host, f"http://127.0.0.1:{port}/services/perijove", tmp_path)


def shown(error: HTTPError) -> str:
    """What the hub's page shows of it."""
    return str(getattr(error, "jupyterhub_message", ""))


async def test_a_server_is_a_job_of_its_user(site: Site) -> None:
    spawner = site.spawner(cpus=2, memory="2G", gpus=1)
    started = await asyncio.wait_for(spawner.start(), 10)
    assert started == site.node.listening[-1].getsockname()
    order = site.order(spawner)
    assert (order.owner, order.account.uid, order.launcher) == ("ada-lovelace", 20_000, "docker")
    assert (order.cpu, order.memory, len(order.gpus)) == (2, 2 << 30, 1)
    assert order.command[0] == "jupyterhub-singleuser"
    assert order.env["JUPYTERHUB_API_TOKEN"] == "token-of-the-notebook"
    assert order.env["PERIJOVE_URL"] == "http://172.17.0.1:1/services/perijove"
    assert await spawner.poll() is None


async def test_the_spawners_own_token_stays_with_the_hub(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    order = site.order(await site.running())
    assert TOKEN not in " ".join([*order.env.values(), *order.command, *order.labels.values()])
    for secret in (TOKEN, "token-of-the-notebook"):
        assert secret not in caplog.text
        assert secret not in " ".join([*order.command, *order.labels.values()])


async def test_nothing_of_the_hubs_environment_gets_into_a_container(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/hub")
    order = site.order(await site.running())
    assert not {"PATH", "PYTHONPATH", "CONFIGPROXY_AUTH_TOKEN"} & order.env.keys()


async def test_a_plain_process_listens_on_loopback_only(site: Site) -> None:
    spawner = site.spawner()
    spawner.launcher = "process"
    await asyncio.wait_for(spawner.start(), 10)
    order = site.order(spawner)
    assert order.env["JUPYTERHUB_SERVICE_URL"].startswith(f"http://127.0.0.1:{order.ports[0]}/")
    assert order.image is None


async def test_a_server_that_ends_before_it_listens_is_not_waited_for(site: Site) -> None:
    site.node.silent = True
    spawner = site.spawner()
    start = asyncio.create_task(spawner.start())
    await until(lambda: spawner.job_id and site.node.orders, "the start")
    assert spawner.job_id is not None
    site.node.finish(Attempt(spawner.job_id, 1), 3)
    with pytest.raises(HTTPError) as caught:
        await asyncio.wait_for(start, 10)
    assert "exit code 3" in caught.value.jupyterhub_message  # type: ignore[attr-defined]


async def test_stop_ends_the_job(site: Site) -> None:
    spawner = await site.running()
    await asyncio.wait_for(spawner.stop(), 10)
    assert await spawner.poll() == 143
    await asyncio.wait_for(spawner.stop(), 10)


async def test_the_exit_of_a_server_is_its_exit_code(site: Site) -> None:
    spawner = await site.running()
    assert spawner.job_id is not None
    site.node.finish(Attempt(spawner.job_id, 1), 3)
    assert await becomes(spawner.poll, "the exit") == 3


async def test_the_page_says_what_a_server_waits_for(site: Site) -> None:
    holder = await site.running(cpus=4)
    spawner = site.spawner("second", cpus=1)
    spawner._start_pending = True
    start = asyncio.create_task(spawner.start())
    said = []
    async with asyncio.timeout(15):
        async for event in spawner.progress():
            said.append(event["message"])
            if "place 1 in the queue" in said[-1]:
                assert "1 CPU (" in said[-1]
                await holder.stop()
            if event["progress"] == 80:
                break
    assert await asyncio.wait_for(start, 10) == site.node.listening[-1].getsockname()
    assert any("place 1 in the queue" in message for message in said)


async def test_a_server_killed_in_the_queue_says_so(site: Site) -> None:
    await site.running(cpus=4)
    spawner = site.spawner("second", cpus=1)
    start = asyncio.create_task(spawner.start())
    await spawner.service.kill(await until(lambda: spawner.job_id, "the job"))
    with pytest.raises(HTTPError) as caught:
        await asyncio.wait_for(start, 10)
    assert "ended: killed" in shown(caught.value)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"cpus": 64}, 422, "the largest has 4"),
        ({"cpus": -1}, 400, "cpus: "),
        ({"cpus": "many"}, 400, "given: many"),
        ({"memory": "lots"}, 400, "memory: .*512M, 8G"),
        ({"gpus": 9}, 422, "GPUs"),
        ({"image": "evil/image:latest"}, 422, "image: .*allowed: perijove-notebook"),
        ({"image": "; rm -rf /"}, 400, "image: "),
        ({"command": ["sh"]}, 400, "command: "),
    ],
)
async def test_a_bad_choice_is_refused_in_words(
    site: Site, options: dict[str, Any], status: int, message: str
) -> None:
    spawner = site.spawner(**options)
    with pytest.raises(HTTPError) as caught:
        await asyncio.wait_for(spawner.start(), 10)
    assert caught.value.status_code == status
    assert re.search(message, shown(caught.value))
    assert spawner.job_id is None
    assert site.node.orders == {}


async def test_options_that_are_no_object_are_refused(site: Site) -> None:
    spawner = site.spawner()
    spawner.user_options = {"gpus": {"count": "x", "model": "<script>"}}
    with pytest.raises(HTTPError):
        await asyncio.wait_for(spawner.start(), 10)


async def test_an_unknown_user_starts_nothing(site: Site) -> None:
    with pytest.raises(HTTPError) as caught:
        await asyncio.wait_for(site.spawner(user="mallory").start(), 10)
    assert "mallory has no account" in shown(caught.value)


async def test_a_restarted_hub_finds_its_server(site: Site) -> None:
    first = await site.running()
    site.record("").state = first.get_state()
    again = site.spawner()
    assert await again.poll() is None
    await asyncio.wait_for(again.stop(), 10)
    assert await site.spawner().poll() == 143


async def test_a_start_that_the_hub_did_not_live_to_see_is_ended(site: Site) -> None:
    await site.running(cpus=4)
    spawner = site.spawner("second", cpus=1)
    start = asyncio.create_task(spawner.start())
    await until(lambda: spawner.job_id, "the job")
    start.cancel()

    again = site.spawner("second")
    assert await again.poll() == 1
    assert spawner.job_id is not None
    assert (await spawner.service.job(spawner.job_id)).state.ended


async def test_a_new_start_ends_what_an_earlier_one_left(site: Site) -> None:
    lost = await site.running()
    await site.running()
    assert lost.job_id is not None
    async with asyncio.timeout(10):
        while not (await lost.service.job(lost.job_id)).state.ended:
            await asyncio.sleep(0.02)


async def test_servers_of_other_names_are_left_alone(site: Site) -> None:
    first = site.spawner("one")
    await asyncio.wait_for(first.start(), 10)
    second = site.spawner("two")
    await asyncio.wait_for(second.start(), 10)
    assert await first.poll() is None
    assert site.order(first).labels[SERVER_LABEL] == "/one"


async def test_a_service_that_does_not_answer_is_no_dead_server(
    site_settings: Settings, tmp_path: Path
) -> None:
    host = ServerNode()
    async with serving(site_settings, host) as port:
        spawner = Site(host, f"http://127.0.0.1:{port}/services/perijove", tmp_path).spawner()
        await asyncio.wait_for(spawner.start(), 10)
    assert await spawner.poll() is None

    stop = asyncio.create_task(spawner.stop())
    await asyncio.sleep(0.3)
    assert not stop.done()
    async with serving(site_settings, host.restart(), port):
        await asyncio.wait_for(stop, 20)


async def test_the_form_offers_what_the_site_has(site: Site) -> None:
    form = await site.spawner()._form(None)
    assert 'max="4"' in form
    assert "perijove-notebook:latest" in form
    assert "2 free now" in form


async def test_the_form_is_optional(site: Site) -> None:
    spawner = site.spawner()
    assert await spawner.options_from_form({}) == {}
    chosen = {"cpus": ["1.5"], "memory": [" 2G "], "gpus": ["a100:1"], "image": [""]}
    options = await spawner.options_from_form(chosen)
    assert (options["cpus"], options["memory"]) == (1.5, 2 << 30)
    assert options["gpus"] == {"count": 1, "model": "a100"}
