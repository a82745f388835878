"""Sizes of directories that belong to strangers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from perijove.model import Attempt
from perijove_spawners.node.disk import disk_use

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

MIB = 1 << 20


def _use(path: Path) -> int:
    size = disk_use(path)
    assert size is not None
    return size


def test_files_count_with_what_they_take(tmp_path: Path) -> None:
    folder = tmp_path / "12.1"
    (folder / "job/deep/deeper").mkdir(parents=True)
    before = _use(folder)
    (folder / "job/deep/deeper/data").write_bytes(b"x" * MIB)
    with (folder / "job/sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert MIB <= _use(folder) - before < 2 * MIB


def test_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * MIB)
    os.link(tmp_path / "one", tmp_path / "two")
    assert MIB <= _use(tmp_path) < 2 * MIB


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/data").write_bytes(b"x" * MIB)
    folder = tmp_path / "12.1"
    folder.mkdir()
    (folder / "file").symlink_to(tmp_path / "elsewhere/data")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "itself").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert _use(folder) < MIB
    assert disk_use(folder / "folder") is None


def test_a_labyrinth_takes_no_longer_than_a_house(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"x" * 4096)
    counted = disk_use(tmp_path, entries=50)
    assert counted is not None
    assert 0 < counted <= 60 * 4096
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    assert _use(deep) > 0


async def test_a_node_tells_the_sizes_of_those_it_has(bench: Bench) -> None:
    await bench.run(bench.order(1, "append", "data", "x" * 100_000))
    sizes = await bench.agent.disk([Attempt(1, 1), Attempt(2, 1)])
    assert list(sizes) == [Attempt(1, 1)]
    assert sizes[Attempt(1, 1)] >= 100_000
