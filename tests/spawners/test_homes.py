"""Homes that Perijove makes: nobody can have another directory taken for one."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import absent

from perijove.model import Account
from perijove_spawners.launcher import LaunchError, Mount
from perijove_spawners.node.homes import Homes, capped, make_home, may_cap
from perijove_spawners.node.mounts import MountError

GUEST = Account("guest", 4300, 4300, "/home/guest")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        absent("only root gives homes to others")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "homes/guest"


def wanted(place: Path) -> list[Mount]:
    return [Mount(str(place), GUEST.home)]


def test_a_home_is_no_link_and_nobody_elses(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    (tmp_path / "bobs").mkdir()
    place.symlink_to(tmp_path / "bobs")
    with pytest.raises(MountError, match="is not a directory"):
        make_home(GUEST, wanted(place))
    place.unlink()
    place.mkdir()
    os.chown(place, 4301, 4301)
    with pytest.raises(MountError, match="belongs to uid 4301 and not to guest"):
        make_home(GUEST, wanted(place))


@pytest.mark.parametrize("how", ["theirs", "everybodys"])
def test_where_users_can_put_links_no_home_is_touched(place: Path, how: str) -> None:
    place.parent.mkdir()
    if how == "theirs":
        os.chown(place.parent, 4301, 4301)
    else:
        place.parent.chmod(0o1777)
    with pytest.raises(MountError, match=r"cannot be made: .*(belongs to a user|everybody may write)"):
        make_home(GUEST, wanted(place))
    assert not place.exists()


async def test_what_is_done_with_a_home(place: Path, tmp_path: Path) -> None:
    homes = Homes(tmp_path / "node")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x" * 100_000)
    make_home(GUEST, wanted(place))
    (place / "file").write_text("x" * 50_000)
    os.chown(place / "file", GUEST.uid, GUEST.gid)
    (place / "link").symlink_to(outside)
    used = await homes.measure_home(str(place))
    assert used is not None and 50_000 <= used < 100_000
    to = place.with_name("member")
    assert await homes.hand_over(str(place), 4300, 5000, 5000, str(to)) == 2
    assert await homes.hand_over(str(place), 4300, 5000, 5000, str(to)) == 0  # was done before
    assert (to / "file").stat().st_uid == 5000 and (outside / "kept").stat().st_uid == 0
    await homes.remove_home(str(to))
    await homes.remove_home(str(to))
    assert await homes.measure_home(str(to)) is None and (outside / "kept").exists()
    with pytest.raises(LaunchError, match="cannot be handed over"):
        await homes.hand_over(str(place), 4300, 5000, 5000)
    for path in ("/etc", "homes/guest", f"{place}/../x"):
        with pytest.raises(LaunchError, match="is not the path of a home"):
            await homes.remove_home(path)


def test_a_limit_holds_and_goes_along(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    if reason := may_cap(place):
        absent(reason)
    homes = Homes(tmp_path / "node")
    try:
        for _ in range(2):
            make_home(GUEST, wanted(place), limit=32 * MIB)
        assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (4300, 0o700)
        fill = subprocess.run(
            ["head", "-c", "64M", "/dev/zero"], stdout=(place / "full").open("wb"), check=False
        )
        assert fill.returncode != 0
        size = (place / "full").stat().st_size
        assert 32 * MIB <= size < 44 * MIB
        used = asyncio.run(homes.measure_home(str(place)))
        assert used is not None and used >= size
        # As after a restart of the machine.
        capped(place).unmount()
        make_home(GUEST, wanted(place), limit=32 * MIB)
        assert (place / "full").stat().st_size == size
        os.chown(place / "full", 4300, 4300)
        capped(place).unmount()
        assert asyncio.run(homes.hand_over(str(place), 4300, 4301, 4301)) == 2  # not of its empty place
        assert ((place / "full").stat().st_uid, place.stat().st_uid) == (4301, 4301)
        to = place.with_name("member")
        asyncio.run(homes.hand_over(str(place), 4301, 5000, 5000, str(to)))
        assert (to / "full").stat().st_size == size and os.path.ismount(to)
    finally:
        for name in ("guest", "member"):
            asyncio.run(homes.remove_home(str(place.with_name(name))))
    assert list(place.parent.iterdir()) == []
