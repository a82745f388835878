"""A real scheduler, real node processes, the service's side of the links, and what kill -9 does to them."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import until, wait_until

from perijove.model import Account, Attempt, Node, Outcome, ReasonCode, Slot, State, UnavailableError
from perijove_spawners.fabric.dask_fabric import DaskFabric
from perijove_spawners.fabric.scheduler import read_address
from perijove_spawners.fabric.tls import AUTHORITY, ensure_tls
from perijove_spawners.launcher import LaunchError, StaleFenceError
from perijove_spawners.protocol import Order, Report, ReportKind

pytestmark = pytest.mark.slow

NODE = "import typer; from perijove_spawners.commands import node; typer.run(node)"
ONE = Attempt(1, 1)


class Cluster:
    """One scheduler and one node, as processes with their state in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Jobs of other accounts than the agent's pass through.
        directory.chmod(0o755)
        self.address_file = directory / "scheduler.json"
        self.security = ensure_tls(directory / "tls", "service")
        self.scheduler: subprocess.Popen[bytes]
        self.node: subprocess.Popen[bytes]

    def start_scheduler(self) -> None:
        argv = ["-m", "perijove_spawners.fabric.scheduler", "--tls", str(self.directory / "tls")]
        self.scheduler = self._spawn(*argv, "--address-file", str(self.address_file))
        wait_until(self._listening, "the scheduler's start")

    def start_node(self) -> None:
        self.node = self._spawn(
            "-c",
            NODE,
            *("--state", str(self.directory / "node"), "--name", "n1", "--cpus", "3", "--gpus", "a100:2"),
            *("--scheduler", str(self.address_file), "--tls", str(self.directory / "tls")),
            *("--label", "rack=7", "--resource", "licence=2", "--resource", "card=/dev/null;/dev/zero"),
            *("--launcher", "process,memory"),
        )

    def _listening(self) -> bool:
        text = read_address(self.address_file)
        ports = {c.laddr.port for c in psutil.Process(self.scheduler.pid).net_connections() if c.laddr}
        return text is not None and int(text.rpartition(":")[2]) in ports

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, *argv], stdout=log, stderr=log, start_new_session=True)

    def close(self) -> None:
        for process in (self.node, self.scheduler):
            if process.poll() is None:
                process.terminate()
        for process in (self.node, self.scheduler):
            process.wait(20)


@dataclass
class Service:
    """What a service hears through a fabric."""

    fabric: DaskFabric
    reports: list[Report] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def node(self, other_than: str = "") -> Node:
        def present() -> Node | None:
            return self.nodes[-1] if self.nodes and self.nodes[-1].incarnation != other_than else None

        return await until(present, "the node's announcement")

    def reported(self, attempt: Attempt, kind: ReportKind) -> list[Report]:
        return [r for r in self.reports if r.attempt == attempt and r.kind is kind]

    async def started(self, attempt: Attempt) -> None:
        await until(lambda: self.reported(attempt, ReportKind.STARTED), f"the start of {attempt}")

    async def outcome(self, attempt: Attempt) -> Outcome:
        ends = await until(lambda: self.reported(attempt, ReportKind.ENDED), f"the end of {attempt}")
        outcome = ends[-1].outcome
        assert outcome
        return outcome

    def run(self, node: Node, attempt: Attempt, script: str, **fields: Any) -> None:
        account = Account("me", os.getuid(), os.getgid(), str(Path.home()))
        order = Order(
            attempt=attempt,
            incarnation=node.incarnation,
            launcher="process",
            owner="me",
            account=account,
            title="t",
            script=script,
            memory=256 << 20,
            **fields,
        )
        self.fabric.start(node.name, [order])


@asynccontextmanager
async def service(cluster: Cluster) -> AsyncIterator[Service]:
    fabric = DaskFabric(str(cluster.address_file), cluster.security)
    made = Service(fabric)
    fabric.on_report = made.reports.extend
    fabric.on_node = made.nodes.append
    fabric.on_node_lost = made.lost.append
    await fabric.open()
    try:
        yield made
    finally:
        await fabric.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.start_scheduler()
    made.start_node()
    yield made
    made.close()


async def test_orders_calls_and_reports_travel(cluster: Cluster) -> None:
    async with service(cluster) as s:
        node = await s.node()
        assert (node.name, node.cpus, node.labels["rack"]) == ("n1", 3, "7")
        assert node.resources == {"licence": 2, "card": 2}
        assert node.slots == {"card": [Slot(devices=["/dev/null"]), Slot(devices=["/dev/zero"])]}
        assert [g.model for g in node.gpus] == ["a100", "a100"]
        assert {launcher.name for launcher in node.launchers} == {"process", "memory"}

        s.run(node, ONE, "echo hello; echo $PERIJOVE_NODE >&2; exit 3")
        outcome = await s.outcome(ONE)
        assert (outcome.state, outcome.exit_code) == (State.FAILED, 3)
        for stream, said in (("stdout", b"hello\n"), ("stderr", b"n1\n")):
            chunk = await s.fabric.call("n1", "logs", ONE, stream, 0, 100, wait=2.0)
            assert chunk.data == said

        with pytest.raises(LaunchError, match=r"1\.1 does not run on n1"):
            await s.fabric.call("n1", "suspend", ONE)
        with pytest.raises(LaunchError, match="no call 'close'"):
            await s.fabric.call("n1", "close")
        with pytest.raises(UnavailableError, match="node n2 is not there"):
            await s.fabric.call("n2", "describe")

        await s.fabric.call("n1", "forget", [ONE])
        s.fabric.release([ONE])
        assert [r.kind for r in await s.fabric.call("n1", "known", [ONE])] == [ReportKind.ENDED]
        await s.fabric.call("n1", "purge", [ONE])
        assert [n.name for n in await s.fabric.nodes()] == ["n1"]


