"""Signals reach a job, and its time limit can be changed while it runs."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from waiting import becomes, until

from perijove_spawners.launcher import LaunchError, Phase, UnsupportedError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand

    from perijove_spawners.launcher import Launch


async def _says(stand: Stand, launch: Launch, text: bytes) -> None:
    async def said() -> bool:
        return text in await stand.log(launch, "stdout")

    await becomes(said, f"{text!r} in its log", 30.0)


async def _ready(stand: Stand, *parts: object, **changes: object) -> Launch:
    """A job that has done `parts` and sleeps. A shell wakes up when it has handled a signal: twice."""
    sleeps = [stand.programs.sleep(60)] * 2
    launch = await stand.start(*parts, stand.programs.append("ready", "yes"), *sleeps, **changes)
    await stand.writes(launch, "ready")
    return launch


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
async def test_a_signal_is_handled_by_the_job(stand: Stand, number: int) -> None:
    stand.needs("signal")
    programs = stand.programs
    launch = await _ready(stand, programs.on_signal(number, "caught"))
    await stand.launcher.signal(launch.attempt, number)
    await _says(stand, launch, b"caught")
    assert (await stand.status(launch)).phase is Phase.RUNNING


async def test_a_signal_that_is_not_handled_ends_the_job(stand: Stand) -> None:
    stand.needs("signal")
    launch = await _ready(stand)
    await stand.launcher.signal(launch.attempt, signal.SIGUSR1)
    status = await stand.end_of(launch)
    assert status.exit_code == 128 + signal.SIGUSR1
    assert not status.timed_out


async def test_a_signal_for_what_does_not_run_is_refused(stand: Stand) -> None:
    stand.needs("signal")
    launch = await stand.start(stand.programs.exit(0))
    await stand.end_of(launch)
    with pytest.raises(LaunchError):
        await stand.launcher.signal(launch.attempt, signal.SIGUSR1)
    unknown = stand.launch(stand.programs.exit(0))
    with pytest.raises(LaunchError):
        await stand.launcher.signal(unknown.attempt, signal.SIGUSR1)


async def test_a_suspended_job_gets_the_signal_when_it_goes_on(stand: Stand) -> None:
    stand.needs("signal")
    stand.needs("suspend")
    launch = await _ready(stand, stand.programs.on_signal(signal.SIGUSR1, "caught"))
    await stand.launcher.suspend(launch.attempt)
    await stand.launcher.signal(launch.attempt, signal.SIGUSR1)
    assert (await stand.status(launch)).phase is Phase.SUSPENDED
    assert b"caught" not in await stand.log(launch, "stdout")
    await stand.launcher.resume(launch.attempt)
    await _says(stand, launch, b"caught")


@pytest.mark.needs("timed")
async def test_a_time_limit_can_be_brought_forward(stand: Stand) -> None:
    launch = await _ready(stand, time_limit=600.0, grace=0.5)
    await stand.launcher.limit(launch.attempt, 0.1)
    status = await stand.end_of(launch)
    assert status.timed_out


@pytest.mark.needs("timed")
@pytest.mark.parametrize("limit", [600.0, None])
async def test_a_time_limit_can_be_put_off(stand: Stand, limit: float | None) -> None:
    programs = stand.programs
    launch = await stand.start(programs.sleep(3), programs.exit(5), time_limit=2.0, grace=0.5)
    await stand.launcher.limit(launch.attempt, limit)
    await stand.launcher.limit(launch.attempt, limit)
    status = await stand.end_of(launch)
    assert not status.timed_out
    assert status.exit_code == 5


@pytest.mark.needs("timed")
async def test_a_job_without_a_limit_gets_one(stand: Stand) -> None:
    launch = await _ready(stand, grace=0.5)
    await stand.launcher.limit(launch.attempt, 0.1)
    assert (await stand.end_of(launch)).timed_out


@pytest.mark.needs("timed")
async def test_time_suspended_counts_for_no_changed_limit(stand: Stand) -> None:
    stand.needs("suspend")
    launch = await _ready(stand, grace=0.5)
    await stand.launcher.suspend(launch.attempt)
    await stand.launcher.limit(launch.attempt, 1.0)
    # Twice what is allowed passes, by the clock of the job's own machine.
    suspended_at = time.time()
    await until(lambda: time.time() > suspended_at + 2.0, "two seconds")
    assert (await stand.status(launch)).phase is Phase.SUSPENDED
    await stand.launcher.resume(launch.attempt)
    assert (await stand.end_of(launch)).timed_out


@pytest.mark.needs("image")
async def test_an_engine_without_time_limits_refuses_one(stand: Stand) -> None:
    launch = await stand.start(stand.programs.sleep(60))
    with pytest.raises(UnsupportedError):
        await stand.launcher.limit(launch.attempt, 1.0)


@pytest.mark.needs("image")
async def test_devices_can_be_opened(stand: Stand) -> None:
    """A device node that no container has by itself."""
    result = await stand.run("test -c /dev/kmsg && echo there", devices=("/dev/kmsg",))
    assert result.text == "there"
    assert (await stand.run("test -c /dev/kmsg && echo there")).text == ""


@pytest.mark.needs("image")
async def test_a_device_that_is_not_there_is_an_error_of_the_launch(stand: Stand) -> None:
    launch = stand.launch(stand.programs.exit(0), devices=("/dev/no-such-device",))
    with pytest.raises(LaunchError, match="no-such-device"):
        await stand.launcher.start(launch)
    assert (await stand.status(launch)).phase is Phase.UNKNOWN
