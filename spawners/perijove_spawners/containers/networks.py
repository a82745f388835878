"""The networks that the jobs of one owner share, made on demand (network ``user``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from perijove_spawners.containers.connection import Connection, FaultError, RefusedError
from perijove_spawners.containers.container import INSTALLATION, owner_network

logger = logging.getLogger(__name__)


class OwnerNetworks:
    """One bridge for each owner whose jobs asked for it."""

    def __init__(self, connection: Connection, installation: str) -> None:
        self._connection = connection
        self._installation = installation
        # Docker accepts a second network of the same name
        self._making = asyncio.Lock()

    async def provide(self, network: str, owner: str) -> None:
        """Have `network` on the engine, if it is that of `owner` and not one of the engine's own."""
        if network != owner_network(self._installation, owner):
            return
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
