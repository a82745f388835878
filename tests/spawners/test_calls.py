"""The engine calls of attempts: as they were made, without secrets, on real engines."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.spawners.real_node import RealNode
from waiting import becomes

from perijove.engine_calls import command_line
from perijove.model import Account, Attempt, ReasonCode
from perijove_spawners.calls import BODY_LIMIT, HIDDEN, LIMIT, line, notes, shown
from perijove_spawners.launcher import EngineCall
from perijove_spawners.protocol import Order

ALICE = Account("alice", 4242, 4242, "/home/alice")
ENV = {"TOKEN": "s3cret", "PERIJOVE_TOKEN": "s3cret", "PERIJOVE_PARAMETERS": '{"key": "s3cret"}'}


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[RealNode]:
    node = RealNode(tmp_path, "process", Account("me", os.getuid(), os.getgid(), str(tmp_path)))
    await node.open()
    yield node
    await node.close()


@pytest.fixture(params=["docker", "podman"])
async def containers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RealNode]:
    url = request.getfixturevalue(f"{request.param}_url")
    node = RealNode(tmp_path, request.param, ALICE, url=url)
    await node.open()
    yield node
    await node.close()


async def log_of(node: RealNode, order: Order) -> bytes:
    """The whole stream, in small pieces."""
    data = b""
    while True:
        chunk = await node.agent.logs(order.attempt, "engine", len(data), 700)
        assert chunk
        data += chunk.data
        if not chunk.data:
            assert chunk.end
            return data


async def calls_of(node: RealNode, order: Order) -> list[dict[str, Any]]:
    return [json.loads(each) for each in (await log_of(node, order)).splitlines()]


async def test_a_process_is_told_by_its_order(processes: RealNode) -> None:
    order = processes.order("sh", "-c", "echo hi", env=ENV, cpu=0.5, time_limit=60.0, cwd="/")
    await processes.agent.start([order])
    [call] = await calls_of(processes, order)
    assert call["engine"] == "process"
    assert call["what"] == "execve sh -c 'echo hi'"
    body = call["body"]
    assert body["argv"] == ["sh", "-c", "echo hi"]
    assert (body["cwd"], body["user"]) == ("/", f"{os.getuid()}:{os.getgid()}")
    assert body["limits"] == {"cpu": 0.5, "memory": 256 << 20, "time": 60.0}
    assert body["env"]["PERIJOVE_JOB_ID"] == "1"
    assert body["env"]["TOKEN"] == body["env"]["PERIJOVE_TOKEN"] == HIDDEN
    folder = processes.directory / "node" / "attempts" / "1.1"
    assert not (folder / "engine").exists(), "nothing is written for a process"


async def test_a_process_is_told_the_same_once_all_but_its_folder_is_gone(processes: RealNode) -> None:
    order = processes.order("true")
    await processes.agent.start([order])
    before = await log_of(processes, order)
    await processes.agent.forget([order.attempt])
    await becomes(lambda: nothing_left(processes), "the launcher has forgotten it")
    assert await log_of(processes, order) == before != b""


async def test_a_job_that_never_ran_made_no_call(processes: RealNode) -> None:
    order = processes.order("true", cwd="/not/there")
    await processes.agent.start([order])
    assert (await processes.outcome(order)).reason is ReasonCode.LAUNCH_FAILED
    assert await log_of(processes, order) == b""


@pytest.mark.engine
async def test_requests_are_noted_as_they_were_sent(containers: RealNode, test_image: str) -> None:
    order = containers.order("sh", "-c", "echo hi", image=test_image, env=ENV)
    await containers.agent.start([order])
    assert (await containers.outcome(order)).exit_code == 0
    calls = await calls_of(containers, order)
    [create] = [call for call in calls if "/containers/create?name=perijove-" in call["what"]]
    [start] = [call for call in calls if call["what"].endswith("-1.1/start")]
    assert create["what"].startswith("POST /v1.")
    assert (create["answer"], start["answer"]) == (201, 204)
    assert 0 < create["ms"] < 1000 * (start["at"] - create["at"] + 0.01)
    body = create["body"]
    assert body["Entrypoint"] == ["sh", "-c", "echo hi"]
    assert (body["User"], body["HostConfig"]["Memory"]) == ("4242:4242", 256 << 20)
    assert "PERIJOVE_JOB_ID=1" in body["Env"]
    assert f"TOKEN={HIDDEN}" in body["Env"]
    assert b"s3cret" not in await log_of(containers, order)
    mode = (containers.directory / "node" / "attempts" / "1.1" / "engine").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.engine
async def test_the_command_line_makes_such_a_container(
    containers: RealNode, test_image: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"env": {"SAID": "a b"}, "sealed": True, "stdin": "data", "cpu": 0.25}
    inputs = {"data": containers.store.put([b"hello"]).digest}
    order = containers.order("sh", "-c", 'cat; echo " $SAID"', image=test_image, inputs=inputs, **fields)
    await containers.agent.start([order])
    calls = await calls_of(containers, order)
    [line] = [text for call in calls if (text := command_line(call))]
    [create] = [call for call in calls if "/create?name=" in call["what"]]
    api = docker.APIClient(base_url=containers.url, version="auto")
    client = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}[create["engine"]]
    noted = tmp_path / "id"
    line = line.replace("podman run", "podman --remote run").replace(" run", f" run --cidfile {noted}", 1)
    env = {**os.environ, client: containers.url, "SAID": "c d"}
    try:
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", line], env=env, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "hello c d\n"), done.stderr
        made = api.inspect_container(noted.read_text())
        wanted = create["body"]
        assert made["Config"]["User"] == wanted["User"]
        assert made["Config"]["WorkingDir"] == wanted["WorkingDir"]
        assert not any(label.startswith("perijove.") for label in made["Config"]["Labels"] or {})
        for field in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "NetworkMode", "ReadonlyRootfs"):
            assert made["HostConfig"][field] == wanted["HostConfig"][field], field
    finally:
        if noted.exists():
            api.remove_container(noted.read_text(), force=True)


async def nothing_left(node: RealNode) -> bool:
    return not await node.launcher.recover()


@pytest.mark.engine
async def test_a_refusal_is_noted_in_the_engines_words(containers: RealNode, test_image: str) -> None:
    order = containers.order("true", image=test_image, cwd="relative")
    await containers.agent.start([order])
    outcome = await containers.outcome(order)
    refused = [call for call in await calls_of(containers, order) if (call["answer"] or 0) >= 400]
    assert any(call["message"] for call in refused), (outcome, refused)


@pytest.mark.engine
async def test_calls_of_two_jobs_do_not_mix(containers: RealNode, test_image: str) -> None:
    orders = [containers.order("true", image=test_image) for _ in range(2)]
    await containers.agent.start(orders)
    for order in orders:
        whats = " ".join(call["what"] for call in await calls_of(containers, order))
        named = re.findall(r"perijove-t[0-9a-f]{8}-(\d+\.\d+)", whats)
        assert set(named) == {str(order.attempt)}, whats


def test_only_what_the_node_sets_itself_is_shown() -> None:
    env = {"PERIJOVE_NODE": "n1", "PERIJOVE_TASK_ID": "3", "PERIJOVE_API_TOKEN": "x", "HOME": "/home/x"}
    assert shown(env) == {
        "PERIJOVE_NODE": "n1",
        "PERIJOVE_TASK_ID": "3",
        "PERIJOVE_API_TOKEN": HIDDEN,
        "HOME": HIDDEN,
    }


def test_the_file_is_bounded_and_no_link_is_followed(tmp_path: Path) -> None:
    note, attempt = notes(tmp_path, "docker"), Attempt(1, 1)
    note(attempt, EngineCall("POST /x"))  # its folder is gone
    folder = tmp_path / "1.1"
    folder.mkdir()
    for _ in range(40):
        note(attempt, EngineCall("POST /x", "y" * (BODY_LIMIT - 100)))
    assert LIMIT <= (folder / "engine").stat().st_size < LIMIT + BODY_LIMIT
    (folder / "engine").unlink()
    (folder / "engine").symlink_to(tmp_path / "elsewhere")
    note(attempt, EngineCall("POST /x"))
    assert not (tmp_path / "elsewhere").exists()
    large = json.loads(line("docker", EngineCall("POST /x", "y" * (BODY_LIMIT + 1))))
    assert "body" not in large
    assert large["left_out"] == BODY_LIMIT + 3
