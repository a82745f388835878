"""Which launcher this machine is fit for, and how its containers reach it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from dataclasses import dataclass
from typing import Any

from perijove_hub.up.ports import is_free

PROBE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class LauncherChoice:
    """The launcher of jobs that name none, and why it is that one."""

    name: str
    why: str
    gateway: str = "127.0.0.1"
    """An address of this host that is reached from jobs."""


def choose_launcher(wanted: str | None = None) -> LauncherChoice:
    """`wanted`, or else ``docker`` where an engine answers, or else ``process``."""
    gateway, trouble = _docker_gateway() if wanted in {None, "docker"} else (None, "")
    if wanted:
        return LauncherChoice(wanted, f"--launcher {wanted}", gateway or "127.0.0.1")
    if gateway is None:
        return LauncherChoice("process", f"plain processes, because {trouble}")
    return LauncherChoice("docker", "a Docker Engine answers", gateway)


def _docker_gateway() -> tuple[str | None, str]:
    """The host's address on the engine's bridge, or why there is none."""
    try:
        import docker
    except ImportError:
        return None, "the Docker SDK is not installed"
    try:
        client = docker.from_env(timeout=PROBE_SECONDS)
    except Exception as error:
        return None, f"no Docker Engine answers ({_cause(error)})"
    with contextlib.closing(client):
        try:
            bridge: dict[str, Any] = client.api.inspect_network("bridge")
        except Exception as error:
            return None, f"no Docker Engine answers ({_cause(error)})"
    address = gateway_of(bridge, _interface_addresses())
    if address is None or not is_free(address, 0):
        return None, f"the Docker Engine's bridge ({address or 'no address'}) is not on this host"
    return address, ""


def gateway_of(bridge: dict[str, Any], interfaces: dict[str, str]) -> str | None:
    """The host's address on a bridge network, from the engine's description of it.

    Engines before 23 leave the gateway out; then the interface has it, else it is the subnet's first address.
    """
    configs: list[dict[str, str]] = (bridge.get("IPAM") or {}).get("Config") or []
    for config in configs:
        if (gateway := config.get("Gateway", "").partition("/")[0]) and ":" not in gateway:
            return gateway
    name = (bridge.get("Options") or {}).get("com.docker.network.bridge.name", "docker0")
    if name in interfaces:
        return interfaces[name]
    for config in configs:
        with contextlib.suppress(KeyError, ValueError):
            network = ipaddress.ip_network(config["Subnet"])
            if network.version == 4:
                return str(next(network.hosts()))
    return None


def _interface_addresses() -> dict[str, str]:
    import socket

    import psutil

    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family is socket.AF_INET
    }


def _cause(error: Exception) -> str:
    """The system's own words at the bottom of an exception of the SDK."""
    text = str(error)
    for number in (13, 2, 111):
        if (words := os.strerror(number)) in text or f"Errno {number}" in text:
            return words.lower()
    return text.splitlines()[0][:200] if text else type(error).__name__
