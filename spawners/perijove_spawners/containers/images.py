"""The engine's images: which are there, and fetching those that are not."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from perijove.model import format_size
from perijove_spawners.containers.archives import ImageArchive
from perijove_spawners.containers.connection import Connection, FaultError, RefusedError, plain, tell
from perijove_spawners.containers.container import INSTALLATION, PROBE, EngineOptions
from perijove_spawners.containers.identity import FILES, LARGEST, from_archive
from perijove_spawners.containers.program import SHELL, OwnProgram
from perijove_spawners.containers.pulling import Progress, error_of
from perijove_spawners.containers.reading import image_id
from perijove_spawners.containers.registry_access import GRACE, RegistryAccess, auth_of
from perijove_spawners.launcher import (
    ARCHIVES,
    Archive,
    ImageGoneError,
    ImageMissingError,
    LaunchError,
    RegistryLogin,
)
from perijove_spawners.references import Reference, manifest_of

FRESH = 5.0
PAUSES = (0.5, 2.0)
"""Seconds before a registry that is silent is asked again."""
_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is present."""

    id: str
    own: OwnProgram
    names: tuple[str, ...] = ()
    """All that it goes by, with tag or digest."""

    def manifest(self, reference: str) -> str:
        """The value of a container's label :data:`~.container.MANIFEST`; empty without one."""
        found = manifest_of(reference, self.names)
        return f"{self.id} {found}" if found else ""


