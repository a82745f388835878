"""The containers of one installation on an engine."""

from __future__ import annotations

from typing import Any

from perijove.model import Attempt
from perijove_spawners.containers.connection import Connection, RefusedError
from perijove_spawners.containers.container import ATTEMPT, INSTALLATION, PROBE, container_name


class Inventory:
    """Finds and removes containers; those of others are not seen, whatever they are called."""

    def __init__(self, connection: Connection, installation: str) -> None:
        self._connection = connection
        self._installation = installation

    def name(self, attempt: Attempt) -> str:
        """What the attempt's container is called."""
        return container_name(self._installation, attempt)

    async def find(self, attempt: Attempt) -> dict[str, Any] | None:
        """What inspect says of the attempt's container; None when there is none, or one that is not ours."""
        return (await self.look(attempt))[0]

    async def look(self, attempt: Attempt) -> tuple[dict[str, Any] | None, bool]:
        """The same, and whether another's container has the attempt's name. One look: it may just be made."""
        info = await self._inspect(self.name(attempt))
        if info is None:
            return None, False
        labels = info["Config"].get("Labels") or {}
        ours = labels.get(INSTALLATION) == self._installation and labels.get(ATTEMPT) == str(attempt)
        return (info, False) if ours else (None, True)

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._connection.quick(lambda: self._connection.api.inspect_container(name))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def all(self) -> list[dict[str, Any]]:
        """The engine's summaries of all containers of this installation."""
        filters = {"label": f"{INSTALLATION}={self._installation}"}
        return await self._connection.quick(
            lambda: self._connection.api.containers(all=True, filters=filters)
        )

    async def states(self) -> dict[Attempt, str]:
        """Every attempt that has a container, with the engine's word for its state, by one call."""
        return {
            Attempt.parse(container["Labels"][ATTEMPT]): str(container["State"])
            for container in await self.all()
            if ATTEMPT in container["Labels"]
        }

    async def counters(self, name: str) -> dict[str, Any]:
        """What the engine counts of a container now; empty for one that does not run."""

        def read() -> dict[str, Any]:
            try:
                return dict(self._connection.api.stats(name, stream=False, one_shot=True))
            except ValueError:
                # Podman answers with nothing at all for one that ends meanwhile
                return {}

        try:
            return await self._connection.quick(read)
        except RefusedError:
            return {}

    async def discard(self, name: str, *, force: bool) -> None:
        """Remove a container and its anonymous volumes; one that runs only by `force`."""
        try:
            await self._connection.slow(
                lambda: self._connection.api.remove_container(name, v=True, force=force)
            )
        except RefusedError as error:
            if error.status != 404 and "already in progress" not in str(error):
                raise

    async def discard_probes(self) -> None:
        """Remove what a killed agent left of reading an image's files."""
        for container in await self.all():
            if PROBE in container["Labels"]:
                await self.discard(container["Id"], force=True)
