"""Launchers by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from perijove.model import OperatorError
from perijove_spawners import registry
from perijove_spawners.launcher import Launcher, LauncherContext


def test_our_own_are_there() -> None:
    assert {"docker", "memory", "podman", "process"} <= set(registry.available())


@pytest.mark.parametrize("name", ["memory", "process"])
def test_a_launcher_by_its_name(name: str, tmp_path: Path) -> None:
    launcher = registry.create(name, LauncherContext("test", tmp_path))
    assert isinstance(launcher, Launcher)
    assert launcher.capabilities.name == name


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(registry.UnknownLauncherError, match=r"'dokcer'.*docker, memory.*process") as caught:
        registry.create("dokcer", LauncherContext("test", tmp_path))
    assert isinstance(caught.value, OperatorError)
