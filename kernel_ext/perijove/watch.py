"""Watching one job: its changes, its output and its use of resources, as one stream of happenings.

The watching runs on the client's background loop; who shows it takes from a queue on a thread of their own.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from perijove.display import LineReader
from perijove.model.errors import PerijoveError
from perijove.model.states import State
from perijove.sync import LOOP, Job

if TYPE_CHECKING:
    from perijove.client import Stream
    from perijove.handle import AsyncJob

STATS_SECONDS = 2.0
WHY_SECONDS = 10.0
"""Seconds between two questions why it waits, the first after :data:`STATS_SECONDS`."""
TICK = 0.5
"""Seconds after which a watcher is given the chance to show that time passes."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing to be shown."""

    kind: Literal["changed", "output", "progress", "stats", "why", "tick", "over"]
    content: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    """With ``over``: why watching ended before the job did."""


class Watch:
    """Follows `job` until it has ended and all of its output was seen. Close it, or use it as a context."""

    def __init__(self, job: Job, *, stats: bool = True) -> None:
        self.job = job
        self._queue: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._with_stats = stats
        self._future: Future[None] = asyncio.run_coroutine_threadsafe(self._watch(), LOOP.loop())

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; the job goes on."""
        self._future.cancel()

    def __iter__(self) -> Iterator[Happening]:
        """What happens, with a tick now and then, up to and including ``over``."""
        while True:
            try:
                happening = self._queue.get(timeout=TICK)
            except queue.Empty:
                happening = Happening("tick")
            yield happening
            if happening.kind == "over":
                return

    async def _watch(self) -> None:
        job = self.job.async_job
        error: BaseException | None = None
        # An array writes nothing itself, and those of thousands of members are no output of a cell.
        streams: list[Stream] = [] if job.is_array else ["display"] if job.rich else ["stdout", "stderr"]
        sampling = asyncio.create_task(self._sample(job)) if self._with_stats else None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._changes(job))
                for stream in streams:
                    group.create_task(self._output(job, stream))
        except BaseExceptionGroup as failures:
            error = failures.exceptions[0]
        except BaseException as failure:
            error = failure
            raise
        finally:
            if sampling is not None:
                sampling.cancel()
            self._queue.put(Happening("over", error=error))

    async def _changes(self, job: AsyncJob) -> None:
        async for _ in job.changes():
            self._queue.put(Happening("changed", job.document))

    async def _output(self, job: AsyncJob, stream: Stream) -> None:
        reader = LineReader()
        async for text in job.follow(stream):
            if stream != "display":
                self._queue.put(Happening("output", {"output_type": "stream", "name": stream, "text": text}))
                continue
            for line in reader.feed(text):
                self._queue.put(Happening("progress" if "progress" in line else "output", line))

    async def _sample(self, job: AsyncJob) -> None:
        asked = -WHY_SECONDS
        while not job.ended:
            await asyncio.sleep(STATS_SECONDS)
            try:
                if job.state is State.RUNNING and not job.is_array:
                    self._queue.put(Happening("stats", await job.stats()))
                elif job.state is State.PENDING and time.monotonic() - asked >= WHY_SECONDS:
                    asked = time.monotonic()
                    self._queue.put(Happening("why", await job.client.why(job.label)))
            except PerijoveError:
                # Both are ornaments; the next answer may come through.
                continue
