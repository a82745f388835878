"""From an order to a running job: laid out, resolved, fetched, started."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perijove.model import Attempt, Endpoint
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import (
    SCRATCH_DIRECTORY,
    EngineError,
    ImageGoneError,
    Launch,
    LaunchError,
    Mount,
    Phase,
)
from perijove_spawners.node import display, environment, homes, mounts, scratch
from perijove_spawners.node.archives import StoredArchive
from perijove_spawners.node.attempts import Started
from perijove_spawners.node.config import NodeConfig
from perijove_spawners.node.engine import Engine, Pauses, persist
from perijove_spawners.node.publishing import Publishing
from perijove_spawners.node.scratch import Scratch
from perijove_spawners.node.secrets import SecretFolders
from perijove_spawners.node.staging import JOB, StagingFaultError, files_account, mounts_of, stage
from perijove_spawners.protocol import Order
from perijove_spawners.store import Store

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds after which a start is given up whose engine certainly never saw it."""

FETCHES = 3
"""How often an image is asked for that the engine loses again before it is used."""
MOUNT_PATIENCE = 20.0
_MOUNTS = ThreadPoolExecutor(16, "mounts")


class MountTimeoutError(LaunchError):
    """A directory that the job needs lies on a file system that does not answer."""

    transient = True


class StoppedError(Exception):
    """It was to be stopped before it was started."""


def _here() -> str:
    return "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Shared:
    """What the attempts of a node share out among them."""

    scratch: Scratch
    publishing: Publishing = field(default_factory=Publishing)
    address: Callable[[], str] = _here
    """Under which others reach this host."""

    @classmethod
    def of(cls, config: NodeConfig, address: Callable[[], str]) -> Shared:
        """What the node has; :class:`~perijove.model.OperatorError` for a range of ports that is none."""
        return cls(
            Scratch(config.directory / scratch.FOLDER, config.scratch, config.scratch_sparse),
            Publishing.parse(config.publish_ports, config.publish_address),
            address,
        )

    def open(self, living: Mapping[Attempt, Path]) -> None:
        """Leave to `living`, attempts with their folders, what they have, and clear away the rest."""
        self.publishing.take_up(living)
        self.scratch.open(living)

    def release(self, order: Order) -> None:
        """What the attempt had is free again."""
        if order.tmp_disk is not None:
            self.scratch.release(order.attempt)
        self.publishing.release(order.attempt)


