"""Networks of owners and projects: within one they reach each other, between two they do not."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import absent
from tests.spawners.real_node import RealNode
from waiting import becomes

from perijove.model import Account, Attempt
from perijove_spawners.containers.container import network_mode, owner_network, project_network
from perijove_spawners.launcher import Launch
from perijove_spawners.protocol import Order

ALICE = Account("alice", 4242, 4242, "/home/alice")
SERVE = "import socket as s; l = s.create_server(('', 8888)); print('ready', flush=True)\nwhile 1: l.accept()"
REACH = """
import socket, sys
def reaches(host, port):
    try:
        socket.create_connection((host, port), 3).close()
        return 1
    except OSError:
        return 0
print(*(reaches(*place.rsplit(":", 1)) for place in sys.argv[1:]))
"""


def test_projects_and_owners_of_one_name_share_nothing() -> None:
    launch = Launch(Attempt(1, 1), "x", (), ALICE, Path("/"), project="x")
    modes = {network_mode(replace(launch, network=word), "lab", "bridge") for word in ("user", "project")}
    assert modes == {owner_network("lab", "x"), project_network("lab", "x")} and len(modes) == 2
    none = replace(launch, network="project", project=None)
    assert network_mode(none, "lab", "bridge") == owner_network("lab", "x")
    assert project_network("lab", "x") != project_network("other", "x")


@pytest.fixture
async def node(docker_url: str, tmp_path: Path) -> AsyncIterator[RealNode]:
    made = RealNode(tmp_path, "docker", ALICE, url=docker_url)
    await made.open()
    yield made
    await made.close()


@pytest.mark.engine
async def test_who_is_on_a_network_reaches_those_on_it_and_nobody_else(
    node: RealNode, test_image: str
) -> None:
    """Nor what listens on the node's own loopback address."""

    def order(owner: str, project: str, network: str, *command: str, **more: object) -> Order:
        made = node.order("python3", "-c", *command, image=test_image, cwd="/", network=network, **more)
        return replace(made, owner=owner, project=project)

    servers = [order("alice", "p1", network, SERVE, ports=(8888,)) for network in ("user", "project")]
    sent = asyncio.ensure_future(node.agent.start(servers))

    async def ready(server: Order) -> str | None:
        chunk = await node.agent.logs(server.attempt, "stdout", 0, 100)
        return (await node.launcher.endpoint(server.attempt)).ports[8888] if chunk and chunk.data else None

    places = [await becomes(lambda server=server: ready(server), "a server", 60) for server in servers]  # type: ignore[misc]
    with socket.create_server(("127.0.0.1", 0)) as own:
        places.append(f"127.0.0.1:{own.getsockname()[1]}")
        asked = [
            order(owner, project, network, REACH, *places, outputs={"said": "fd:1"})
            for owner, project, network in (
                ("alice", "p1", "user"), ("bob", "p1", "user"),
                ("bob", "p1", "project"), ("bob", "p2", "project"),
            )
        ]  # fmt: skip
        await node.agent.start(asked)
    said = [node.text((await node.outcome(one)).outputs["said"]).strip() for one in asked]
    assert said == ["1 0 0", "0 0 0", "0 1 0", "0 0 0"]
    await node.agent.stop([server.attempt for server in servers], 0)
    await sent


PAGE = Path(__file__).parents[2] / "docs" / "operate" / "launchers.md"
CLOUDS = "169.254.169.254"


def command(text: str) -> None:
    subprocess.run(text.split(), check=True, capture_output=True)


@pytest.fixture
def address() -> Iterator[str]:
    """An address of this machine in place of a cloud's."""
    if os.geteuid() != 0 or not shutil.which("iptables"):
        absent("iptables is not installed, or this is not root")
    found = f"169.254.{20 + os.getpid() % 200}.{1 + os.getpid() // 200 % 250}"
    command(f"ip address add {found}/32 dev lo")
    yield found
    command(f"ip address del {found}/32 dev lo")


@pytest.mark.engine
async def test_the_documented_rules_keep_jobs_from_an_address(
    node: RealNode, test_image: str, address: str
) -> None:
    lines = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    iptables")]
    rules = [line.replace(CLOUDS, address) for line in lines]
    assert len(rules) == 2

    with socket.create_server((address, 0)) as server, ExitStack() as added:
        place = f"{address}:{server.getsockname()[1]}"

        def host(*account: str) -> str:
            argv = [*account, sys.executable, "-c", REACH, place]
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

        async def contained() -> set[str]:
            networks = ("bridge", "user")
            asked = (
                node.said("python3", "-c", REACH, place, image=test_image, cwd="/", network=network)
                for network in networks
            )
            return {text.strip() for text in await asyncio.gather(*asked)}

        alice = ("setpriv", "--reuid", str(ALICE.uid), "--clear-groups")
        assert (await contained(), host(*alice), host()) == ({"1"}, "1", "1")
        for rule in rules:
            command(rule)
            added.callback(command, rule.replace(" -I ", " -D "))
        assert (await contained(), host(*alice), host()) == ({"0"}, "0", "1")
