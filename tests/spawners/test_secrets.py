"""Secrets on a node: planted values, and every place in which they must not turn up."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest
from tests.conftest import absent
from tests.spawners.real_node import RealNode
from waiting import becomes, until

from perijove.model import Account, Attempt, ReasonCode
from perijove_spawners.launcher import RegistryLogin
from perijove_spawners.node import secrets_left
from perijove_spawners.node.attempts import Attempts, Taken
from perijove_spawners.node.secrets import SecretFolders, place_in_memory, without_secrets
from perijove_spawners.protocol import Order, ReportKind, Secret

ALICE = Account("alice", 4242, 4242, "/home/alice")
VALUE = "planted-value-of-the-test"
KEY = "-----BEGIN KEY-----\nplanted line of a key\n-----END KEY-----\n"
PLANTED = [text.encode() for text in (VALUE, "planted line of a key")]
VARIABLE = "planted-variable-of-the-test"
"""Of the environment: everybody on the node sees command lines and labels, and reads it in neither."""
SECRETS = (
    Secret("token", VALUE.encode(), "TOKEN"),
    Secret("key", KEY.encode(), "KEY"),
    Secret("file", b"in a file"),
)

SHOWS = """
echo "token: $TOKEN"
printf '%s' "$KEY" >&2
cat "$PERIJOVE_SECRETS/token"; echo
base64 "$PERIJOVE_SECRETS/token"
cat "$PERIJOVE_SECRETS/file"; echo
ls -l "$PERIJOVE_SECRETS" | awk '{ print $1, $NF }'
echo '{"progress": 0.5, "text": "with '$TOKEN'"}' >> "$PERIJOVE_JOB_DIR/display.jsonl"
mkdir -p "$PERIJOVE_JOB_DIR/output"
echo '{"name": "found", "value": ["'$TOKEN'"]}' >> "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
echo '{"failure": "cannot use '$TOKEN'"}' >> "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
echo '{"cells": [{"outputs": [{"text": "'$TOKEN'"}]}], "nbformat": 4}' > "$PERIJOVE_JOB_DIR/output/run.ipynb"
touch "$PERIJOVE_JOB_DIR/shown"
while [ ! -e "$PERIJOVE_JOB_DIR/go" ]; do sleep 0.1; done
exit 3
"""


@pytest.fixture(
    params=[
        "process",
        pytest.param("docker", marks=pytest.mark.engine),
        pytest.param("podman", marks=pytest.mark.engine),
    ]
)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[RealNode]:
    if os.geteuid() != 0:
        absent("this is not root")
    options = {} if request.param == "process" else {"url": request.getfixturevalue(f"{request.param}_url")}
    # Not pytest's own folder, which another account cannot pass through.
    with tempfile.TemporaryDirectory(prefix="pj-secrets-") as folder:
        account = replace(ALICE, home=home_in(folder))
        made = RealNode(Path(folder), request.param, account, **options)
        await made.open()
        yield made
        await made.close()


def home_in(folder: str) -> str:
    home = Path(folder, "home")
    home.mkdir()
    os.chown(home, ALICE.uid, ALICE.gid)
    return str(home)


def order_of(node: RealNode, test_image: str, script: str, **fields: Any) -> Order:
    containers = node.launcher.capabilities.containers
    image = {"image": test_image, "network": "none"} if containers else {}
    return node.order(script=script, secrets=SECRETS, **image, **fields)


def folder_of(node: RealNode, order: Order) -> Path:
    return node.directory / "node" / "attempts" / str(order.attempt)


def in_memory(node: RealNode) -> Path:
    return Path((node.directory / "node" / "secrets-folder").read_text().strip())


async def log(node: RealNode, order: Order, stream: Any, **how: Any) -> bytes:
    data = b""
    while (
        chunk := await node.agent.logs(order.attempt, stream, len(data), how.get("limit", 1 << 16))
    ) and chunk.data:
        data += chunk.data
    return data


def holds_none(data: bytes, where: object) -> None:
    for value in PLANTED:
        assert value not in data, where
        assert base64.b64encode(value)[:-4] not in data, where


async def test_a_job_has_its_secrets_and_nobody_else_does(node: RealNode, test_image: str) -> None:
    outputs = {"log": "fd:1", "run": "file:run.ipynb", "found": "record:found"}
    order = order_of(node, test_image, SHOWS, outputs=outputs, env={"PLAIN": VARIABLE})
    reports: list[Any] = []
    node.agent.on_report = reports.extend
    running = asyncio.ensure_future(node.agent.start([order]))
    folder = folder_of(node, order)
    await until((folder / "job" / "shown").exists, "what the job shows", 60)
    _while_it_runs(node, order)
    for stream in ("stdout", "stderr", "display", "engine"):
        for limit in (1 << 16, 7):
            holds_none(await log(node, order, stream, limit=limit), stream)
    await becomes(lambda: _told(node, reports, ReportKind.PROGRESS), "its progress", 60)
    (folder / "job" / "go").touch()
    await running
    outcome = await node.outcome(order)
    assert outcome.exit_code == 3, outcome
    assert outcome.message == "cannot use ***"
    assert outcome.values == {"found": ["***"]}
    assert json.loads(node.text(outcome.outputs["run"]))["cells"][0]["outputs"][0]["text"] == "***"
    said = await log(node, order, "stdout")
    assert said.startswith(b"token: " + b"*" * len(VALUE) + b"\n")
    assert b"-r-------- token" in said
    assert not list(in_memory(node).glob(str(order.attempt)))
    holds_none(repr(reports).encode(), "reports")
    await node.agent.forget([order.attempt])
    await until(lambda: not list(in_memory(node).iterdir()), "that nothing of them is left in memory", 60)
    assert await log(node, order, "stdout") == said
    for path in node.directory.rglob("*"):
        # What the job itself wrote is its own affair, in its own folder.
        if path.is_file() and (path.parent.name != "output"):
            holds_none(path.read_bytes(), path)


async def _told(node: RealNode, reports: list[Any], kind: ReportKind) -> bool:
    found = [report for report in reports if report.kind is kind]
    assert all(report.message == "with ***" for report in found), found
    return bool(found)


def _while_it_runs(node: RealNode, order: Order) -> None:
    """No record, command line or answer of the engine has them, and no other account reads them."""
    for path in (node.directory / "node").rglob("*"):
        if path.is_file() and path.name == "record":
            holds_none(path.read_bytes(), path)
    for path in (node.directory / "launcher").rglob("*"):
        if path.is_file():
            holds_none(path.read_bytes(), path)
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            holds_none(words.encode(), process)
            assert VARIABLE not in words, process
        except psutil.Error:
            continue
    if node.url:
        api = docker.APIClient(base_url=node.url)
        for container in api.containers():
            assert VARIABLE not in json.dumps(container["Labels"])
            holds_none(json.dumps(api.inspect_container(container["Id"])).encode(), "inspect")
    files = Path(in_memory(node), str(order.attempt))
    assert (files / "token").read_bytes() == VALUE.encode()
    seen = subprocess.run(
        ["cat", str(files / "token")],
        user=4243,
        group=4243,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    assert seen.returncode != 0
    assert not seen.stdout


@pytest.mark.parametrize("node", ["process", pytest.param("docker", marks=pytest.mark.engine)], indirect=True)
async def test_another_agent_goes_on_hiding_them(node: RealNode, test_image: str) -> None:
    order = order_of(node, test_image, SHOWS)
    running = asyncio.ensure_future(node.agent.start([order]))
    folder = folder_of(node, order)
    await until((folder / "job" / "shown").exists, "what the job shows", 60)
    running.cancel()
    await node.agent.close()
    await node.open()
    holds_none(await log(node, order, "stdout"), "the log under another agent")
    (folder / "job" / "go").touch()
    await becomes(lambda: _ended(node, order), "its end", 60)
    outcome = await node.outcome(order)
    assert (outcome.exit_code, outcome.message) == (3, "cannot use ***")
    # An agent that is killed after it has forgotten, and before it has masked: the next one does.
    await node.agent.close()
    (folder / "record").rename(folder / "closed")
    await node.open()
    await until(lambda: not list(in_memory(node).iterdir()), "that nothing of them is left in memory", 60)
    for name in ("stdout", "stderr", "job/display.jsonl"):
        holds_none((folder / name).read_bytes(), name)


async def _ended(node: RealNode, order: Order) -> bool:
    [report] = await node.agent.known([order.attempt])
    return report.outcome is not None


@pytest.mark.engine
async def test_an_image_without_a_shell_cannot_have_variables(
    tmp_path: Path, docker_url: str, test_image: str
) -> None:
    node = RealNode(tmp_path, "docker", ALICE, url=docker_url)
    await node.open()
    api = docker.APIClient(base_url=docker_url)
    name = f"perijove-noshell-{tmp_path.name.lower()}:1"
    api.import_image_from_data(_empty_tar(), repository=name.partition(":")[0], tag="1")
    try:
        outcome = await node.run("/x", image=name, secrets=SECRETS, network="none")
        assert outcome.reason is ReasonCode.LAUNCH_FAILED
        assert "has no /bin/sh" in outcome.message
        assert not list(in_memory(node).glob("[0-9]*"))
    finally:
        api.remove_image(name)
        await node.close()


def _empty_tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    return archive.getvalue()


def _order(**fields: Any) -> Order:
    account = Account("me", os.getuid(), os.getgid(), "/")
    return Order(Attempt(1, 1), "i", "process", "me", account, "t", ("true",), **fields)


def test_what_is_written_down_of_an_order_has_names_alone(tmp_path: Path) -> None:
    order = _order(secrets=SECRETS, registry=RegistryLogin("ada", VALUE))
    holds_none(repr(order).encode(), "repr")
    folders = SecretFolders(tmp_path)
    folders.open()
    kept = folders.keep(order)
    assert kept == without_secrets(order)
    assert [one.name for one in kept.secrets] == ["token", "key", "file"]
    assert folders.login(order.attempt) == RegistryLogin("ada", VALUE)
    assert folders.keep(_order()) == _order()
    again = SecretFolders(tmp_path)
    again.open()
    assert again.held == [order.attempt]
    assert again.login(order.attempt) == RegistryLogin("ada", VALUE)
    assert again.mask(order.attempt).stars(VALUE.encode()) == b"*" * len(VALUE)
    again.drop(order.attempt)
    assert not list(in_memory_of(tmp_path).iterdir())
    in_memory_of(tmp_path).rmdir()


def in_memory_of(directory: Path) -> Path:
    return Path((directory / "secrets-folder").read_text().strip())


def test_what_a_killed_agent_left_is_cleared_away(tmp_path: Path) -> None:
    attempts, folders = Attempts(tmp_path / "attempts"), SecretFolders(tmp_path)
    folders.open()
    unrecorded, over, alive = (replace(_order(secrets=SECRETS), attempt=Attempt(n, 1)) for n in (1, 2, 3))
    for order in (unrecorded, over, alive):
        kept = folders.keep(order)
        if order is not unrecorded:
            attempts.folder(order.attempt).take(Taken(kept, "boot"))
    again = SecretFolders(tmp_path)
    again.open()
    secrets_left.clear(again, attempts, {alive.attempt})
    assert again.held == [over.attempt, alive.attempt]
    assert sorted(path.name for path in in_memory_of(tmp_path).iterdir()) == [".2.1", ".3.1", "3.1"]
    assert again.mask(over.attempt), "its log may not be complete, and is hidden still"
    attempts.folder(over.attempt).note_forgotten()
    secrets_left.finish_forgotten(again, attempts, "process", {alive.attempt})
    assert again.held == [alive.attempt]
    again.drop(alive.attempt)
    in_memory_of(tmp_path).rmdir()


def test_a_folder_that_somebody_else_put_there_is_not_taken(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    if os.geteuid() == 0:
        os.chown(strange, 4242, 4242)
    else:
        strange.rmdir()
        strange.symlink_to("/")
    (tmp_path / "secrets-folder").write_text(f"{strange}\n")
    folders = SecretFolders(tmp_path)
    folders.open()
    folders.keep(_order(secrets=SECRETS))
    assert in_memory_of(tmp_path) != strange
    folders.drop(Attempt(1, 1))
    in_memory_of(tmp_path).rmdir()


def test_only_a_file_system_in_memory_will_do() -> None:
    assert (
        place_in_memory("tmpfs /run tmpfs rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n") == Path("/run")
        or os.geteuid()
    )
    assert place_in_memory("/dev/sda / ext4 rw 0 0\nshm /dev/shm tmpfs rw 0 0\n") == Path("/dev/shm")
    with pytest.raises(OSError, match="tmpfs"):
        place_in_memory("/dev/sda / ext4 rw 0 0\n")
