"""Account files for containers."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from perijove.model import Account
from perijove_spawners.containers.identity import Identities, from_archive, group, passwd
from perijove_spawners.launcher import LaunchError, Mount

ALICE = Account("alice", 1000, 1000, "/home/alice", groups=(100, 5555))
IMAGE = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\njovyan:x:1000:100::/home/jovyan:/bin/sh\n",
    "group": "root:x:0:\nusers:x:100:\nalice:x:77:\n",
}


class Image:
    """An image's files, with a count of how often they were fetched."""

    def __init__(self) -> None:
        self.fetched = 0

    async def fetch(self) -> Mapping[str, str]:
        self.fetched += 1
        return IMAGE


def readable_by_all(mount: Mount) -> str:
    path = Path(mount.source)
    assert path.stat().st_mode & 0o777 == 0o644
    return path.read_text()


def test_the_account_comes_before_one_of_the_same_uid() -> None:
    lines = passwd(IMAGE["passwd"], ALICE, "/bin/bash").splitlines()
    assert lines[0] == "alice:x:1000:1000::/home/alice:/bin/bash"
    assert len(lines) == 3


def test_the_account_replaces_one_of_the_same_name() -> None:
    lines = passwd("alice:x:1:1::/:/bin/sh\n", ALICE, "/bin/sh").splitlines()
    assert lines == ["alice:x:1000:1000::/home/alice:/bin/sh"]


def test_groups_the_image_lacks_are_added_under_free_names() -> None:
    names = {1000: "alice", 5555: "lab"}
    assert group(IMAGE["group"], ALICE, names).splitlines()[:2] == ["g1000:x:1000:", "lab:x:5555:"]
    assert group("", ALICE, {}).splitlines() == ["g1000:x:1000:", "g100:x:100:", "g5555:x:5555:"]


async def test_an_image_is_read_once_and_files_are_kept(tmp_path: Path) -> None:
    image = Image()
    first = await Identities(tmp_path).mounts("sha256:1", ALICE, "/bin/sh", image.fetch)
    again = await Identities(tmp_path).mounts("sha256:1", ALICE, "/bin/sh", image.fetch)
    bob = Account("bob", 1001, 1001, "/home/bob")
    other = await Identities(tmp_path).mounts("sha256:1", bob, "/bin/sh", image.fetch)
    assert first == again != other
    assert image.fetched == 1
    assert [mount.target for mount in first] == ["/etc/passwd", "/etc/group"]
    assert all(mount.read_only for mount in first)
    assert readable_by_all(first[0]).startswith("alice:x:1000:")


async def test_another_image_under_the_same_name_is_read_anew(tmp_path: Path) -> None:
    image = Image()
    for digest in ("sha256:1", "sha256:2"):
        await Identities(tmp_path).mounts(digest, ALICE, "/bin/sh", image.fetch)
    assert image.fetched == 2


async def test_root_needs_no_entry(tmp_path: Path) -> None:
    root = Account("root", 0, 0, "/root")
    assert await Identities(tmp_path).mounts("i", root, "/bin/sh", Image().fetch) == ()


@pytest.mark.parametrize(
    "account",
    [
        Account("alice:x:0:0", 1000, 1000, "/home/alice"),
        Account("alice", 1000, 1000, "/home/a\nroot2:x:0:0::/:/bin/sh"),
    ],
)
async def test_no_field_breaks_out_of_its_line(account: Account, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be made known"):
        await Identities(tmp_path).mounts("i", account, "/bin/sh", Image().fetch)


def archive(name: str, data: bytes | None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        if data is None:
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
            tar.addfile(member)
        else:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_only_a_plain_file_is_taken_from_an_image() -> None:
    assert from_archive(archive("passwd", b"root:x:0:0\xff")) == "root:x:0:0\ufffd"
    assert from_archive(archive("passwd", None)) == ""
    assert from_archive(archive("passwd", b"x" * (2 << 20))) == ""
