"""Limits are in force, and use is measured."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

import pytest
from tests.conftest import absent

from perijove.model import Stats
from perijove_spawners.launcher import Mount, Phase, UnsupportedError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand

MIB = 1 << 20


@pytest.mark.needs("bounded")
async def test_beyond_its_memory_it_is_killed(stand: Stand) -> None:
    stand.needs("memory")
    programs = stand.programs
    result = await stand.run(programs.allocate(200 * MIB), programs.echo("survived"), memory=48 * MIB)
    assert result.status.out_of_memory
    assert result.status.exit_code == 137
    assert result.stdout == b""


async def test_within_its_memory_it_is_not(stand: Stand) -> None:
    programs = stand.programs
    result = await stand.run(programs.allocate(8 * MIB), programs.echo("survived"), memory=128 * MIB)
    assert result.status.exit_code == 0
    assert not result.status.out_of_memory
    assert result.text == "survived"


@pytest.mark.needs("real", "bounded")
async def test_memory_counts_for_all_its_processes_together(stand: Stand) -> None:
    stand.needs("memory")
    held = stand.programs.allocate(24 * MIB)
    holders = [f"sh -c {shlex.quote(held + '; echo held; sleep 1')} &"] * 8
    result = await stand.run(*holders, "wait; exit 1", memory=64 * MIB)
    assert result.stdout.count(b"held") <= 2


@pytest.mark.needs("real", "bounded")
async def test_half_a_core_is_half_a_core(stand: Stand) -> None:
    stand.needs("cpu")
    busy = "timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done' & wait"
    launch = await stand.start(busy, cpu=0.5)
    status = await stand.end_of(launch)
    assert status.started and status.ended
    # Two busy loops for two seconds would take up to four.
    assert 0.2 < status.cpu_seconds < 0.5 * (status.ended - status.started) + 0.4


@pytest.mark.needs("real")
async def test_no_network_is_no_network(stand: Stand) -> None:
    if "none" not in stand.launcher.capabilities.networks:
        absent(f"{stand.target.launcher} cannot take the network away on this machine")
    result = await stand.run(
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route", network="none"
    )
    words = result.text.split()
    assert words[0] == "lo"
    assert not [word for word in words if word.startswith(("eth", "ens", "docker"))]
    # The table of routes has its heading only.
    assert len(result.text.splitlines()) == 2


@pytest.mark.needs("real")
async def test_the_default_network_is_one_of_its_networks(stand: Stand) -> None:
    result = await stand.run("tail -n +3 /proc/net/dev | wc -l", network=None)
    assert int(result.text) >= 1


@pytest.mark.needs("image")
async def test_a_mount_can_be_read_only(stand: Stand) -> None:
    (stand.home / "data").write_text("data")
    mounts = (Mount(str(stand.home), str(stand.home), read_only=True),)
    result = await stand.run('cat "$HOME/data"; touch "$HOME/new"', mounts=mounts)
    assert result.stdout == b"data"
    assert result.status.exit_code != 0
    assert not (stand.home / "new").exists()


@pytest.mark.needs("image")
async def test_a_mount_elsewhere(stand: Stand) -> None:
    data = stand.folder("data")
    (data / "file").write_text("data")
    mounts = (Mount(str(stand.home), str(stand.home)), Mount(str(data), "/mnt/elsewhere"))
    assert (await stand.run("cat /mnt/elsewhere/file", mounts=mounts)).stdout == b"data"


@pytest.mark.needs("image")
async def test_the_size_of_dev_shm(stand: Stand) -> None:
    stand.needs("shm_size")
    result = await stand.run("df --output=size -B1 /dev/shm | tail -1", shm_size=32 * MIB)
    assert int(result.text) == 32 * MIB


@pytest.mark.needs("processes")
async def test_what_cannot_be_given_is_refused(stand: Stand) -> None:
    data = str(stand.folder("data"))
    asked: list[dict[str, object]] = [
        {"image": "debian"},
        {"shm_size": MIB},
        {"network": "bridge"},
        {"root": True},
        {"ipc": "host"},
        {"mounts": (Mount(data, "/mnt/elsewhere"),)},
        {"mounts": (Mount(data, data, read_only=True),)},
    ]
    for changes in asked:
        launch = stand.launch(stand.programs.append("ran", "x"), **changes)
        with pytest.raises(UnsupportedError):
            await stand.launcher.start(launch)
        assert (await stand.status(launch)).phase is Phase.UNKNOWN
        assert stand.file(launch, "ran") == ""


async def test_what_it_uses_now(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(
        programs.allocate(20 * MIB), programs.append("ready", "yes"), programs.sleep(60)
    )
    await stand.writes(launch, "ready")
    stats = await stand.launcher.stats(launch.attempt)
    assert stats.pids >= 1
    assert 15 * MIB < stats.memory < 256 * MIB
    assert stats.memory_peak >= stats.memory * 0.9
    await stand.launcher.stop(launch.attempt, grace=1.0)
    assert await stand.launcher.stats(launch.attempt) == Stats()
    assert (await stand.status(launch)).memory_peak >= 10 * MIB


async def test_a_suspended_job_keeps_its_memory(stand: Stand) -> None:
    stand.needs("suspend")
    programs = stand.programs
    launch = await stand.start(
        programs.allocate(20 * MIB), programs.append("ready", "yes"), programs.sleep(60)
    )
    await stand.writes(launch, "ready")
    await stand.launcher.suspend(launch.attempt)
    stats = await stand.launcher.stats(launch.attempt)
    assert stats.memory > 15 * MIB
    assert stats.pids >= 1


@pytest.mark.needs("real")
async def test_cores_in_use(stand: Stand) -> None:
    launch = await stand.start("while :; do :; done", cpu=1.0)
    await stand.launcher.stats(launch.attempt)
    await asyncio.sleep(1.0)
    stats = await stand.launcher.stats(launch.attempt)
    assert 0.1 < stats.cpu < 1.6
    assert stats.cpu_seconds > 0.1


@pytest.mark.needs("real", "processes")
async def test_an_open_port_is_where_the_endpoint_says(stand: Stand) -> None:
    launch = await stand.start("sleep 60", ports=(45871,))
    assert (await stand.launcher.endpoint(launch.attempt)).ports == {45871: "127.0.0.1:45871"}
