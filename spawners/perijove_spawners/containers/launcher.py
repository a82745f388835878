"""A launcher on the Docker Engine API; what differs between engines is a :class:`~.container.Dialect`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from perijove.model import Attempt, Capabilities, Endpoint, Stats
from perijove_spawners.containers.connection import Connection, FaultError, RefusedError, UnansweredError
from perijove_spawners.containers.container import (
    NETWORK,
    NETWORKS,
    Dialect,
    EngineOptions,
    check_paths,
    create_body,
    network_mode,
)
from perijove_spawners.containers.events import EventStream
from perijove_spawners.containers.identity import Identities
from perijove_spawners.containers.images import Image, Images
from perijove_spawners.containers.inventory import Inventory
from perijove_spawners.containers.networks import OwnNetworks
from perijove_spawners.containers.noting import noted
from perijove_spawners.containers.program import SHELL, needs_shell
from perijove_spawners.containers.reading import age_of, endpoint_of, phase_of, stats_of
from perijove_spawners.containers.survey import Known, Survey
from perijove_spawners.launcher import (
    Archive,
    EngineCall,
    EngineError,
    Launch,
    LauncherContext,
    LaunchError,
    Mount,
    Phase,
    Status,
    Stream,
    UnsupportedError,
)

logger = logging.getLogger(__name__)

FEATURES = frozenset(
    {
        "archives",
        "cpu",
        "devices",
        "gpus",
        "gui",
        "ipc",
        "memory",
        "ports",
        "root",
        "sealed",
        "shm_size",
        "signal",
        "stdin",
        "suspend",
        "tmp_disk",
        "volumes",
    }
)
SETTLING = 3.0
"""Seconds that an engine may take over a request whose sender is gone."""


class EngineLauncher:
    """Runs each attempt as a container named after it; see :class:`~perijove_spawners.launcher.Launcher`."""

    name: ClassVar[str]
    dialect: ClassVar[Dialect]

    def __init__(self, context: LauncherContext) -> None:
        self._installation = context.installation
        self._options = EngineOptions.parse(context.options, url=self.default_url())
        self._connection = Connection(self.name, self._options.url, context.note)
        self._containers = Inventory(self._connection, self._installation)
        self._networks = OwnNetworks(self._connection, self._installation)
        asks = self.dialect.distribution
        self._images = Images(self._connection, self._options, context.directory, distribution=asks)
        self._identities = Identities(context.directory)
        self._archives = context.directory / "archives"
        self.capabilities = Capabilities(
            name=self.name, containers=True, features=FEATURES, networks=NETWORKS
        )
        self._since = 0.0
        self._cleared = False
        self._locks: WeakValueDictionary[Attempt, asyncio.Lock] = WeakValueDictionary()
        self._survey = Survey(self._connection, self._containers, self.dialect)
        self._events: set[EventStream] = set()
        self._doubtful: set[Attempt] = set()
        """The engine went away while it was starting these; it may have run them without noting it."""

    @classmethod
    def default_url(cls) -> str:
        """Where the engine is when the node's configuration does not say."""
        raise NotImplementedError

    # -- the engine

    async def open(self) -> None:
        """Connect, and clear away what a killed agent left between two steps."""
        self._since = time.time()
        await self._connection.open()
        said = await self._connection.quick(lambda: self._connection.api.version())
        version = f"{self.name} {said.get('Version', '')}".strip()
        self.capabilities = self.capabilities.model_copy(update={"version": version})
        await self._survey.open()
        if not self._cleared:
            await asyncio.to_thread(_make_empty, self._archives)
            # only now, before anything is started: what lies about unused is nobody's
            await self._containers.discard_probes()
            await self._networks.drop_unused({c["Labels"].get(NETWORK) for c in await self._containers.all()})
            self._cleared = True

    async def close(self) -> None:
        """Let go of the engine; what runs goes on."""
        for events in tuple(self._events):
            events.close()
        await self._survey.close()
        self._connection.close()

    async def recover(self) -> list[Attempt]:
        """Every attempt of this installation that the engine has."""
        return list(await self._containers.states())

    async def images(self) -> dict[str, str]:
        """References of the images present, and their ids."""
        return await self._images.references()

    async def watch(self) -> AsyncIterator[Collection[Attempt]]:
        """Attempts with an event since :meth:`open`, then as events come."""
        events = EventStream(self._connection, self._installation)
        self._events.add(events)
        try:
            async for batch in events.changes(self._since):
                yield batch
        finally:
            self._events.discard(events)
            events.close()

    # -- one attempt, from start to end

    @noted
    async def prepare(self, launch: Launch, say: Callable[[str], None]) -> None:
        """Have the image on the engine."""
        if launch.image:
            await self._images.provide(launch.image, say, login=launch.login, pull=launch.pull)

    async def load(self, archive: Archive, say: Callable[[str], None]) -> str:
        """Have the image of an archive on the engine."""
        return await self._images.load(archive, self._archives, say)

    @noted
    async def start(self, launch: Launch) -> None:
        """Create and start the container, or go on with the one that has its name."""
        name = self._containers.name(launch.attempt)
        network = network_mode(launch, self._installation, self._options.network)
        async with self._lock(launch.attempt), self._networks.held(network):
            try:
                await self._create(launch, name)
            except EngineError:
                raise
            except LaunchError as error:
                if not await self._found_unstarted(launch.attempt, error):
                    return
                await self._leave_doubtful(launch.attempt, name)
            await self._run(launch.attempt, name)
            self._doubtful.discard(launch.attempt)
            self._survey.note_start(launch.attempt)

    def call(self, launch: Launch) -> EngineCall | None:
        """None: calls are noted as they are made."""
        return None

    async def _create(self, launch: Launch, name: str) -> None:
        check_paths(launch)
        try:
            image = await self._image(launch)
            body = create_body(
                launch,
                installation=self._installation,
                options=self._options,
                dialect=self.dialect,
                identity=await self._identity(launch, image),
                own=image.own,
                manifest=image.manifest(launch.image or ""),
            )
            await self._attempted(lambda: self._connection.api.create_container_from_config(body, name))
        except RefusedError as error:
            if error.status == 404 and "image" in str(error).lower():
                raise self._images.lost(launch.image or "") from error
            raise

    async def _image(self, launch: Launch) -> Image:
        reference = launch.image or ""
        found = await self._images.find(reference)
        if found is None:
            raise self._images.lost(reference)
        if needs_shell(launch) and not await self._images.has_shell(reference, found, self._installation):
            raise LaunchError(f"image {reference} has no {SHELL}, which stdin and outputs fd:3 to fd:9 need")
        return found

    async def _identity(self, launch: Launch, image: Image) -> tuple[Mount, ...]:
        async def fetch() -> Mapping[str, str]:
            return await self._images.account_files(launch.image or "", self._installation)

        shell = launch.env.get("SHELL", SHELL)
        return await self._identities.mounts(image.id, launch.account, shell, fetch)

    async def _found_unstarted(self, attempt: Attempt, error: LaunchError) -> bool:
        """Whether the attempt's container exists without having been started; `error` when there is none.

        One made a moment ago may be about to be started: the engine goes on with what an agent asked of it
        after that agent was killed. Starting it a second time, when it has ended, would run the job again.
        """
        clash = "already in use" in str(error)
        deadline = time.monotonic() + SETTLING
        while True:
            info, of_another = await self._containers.look(attempt)
            if of_another or (info is None and not clash):
                raise error
            if info is not None and (phase_of(info) is not Phase.CREATED or age_of(info) > SETTLING):
                return phase_of(info) is Phase.CREATED
            if time.monotonic() > deadline:
                raise EngineError(f"the engine is still making the container of {attempt}") from error
            await asyncio.sleep(0.05)

    async def _leave_doubtful(self, attempt: Attempt, name: str) -> None:
        """Refuse to start what may have run.

        An engine that was killed after it let the program go, and before it noted that, calls the container
        created: starting that would run the job a second time.
        """
        if attempt not in self._doubtful:
            return
        await self._containers.discard(name, force=True)
        self._doubtful.discard(attempt)
        raise LaunchError(f"{self.name} died while it started the job; whether it ran is not known")

    async def _run(self, attempt: Attempt, name: str) -> None:
        try:
            await self._attempted(lambda: self._connection.api.start(name))
        except UnansweredError:
            self._doubtful.add(attempt)
            raise
        except EngineError:
            raise
        except LaunchError:
            # its name would be taken for a job's that was started
            await self._containers.discard(name, force=True)
            raise

    async def _attempted(self, call: Callable[[], Any]) -> None:
        """Make a call whose failure is the launch's own, unless the engine is found to be failing."""
        try:
            await self._connection.quick(call)
        except FaultError as error:
            if await self._connection.answers():
                raise LaunchError(str(error)) from error
            raise

    @noted
    async def stop(self, attempt: Attempt, *, grace: float) -> None:
        """The engine's own stop; a frozen container is thawed first, or no signal would reach it."""
        # a start under way comes first, or it would be missed
        async with self._lock(attempt):
            info = await self._containers.find(attempt)
        if info is None or phase_of(info) in {Phase.EXITED, Phase.CREATED}:
            return
        self._survey.known(attempt).stopped = True
        if phase_of(info) is Phase.SUSPENDED:
            await self.resume(attempt)
        seconds = math.ceil(grace)
        with _unless("is not running", "no such container", "No such container"):
            await self._connection.slow(
                lambda: self._connection.api.stop(self._containers.name(attempt), timeout=seconds)
            )

    @noted
    async def signal(self, attempt: Attempt, number: int) -> None:
        """To the container's init, which passes it on: Docker's to the job's group, Podman's to its child."""
        try:
            await self._connection.quick(
                lambda: self._connection.api.kill(self._containers.name(attempt), signal=number)
            )
        except FaultError as error:
            # Podman answers so for a container that has ended.
            if "state improper" in str(error) or "is not running" in str(error):
                raise LaunchError(f"attempt {attempt} does not run") from error
            raise

    async def limit(self, attempt: Attempt, seconds: float | None) -> None:
        """Engines keep no time limits; the agent does."""
        raise UnsupportedError(f"{self.name} keeps no time limits")

    @noted
    async def suspend(self, attempt: Attempt) -> None:
        """Freeze it."""
        with _unless("already paused"):
            await self._connection.quick(lambda: self._connection.api.pause(self._containers.name(attempt)))

    @noted
    async def resume(self, attempt: Attempt) -> None:
        """Thaw it."""
        with _unless("not paused"):
            await self._connection.quick(lambda: self._connection.api.unpause(self._containers.name(attempt)))

    @noted
    async def remove(self, attempt: Attempt) -> None:
        """Remove the container, once its log lies complete in the attempt's directory."""
        async with self._lock(attempt):
            known = self._survey.get(attempt)
            if known is None or known.status.phase is not Phase.EXITED:
                known = await self._survey.look(attempt)
            if known is not None:
                await self._keep_log(attempt, known)
                await self._networks.drop(known.network)  # Docker: one that ended is not on it any more
                await self._containers.discard(self._containers.name(attempt), force=False)
                await self._networks.drop(known.network)
            self._survey.forget(attempt)

    # -- what it does meanwhile

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        """By one list of all containers; asked for each are only those that the list shows changed."""
        return await self._survey.status(attempts)

    async def stats(self, attempt: Attempt) -> Stats:
        """The engine's counters, with CPU over the time since the last call."""
        raw = await self._containers.counters(self._containers.name(attempt))
        if not raw.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage"):
            return Stats()
        known = self._survey.known(attempt)
        stats, known.asked = stats_of(raw, known.asked)
        known.used = known.asked
        return stats

    async def endpoint(self, attempt: Attempt) -> Endpoint:
        """The container's own address: engines route to it from their host."""
        info = await self._containers.find(attempt)
        return endpoint_of(info) if info else Endpoint()

    @noted
    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        """Run `command` in the container."""
        api = self._connection.api
        made = await self._connection.quick(
            lambda: api.exec_create(self._containers.name(attempt), list(command))
        )
        output = await self._connection.slow(lambda: api.exec_start(made["Id"]))
        info = await self._connection.quick(lambda: api.exec_inspect(made["Id"]))
        return int(info["ExitCode"] or 0), output

    async def logs(self, attempt: Attempt, stream: Stream, *, offset: int, limit: int) -> bytes:
        """A piece of the copy that is kept in the attempt's directory."""
        known = self._survey.get(attempt)
        if known is None or known.log is None:
            known = await self._survey.look(attempt)
        if known is None or known.log is None:
            return b""
        return await known.log.read(stream, offset, limit)

    async def _keep_log(self, attempt: Attempt, known: Known) -> None:
        log = known.log
        if log is None or known.status.phase is Phase.CREATED or not log.directory.exists():
            return
        log.ended = True
        try:
            await log.catch_up()
        except (RefusedError, FaultError) as error:
            # the engine lives and has lost the log: the container must not stay for ever because of that
            logger.warning("the log of %s is incomplete: %s", attempt, error)

    def _lock(self, attempt: Attempt) -> asyncio.Lock:
        return self._locks.setdefault(attempt, asyncio.Lock())


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _unless(*reasons: str) -> Iterator[None]:
    """Take a refusal for one of `reasons` as done."""
    try:
        yield
    except (RefusedError, FaultError) as error:
        if not any(reason in str(error) for reason in reasons):
            raise
