"""What a node says of itself: its resources, its launchers, its images, its host."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from perijove.model import Machine, Node
from perijove.model.spec import MIB, TMP_DISK
from perijove_spawners.launcher import LaunchError
from perijove_spawners.node.config import NodeConfig
from perijove_spawners.node.engine import Engine
from perijove_spawners.node.machine import machine

log = logging.getLogger(__name__)

_LOOK_FOR_IMAGES = 30.0


class Announcement:
    """A node's own description, kept up to date by :meth:`watch`."""

    def __init__(self, config: NodeConfig, engines: Mapping[str, Engine], incarnation: str) -> None:
        self._config, self._engines, self._incarnation = config, engines, incarnation
        self._images: dict[str, str] = {}
        self._machine = Machine()
        self.address = ""
        """Where the agent is reached."""

    @property
    def host(self) -> str:
        """The same without the port, for what else listens here."""
        return urlsplit(self.address).hostname or "127.0.0.1"

    def node(self) -> Node:
        """The description as it is now."""
        config = self._config
        ready = [engine.launcher for engine in self._engines.values() if engine.ready.is_set()]
        offered = [launcher.capabilities for launcher in ready]
        runtime = ", ".join(one.version for one in offered if one.version)
        return Node(
            name=config.name,
            incarnation=self._incarnation,
            address=self.address,
            cpus=config.cpus,
            memory=config.memory,
            gpus=list(config.gpus),
            resources={**config.resources, **({TMP_DISK: config.scratch // MIB} if config.scratch else {})},
            slots={name: list(units) for name, units in config.slots.items()},
            labels=dict(config.labels),
            launchers=offered,
            images=sorted(self._images),
            image_digests={name: digest for name, digest in self._images.items() if digest},
            machine=self._machine.model_copy(update={"runtime": runtime}),
            seen=time.time(),
        )

    async def look_at_machine(self) -> None:
        """Find out about the host."""
        self._machine = await asyncio.to_thread(machine, self._config.gpus)

    async def watch(self) -> None:
        """Keep the list of images up to date until cancelled."""
        while True:
            await self.look_for_images()
            await asyncio.sleep(_LOOK_FOR_IMAGES)

    async def look_for_images(self) -> None:
        """Bring the list of images up to date."""
        found: dict[str, str] = {}
        for engine in self._engines.values():
            if engine.launcher.capabilities.containers:
                await engine.ready.wait()
                try:
                    images = await engine.launcher.images()
                except LaunchError as error:
                    log.warning("%s: images: %s", engine.name, error)
                    return
                for name, digest in images.items():
                    # What two engines have under one name may differ, and then it is not known what will run.
                    found[name] = digest if found.get(name, digest) == digest else ""
        self._images = found
