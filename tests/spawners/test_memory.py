"""What the in-memory launcher offers beyond the contract; for that see tests/conformance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perijove.model import Account, Attempt
from perijove_spawners.launcher import ImageMissingError, Launch, LauncherContext, Phase, UnsupportedError
from perijove_spawners.memory.launcher import MemoryLauncher


def launch(number: int, *command: str, image: str | None = None) -> Launch:
    account = Account("me", 1000, 1000, "/home/me")
    return Launch(Attempt(number, 1), "me", command, account, Path("/nowhere"), image=image)


async def test_thousands_of_jobs_at_once() -> None:
    launcher = MemoryLauncher(LauncherContext("test", Path("/nowhere")))
    launches = [launch(number, "echo", "x", ";", "exit", "3") for number in range(1, 3001)]
    for each in launches:
        await launcher.start(each)
    statuses = await launcher.status([each.attempt for each in launches])
    assert {(status.phase, status.exit_code) for status in statuses.values()} == {(Phase.EXITED, 3)}


async def test_images_by_option() -> None:
    plain = MemoryLauncher(LauncherContext("test", Path("/nowhere")))
    assert not plain.capabilities.containers
    with pytest.raises(UnsupportedError, match="debian"):
        await plain.start(launch(1, "true", image="debian"))
    context = LauncherContext("test", Path("/nowhere"), {"images": "debian alpine:3"})
    stocked = MemoryLauncher(context)
    assert stocked.capabilities.containers
    assert await stocked.images() == {"debian": "", "alpine:3": ""}
    await stocked.start(launch(1, "true", image="debian"))
    with pytest.raises(ImageMissingError, match=r"no image fedora; there are: debian, alpine:3"):
        await stocked.prepare(launch(2, "true", image="fedora"), print)


async def test_a_program_that_is_not_in_the_language() -> None:
    launcher = MemoryLauncher(LauncherContext("test", Path("/nowhere")))
    await launcher.start(launch(1, "python", "-c", "1"))
    attempt = Attempt(1, 1)
    assert (await launcher.status([attempt]))[attempt].exit_code == 127
    assert b"cannot run 'python'" in await launcher.logs(attempt, "stderr", offset=0, limit=100)


async def test_the_code_is_that_of_the_last_statement() -> None:
    launcher = MemoryLauncher(LauncherContext("test", Path("/nowhere")))
    await launcher.start(launch(1, "false", ";", "sleep", "0.01", ";", "true"))
    await launcher.start(launch(2, "true", ";", "sleep", "0.01", ";", "false"))
    await asyncio.sleep(0.1)
    statuses = await launcher.status([Attempt(1, 1), Attempt(2, 1)])
    assert [status.exit_code for status in statuses.values()] == [0, 1]
