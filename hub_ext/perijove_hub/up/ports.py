"""Ports that stay the same from one run to the next: running notebooks know the hub by its address."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from perijove.model import OperatorError
from perijove_hub.private_files import write_private

RANGE = range(20_000, 32_000)
"""Below Linux's ephemeral ports, so that an outgoing connection does not take one while `up` is down."""


def is_free(host: str, port: int) -> bool:
    """Whether a server can listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_ports(
    wanted: Mapping[str, tuple[str, ...]],
    kept: Mapping[str, int],
    free: Callable[[str, int], bool] = is_free,
    seed: int | None = None,
) -> dict[str, int]:
    """A port for each name of `wanted`, free on all its hosts: the kept one if possible.

    Raises :class:`OperatorError` when no port is left.
    """
    chosen: dict[str, int] = {}
    candidates = random.Random(seed).sample(RANGE, len(RANGE))  # noqa: S311
    for name, hosts in wanted.items():
        old = [kept[name]] if name in kept else []
        for port in (*old, *candidates):
            if port not in chosen.values() and all(free(host, port) for host in hosts):
                chosen[name] = port
                break
        else:
            raise OperatorError(f"no TCP port between {RANGE.start} and {RANGE.stop} is free for {name}")
    return chosen


def keep_ports(path: Path, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """:func:`choose_ports` with what `path` has from the last run; what is chosen now is kept there."""
    try:
        kept = {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        kept = {}
    chosen = choose_ports(wanted, kept)
    if chosen != {name: kept.get(name) for name in chosen}:
        write_private(path, json.dumps({**kept, **chosen}))
    return chosen