class Images:
    """What one engine can run."""

    def __init__(
        self, connection: Connection, options: EngineOptions, directory: Path, *, distribution: bool
    ) -> None:
        self._connection = connection
        self._options = options
        self._access = RegistryAccess(directory / "private-repositories")
        self._distribution = distribution
        """Whether the engine asks registries for manifests; else an image is pulled once more for that."""
        self._pulled: dict[tuple[str, bytes], float] = {}
        self._found: dict[str, tuple[float, Image]] = {}
        self._shells: dict[str, bool] = {}
        """By image id: whether there is a shell."""
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, reference: str) -> Image | None:
        """The image present under `reference`; None when there is none.

        Believed for :data:`FRESH` seconds; creating a container of an image gone by then is refused.
        """
        check_reference(reference)
        at, found = self._found.get(reference, (0.0, None))
        if time.monotonic() < at + FRESH:
            return found
        present = await self._ask(reference)
        if present:
            self._found[reference] = time.monotonic(), present
        else:
            self._found.pop(reference, None)
        return present

    def lost(self, reference: str) -> ImageGoneError:
        """The error of an image that the engine says it does not have."""
        self._found.pop(reference, None)
        return ImageGoneError(f"image {reference} is not on this node any more")

    async def _ask(self, reference: str) -> Image | None:
        try:
            image = await self._connection.quick(lambda: self._connection.api.inspect_image(reference))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        config = image.get("Config") or {}
        own = OwnProgram(tuple(config.get("Entrypoint") or ()), tuple(config.get("Cmd") or ()))
        names = (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()))
        return Image(image_id(image["Id"]), own, names)

    async def provide(
        self,
        reference: str,
        say: Callable[[str], None],
        *,
        login: RegistryLogin | None = None,
        pull: str | None = None,
    ) -> None:
        """Have `reference` on the engine, for somebody with this `login` at its registry or none.

        `pull`: ``missing``, ``always`` or ``never``, by default as the operator has it. Pulled once, however
        many wait for it. :class:`ImageMissingError` says why it cannot be had.
        """
        pull, begun = pull or self._options.pull, time.monotonic()
        present = await self.find(reference)
        if reference.startswith(ARCHIVES):
            if not present:
                raise ImageMissingError(f"image {reference} is not on this node any more")
            return
        if present and (pull != "always" and not self._access.to_ask(reference, present.names)):
            return
        if not present and pull == "never":
            raise ImageMissingError(f"image {reference} is not on this node, and nothing is pulled here")
        async with self._pulls.setdefault(reference, asyncio.Lock()):
            present = await self.find(reference)
            if present and (
                pull != "always" or self._pulled.get((reference, self._access.key(login)), 0.0) > begun
            ):
                await self._must_be_let_in(reference, present, login)
            else:
                await self._pull(reference, login, say)
                self._pulled[reference, self._access.key(login)] = time.monotonic()

    async def _must_be_let_in(self, reference: str, image: Image, login: RegistryLogin | None) -> None:
        """:class:`LaunchError` unless the registry gives the image, which is here, to this login, too."""
        access = self._access
        if not access.to_ask(reference, image.names) or access.was_let_in(reference, login):
            return
        try:
            await self._connection.slow(lambda: self._ask_registry(reference, login))
        except (RefusedError, FaultError) as error:
            refused = error_of(reference, login, str(error))
            if refused.transient and access.was_let_in(reference, login, GRACE):
                return
            if not refused.transient:
                access.shut_out(reference, login)
            raise refused from error
        access.let_in(reference, login)

    def _ask_registry(self, reference: str, login: RegistryLogin | None) -> None:
        if self._distribution:
            self._connection.api.inspect_distribution(reference, auth_config=auth_of(reference, login))
        else:
            self._found.pop(reference, None)
            self._pull_now(reference, login, lambda _text: None)

    async def _pull(self, reference: str, login: RegistryLogin | None, say: Callable[[str], None]) -> None:
        limit, loop = self._options.pull_timeout, asyncio.get_running_loop()
        said = f"pulling image {reference}"
        say(said)
        if login is not None:
            await asyncio.to_thread(self._access.note_private, reference)

        def tell_progress(text: str) -> None:
            tell(loop, say, f"{said}: {text}")

        try:
            async with asyncio.timeout(limit):
                await self._pull_patiently(reference, login, tell_progress, say)
        except TimeoutError:
            raise ImageMissingError(f"image {reference} did not arrive within {limit:g} s") from None
        self._found.pop(reference, None)
        if not await self.find(reference):
            raise ImageMissingError(f"image {reference} was pulled and is not there")
        self._access.let_in(reference, login)

    async def _pull_patiently(
        self,
        reference: str,
        login: RegistryLogin | None,
        progress: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        for pause in (*PAUSES, None):
            try:
                await self._connection.slow(lambda: self._pull_now(reference, login, progress))
            except (RefusedError, FaultError) as error:
                failed = error_of(reference, login, str(error))
                if pause is None or not failed.transient:
                    raise failed from error
                say(f"{failed}; trying again")
                await asyncio.sleep(pause)
            else:
                return

    async def load(self, archive: Archive, folder: Path, say: Callable[[str], None]) -> str:
        """Have the image in `archive` on the engine; the name it has there. `folder` holds it meanwhile."""
        name = f"{ARCHIVES}{archive.digest.removeprefix('sha256:')}"
        async with self._pulls.setdefault(name, asyncio.Lock()):
            if not await self.find(name):
                say("loading the image")
                await self._load(archive, name, folder)
        return name

    async def _load(self, archive: Archive, name: str, folder: Path) -> None:
        size, limit = await archive.size(), self._options.archive_limit
        if size > limit:
            raise ImageMissingError(
                f"the image's archive has {format_size(size)}; this node accepts {format_size(limit)} "
                "(engine option archive_limit)"
            )
        arch = str((await self._connection.quick(lambda: self._connection.api.version())).get("Arch") or "")
        path = folder / secrets.token_hex(8)
        try:
            await archive.fetch(path)
            loaded = await self._connection.slow(lambda: self._load_now(path, name, arch))
        finally:
            path.unlink(missing_ok=True)
        found = await self.find(name)
        if found is None or found.id != loaded:
            raise ImageMissingError(f"image {name} was loaded and is not there")

    def _load_now(self, path: Path, name: str, arch: str) -> str:
        api, archive = self._connection.api, ImageArchive(path, arch=arch, limit=self._options.archive_limit)
        try:
            answer = api.post(
                f"{api.base_url}/v{api.api_version}/images/load",
                params={"quiet": "true"},
                data=archive.under(name),
                headers={"Content-Type": "application/x-tar"},
                timeout=self._options.pull_timeout,
            )
        finally:
            archive.close()
        said = [json.loads(line) for line in answer.text.splitlines() if line.startswith("{")]
        errors = [
            str(one.get("error") or one.get("message")) for one in said if "error" in one or "message" in one
        ]
        if errors or not answer.ok:
            raise RefusedError(400, f"the image cannot be loaded: {plain('; '.join(errors) or answer.text)}")
        return archive.image_id

    def _pull_now(self, reference: str, login: RegistryLogin | None, progress: Callable[[str], None]) -> None:
        """Whatever login the agent's own account has at registries is not used: it is nobody's who asks."""
        auth, arrived = auth_of(reference, login), Progress()
        for line in self._connection.api.pull(reference, stream=True, decode=True, auth_config=auth):
            if error := line.get("error"):
                raise RefusedError(404, plain(str(error)))
            if news := arrived.heard(line):
                progress(news)

    async def account_files(self, reference: str, installation: str) -> Mapping[str, str]:
        """The image's ``passwd`` and ``group``, read from a container that is never started."""
        async with self._probe(reference, installation) as probe:
            return {name: await self._file(probe, f"/etc/{name}") for name in FILES}

    async def has_shell(self, reference: str, image: Image, installation: str) -> bool:
        """Whether the image present under `reference` has a shell."""
        if image.id not in self._shells:
            async with self._probe(reference, installation) as probe:
                self._shells[image.id] = await self._is_there(probe, SHELL)
        return self._shells[image.id]

    @asynccontextmanager
    async def _probe(self, reference: str, installation: str) -> AsyncIterator[str]:
        api = self._connection.api
        body: dict[str, Any] = {
            "Image": reference,
            "Entrypoint": ["true"],
            "Labels": {INSTALLATION: installation, PROBE: "1"},
        }
        made = await self._connection.quick(lambda: api.create_container_from_config(body))
        try:
            yield str(made["Id"])
        finally:
            await self._connection.quick(lambda: api.remove_container(made["Id"], v=True, force=True))

    async def _is_there(self, container: str, path: str) -> bool:
        def look() -> None:
            stream, _ = self._connection.api.get_archive(container, path)
            stream.close()

        try:
            await self._connection.quick(look)
        except RefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

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

    async def references(self) -> dict[str, str]:
        """The names of all images present, as users write them, and their ids."""
        found: dict[str, str] = {}
        for image in await self._connection.quick(lambda: self._connection.api.images()):
            for tag in image.get("RepoTags") or []:
                if tag != "<none>:<none>" and not tag.startswith(ARCHIVES):
                    found[tag] = image_id(image["Id"])
        # Podman's name for what has no registry
        short = {tag.removeprefix("localhost/"): known for tag, known in found.items()}
        return short | found


def check_reference(reference: str) -> None:
    """:class:`LaunchError` for what is neither a reference of an image nor an image's id."""
    try:
        if not _ID.fullmatch(reference):
            Reference.parse(reference)
    except ValueError as error:
        raise LaunchError(f"{reference!r} is not the name of an image: it {error}") from None
