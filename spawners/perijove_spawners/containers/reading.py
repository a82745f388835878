"""What an engine answers, in our words."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perijove.model import Endpoint, Stats
from perijove_spawners.containers.container import MANIFEST, PORTS
from perijove_spawners.launcher import Phase, Status

PHASES = {
    "created": Phase.CREATED,
    "configured": Phase.CREATED,
    "initialized": Phase.CREATED,
    "restarting": Phase.RUNNING,
    "running": Phase.RUNNING,
    "stopping": Phase.RUNNING,
    "paused": Phase.SUSPENDED,
    "dead": Phase.EXITED,
    "exited": Phase.EXITED,
    "removing": Phase.EXITED,
    "stopped": Phase.EXITED,
}
"""Docker's and Podman's states of a container. Where they share a word it means the same."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was read of a container's use at one time; two of them give a rate."""

    at: float
    """Seconds since the epoch."""
    cpu_seconds: float = 0.0
    memory_peak: int = 0


def phase_of(info: Mapping[str, Any]) -> Phase:
    """The phase in an answer of inspect."""
    return PHASES.get(str(info["State"].get("Status", "")).lower(), Phase.RUNNING)


def status_of(info: Mapping[str, Any]) -> Status:
    """The status in an answer of inspect, which does not tell what was used."""
    state = info["State"]
    phase = phase_of(info)
    ended = phase is Phase.EXITED
    code = int(state.get("ExitCode") or 0)
    started, finished = seconds(state.get("StartedAt")), seconds(state.get("FinishedAt"))
    return Status(
        phase=phase,
        image_digest=image_id(info["Image"]) if info.get("Image") else None,
        image_manifest=_manifest(info),
        exit_code=code if ended else None,
        # the flag also tells of a child that was killed while the job went on and succeeded
        out_of_memory=ended and code != 0 and bool(state.get("OOMKilled")),
        message=str(state.get("Error") or ""),
        started=started,
        # Podman's clock for ends is coarser than that for starts
        ended=max(finished or 0.0, started or 0.0) or None if ended else None,
    )


def image_id(said: str) -> str:
    """The id of an image as all engines would write it."""
    return f"sha256:{said.removeprefix('sha256:')}"


def _manifest(info: Mapping[str, Any]) -> str | None:
    """What its label says, unless another image had taken the name before the container was made of it."""
    image, _, manifest = str(((info.get("Config") or {}).get("Labels") or {}).get(MANIFEST, "")).partition(
        " "
    )
    return manifest if manifest and image == image_id(str(info.get("Image"))) else None


def age_of(info: Mapping[str, Any]) -> float:
    """Seconds since the container of an answer of inspect was made."""
    return time.time() - (seconds(info.get("Created")) or 0.0)


def seconds(text: str | None) -> float | None:
    """An engine's time as seconds since the epoch; None for Go's zero time, which stands for never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()


def stats_of(raw: Mapping[str, Any], last: Sample | None) -> tuple[Stats, Sample]:
    """The use in an answer of stats, with CPU over the time since `last`; and the sample for the next."""
    usage = raw.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9
    at = seconds(raw.get("read")) or 0.0
    memory = used_memory(raw.get("memory_stats", {}))
    peak = max(memory, raw.get("memory_stats", {}).get("max_usage") or 0, last.memory_peak if last else 0)
    elapsed = at - last.at if last else 0.0
    cpu = max(0.0, usage - last.cpu_seconds) / elapsed if last and elapsed > 0 else 0.0
    stats = Stats(
        cpu=cpu,
        memory=memory,
        memory_peak=peak,
        cpu_seconds=usage,
        pids=raw.get("pids_stats", {}).get("current") or 0,
    )
    return stats, Sample(at, usage, peak)


def used_memory(memory: Mapping[str, Any]) -> int:
    """Bytes in use without the page cache that the kernel would give back (cgroup v1, v2)."""
    usage = int(memory.get("usage") or 0)
    detail = memory.get("stats") or {}
    cache = int(detail.get("total_inactive_file") or detail.get("inactive_file") or 0)
    return usage - cache if cache < usage else usage


def endpoint_of(info: Mapping[str, Any]) -> Endpoint:
    """Where the ports named by the container's label are reached from this host."""
    ports = [int(port) for port in (info["Config"]["Labels"] or {}).get(PORTS, "").split(",") if port]
    if info["HostConfig"].get("NetworkMode") == "host":
        return Endpoint(ports={port: f"127.0.0.1:{port}" for port in ports})
    settings = info.get("NetworkSettings") or {}
    networks = settings.get("Networks") or {}
    addresses = [network["IPAddress"] for network in networks.values() if network.get("IPAddress")]
    own = {port: f"{addresses[0]}:{port}" for port in ports} if addresses else {}
    return Endpoint(ports={**own, **_published(settings.get("Ports") or {}, ports)})


def _published(bound: Mapping[str, Any], ports: Collection[int]) -> dict[int, str]:
    """Of a container's `ports` those that this host has, where; the first address counts."""
    found: dict[int, str] = {}
    for port in ports:
        for binding in bound.get(f"{port}/tcp") or ():
            if binding.get("HostPort"):
                found.setdefault(port, f"{binding.get('HostIp') or '0.0.0.0'}:{binding['HostPort']}")  # noqa: S104
    return found
