"""Ports of this host for ports of containers: each given once, kept while its job lives, free afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.spawners.real_node import RealNode
from waiting import becomes

from perijove.model import Account, Attempt, Endpoint, OperatorError
from perijove_spawners.node.publishing import NoPortError, Publishing

ALICE = Account("alice", 4242, 4242, "/home/alice")
SERVE = "import socket as s; l = s.create_server(('', 8888))\nwhile 1: l.accept()[0].sendall(b'here')"


def folder(tmp_path: Path, job: int) -> Path:
    made = tmp_path / f"{job}.1"
    made.mkdir(exist_ok=True)
    return made


def free_range(count: int) -> str:
    """Of ports that nobody has at the moment."""
    for first in range(20000, 30000, count):
        try:
            with contextlib.ExitStack() as taken:
                for number in range(first, first + count):
                    taken.enter_context(socket.create_server(("127.0.0.1", number)))
        except OSError:
            continue
        return f"{first}-{first + count - 1}"
    raise AssertionError("no free ports")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=30))
def test_no_port_is_given_twice(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, bool]]
) -> None:
    """Whatever comes and goes, and however often the agent is replaced by one that reads what was noted."""
    tmp_path = tmp_path_factory.mktemp("ports")
    span = Publishing.parse("21000-21007", "127.0.0.1")
    held: dict[Attempt, dict[int, int]] = {}
    for job, more in acts:
        attempt = Attempt(job, 1)
        if not more:
            span.release(attempt)
            held.pop(attempt, None)
            (folder(tmp_path, job) / "ports").unlink(missing_ok=True)
            continue
        try:
            given_ports = span.provide(attempt, folder(tmp_path, job), [80, 443])
        except NoPortError:
            assert len(held) >= 3  # others on this host may have some of the eight
            continue
        assert held.setdefault(attempt, given_ports) == given_ports
        numbers = [number for ports in held.values() for number in ports.values()]
        assert len(set(numbers)) == len(numbers)
        span = Publishing.parse("21000-21007", "127.0.0.1")
        span.take_up({one: folder(tmp_path, one.job) for one in held})


@pytest.mark.parametrize(
    ("ports", "addresses", "message"),
    [
        ("80-90", "", "--publish-ports 80-90: must be FIRST-LAST, from 1024 to 65535"),
        ("3000-2000", "", "must be FIRST-LAST"),
        ("x", "", "must be FIRST-LAST"),
        ("30000-70000", "", "must be FIRST-LAST"),
        ("30000-30010", "eth0", "--publish-address eth0: must be an address of this host"),
    ],
)
def test_a_wrong_range_is_named(ports: str, addresses: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Publishing.parse(ports, addresses)


def test_any_address_is_the_nodes_own_for_others() -> None:
    found = Endpoint(ports={80: "0.0.0.0:30001", 81: "10.0.0.5:30002"})
    seen = Publishing().seen_from_elsewhere(found, "node7")
    assert seen.ports == {80: "node7:30001", 81: "10.0.0.5:30002"}


@pytest.fixture
async def node(docker_url: str, tmp_path: Path) -> AsyncIterator[RealNode]:
    made = RealNode(tmp_path, "docker", ALICE, url=docker_url)
    made.config = {"publish_ports": free_range(2), "publish_address": "127.0.0.1"}
    await made.open()
    yield made
    await made.close()


@pytest.mark.engine
async def test_a_container_is_reached_at_the_host_also_under_the_next_agent(
    node: RealNode, test_image: str
) -> None:
    fields = {"image": test_image, "cwd": "/", "ports": (8888,)}
    orders = [node.order("python3", "-c", SERVE, **fields) for _ in range(2)]
    sent = asyncio.ensure_future(node.agent.start(orders))

    async def places() -> list[str] | None:
        reports = await node.agent.known([order.attempt for order in orders])
        found = [report.endpoint.ports[8888] for report in reports if report.endpoint]
        return found if len(found) == 2 and all(map(answers, found)) else None

    first = await becomes(places, "both servers", 60)
    numbers = {int(place.rpartition(":")[2]) for place in first}
    low, high = map(int, node.config["publish_ports"].split("-"))
    assert numbers == {low, high} and all(place.startswith("127.0.0.1:") for place in first)
    third = await node.run("true", **fields)
    assert third.transient and "fewer than 1 are free" in third.message
    await node.agent.close()
    sent.cancel()
    await node.open()
    assert await becomes(places, "both servers again", 60) == first
    assert (await node.run("true", **fields)).transient
    await node.agent.stop([orders[0].attempt], 0)

    async def again() -> bool:
        return (await node.run("true", **fields)).exit_code == 0

    await becomes(again, "a port that is free again", 60)


def answers(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as link:
            return link.recv(10) == b"here"
    except OSError:
        return False
