"""Jobs that only pretend, for tests and simulations: the contract of launchers without an engine.

What a command may be: :mod:`.memory_engine`. Thousands of jobs a second; nothing outlives the Python process.

Options: ``images``, references (separated by blanks) that jobs may name; without it jobs name none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from perijove.model import Attempt, Capabilities, Endpoint, Stats
from perijove_spawners.launcher import (
    Archive,
    EngineCall,
    ImageMissingError,
    Launch,
    LauncherContext,
    LaunchError,
    Phase,
    Status,
    Stream,
    UnsupportedError,
)
from perijove_spawners.memory.engine import MemoryEngine, Program, Run

FEATURES = frozenset(
    {
        "constraints",
        "cpu",
        "devices",
        "gpus",
        "memory",
        "ports",
        "signal",
        "suspend",
        "time_limit",
        "volumes",
    }
)


class MemoryLauncher:
    """A launcher on `engine`, which several may share: one after the other, as agents of one node."""

    def __init__(self, context: LauncherContext, engine: MemoryEngine | None = None) -> None:
        self.engine = engine or MemoryEngine()
        self._images = context.options.get("images", "").split()
        self.capabilities = Capabilities(
            name="memory",
            containers=bool(self._images),
            features=FEATURES,
            networks=frozenset({"host", "none"}),
        )

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def prepare(self, launch: Launch, say: Callable[[str], None]) -> None:
        self._check_image(launch)

    def _check_image(self, launch: Launch) -> None:
        if launch.image is not None and not self._images:
            raise UnsupportedError(f"there are no images here (given: {launch.image})")
        if launch.image is not None and launch.image not in self._images:
            raise ImageMissingError(f"there is no image {launch.image}; there are: {', '.join(self._images)}")

    async def load(self, archive: Archive, say: Callable[[str], None]) -> str:
        raise UnsupportedError(f"there are no images here (given: {archive.digest})")

    def call(self, launch: Launch) -> EngineCall | None:
        return None

    async def start(self, launch: Launch) -> None:
        if launch.attempt in self.engine.runs:
            return
        self._check(launch)
        self.engine.start(launch)

    def _check(self, launch: Launch) -> None:
        self._check_image(launch)
        if launch.network is not None and launch.network not in self.capabilities.networks:
            raise UnsupportedError(f"there is no network {launch.network!r} here")
        for mount in launch.mounts:
            if not Path(mount.source).is_dir():
                raise LaunchError(f"{mount.source} is no directory of this node")

    async def status(self, attempts: Collection[Attempt]) -> dict[Attempt, Status]:
        runs = self.engine.runs
        return {a: runs[a].status() if a in runs else Status(Phase.UNKNOWN) for a in attempts}

    async def recover(self) -> list[Attempt]:
        return list(self.engine.runs)

    async def watch(self) -> AsyncIterator[Collection[Attempt]]:
        queue: asyncio.Queue[Attempt] = asyncio.Queue()
        self.engine.watchers.add(queue)
        try:
            while True:
                batch = {await queue.get()}
                while not queue.empty():
                    batch.add(queue.get_nowait())
                yield batch
        finally:
            self.engine.watchers.discard(queue)

    async def stop(self, attempt: Attempt, *, grace: float) -> None:
        run = self.engine.runs.get(attempt)
        if run and run.phase is not Phase.EXITED:
            run.stop(grace)
            await run.ended.wait()

    def _live(self, attempt: Attempt) -> Run:
        run = self.engine.runs.get(attempt)
        if run is None or run.phase is Phase.EXITED:
            raise LaunchError(f"attempt {attempt} does not run")
        return run

    async def signal(self, attempt: Attempt, number: int) -> None:
        self._live(attempt).signal(number)

    async def limit(self, attempt: Attempt, seconds: float | None) -> None:
        self._live(attempt).limit(seconds)

    async def suspend(self, attempt: Attempt) -> None:
        self._live(attempt).suspend()

    async def resume(self, attempt: Attempt) -> None:
        self._live(attempt).resume()

    async def logs(self, attempt: Attempt, stream: Stream, *, offset: int, limit: int) -> bytes:
        run = self.engine.runs.get(attempt)
        return bytes(run.program.output[stream][offset : offset + limit]) if run else b""

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        run = self._live(attempt)
        if run.phase is not Phase.RUNNING:
            raise LaunchError(f"nothing can be run beside attempt {attempt}: it is {run.phase}")
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        program = Program(run.launch, command, code.set_result)
        program.go()
        return await code, bytes(program.output["stdout"] + program.output["stderr"])

    async def stats(self, attempt: Attempt) -> Stats:
        run = self.engine.runs.get(attempt)
        if run is None or run.phase is Phase.EXITED:
            return Stats()
        program = run.program
        return Stats(
            memory=program.memory,
            memory_peak=program.memory,
            cpu_seconds=program.cpu_seconds,
            pids=1,
        )

    async def endpoint(self, attempt: Attempt) -> Endpoint:
        run = self.engine.runs.get(attempt)
        return Endpoint(ports={port: f"127.0.0.1:{port}" for port in run.launch.ports} if run else {})

    async def images(self) -> dict[str, str]:
        return dict.fromkeys(self._images, "")

    async def remove(self, attempt: Attempt) -> None:
        run = self.engine.runs.get(attempt)
        if run and run.phase is not Phase.EXITED:
            raise LaunchError(f"attempt {attempt} still runs; stop it first")
        self.engine.runs.pop(attempt, None)
