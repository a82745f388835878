"""What a node says of itself."""

from __future__ import annotations

import platform
from pathlib import Path

from perijove.model import Gpu
from perijove_spawners.launcher import LauncherContext
from perijove_spawners.memory.launcher import MemoryLauncher
from perijove_spawners.node.announcing import Announcement
from perijove_spawners.node.config import NodeConfig
from perijove_spawners.node.engine import Engine
from perijove_spawners.node.machine import cpu_model, machine

INTEL = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Intel(R)  Xeon(R) Processor\nflags\t\t: fpu\n\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n\n"


def test_a_host_is_described() -> None:
    found = machine([Gpu(index=0, uuid="GPU-1", model="A100"), Gpu(index=1, uuid="gpu1")])
    assert (found.host, found.arch) == (platform.node(), platform.machine())
    assert found.kernel and found.os and found.cpu_model
    assert found.cores >= 1 and found.memory > 1 << 20
    assert found.gpus == ["A100", "gpu1"]


def test_processors_of_several_makes_are_named() -> None:
    assert cpu_model(INTEL * 2) == "Intel(R) Xeon(R) Processor"
    assert cpu_model(ARM) == "Arm 0x41 0xd0c 0x3"
    assert cpu_model("") == ""


class Stocked(MemoryLauncher):
    """Says which images it has, as an engine does."""

    def __init__(self, found: dict[str, str], version: str) -> None:
        super().__init__(LauncherContext("test", Path("/nowhere"), {"images": " ".join(found)}))
        self.capabilities = self.capabilities.model_copy(update={"version": version})
        self.found = found

    async def images(self) -> dict[str, str]:
        return self.found


async def test_two_engines_that_differ_leave_it_open_what_a_name_means() -> None:
    launchers = {
        "docker": Stocked({"a": "sha256:1", "b": "sha256:2", "d": ""}, "docker 25"),
        "podman": Stocked({"a": "sha256:1", "b": "sha256:3", "c": "sha256:4"}, "podman 5"),
    }
    engines = {name: Engine(name, launcher) for name, launcher in launchers.items()}
    for engine in engines.values():
        engine.ready.set()
    config = NodeConfig(name="n1", directory=Path("/nowhere"), cpus=4.0, memory=8 << 30)
    announcement = Announcement(config, engines, "boot/1")
    assert announcement.node().images == []
    await announcement.look_for_images()
    node = announcement.node()
    assert node.images == ["a", "b", "c", "d"]
    assert node.image_digests == {"a": "sha256:1", "c": "sha256:4"}
    assert node.machine.runtime == "docker 25, podman 5"
