"""Networks of owners and projects: within one they reach each other, between two they do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
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