@dataclass(frozen=True, slots=True)
class Launching:
    """One attempt on its way; :meth:`run` may be repeated by a later agent at any point."""

    engine: Engine
    order: Order
    folder: Path
    node: str
    store: Store
    shared: Shared
    secrets: SecretFolders
    stop_wanted: asyncio.Event
    say: Callable[[str], None]
    """Takes what is being done, for people."""

    @classmethod
    def of(cls, order: Order, engine: Engine, folder: Path, **more: Any) -> Launching:
        """With the paths of inputs where the order's texts name them."""
        containers = engine.launcher.capabilities.containers
        directory = environment.job_directory(containers, str(folder / JOB))
        return cls(
            order=environment.placed(order, containers, directory), engine=engine, folder=folder, **more
        )

    async def run(self) -> Started:
        """Returns when it runs; :class:`LaunchError` or :class:`StoppedError` when nothing of it does."""
        try:
            launch = await self._lay_out()
            reach("node.staged")
            await self._fetch_and_start(launch)
        except (LaunchError, StoppedError):
            raise
        except Exception as error:
            log.exception("%s: cannot be launched", self.order.attempt)
            raise LaunchError(f"the node agent failed: {type(error).__name__}: {error}") from error
        return await self.started()

    async def _fetch_and_start(self, launch: Launch) -> None:
        """Fetch the image once more when it was removed from the engine before it was needed."""
        for left in reversed(range(FETCHES)):
            fetched = await self._fetch(launch)
            try:
                async with self.engine.starts:
                    reach("node.before-start")
                    await self._start(fetched)
                    reach("node.started")
            except ImageGoneError as error:
                if not left:
                    raise
                self.say(f"{error}; asking for it again")
            else:
                return

    async def started(self) -> Started:
        """Note that it runs now, and where its ports are."""
        return Started(time.time(), await self._endpoint() if self.order.ports else None)

    async def _lay_out(self) -> Launch:
        order, containers = self.order, self.engine.launcher.capabilities.containers
        if order.inputs:
            await self._stage(containers)
        else:
            stage(self.folder, order, self.store, containers=containers)
        found = await self._find_mounts()
        own = await self._own(containers)
        published = await asyncio.to_thread(self._publish) if order.ports and containers else {}
        launch = launch_of(
            order,
            self.folder,
            self.node,
            containers=containers,
            mounts=(*found, *own) if containers else found,
        )
        launch = replace(
            launch, own_mounts=own, published=published, publish_at=self.shared.publishing.addresses
        )
        return self.secrets.given(launch, order, containers=containers)

    async def _own(self, containers: bool) -> tuple[Mount, ...]:
        """The mounts that are this attempt's alone: what was staged, and what is to be made first."""
        own = mounts_of(self.folder, self.order) if containers else ()
        if self.order.tmp_disk is None and not self.order.gui:
            return own
        return (*own, *await asyncio.to_thread(self._make_own, containers))

    def _make_own(self, containers: bool) -> tuple[Mount, ...]:
        order, account = self.order, files_account(self.order)
        own: tuple[Mount, ...] = ()
        if order.tmp_disk is not None:
            self.shared.scratch.provide(order.attempt, order.tmp_disk, account)
            own = (*own, scratch.mount_of(self.folder))
        if order.gui and containers:
            home = display.home_of(order.account, order.mounts)
            own = (*own, display.mount_of(order.env.get("DISPLAY", display.DEFAULT)))
            display.place_authority(home, self.folder / JOB, account, order.account)
        return own

    def _publish(self) -> dict[int, int]:
        order = self.order
        return self.shared.publishing.provide(order.attempt, self.folder, order.ports)

    async def _stage(self, containers: bool) -> None:
        """Again for a while when the store cannot be reached."""
        pauses, give_up = Pauses(self.stop_wanted), time.monotonic() + PATIENCE
        while True:
            try:
                await asyncio.to_thread(stage, self.folder, self.order, self.store, containers=containers)
            except StagingFaultError as error:
                if time.monotonic() > give_up:
                    raise
                self.say(str(error))
            else:
                return
            await pauses.pause()
            if self.stop_wanted.is_set():
                raise StoppedError

    async def _find_mounts(self) -> tuple[Mount, ...]:
        """Looks at directories that may lie on a dead file server: in a thread, and not for ever."""
        if not self.order.mounts and not self.order.make_home:
            return ()
        try:
            async with asyncio.timeout(MOUNT_PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(_MOUNTS, self._look_at_mounts)
        except TimeoutError:
            log.warning("no answer from one of %s", [mount.source for mount in self.order.mounts])
            wanted = ", ".join(map(str, self.order.mounts)) or "home"
            raise MountTimeoutError(
                f"no answer from the file system within {MOUNT_PATIENCE:g} s: {wanted}"
            ) from None

    def _look_at_mounts(self) -> tuple[Mount, ...]:
        order = self.order
        if order.make_home:
            homes.make_home(order.account, order.mounts, self.folder, order.home_limit)
        # Root writes in none of them.
        wanted = [replace(mount, read_only=True) for mount in order.mounts] if order.root else order.mounts
        return mounts.resolve(wanted, self.node, self.folder)

    async def _fetch(self, launch: Launch) -> Launch:
        """Have what it needs on the engine; the launch with the name that its image has there."""
        if not self.engine.launcher.capabilities.containers:
            return launch
        fetch = asyncio.ensure_future(
            persist(
                lambda: self._prepare(launch),
                f"{launch.attempt}: prepare",
                patience=PATIENCE,
            )
        )
        stop = asyncio.ensure_future(self.stop_wanted.wait())
        try:
            await asyncio.wait({fetch, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not fetch.done():
                raise StoppedError
            return fetch.result()
        finally:
            fetch.cancel()
            stop.cancel()

    async def _prepare(self, launch: Launch) -> Launch:
        launcher = self.engine.launcher
        try:
            if archive := StoredArchive.of(launch.image, self.store):
                launch = replace(launch, image=await launcher.load(archive, self.say))
            await launcher.prepare(launch, self.say)
        except EngineError as error:
            self.say(f"waiting for {self.engine.name}: {error}")
            raise
        return launch

    async def _start(self, launch: Launch) -> None:
        """Start it, however often the engine fails; give up only when it certainly has nothing of it."""
        give_up = time.monotonic() + PATIENCE
        pauses = Pauses(self.stop_wanted)
        nothing_there, ask = True, self.engine.troubled
        while True:
            try:
                if ask:
                    phase = await self._phase()
                    if phase in {Phase.RUNNING, Phase.SUSPENDED, Phase.EXITED}:
                        return
                    nothing_there = phase is Phase.UNKNOWN
                if nothing_there and self.stop_wanted.is_set():
                    raise StoppedError
                nothing_there, ask = False, True
                await self.engine.launcher.start(launch)
            except EngineError as error:
                self.engine.troubled = True
                log.warning("%s: start: %s", launch.attempt, error)
                if nothing_there and self.stop_wanted.is_set():
                    raise StoppedError from error
                if nothing_there and time.monotonic() > give_up:
                    raise
                self.say(f"waiting for {self.engine.name}: {error}")
            else:
                self.engine.troubled = False
                return
            await pauses.pause()

    async def _phase(self) -> Phase:
        attempt = self.order.attempt
        statuses = await self.engine.launcher.status([attempt])
        self.engine.troubled = False
        return statuses[attempt].phase if attempt in statuses else Phase.UNKNOWN

    async def _endpoint(self) -> Endpoint | None:
        attempt = self.order.attempt
        try:
            found = await persist(
                lambda: self.engine.launcher.endpoint(attempt), f"{attempt}: endpoint", until=self.stop_wanted
            )
            return self.shared.publishing.seen_from_elsewhere(found, self.shared.address())
        except LaunchError as error:
            # It has ended already, or is about to be stopped.
            log.warning("%s: no endpoint: %s", attempt, error)
            return None


def scratch_directory(order: Order, folder: Path, containers: bool) -> str:
    """Where the job sees its scratch space; empty when it has none."""
    if order.tmp_disk is None:
        return ""
    return SCRATCH_DIRECTORY if containers else str(scratch.place(folder))


def launch_of(
    order: Order, folder: Path, node: str, *, containers: bool, mounts: tuple[Mount, ...] = ()
) -> Launch:
    """The launch that `order`, with the paths of its inputs, comes to in `folder`."""
    directory = environment.job_directory(containers, str(folder / JOB))
    return Launch(
        attempt=order.attempt,
        owner=order.owner,
        command=environment.command(order, directory),
        account=order.account,
        directory=folder,
        env=environment.environment(
            order,
            node=node,
            containers=containers,
            directory=directory,
            scratch=scratch_directory(order, folder, containers),
        ),
        cwd=environment.cwd(order, containers, directory),
        image=order.image,
        mounts=mounts,
        cpu=order.cpu,
        memory=order.memory,
        shm_size=order.shm_size,
        gpus=order.gpus,
        devices=order.devices,
        network=order.network,
        ports=order.ports,
        time_limit=order.time_limit,
        grace=order.grace,
        stdout=order.stdout,
        stderr=order.stderr,
        stdin=environment.input_path(order.stdin, containers, directory) if order.stdin else None,
        descriptors=environment.descriptors(order, directory),
        entrypoint=order.entrypoint,
        sealed=order.sealed,
        labels=order.labels,
        project=order.project,
        root=order.root,
        ipc=order.ipc,
    )
