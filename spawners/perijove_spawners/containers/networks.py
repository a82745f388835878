"""The networks that jobs of one owner or one project share, made on demand (``user``, ``project``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection

from perijove_spawners.containers.connection import Connection, FaultError, RefusedError
from perijove_spawners.containers.container import INSTALLATION

logger = logging.getLogger(__name__)


class OwnNetworks:
    """One bridge for each owner, and each project, whose jobs asked for it."""

    def __init__(self, connection: Connection, installation: str) -> None:
        self._connection = connection
        self._installation = installation
        # Docker accepts a second network of the same name
        self._making = asyncio.Lock()
        self._held: Counter[str] = Counter()

    def _is_ours(self, network: str) -> bool:
        return network.startswith(f"perijove-{self._installation}-")

    @contextlib.asynccontextmanager
    async def held(self, network: str) -> AsyncIterator[None]:
        """Have `network` on the engine, unless it is the engine's own, while a container starts there."""
        if not self._is_ours(network):
            yield
            return
        self._held[network] += 1
        try:
            await self._provide(network)
            yield
        finally:
            self._held[network] -= 1

    async def _provide(self, network: str) -> None:
        api = self._connection.api
        async with self._making:
            try:
                await self._connection.quick(lambda: api.inspect_network(network))
            except RefusedError as error:
                if error.status != 404:
                    raise
                labels = {INSTALLATION: self._installation}
                await self._connection.quick(
                    lambda: api.create_network(network, driver="bridge", labels=labels)
                )

    async def drop(self, network: str) -> None:
        """Remove `network` if it is ours and nobody is on it."""
        if self._is_ours(network):
            async with self._making:
                if not self._held[network]:
                    # Docker refuses while somebody is on it; Podman calls that a failure of its own.
                    with contextlib.suppress(RefusedError, FaultError):
                        await self._connection.quick(lambda: self._connection.api.remove_network(network))

    async def drop_unused(self, used: Collection[str]) -> None:
        """Remove the networks of this installation that are not `used`; an engine has few to give."""
        api = self._connection.api
        filters = {"label": f"{INSTALLATION}={self._installation}"}
        for network in await self._connection.quick(lambda: api.networks(filters=filters)):
            if network["Name"] not in used:
                await self._drop(network["Name"])

    async def _drop(self, network: str) -> None:
        try:
            await self._connection.quick(lambda: self._connection.api.remove_network(network))
        except (RefusedError, FaultError) as error:
            logger.warning("network %s stays: %s", network, error)