async def test_a_job_is_warned_signalled_and_given_more_time(cluster: Cluster, tmp_path: Path) -> None:
    said = tmp_path / "said"
    async with service(cluster) as s:
        node = await s.node()
        script = f"trap 'echo caught >> {said}' USR1; touch {said}; while :; do sleep 0.1; done"
        s.run(node, ONE, script, time_limit=3600.0, warning=("USR1", 3594.0))
        await until(said.exists, "its start")
        await until(lambda: s.reported(ONE, ReportKind.WARNED), "the warning")
        await s.fabric.call("n1", "signal", [ONE], "USR1")
        await until(lambda: "caught" in said.read_text(), "what it makes of the signal")
        await s.fabric.call("n1", "update", ONE, 7200.0)
        assert (await s.fabric.call("n1", "disk", [ONE]))[ONE] > 0
        await s.fabric.call("n1", "update", ONE, 0.1)
        assert (await s.outcome(ONE)).reason is ReasonCode.TIME_LIMIT


async def test_a_replaced_leader_is_refused_by_nodes_started_anew(cluster: Cluster) -> None:
    async with service(cluster) as s:
        node = await s.node()
        s.fabric.fence = 2
        await s.fabric.call("n1", "known")
        cluster.node.kill()
        cluster.node.wait()
        cluster.start_node()
        fresh = await s.node(other_than=node.incarnation)
        s.fabric.fence = 1
        for method, argument in (("stop", [ONE]), ("known", None), ("purge", [ONE])):
            with pytest.raises(StaleFenceError, match="another service leads"):
                await s.fabric.call("n1", method, argument)
        s.run(fresh, ONE, "true", fence=1)
        s.run(fresh, Attempt(2, 1), "true", fence=2)
        await s.outcome(Attempt(2, 1))
        s.fabric.fence = 2
        assert await s.fabric.call("n1", "known", [ONE]) == []


async def test_a_killed_node_is_replaced_by_one_that_adopts_its_jobs(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with service(cluster) as s:
        first = await s.node()
        s.run(first, ONE, f"echo ran >> {tmp_path}/ran; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
        await s.started(ONE)
        cluster.node.send_signal(signal.SIGKILL)
        cluster.node.wait()
        await until(lambda: s.lost == ["n1"], "the news of the loss")
        with pytest.raises(UnavailableError):
            await s.fabric.call("n1", "describe")

        cluster.start_node()
        second = await s.node(other_than=first.incarnation)
        known = await s.fabric.call("n1", "known")
        assert [(r.attempt, r.kind) for r in known] == [(ONE, ReportKind.STARTED)]

        # An order that the lost agent never saw starts nothing.
        s.run(first, Attempt(2, 1), f"echo ran >> {tmp_path}/ran")
        assert (await s.outcome(Attempt(2, 1))).state is State.LOST
        (tmp_path / "go").touch()
        assert (await s.outcome(ONE)).state is State.SUCCEEDED
        assert (tmp_path / "ran").read_text() == "ran\n"
        assert second.name == "n1"


async def test_jobs_and_links_outlive_a_killed_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    async with service(cluster) as s:
        node = await s.node()
        s.run(node, ONE, f"echo ran >> {tmp_path}/ran; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
        await s.started(ONE)
        cluster.scheduler.send_signal(signal.SIGKILL)
        cluster.scheduler.wait()
        await until(lambda: s.lost == ["n1"], "the news of the loss")
        with pytest.raises(UnavailableError):
            await s.fabric.nodes()
        (tmp_path / "go").touch()

        s.nodes.clear()
        cluster.start_scheduler()
        again = await s.node()
        assert again.incarnation == node.incarnation
        [end] = await s.fabric.call("n1", "known", [ONE])
        assert end.outcome.state is State.SUCCEEDED
        s.run(again, Attempt(2, 1), "true")
        assert (await s.outcome(Attempt(2, 1))).state is State.SUCCEEDED
        assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_node_told_to_end_leaves_its_jobs_alone(cluster: Cluster, tmp_path: Path) -> None:
    async with service(cluster) as s:
        s.run(await s.node(), ONE, f"sleep 1; echo done > {tmp_path}/done")
        await s.started(ONE)
        cluster.node.terminate()
        await until(lambda: cluster.node.poll() == 0, "the node's end")
        await until(lambda: s.lost == ["n1"], "the news of the loss")
        await until((tmp_path / "done").exists, "the job's end")
        s.reports.clear()
        cluster.start_node()
        assert (await s.outcome(ONE)).state is State.SUCCEEDED


async def test_nobody_connects_without_the_key(cluster: Cluster, tmp_path: Path) -> None:
    address = read_address(cluster.address_file)
    assert address
    host, _, port = address.removeprefix("tls://").rpartition(":")
    context = ssl.create_default_context(cafile=str(cluster.directory / "tls" / AUTHORITY))
    context.check_hostname = False
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"x" * 64)
    # In TLS 1.3 the refusal arrives with the first read.
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    strangers = ensure_tls(tmp_path / "other", "service")
    fabric = DaskFabric(address, strangers, patience=0.5)
    with pytest.raises(UnavailableError, match="does not answer"):
        await fabric.open()
    await fabric.close()


async def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path) -> None:
    fabric = DaskFabric(str(tmp_path / "none.json"), ensure_tls(tmp_path / "tls", "service"), patience=0.1)
    with pytest.raises(UnavailableError, match=r"none\.json does not answer"):
        await fabric.open()
    await fabric.close()
