"""The engine's images: which are there, and fetching those that are not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from perijove_spawners.containers.connection import Connection, FaultError, RefusedError, plain
from perijove_spawners.containers.container import INSTALLATION, PROBE, EngineOptions
from perijove_spawners.containers.identity import FILES, LARGEST, from_archive
from perijove_spawners.launcher import ImageMissingError, LaunchError

FRESH = 5.0
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")


class Images:
    """What one engine can run."""

    def __init__(self, connection: Connection, options: EngineOptions) -> None:
        self._connection = connection
        self._options = options
        self._ids: dict[str, tuple[float, str]] = {}
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def id_of(self, reference: str) -> str | None:
        """The id of the image present under `reference`; None when there is none.

        Believed for :data:`FRESH` seconds; creating a container of an image gone by then is refused.
        """
        check_reference(reference)
        at, found = self._ids.get(reference, (0.0, ""))
        if time.monotonic() < at + FRESH:
            return found
        present = await self._ask_id(reference)
        if present:
            self._ids[reference] = time.monotonic(), present
        else:
            self._ids.pop(reference, None)
        return present

    async def _ask_id(self, reference: str) -> str | None:
        try:
            image = await self._connection.quick(lambda: self._connection.api.inspect_image(reference))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        return str(image["Id"])

    async def provide(self, reference: str, say: Callable[[str], None]) -> None:
        """Have `reference` on the engine: pull it when it is not there and the operator lets us.

        :class:`ImageMissingError` says why it cannot be had. Pulled once, however many wait for it.
        """
        if await self.id_of(reference):
            return
        if self._options.pull == "never":
            raise ImageMissingError(f"image {reference} is not on this node, and nothing is pulled here")
        say(f"pulling image {reference}")
        async with self._pulls.setdefault(reference, asyncio.Lock()):
            if not await self.id_of(reference):
                await self._pull(reference)

    async def _pull(self, reference: str) -> None:
        limit = self._options.pull_timeout
        try:
            await asyncio.wait_for(self._connection.slow(lambda: self._pull_now(reference)), limit)
        except (RefusedError, FaultError) as error:
            raise ImageMissingError(f"image {reference} cannot be pulled: {error}") from error
        except TimeoutError:
            raise ImageMissingError(f"image {reference} did not arrive within {limit:g} s") from None
        if not await self.id_of(reference):
            raise ImageMissingError(f"image {reference} was pulled and is not there")

    def _pull_now(self, reference: str) -> None:
        for line in self._connection.api.pull(reference, stream=True, decode=True):
            if error := line.get("error"):
                raise RefusedError(404, plain(str(error)))

    async def account_files(self, reference: str, installation: str) -> Mapping[str, str]:
        """The image's ``passwd`` and ``group``, read from a container that is never started."""
        api = self._connection.api
        body: dict[str, Any] = {
            "Image": reference,
            "Entrypoint": ["true"],
            "Labels": {INSTALLATION: installation, PROBE: "1"},
        }
        made = await self._connection.quick(lambda: api.create_container_from_config(body))
        try:
            return {name: await self._file(made["Id"], f"/etc/{name}") for name in FILES}
        finally:
            await self._connection.quick(lambda: api.remove_container(made["Id"], v=True, force=True))

    async def _file(self, container: str, path: str) -> str:
        def read() -> bytes:
            stream, _ = self._connection.api.get_archive(container, path)
            archive = b""
            for piece in stream:
                archive += piece
                if len(archive) > 2 * LARGEST:
                    return b""
            return archive

        try:
            archive = await self._connection.quick(read)
        except (RefusedError, FaultError):
            # images without the file are fine, whatever an engine calls that
            return ""
        return from_archive(archive) if archive else ""

    async def references(self) -> list[str]:
        """The names of all images present, as users write them."""
        images = await self._connection.quick(lambda: self._connection.api.images())
        tags = {tag for image in images for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"}
        # Podman's name for what has no registry
        short = {tag.removeprefix("localhost/") for tag in tags}
        return sorted(tags | short)


def check_reference(reference: str) -> None:
    """:class:`LaunchError` for what is no image reference at all."""
    if not _REFERENCE.fullmatch(reference) or ".." in reference:
        raise LaunchError(f"{reference!r} is not the name of an image")
