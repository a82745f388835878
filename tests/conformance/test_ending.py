"""Stop, time limit, suspend: every way a job is interrupted."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from typing import TYPE_CHECKING

import pytest

from perijove_spawners.launcher import Launch, LaunchError, Phase

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand


async def test_a_polite_stop_lets_the_handler_run(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(programs.on_term(4), programs.append("ready", "yes"), programs.sleep(60))
    await stand.writes(launch, "ready")
    await stand.launcher.stop(launch.attempt, grace=20.0)
    status = await stand.status(launch)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 4)
    assert not status.timed_out


async def test_it_is_killed_after_the_grace_period(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(programs.ignore_term(), programs.append("ready", "yes"), programs.sleep(60))
    await stand.writes(launch, "ready")
    before = time.monotonic()
    await stand.launcher.stop(launch.attempt, grace=1.0)
    took = time.monotonic() - before
    assert (await stand.status(launch)).exit_code == 137
    assert 0.9 <= took < 15


async def test_a_shorter_grace_period_overtakes_a_longer_one(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(programs.ignore_term(), programs.append("ready", "yes"), programs.sleep(60))
    await stand.writes(launch, "ready")
    patient = asyncio.create_task(stand.launcher.stop(launch.attempt, grace=60.0))
    await asyncio.sleep(0.3)
    await asyncio.wait_for(stand.launcher.stop(launch.attempt, grace=0.2), 20)
    await asyncio.wait_for(patient, 20)
    assert (await stand.status(launch)).exit_code == 137


async def test_stopping_what_has_ended_or_is_unknown_does_nothing(stand: Stand) -> None:
    launch = await stand.start(stand.programs.exit(3))
    await stand.end_of(launch)
    before = await stand.status(launch)
    await stand.launcher.stop(launch.attempt, grace=1.0)
    assert await stand.status(launch) == before
    await stand.launcher.stop(stand.launch(stand.programs.exit(0)).attempt, grace=1.0)


@pytest.mark.needs("real")
async def test_children_left_in_the_background_end_with_it(stand: Stand) -> None:
    beat = 'while :; do echo x >> "$PERIJOVE_JOB_DIR/beat"; sleep 0.05; done'
    launch = await stand.start(f"({beat}) & sleep 0.5; exit 0")
    assert (await stand.end_of(launch)).exit_code == 0
    await _no_more_beats(stand, launch)


@pytest.mark.needs("real")
async def test_children_with_a_session_of_their_own_end_with_it(stand: Stand) -> None:
    beat = 'trap "" TERM HUP; while :; do echo x >> "$PERIJOVE_JOB_DIR/beat"; sleep 0.05; done'
    launch = await stand.start(f"setsid sh -c '{beat}' & sleep 0.5; exit 0")
    assert (await stand.end_of(launch)).exit_code == 0
    await _no_more_beats(stand, launch)


async def _no_more_beats(stand: Stand, launch: Launch) -> None:
    beats = len(stand.file(launch, "beat"))
    assert beats > 0
    await asyncio.sleep(0.4)
    assert len(stand.file(launch, "beat")) == beats


@pytest.mark.needs("real")
async def test_stop_reaches_everything_the_job_runs(stand: Stand) -> None:
    child = "trap '' TERM; echo $$ > \"$PERIJOVE_JOB_DIR/child\"; while :; do sleep 1; done"
    launch = await stand.start(f"setsid sh -c {shlex.quote(child)} & wait")
    await stand.writes(launch, "child")
    await stand.launcher.stop(launch.attempt, grace=0.5)
    assert (await stand.status(launch)).phase is Phase.EXITED


@pytest.mark.needs("timed")
async def test_the_time_limit_is_kept(stand: Stand) -> None:
    launch = await stand.start(stand.programs.sleep(60), time_limit=1.0)
    status = await stand.end_of(launch)
    assert status.timed_out
    assert status.exit_code == 128 + signal.SIGTERM
    assert status.started and status.ended
    assert 0.8 <= status.ended - status.started < 15


@pytest.mark.needs("timed")
async def test_who_ignores_the_time_limit_is_killed(stand: Stand) -> None:
    programs = stand.programs
    result = await stand.run(programs.ignore_term(), programs.sleep(60), time_limit=0.5, grace=0.5)
    assert result.status.timed_out
    assert result.status.exit_code == 137


async def test_suspended_it_makes_no_progress(stand: Stand) -> None:
    stand.needs("suspend")
    launch = await stand.start(*_beats(stand, 200))
    await stand.writes(launch, "beat")
    await stand.launcher.suspend(launch.attempt)
    assert (await stand.status(launch)).phase is Phase.SUSPENDED
    await stand.launcher.suspend(launch.attempt)
    beats = len(stand.file(launch, "beat"))
    await asyncio.sleep(0.5)
    assert len(stand.file(launch, "beat")) == beats
    await stand.launcher.resume(launch.attempt)
    assert (await stand.status(launch)).phase is Phase.RUNNING
    await stand.writes(launch, "beat", "x\n" * (beats // 2 + 3))


def _beats(stand: Stand, count: int) -> list[object]:
    return [stand.programs.append("beat", "x"), stand.programs.sleep(0.05)] * count


async def test_a_suspended_job_can_be_stopped(stand: Stand) -> None:
    stand.needs("suspend")
    programs = stand.programs
    launch = await stand.start(programs.on_term(4), programs.append("ready", "yes"), programs.sleep(60))
    await stand.writes(launch, "ready")
    await stand.launcher.suspend(launch.attempt)
    await asyncio.wait_for(stand.launcher.stop(launch.attempt, grace=10.0), 20)
    status = await stand.status(launch)
    assert (status.phase, status.exit_code) == (Phase.EXITED, 4)


async def test_a_suspended_job_can_be_killed(stand: Stand) -> None:
    stand.needs("suspend")
    programs = stand.programs
    launch = await stand.start(programs.ignore_term(), programs.append("ready", "yes"), programs.sleep(60))
    await stand.writes(launch, "ready")
    await stand.launcher.suspend(launch.attempt)
    await asyncio.wait_for(stand.launcher.stop(launch.attempt, grace=0.2), 20)
    assert (await stand.status(launch)).exit_code == 137


async def test_what_does_not_run_is_not_suspended(stand: Stand) -> None:
    stand.needs("suspend")
    launch = await stand.start(stand.programs.exit(0))
    await stand.end_of(launch)
    with pytest.raises(LaunchError):
        await stand.launcher.suspend(launch.attempt)
    assert (await stand.status(launch)).exit_code == 0


@pytest.mark.needs("processes")
async def test_time_suspended_does_not_count_towards_the_limit(stand: Stand) -> None:
    stand.needs("suspend")
    launch = await stand.start(stand.programs.sleep(1.0), stand.programs.exit(0), time_limit=2.0)
    await stand.launcher.suspend(launch.attempt)
    await asyncio.sleep(2.5)
    await stand.launcher.resume(launch.attempt)
    status = await stand.end_of(launch)
    assert (status.exit_code, status.timed_out) == (0, False)
