"""Scratch space on a real node: as large as was asked for and no larger, and gone at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conftest import absent
from tests.spawners.real_node import RealNode
from waiting import until

from perijove.model import Account, Attempt
from perijove_spawners import failpoints
from perijove_spawners.fabric.tls import ensure_tls
from perijove_spawners.node.scratch import Scratch, ScratchError

ALICE = Account("alice", 4242, 4242, "/home/alice")
MIB = 1 << 20
A = Attempt(7, 1)

FILL = """
cd "$PERIJOVE_SCRATCH" && [ "$TMPDIR" = "$PWD" ] || exit 9
[ -z "$(ls -A)" ] && stat -c '%u %a' . && grep -c " $PWD .*nosuid,nodev" /proc/self/mountinfo
head -c 64M /dev/zero > full 2>/dev/null; stat -c %s full
"""


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        absent("only root mounts scratch space")


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    made = Scratch(tmp_path / "scratch", 64 * MIB)
    made.open([])
    return made


def mounts(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if f" {directory}/" in line]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below tmp_path no other account gets."""
    path = Path(tempfile.mkdtemp(prefix="pj-scratch-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.engine)])
async def node(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[RealNode]:
    more = {"url": request.getfixturevalue("docker_url")} if request.param == "docker" else {}
    made = RealNode(folder, request.param, ALICE, **more)
    made.config = {"scratch": 200 * MIB}
    await made.open()
    yield made
    await made.close()


async def test_a_job_has_what_it_asked_for_and_no_more(node: RealNode, test_image: str) -> None:
    """And the others go on: each has its own."""
    more = {"image": test_image} if node.containers else {"cwd": "/"}
    fields = {**more, "tmp_disk": 16 * MIB}
    texts = await asyncio.gather(*(node.said("sh", "-c", FILL, **fields) for _ in range(2)))
    for text in texts:
        owner, mounted, size = text.splitlines()
        assert (owner, mounted) == ("4242 700", "1")
        assert 16 * MIB <= int(size) < 18 * MIB
    assert not mounts(node.directory) and list((node.directory / "node/scratch").iterdir()) == []


async def test_a_job_without_it_has_none(node: RealNode, test_image: str) -> None:
    more = {"image": test_image} if node.containers else {"cwd": "/"}
    assert (
        await node.said("sh", "-c", "echo ${PERIJOVE_SCRATCH-none} ${TMPDIR-none}", **more) == "none none\n"
    )


async def test_a_running_job_keeps_its_own_when_the_agent_is_replaced(
    node: RealNode, test_image: str
) -> None:
    more = {"image": test_image} if node.containers else {"cwd": "/"}
    script = (
        "echo mine > $PERIJOVE_SCRATCH/kept; until [ -e $PERIJOVE_SCRATCH/go ]; do sleep 0.1; done; exit 3"
    )
    order = node.order("sh", "-c", script, tmp_disk=MIB, **more)
    sent = asyncio.ensure_future(node.agent.start([order]))
    files = node.directory / "node/scratch" / str(order.attempt) / "files"
    await until(lambda: (files / "kept").exists(), "the job's file", 60)
    await node.agent.close()
    sent.cancel()
    node.config = {}  # the next agent is not even told to give any out
    await node.open()
    assert (files / "kept").read_text() == "mine\n"
    (files / "go").touch()
    [life] = node.agent._lives.values()
    await life.ended.wait()
    assert (await node.outcome(order)).exit_code == 3
    assert not mounts(node.directory) and not files.parent.exists()


def test_scratch_space_is_announced_and_taken_from_the_disk_at_once(scratch: Scratch) -> None:
    assert scratch.units == 64
    scratch.provide(A, 8 * MIB, ALICE)
    image = scratch.directory / "7.1/image"
    assert image.stat().st_blocks * 512 >= 8 * MIB and image.stat().st_mode & 0o777 == 0o600
    scratch.provide(A, 8 * MIB, ALICE)  # as an agent does that takes up where another was killed
    assert len(mounts(scratch.directory)) == 1
    with (scratch.directory / "7.1/files/open").open("w") as left:
        scratch.release(A)  # also while something is open there
        left.write("x")
    scratch.release(A)
    assert not mounts(scratch.directory) and list(scratch.directory.iterdir()) == []


def test_sparse_space_is_taken_as_it_is_written(tmp_path: Path) -> None:
    sparse = Scratch(tmp_path / "scratch", 1 << 40, sparse=True)
    sparse.open([])
    sparse.provide(A, 10 << 30, ALICE)
    assert (tmp_path / "scratch/7.1/image").stat().st_blocks * 512 < 64 * MIB
    assert os.statvfs(tmp_path / "scratch/7.1/files").f_bavail * 4096 >= 10 << 30
    sparse.release(A)


def test_a_node_that_has_too_little_says_so_and_leaves_nothing(scratch: Scratch) -> None:
    with pytest.raises(ScratchError, match=r"no room for 1P of scratch space|could not be made") as failure:
        scratch.provide(A, 1 << 50, ALICE)
    assert failure.value.transient
    scratch.release(A)
    assert list(scratch.directory.iterdir()) == []
    with pytest.raises(ScratchError, match="this node gives out no scratch space"):
        Scratch(scratch.directory).provide(A, MIB, ALICE)


@pytest.mark.parametrize("place", failpoints.SCRATCH)
def test_an_agent_killed_anywhere_leaves_nothing_for_ever(
    scratch: Scratch, place: str, tmp_path: Path
) -> None:
    code = f"""
from pathlib import Path
from perijove.model import Account, Attempt
from perijove_spawners.node.scratch import Scratch
scratch = Scratch(Path({str(scratch.directory)!r}), {64 * MIB})
scratch.provide(Attempt(7, 1), {MIB}, Account("alice", 4242, 4242, "/"))
scratch.release(Attempt(7, 1))
"""
    env = {**os.environ, "PERIJOVE_FAILPOINTS": f"{place}={tmp_path}/died"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == -9
    scratch.open([A])
    scratch.provide(A, MIB, ALICE)  # the attempt lives, and an agent takes it up
    assert len(mounts(scratch.directory)) == 1
    scratch.open([])
    assert not mounts(scratch.directory) and list(scratch.directory.iterdir()) == []


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A disk with XFS, mounted without quotas."""
    if not shutil.which("mkfs.xfs"):
        absent("mkfs.xfs is not installed")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    mount = ["mount", "-t", "xfs", "-o", "loop,noquota", str(image), str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if "unknown filesystem" in done.stderr:
        pytest.skip("this machine's kernel has no XFS")
    assert done.returncode == 0, done.stderr
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_the_size_holds_on_a_disk_without_quotas(xfs: Path) -> None:
    scratch = Scratch(xfs / "scratch", 64 * MIB)
    scratch.open([])
    scratch.provide(A, 8 * MIB, ALICE)
    full = xfs / "scratch/7.1/files/full"
    with pytest.raises(OSError, match="No space left"):
        full.write_bytes(bytes(16 * MIB))
    assert 8 * MIB <= full.stat().st_size < 10 * MIB
    scratch.release(A)
    assert not mounts(scratch.directory)


def test_a_node_without_loop_devices_is_not_started(tmp_path: Path) -> None:
    """Of this machine only what the agent sees changes: ``/dev``, in a mount namespace of its own."""
    ensure_tls(tmp_path / "tls", "node", "n1")
    perijove = Path(sys.executable).with_name("perijove")
    node = f"{perijove} node --state {tmp_path} --name n1 --scheduler tls://127.0.0.1:1 --scratch 1G"
    script = f"mount -t tmpfs none /dev && exec {node}"
    argv = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 2, done.stderr
    assert "--scratch 1G: there are no loop devices (the kernel's module loop)" in done.stderr


def test_a_node_that_cannot_have_it_is_not_started() -> None:
    code = f"""
import os
from pathlib import Path
from perijove.model import OperatorError
from perijove_spawners.node.scratch import Scratch
os.setuid(4242)
try:
    Scratch(Path('/nowhere'), {MIB}).open([])
except OperatorError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--scratch 1M: only root can mount file systems" in done.stdout, done.stderr
