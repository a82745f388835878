"""Jobs as containers of a Docker Engine."""

from __future__ import annotations

import os

from perijove_spawners.containers.container import Dialect
from perijove_spawners.containers.launcher import EngineLauncher
from perijove_spawners.containers.log_records import local_entries


class DockerLauncher(EngineLauncher):
    """Docker Engine 20.10 or later, on this host."""

    name = "docker"
    dialect = Dialect(
        # json-file replaces bytes that are no UTF-8; read by the API, local loses the ends of lines over
        # 16 KiB (20.10)
        log={"Type": "local", "Config": {"max-size": "1024g", "max-file": "1", "compress": "false"}},
        log_file="{root}/containers/{id}/local-logs/container.log",
        log_entries=local_entries,
        # tini passes signals on to the job's process group, not to its first process alone
        env={"TINI_KILL_PROCESS_GROUP": "1"},
        no_healthcheck=True,
        cdi=False,
        distribution=True,
        loses_oom=False,
    )

    @classmethod
    def default_url(cls) -> str:
        """``$DOCKER_HOST``, else the engine's usual socket."""
        return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
