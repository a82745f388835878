"""Countable resources of a node, and what a job sees of those it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perijove.model import OperatorError
from perijove.model.records import Slot
from perijove_spawners.node.environment import slot_variables
from perijove_spawners.node.resources import parse_resources

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench


def test_units_that_are_devices(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    for path in (a, b, c):
        path.touch()
    counts, slots = parse_resources({"scratch": "4", "gpu_10.5": f"{a}, {b};{c}"})
    assert counts == {"scratch": 4, "gpu_10.5": 2}
    assert slots == {"gpu_10.5": (Slot(devices=[str(a), str(b)]), Slot(devices=[str(c)]))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "must be a whole number from 1"),
        ("several", "must be a whole number from 1"),
        ("²", "must be a whole number from 1"),
        ("/dev/no-such-device", "/dev/no-such-device does not exist"),
        ("/dev/null,relative", "must be paths of device nodes"),
        ("/dev/null;", "must be paths of device nodes"),
        ("/dev/null;/dev/zero,/dev/null", "/dev/null is part of unit 0 of x already"),
    ],
)
def test_a_wrong_resource_is_named(text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        parse_resources({"x": text})


def test_a_device_belongs_to_one_resource() -> None:
    with pytest.raises(OperatorError, match="part of unit 0 of x"):
        parse_resources({"x": "/dev/null", "y": "/dev/null"})


def test_a_job_finds_the_numbers_of_its_units() -> None:
    slots = {"gpu_10.5": (0, 3), "disk-ssd": (2,)}
    assert slot_variables(slots) == {
        "PERIJOVE_RESOURCE_GPU_10_5": "0,3",
        "PERIJOVE_RESOURCE_DISK_SSD": "2",
    }


async def test_a_node_announces_them_and_a_job_has_them(bench: Bench) -> None:
    await bench.replace(resources={"x": 2}, slots={"x": (Slot(devices=["/dev/null"]), Slot())})
    node = await bench.agent.describe()
    assert (node.resources, node.slots) == ({"x": 2}, {"x": [Slot(devices=["/dev/null"]), Slot()]})
    await bench.run(bench.order(1, "print", "PERIJOVE_RESOURCE_X", slots={"x": (0,)}, devices=("/dev/null",)))
    chunk = await bench.agent.logs(bench.order(1).attempt, "stdout", 0, 100)
    assert chunk and chunk.data == b"0\n"
    assert bench.engine.runs[bench.order(1).attempt].launch.devices == ("/dev/null",)
