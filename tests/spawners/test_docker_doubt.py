"""An engine that goes away while it starts a container: what may have run is not started again."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perijove.model import Account, Attempt
from perijove_spawners.containers.docker import DockerLauncher
from perijove_spawners.launcher import EngineError, Launch, LauncherContext, LaunchError, Phase

pytestmark = pytest.mark.engine

ALICE = Account("alice", 4242, 4242, "/home/alice")
ONE = Attempt(1, 1)


class Wire:
    """Between a launcher and its engine; `deaf` hangs up on requests to start a container."""

    def __init__(self, engine: str) -> None:
        self._engine, self.deaf, self.cut = engine, False, 0
        self._tasks: set[asyncio.Task[None]] = set()

    def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._engine)
        answers = asyncio.ensure_future(_copy(there, writer))
        while data := await reader.read(65536):
            if self.deaf and b"/start HTTP" in data:
                self.cut += 1
                break
            back.write(data)
        answers.cancel()
        for end in (back, writer):
            end.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
    target.close()


@asynccontextmanager
async def wired(engine: str) -> AsyncIterator[tuple[Wire, str]]:
    wire = Wire(engine)
    with tempfile.TemporaryDirectory(prefix="pj-") as folder:
        server = await asyncio.start_unix_server(wire.carry, f"{folder}/s")
        try:
            yield wire, f"unix://{folder}/s"
        finally:
            await wire.close()
            server.close()


async def test_what_may_have_run_is_not_started_again(
    docker_url: str, test_image: str, tmp_path: Path
) -> None:
    job = tmp_path / "1.1" / "job"
    job.mkdir(parents=True)
    os.chown(job, ALICE.uid, ALICE.gid)
    launch = Launch(
        ONE,
        "alice",
        ("true",),
        ALICE,
        directory=job.parent,
        image=test_image,
        memory=64 << 20,
        network="none",
    )
    async with wired(docker_url.removeprefix("unix://")) as (wire, url):
        launcher = DockerLauncher(LauncherContext(uuid.uuid4().hex[:8], tmp_path, {"url": url}))
        await launcher.open()
        try:
            wire.deaf = True
            with pytest.raises(EngineError):
                await launcher.start(launch)
            assert wire.cut == 1
            wire.deaf = False
            with pytest.raises(LaunchError, match="whether it ran is not known") as refused:
                await launcher.start(launch)
            assert not refused.value.transient
            assert (await launcher.status([ONE]))[ONE].phase is Phase.UNKNOWN
        finally:
            await launcher.remove(ONE)
            await launcher.close()


async def test_an_engine_that_was_never_reached_starts_it_later(
    docker_url: str, test_image: str, tmp_path: Path
) -> None:
    launcher = DockerLauncher(
        LauncherContext(uuid.uuid4().hex[:8], tmp_path, {"url": f"unix://{tmp_path}/none"})
    )
    with pytest.raises(EngineError) as error:
        await launcher.open()
    assert type(error.value) is EngineError
