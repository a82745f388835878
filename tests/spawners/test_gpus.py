"""The GPU table of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from perijove.model import Gpu, OperatorError
from perijove_spawners.node.environment import device_variables
from perijove_spawners.node.gpus import inventory, model_name, nvml_inventory


def test_a_number_of_stand_ins() -> None:
    assert [g.uuid for g in inventory("2")] == ["gpu0", "gpu1"]
    assert [(g.index, g.model) for g in inventory("a100:2")] == [(0, "a100"), (1, "a100")]


@pytest.mark.parametrize("setting", ["none", "", "0", " none "])
def test_no_gpus(setting: str) -> None:
    assert inventory(setting) == []


def test_device_nodes(tmp_path: Path) -> None:
    devices = [tmp_path / "fakegpu0", tmp_path / "fakegpu1"]
    for device in devices:
        device.touch()
    found = inventory(f"{devices[0]}, h200={devices[1]}")
    assert [(g.index, g.uuid, g.model, g.device) for g in found] == [
        (0, "fakegpu0", "", str(devices[0])),
        (1, "fakegpu1", "h200", str(devices[1])),
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("/dev/no-such-gpu", "/dev/no-such-gpu does not exist"),
        ("several", "'several' is neither auto, none, a number"),
        ("-1", "'-1' is neither"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        inventory(setting)


def test_asking_the_driver_never_fails() -> None:
    found = nvml_inventory()
    assert [g.index for g in found] == list(range(len(found)))
    assert all(g.uuid.startswith(("GPU-", "MIG-")) and g.memory > 0 for g in found)


@pytest.mark.parametrize(
    ("product", "model"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA GeForce RTX 3090", "GeForce-RTX-3090"),
        ("Tesla V100", "Tesla-V100"),
    ],
)
def test_a_product_is_one_word(product: str, model: str) -> None:
    assert model_name(product) == model


def test_variables_name_exactly_the_devices_allotted() -> None:
    assert device_variables([]) == {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    stand_ins = [Gpu(index=1, uuid="gpu1"), Gpu(index=3, uuid="gpu3")]
    assert device_variables(stand_ins)["CUDA_VISIBLE_DEVICES"] == "1,3"
    real = [Gpu(index=0, uuid="GPU-12ab")]
    assert device_variables(real) == {
        "CUDA_VISIBLE_DEVICES": "GPU-12ab",
        "NVIDIA_VISIBLE_DEVICES": "GPU-12ab",
    }
