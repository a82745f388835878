"""Directories that change hands between the look at them and the mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import absent

from perijove_spawners.launcher import Mount
from perijove_spawners.node import mounts
from perijove_spawners.node.mounts import MountError

STRANGER = 54321


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        absent("only root gives files away")


def test_a_source_that_a_user_could_replace_by_a_link_is_not_mounted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine looks at the path again, later: what was checked need not be what is mounted."""
    home = tmp_path / "home"
    source = home / "data"
    source.mkdir(parents=True)
    os.chown(home, STRANGER, STRANGER)
    with pytest.raises(MountError, match=r"volume data .* node n1: a directory belongs to a user") as caught:
        mounts.resolve([Mount(str(source), "/data", name="data")], "n1")
    assert str(home) not in str(caught.value)
    assert str(home) in caplog.text
    [mount] = mounts.resolve([Mount(str(home), "/home/stranger")], "n1")
    assert mount.source == str(home)


def test_a_source_where_everybody_may_write_is_mounted_only_if_it_cannot_be_moved(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("root", "stranger"):
        (scratch / name).mkdir()
    os.chown(scratch / "stranger", STRANGER, STRANGER)
    scratch.chmod(0o777)
    with pytest.raises(MountError, match="everybody may write"):
        mounts.resolve([Mount(str(scratch / "root"), "/data")], "n1")
    scratch.chmod(0o1777)
    mounts.resolve([Mount(str(scratch / "root"), "/data")], "n1")
    with pytest.raises(MountError, match="everybody may write"):
        mounts.resolve([Mount(str(scratch / "stranger"), "/data")], "n1")
    mounts.resolve([Mount(str(scratch), "/data")], "n1")


def test_whoever_owns_the_directory_of_the_state_is_the_operator(tmp_path: Path) -> None:
    """As with ``sudo perijove up --state ~/state``."""
    home = tmp_path / "homes/alice"
    home.mkdir(parents=True)
    os.chown(tmp_path, STRANGER, STRANGER)
    tmp_path.chmod(0o777)
    [mount] = mounts.resolve([Mount(str(home), "/home/alice")], "n1", tmp_path / "node")
    assert mount.source == str(home)
