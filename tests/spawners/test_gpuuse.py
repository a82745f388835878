"""How much GPUs are at work: of an outcome, of a running job, across agents. The driver is a stand-in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from waiting import until

from perijove.model import Attempt, Gpu, Stats
from perijove_spawners.node.gpuuse import GpuSample, NvmlDriver

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

ONE = Attempt(1, 1)
GPUS = (Gpu(index=0, uuid="GPU-a"), Gpu(index=1, uuid="GPU-b"))


@dataclass
class StandInDriver:
    """A driver whose devices do as they are told."""

    busy: dict[str, float]
    asked: list[set[str]] = field(default_factory=list)

    def sample(self, uuids: Collection[str]) -> Mapping[str, GpuSample]:
        self.asked.append(set(uuids))
        return {uuid: GpuSample(self.busy[uuid], 1 << 30) for uuid in uuids if uuid in self.busy}


async def test_an_outcome_tells_how_much_its_gpus_did(bench: Bench) -> None:
    bench.gpu_driver = driver = StandInDriver({"GPU-a": 1.0, "GPU-b": 0.5, "GPU-c": 1.0})
    await bench.replace(gpu_rhythm=0.02)
    bench.send(bench.order(1, "sleep", "0.5", gpus=GPUS), bench.order(2, "sleep", "0.5"))
    await until(lambda: len(driver.asked) > 5, "some samples")
    stats = await bench.agent.stats(ONE)
    assert (stats.gpu, stats.gpu_memory) == (1.5, 2 << 30)
    assert (await bench.agent.stats(Attempt(2, 1))).gpu == 0.0
    outcome = await bench.outcome(1)
    assert outcome.started and outcome.ended
    ran = outcome.ended - outcome.started
    assert 0.3 * 1.5 * ran < outcome.gpu_seconds < 1.2 * 1.5 * ran
    assert (await bench.outcome(2)).gpu_seconds == 0.0
    assert all(asked == {"GPU-a", "GPU-b"} for asked in driver.asked)


async def test_another_agent_goes_on_counting(bench: Bench) -> None:
    bench.gpu_driver = StandInDriver({"GPU-a": 400.0})  # time runs faster for it
    await bench.replace(gpu_rhythm=0.02)
    bench.send(bench.order(1, "sleep", "60", gpus=GPUS[:1]))
    record = bench.directory / "node/attempts/1.1/record"
    await until(lambda: record.exists() and b"\ngpu " in record.read_bytes(), "what is kept on record")
    bench.gpu_driver = StandInDriver({"GPU-a": 0.0})
    await bench.replace(gpu_rhythm=0.02)
    await bench.agent.stop([ONE], 0)
    assert (await bench.outcome(1)).gpu_seconds > 5.0


async def test_a_driver_is_asked_nothing_while_no_gpu_is_given_out(bench: Bench) -> None:
    bench.gpu_driver = driver = StandInDriver({})
    await bench.replace(gpu_rhythm=0.001)
    await bench.run(*(bench.order(n, "true") for n in range(1, 50)))
    assert driver.asked == []


async def test_a_device_that_the_driver_does_not_know_is_idle(bench: Bench) -> None:
    bench.gpu_driver = driver = StandInDriver({})
    await bench.replace(gpu_rhythm=0.01)
    bench.send(bench.order(1, "sleep", "60", gpus=GPUS))
    await until(lambda: len(driver.asked) > 2, "some samples")
    assert (await bench.agent.stats(ONE)) == Stats(pids=1)
    await bench.agent.stop([ONE], 0)


@pytest.mark.parametrize("uuids", [[], ["gpu0"], ["GPU-00000000-0000-0000-0000-000000000000"]])
def test_the_real_driver_never_fails(uuids: list[str]) -> None:
    assert NvmlDriver().sample(uuids) == {}
