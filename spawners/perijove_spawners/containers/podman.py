"""Jobs as containers of Podman, by its Docker-compatible service."""

from __future__ import annotations

import os

from perijove_spawners.containers.container import Dialect
from perijove_spawners.containers.launcher import EngineLauncher
from perijove_spawners.containers.log_records import k8s_entries


class PodmanLauncher(EngineLauncher):
    """Podman 4.3 or later, on this host; needs ``podman system service`` (podman-system-service(1))."""

    name = "podman"
    dialect = Dialect(
        log={"Type": "k8s-file", "Config": {}},
        # followed by its service, a fast log loses lines (4.3)
        log_file="{path}",
        log_entries=k8s_entries,
        env={},
        # told to have none, it makes a timer to look for its health
        no_healthcheck=False,
        cdi=True,
        distribution=False,
        loses_oom=True,
    )

    @classmethod
    def default_url(cls) -> str:
        """The socket of the system's service for root, of the user's own for others."""
        if os.geteuid() == 0:
            return "unix:///run/podman/podman.sock"
        return f"unix://{os.environ.get('XDG_RUNTIME_DIR', f'/run/user/{os.geteuid()}')}/podman/podman.sock"
