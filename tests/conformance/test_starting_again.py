"""Whatever was cut short may be asked again: nothing runs twice, nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING

import pytest

from perijove.model import Attempt
from perijove_spawners.launcher import ImageMissingError, LaunchError, Mount, Phase

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand


async def test_started_twice_it_runs_once(stand: Stand) -> None:
    launch = await stand.start(stand.programs.append("ran", "once"), stand.programs.sleep(0.3))
    await stand.launcher.start(launch)
    await stand.end_of(launch)
    await stand.launcher.start(launch)
    assert (await stand.status(launch)).phase is Phase.EXITED
    assert stand.file(launch, "ran") == "once\n"


async def test_started_ten_times_at_once_it_runs_once(stand: Stand) -> None:
    launch = stand.launch(stand.programs.append("ran", "once"), stand.programs.sleep(0.3))
    await asyncio.gather(*(stand.launcher.start(launch) for _ in range(10)))
    await stand.end_of(launch)
    assert stand.file(launch, "ran") == "once\n"


async def test_started_by_two_agents_at_once_it_runs_once(stand: Stand) -> None:
    other = await stand.another()
    launch = stand.launch(stand.programs.append("ran", "once"), stand.programs.sleep(0.3))
    await asyncio.gather(stand.launcher.start(launch), other.start(launch))
    await stand.end_of(launch)
    assert (await other.status([launch.attempt]))[launch.attempt].exit_code == 0
    assert stand.file(launch, "ran") == "once\n"


async def test_another_launch_of_the_same_name_adopts_what_is_there(stand: Stand) -> None:
    first = await stand.start(stand.programs.append("ran", "first"), stand.programs.sleep(0.3))
    second = stand.launch(stand.programs.append("ran", "second"), attempt=first.attempt)
    await stand.launcher.start(second)
    await stand.end_of(first)
    assert stand.file(first, "ran") == "first\n"
    assert stand.file(second, "ran") == ""


async def test_unknown_attempts_are_unknown(stand: Stand) -> None:
    launch = stand.launch(stand.programs.exit(0))
    assert (await stand.status(launch)).phase is Phase.UNKNOWN
    assert await stand.launcher.logs(launch.attempt, "stdout", offset=0, limit=10) == b""
    assert (await stand.launcher.stats(launch.attempt)).pids == 0
    with pytest.raises(LaunchError):
        await stand.launcher.exec(launch.attempt, stand.programs.command(stand.programs.exit(0)))


async def test_many_are_asked_about_in_one_call(stand: Stand) -> None:
    ended = await stand.start(stand.programs.exit(3))
    await stand.end_of(ended)
    running = await stand.start(stand.programs.sleep(60))
    unknown = stand.launch(stand.programs.exit(0))
    statuses = await stand.launcher.status([ended.attempt, running.attempt, unknown.attempt])
    assert {attempt: status.phase for attempt, status in statuses.items()} == {
        ended.attempt: Phase.EXITED,
        running.attempt: Phase.RUNNING,
        unknown.attempt: Phase.UNKNOWN,
    }
    assert await stand.launcher.status([]) == {}


async def test_recover_lists_everything(stand: Stand) -> None:
    running = await stand.start(stand.programs.sleep(60))
    ended = await stand.start(stand.programs.exit(0))
    await stand.end_of(ended)
    stand.launch(stand.programs.exit(0))
    another = await stand.another()
    for launcher in (stand.launcher, another):
        assert sorted(await launcher.recover()) == [running.attempt, ended.attempt]


HELD = 'until [ -e "$PERIJOVE_JOB_DIR/go" ]; do sleep 0.05; done'


async def test_an_agent_that_starts_anew_adopts_what_runs(stand: Stand) -> None:
    programs = stand.programs
    held = HELD if "real" in stand.target.traits else programs.sleep(0.6)
    launch = await stand.start(programs.echo("before"), held, programs.echo("after"), programs.exit(7))
    another = await stand.another()
    await another.start(launch)
    assert (await another.status([launch.attempt]))[launch.attempt].phase is Phase.RUNNING
    (launch.directory / "job/go").touch()
    await stand.end_of(launch)
    assert (await another.status([launch.attempt]))[launch.attempt].exit_code == 7
    assert await another.logs(launch.attempt, "stdout", offset=7, limit=100) == b"after\n"


@pytest.mark.needs("real")
async def test_a_job_outlives_an_agent_that_is_killed(stand: Stand) -> None:
    launch = stand.launch(f"echo before; {HELD}; echo after; exit 7", time_limit=60.0)
    stand.start_and_die(launch)
    another = await stand.another()
    assert launch.attempt in await another.recover()
    assert (await another.status([launch.attempt]))[launch.attempt].phase is Phase.RUNNING
    assert (await another.stats(launch.attempt)).pids >= 1
    await another.start(launch)
    seen = asyncio.ensure_future(_next(another.watch()))
    await asyncio.sleep(0)  # from here on it is watched
    (launch.directory / "job/go").touch()
    assert launch.attempt in await asyncio.wait_for(seen, 20)
    assert (await stand.end_of(launch)).exit_code == 7
    assert await stand.log(launch, "stdout") == b"before\nafter\n"


@pytest.mark.needs("real")
async def test_a_job_that_ended_while_no_agent_was_there(stand: Stand) -> None:
    launch = stand.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"; sleep 0.5; exit 7')
    stand.start_and_die(launch)
    await asyncio.sleep(1.5)
    another = await stand.another()
    status = (await another.status([launch.attempt]))[launch.attempt]
    assert (status.phase, status.exit_code) == (Phase.EXITED, 7)
    assert status.started and status.ended and status.ended - status.started >= 0.4
    await another.start(launch)
    assert stand.file(launch, "ran") == "ran\n"


@pytest.mark.needs("real")
async def test_an_adopted_job_can_be_stopped_and_removed(stand: Stand) -> None:
    launch = stand.launch("trap 'exit 4' TERM; sleep 60 & wait")
    stand.start_and_die(launch)
    another = await stand.another()
    await asyncio.sleep(0.3)
    await another.stop(launch.attempt, grace=10.0)
    assert (await another.status([launch.attempt]))[launch.attempt].exit_code == 4
    await another.remove(launch.attempt)
    assert await another.recover() == []


async def test_watch_tells_of_an_end_soon(stand: Stand) -> None:
    seen = stand.launcher.watch()
    first = asyncio.create_task(_next(seen))
    await asyncio.sleep(0.2)
    launch = await stand.start(stand.programs.sleep(0.5))

    async def told() -> None:
        attempts = await first
        while launch.attempt not in attempts or (await stand.status(launch)).phase is not Phase.EXITED:
            attempts = await _next(seen)

    await asyncio.wait_for(told(), 5)


async def _next(seen: AsyncIterator[Collection[Attempt]]) -> Collection[Attempt]:
    return await anext(seen)


async def test_a_mount_whose_source_is_missing(stand: Stand) -> None:
    gone = str(stand.workplace / "gone")
    launch = stand.launch(stand.programs.append("ran", "x"), mounts=(Mount(gone, gone),))
    with pytest.raises(LaunchError, match="gone"):
        await stand.launcher.start(launch)
    assert (await stand.status(launch)).phase is Phase.UNKNOWN
    assert not (stand.workplace / "gone").exists()
    assert stand.file(launch, "ran") == ""


async def test_a_network_that_is_not_there(stand: Stand) -> None:
    assert "user" not in stand.launcher.capabilities.networks or stand.target.image
    launch = stand.launch(stand.programs.exit(0), network="no-such-network")
    with pytest.raises(LaunchError):
        await stand.launcher.start(launch)
    assert (await stand.status(launch)).phase is Phase.UNKNOWN


@pytest.mark.needs("image")
async def test_an_image_that_is_not_there(stand: Stand) -> None:
    launch = stand.launch(stand.programs.exit(0), image="perijove-test-no-such-image:1")
    with pytest.raises(ImageMissingError, match="no-such-image"):
        await stand.launcher.start(launch)
    assert (await stand.status(launch)).phase is Phase.UNKNOWN


async def test_removing_is_idempotent_and_leaves_nothing(stand: Stand) -> None:
    launch = await stand.start(stand.programs.echo("x"))
    await stand.end_of(launch)
    await stand.launcher.remove(launch.attempt)
    await stand.launcher.remove(launch.attempt)
    assert (await stand.status(launch)).phase is Phase.UNKNOWN
    assert await stand.launcher.recover() == []
    assert launch.directory.is_dir()


async def test_once_removed_it_can_be_started_anew(stand: Stand) -> None:
    launch = await stand.start(stand.programs.append("ran", "x"))
    await stand.end_of(launch)
    await stand.launcher.remove(launch.attempt)
    await stand.launcher.start(launch)
    await stand.end_of(launch)
    assert stand.file(launch, "ran") == "x\nx\n"
