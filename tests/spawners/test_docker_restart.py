"""A Docker Engine that is killed and started again while jobs run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perijove.model import Account, Attempt
from perijove_spawners.containers.docker import DockerLauncher
from perijove_spawners.launcher import EngineError, Launch, LauncherContext, Phase

if TYPE_CHECKING:
    from tests.conftest import PrivateEngine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ALICE = Account("alice", 4242, 4242, "/home/alice")
ENDED, RUNNING, LATER = Attempt(1, 1), Attempt(2, 1), Attempt(3, 1)


@pytest.fixture
async def launcher(private_docker: PrivateEngine, tmp_path: Path) -> AsyncIterator[DockerLauncher]:
    launcher = DockerLauncher(LauncherContext("restart", tmp_path, {"url": private_docker.url}))
    await launcher.open()
    yield launcher
    await launcher.close()


def launch(folder: Path, image: str, attempt: Attempt, script: str) -> Launch:
    job = folder / "attempts" / str(attempt) / "job"
    job.mkdir(parents=True)
    os.chown(job, ALICE.uid, ALICE.gid)
    command = ("bash", "-c", f"echo ran | tee -a /run/perijove/runs; {script}")
    return Launch(
        attempt, "alice", command, ALICE, directory=job.parent, image=image, memory=64 << 20, network="none"
    )


async def phases(launcher: DockerLauncher, *attempts: Attempt) -> list[Phase]:
    found = await launcher.status(attempts)
    return [found[attempt].phase for attempt in attempts]


async def gone(watch: AsyncIterator[Collection[Attempt]]) -> EngineError:
    """The error with which the engine's loss ends a watch."""
    with pytest.raises(EngineError) as error:
        async for _ in watch:
            pass
    return error.value


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_states_are_true_and_nothing_runs_twice(
    launcher: DockerLauncher, private_docker: PrivateEngine, test_image: str, tmp_path: Path, number: int
) -> None:
    quick = launch(tmp_path, test_image, ENDED, "exit 3")
    long = launch(tmp_path, test_image, RUNNING, "sleep 300")
    await launcher.start(quick)
    await launcher.start(long)
    lost = asyncio.create_task(gone(launcher.watch()))
    async with asyncio.timeout(20):
        while await phases(launcher, ENDED, RUNNING) != [Phase.EXITED, Phase.RUNNING]:
            await asyncio.sleep(0.05)

    await asyncio.to_thread(private_docker.end, number)
    assert (await asyncio.wait_for(lost, 10)).transient
    for call in (launcher.status([RUNNING]), launcher.start(long), launcher.remove(ENDED), launcher.open()):
        with pytest.raises(EngineError):
            await call

    await asyncio.to_thread(private_docker.start)
    await launcher.open()
    assert sorted(await launcher.recover()) == [ENDED, RUNNING]
    assert await phases(launcher, ENDED, RUNNING) == [Phase.EXITED, Phase.EXITED]
    found = await launcher.status([ENDED, RUNNING])
    assert found[ENDED].exit_code == 3
    assert found[RUNNING].exit_code != 0

    await launcher.start(quick)
    await launcher.start(long)
    assert await phases(launcher, ENDED, RUNNING) == [Phase.EXITED, Phase.EXITED]
    for one in (quick, long):
        await launcher.remove(one.attempt)
        assert (one.directory / "job" / "runs").read_text() == "ran\n"
        assert (one.directory / "stdout").read_text() == "ran\n"

    await launcher.start(launch(tmp_path, test_image, LATER, "sleep 300"))
    assert await phases(launcher, LATER) == [Phase.RUNNING]
    assert await launcher.recover() == [LATER]
