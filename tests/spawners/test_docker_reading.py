"""What engines answer, in our words."""

from __future__ import annotations

from typing import Any

import pytest

from perijove_spawners.containers.connection import plain
from perijove_spawners.containers.reading import endpoint_of, stats_of, status_of
from perijove_spawners.launcher import Phase


def info(**state: Any) -> dict[str, Any]:
    defaults = {
        "Status": "exited",
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-11-21T04:03:11.123456789Z",
        "FinishedAt": "2026-11-21T04:03:12.5Z",
    }
    return {"State": {**defaults, **state}}


def test_an_ended_container() -> None:
    status = status_of(info(ExitCode=3))
    assert status.phase is Phase.EXITED
    assert status.exit_code == 3
    assert status.ended is not None and status.started is not None
    assert status.ended - status.started == pytest.approx(1.376543, abs=1e-5)


def test_a_running_container_has_no_end() -> None:
    status = status_of(info(Status="running", FinishedAt="0001-01-01T00:00:00Z"))
    assert (status.phase, status.exit_code, status.ended) == (Phase.RUNNING, None, None)


def test_a_container_never_started_has_no_times() -> None:
    never = "0001-01-01T00:00:00Z"
    status = status_of(info(Status="created", StartedAt=never, FinishedAt=never))
    assert (status.phase, status.started, status.ended) == (Phase.CREATED, None, None)


def test_an_end_is_not_before_the_start() -> None:
    status = status_of(info(FinishedAt="2026-11-21T04:03:11.12Z"))
    assert status.ended == status.started


def test_times_of_podman_have_a_zone() -> None:
    west = status_of(info(StartedAt="2026-11-20T23:03:11.123456789-05:00"))
    assert west.started == status_of(info()).started


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("created", Phase.CREATED),
        ("initialized", Phase.CREATED),
        ("paused", Phase.SUSPENDED),
        ("stopping", Phase.RUNNING),
        ("stopped", Phase.EXITED),
        ("dead", Phase.EXITED),
        ("Removing", Phase.EXITED),
    ],
)
def test_phases(word: str, phase: Phase) -> None:
    assert status_of(info(Status=word)).phase is phase


def test_out_of_memory_is_the_jobs_only_if_it_failed() -> None:
    assert status_of(info(OOMKilled=True, ExitCode=137)).out_of_memory
    assert not status_of(info(OOMKilled=True, ExitCode=0)).out_of_memory


def reading(cpu: float, memory: dict[str, Any], read: str = "2026-11-21T04:03:12Z") -> dict[str, Any]:
    usage = {"cpu_usage": {"total_usage": int(cpu * 1e9)}}
    return {"read": read, "cpu_stats": usage, "memory_stats": memory, "pids_stats": {"current": 5}}


def test_cpu_is_over_the_time_since_the_last_sample() -> None:
    first, sample = stats_of(reading(1.0, {"usage": 100}), None)
    assert first.cpu == 0.0
    later = reading(4.0, {"usage": 80}, "2026-11-21T04:03:14Z")
    second, _ = stats_of(later, sample)
    assert second.cpu == pytest.approx(1.5)
    assert (second.memory, second.memory_peak, second.cpu_seconds, second.pids) == (80, 100, 4.0, 5)


@pytest.mark.parametrize("key", ["total_inactive_file", "inactive_file"])
def test_cache_that_the_kernel_would_give_back_is_not_used(key: str) -> None:
    stats, _ = stats_of(reading(1.0, {"usage": 100, "stats": {key: 60}}), None)
    assert stats.memory == 40


def test_a_container_without_counters_uses_nothing() -> None:
    assert stats_of({"read": "0001-01-01T00:00:00Z", "memory_stats": {}}, None)[0].memory == 0


def container(mode: str, networks: dict[str, Any], ports: str = "8888,22") -> dict[str, Any]:
    return {
        "Config": {"Labels": {"perijove.ports": ports}},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks},
    }


def test_ports_are_reached_at_the_containers_address() -> None:
    bridged = container("bridge", {"bridge": {"IPAddress": "172.17.0.5"}})
    assert endpoint_of(bridged).ports == {8888: "172.17.0.5:8888", 22: "172.17.0.5:22"}
    assert endpoint_of(container("host", {})).ports[8888] == "127.0.0.1:8888"
    assert endpoint_of(container("none", {"none": {"IPAddress": ""}})).ports == {}
    assert endpoint_of(container("bridge", {}, ports="")).ports == {}


def test_a_sentence_without_its_wrapping() -> None:
    raw = 'failed to create shim: OCI runtime create failed: exec: "x": not found: unknown\n'
    assert plain(raw) == 'OCI runtime create failed: exec: "x": not found'
    assert plain("") == "no reason given"
