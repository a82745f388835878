"""What plain processes can be given, and what they are refused."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from perijove_spawners.launcher import Launch, LaunchError, UnsupportedError

FEATURES = frozenset(
    {
        "constraints",
        "devices",
        "gpus",
        "memory",
        "ports",
        "signal",
        "stderr",
        "stdin",
        "stdout",
        "suspend",
        "time_limit",
        "tmp_disk",
    }
)
"""``gpus`` and ``devices`` in name alone: nothing keeps a process from another device its user may open."""


def refuse_unless_possible(launch: Launch, networks: Collection[str]) -> None:
    """:class:`LaunchError` names what of `launch` plain processes cannot have on this node."""
    own = os.geteuid()
    if own not in {0, launch.account.uid}:
        raise LaunchError(
            f"the node agent runs as uid {own} and can start processes only as itself, "
            f"not as {launch.account.name} (uid {launch.account.uid}); run it as root to serve others"
        )
    if launch.image is not None:
        raise UnsupportedError(f"processes run without an image (given: {launch.image})")
    if launch.sealed or launch.entrypoint:
        raise UnsupportedError("processes have no image and are not sealed (sealed, entrypoint)")
    if launch.root or launch.ipc != "private":
        raise UnsupportedError("processes are their account's, in the node's own IPC namespace (user, ipc)")
    if launch.shm_size is not None:
        raise UnsupportedError("processes share /dev/shm: its size cannot be set (shm_size)")
    if launch.network is not None and launch.network not in networks:
        known = ", ".join(sorted(networks))
        raise UnsupportedError(f"network {launch.network!r} is not possible here; possible: {known}")
    for mount in launch.mounts:
        if not Path(mount.source).is_dir():
            raise LaunchError(f"{mount.source} is no directory of this node")
        if mount.source != mount.target or mount.read_only:
            raise UnsupportedError(
                f"processes see the node's directories as they are: {mount.source} cannot be mounted "
                f"{'read-only' if mount.read_only else f'at {mount.target}'}"
            )
