"""How much the GPUs of running attempts are at work, as NVIDIA's driver says.

The driver tells for each device in how much of the last moment a kernel ran on it (NVML,
``nvmlDeviceGetUtilizationRates``). Samples taken regularly and added up are device-seconds at work. It says
nothing for the instances of a device split by MIG; they count as idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from perijove.model import Attempt, Gpu, Stats

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two samples, taken only while GPUs are given out."""
_LONGEST = 5.0
"""Seconds for which one sample counts at most."""


class GpuSample(NamedTuple):
    """One device now."""

    busy: float
    """Part of the last moment in which it worked, 0 to 1."""
    memory: int
    """Bytes in use."""


class GpuDriver(Protocol):
    """Who knows about devices."""

    def sample(self, uuids: Collection[str]) -> Mapping[str, GpuSample]:
        """Those of `uuids` that are known. May take its time, and is called in a thread; never raises."""


@dataclass(slots=True)
class GpuUse:
    """What one attempt has used."""

    uuids: tuple[str, ...]
    seconds: float = 0.0
    """Device-seconds at work."""
    noted: float = 0.0
    """Those on record."""
    busy: float = 0.0
    memory: int = 0


@dataclass(slots=True)
class GpuMeter:
    """Samples the devices of those that run, and adds up."""

    driver: GpuDriver
    every: float = EVERY
    _uses: dict[Attempt, GpuUse] = field(default_factory=dict)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, attempt: Attempt, gpus: Sequence[Gpu], before: float = 0.0) -> None:
        """`attempt` runs with these; an earlier agent counted `before` seconds."""
        if gpus:
            self._uses[attempt] = GpuUse(tuple(gpu.uuid for gpu in gpus), before, before)
            self._wanted.set()

    def end(self, attempt: Attempt) -> float:
        """It has ended; device-seconds in which its GPUs were at work."""
        use = self._uses.pop(attempt, None)
        return use.seconds if use else 0.0

    def add_to(self, stats: Stats, attempt: Attempt) -> Stats:
        """`stats` of a running attempt, with its GPUs."""
        if (use := self._uses.get(attempt)) is None:
            return stats
        return stats.model_copy(update={"gpu": use.busy, "gpu_memory": use.memory})

    async def run(self, note: Callable[[Attempt, float], None]) -> None:
        """Until cancelled. `note` is told now and then what to keep on record of an attempt."""
        last = time.monotonic()
        while True:
            if not self._uses:
                self._wanted.clear()
                await self._wanted.wait()
                last = time.monotonic()
            await asyncio.sleep(self.every)
            if not (uuids := {uuid for use in self._uses.values() for uuid in use.uuids}):
                continue
            samples = await asyncio.to_thread(self.driver.sample, uuids)
            now = time.monotonic()
            self._add(samples, min(now - last, _LONGEST))
            last = now
            for attempt, use in self._uses.items():
                # Another agent goes on from here: it may miss some seconds, or one part in ten.
                if use.seconds > 1.1 * use.noted + 5.0:
                    use.noted = use.seconds
                    note(attempt, use.seconds)

    def _add(self, samples: Mapping[str, GpuSample], seconds: float) -> None:
        for use in self._uses.values():
            found = [samples[uuid] for uuid in use.uuids if uuid in samples]
            use.busy = sum(sample.busy for sample in found)
            use.memory = sum(sample.memory for sample in found)
            use.seconds += use.busy * seconds


class NvmlDriver:
    """NVIDIA's management library, loaded when it is first asked."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[str, Any] = {}

    def sample(self, uuids: Collection[str]) -> Mapping[str, GpuSample]:
        real = [uuid for uuid in uuids if uuid.startswith(("GPU-", "MIG-"))]
        if not real or not self._open():
            return {}
        return dict(self._samples(real))

    def _open(self) -> bool:
        if self._nvml is None:
            try:
                import pynvml

                pynvml.nvmlInit()
            except Exception as error:  # no library, no driver
                log.debug("no NVIDIA driver: %s", error)
                return False
            self._nvml = pynvml
        return True

    def _samples(self, uuids: Iterable[str]) -> Iterable[tuple[str, GpuSample]]:
        nvml = self._nvml
        for uuid in uuids:
            try:
                handle = self._handles.get(uuid) or nvml.nvmlDeviceGetHandleByUUID(uuid)
                self._handles[uuid] = handle
                memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
            except nvml.NVMLError as error:
                # It fell off the bus, or the driver was restarted: look for it anew the next time.
                log.debug("GPU %s: %s", uuid, error)
                self._handles.pop(uuid, None)
                continue
            busy = 0.0
            with contextlib.suppress(nvml.NVMLError):
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            yield uuid, GpuSample(min(1.0, max(0.0, busy)), memory)
