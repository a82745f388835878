"""Root in a container: what it may, what it may not, and whose its files are afterwards."""

from __future__ import annotations

import ast
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conftest import absent
from tests.spawners.real_node import RealNode

from perijove.model import Account, ReasonCode
from perijove_spawners.launcher import Mount
from perijove_spawners.node.ownership import give

ALICE = Account("alice", 4242, 4243, "/home/alice", groups=(100,))

ROOT = r"""
import os, subprocess
def can(line):
    return subprocess.run(["sh", "-c", line], capture_output=True).returncode == 0
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
known = {0: "CHOWN", 6: "SETGID", 7: "SETUID"}
caps = sorted(known.get(n, n) for n in range(64) if int(status["CapEff"], 16) >> n & 1)
print({
    "id": (os.getuid(), os.getgid(), sorted({0, *os.getgroups()})),
    "caps": caps,
    "bounded": status["CapBnd"] == status["CapEff"],
    "flags": (status["NoNewPrivs"], status["Seccomp"]),
    "where": (os.environ["HOME"], os.getcwd(), os.environ["USER"]),
    "home": can("touch /home/alice/x"),
    "home as its owner": can("setpriv --reuid 4242 --regid 4243 --clear-groups touch /home/alice/x"),
    "read as its owner": can("setpriv --reuid $PERIJOVE_UID --clear-groups cat /home/alice/mine"),
    "volume": can("touch /data/x"),
    "remount": can("mount -o remount,rw,bind /data"),
    "device": can("mknod /tmp/x b 8 0"),
    "image": can("touch /etc/mine"),
    "give": can("touch /tmp/x && chown 4242 /tmp/x"),
})
os.chdir(os.environ["PERIJOVE_JOB_DIR"])
open("output/kept", "w").write("root's\n")
subprocess.run("cp /bin/id setuid; chmod 6755 setuid; mkdir -m 2777 folder; touch folder/file; touch bobs;"
               "chown 4244 bobs; ln -s /etc/apt/sources.list link; ln -s /etc/apt folder/link;"
               "mkfifo pipe", shell=True, check=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below tmp_path no other account gets."""
    if os.geteuid() != 0:
        absent("only root runs jobs of several accounts")
    path = Path(tempfile.mkdtemp(prefix="pj-root-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["docker", "podman"])
async def node(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[RealNode]:
    made = RealNode(folder, request.param, ALICE, url=request.getfixturevalue(f"{request.param}_url"))
    await made.open()
    yield made
    await made.close()


def home(node: RealNode) -> Mount:
    path = node.directory / "home"
    path.mkdir(mode=0o700)
    (path / "mine").write_text("alice's")
    os.chown(path, ALICE.uid, ALICE.gid)
    return Mount(str(path), "/home/alice")


@pytest.mark.engine
async def test_root_has_three_capabilities_and_writes_to_what_is_the_jobs(
    node: RealNode, test_image: str
) -> None:
    data = node.directory / "data"
    data.mkdir()
    data.chmod(0o777)
    order = node.order(
        "python3", "-c", ROOT,
        image=test_image, root=True, mounts=(home(node), Mount(str(data), "/data")),
        outputs={"said": "fd:1", "kept": "file:kept"},
    )  # fmt: skip
    await node.agent.start([order])
    outcome = await node.outcome(order)
    assert outcome.exit_code == 0 and node.text(outcome.outputs["kept"]) == "root's\n", outcome
    said = ast.literal_eval(node.text(outcome.outputs["said"]))
    assert said == {
        "id": (0, 0, [0]), "caps": ["CHOWN", "SETGID", "SETUID"], "bounded": True, "flags": ("1", "2"),
        "where": ("/run/perijove", "/run/perijove", "root"),
        "home": False, "home as its owner": False, "read as its owner": True, "volume": False,
        "remount": False, "device": False, "image": True, "give": True,
    }  # fmt: skip
    job = node.directory / f"node/attempts/{order.attempt}/job"
    found = dict(look(job))
    assert {(info.st_uid, info.st_gid) for info in [job.lstat(), *found.values()]} == {(4242, 4243)}
    assert found[Path("setuid")].st_mode & 0o7777 == 0o755
    assert not any(info.st_uid for _, info in look(Path("/etc/apt")))


def look(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*"):
        yield path.relative_to(folder), path.lstat()


@pytest.mark.engine
async def test_root_shares_neither_network_nor_memory_with_the_node(node: RealNode, test_image: str) -> None:
    for field, what in ({"network": "host"}, "network"), ({"ipc": "host"}, "IPC namespace"):
        outcome = await node.run("true", image=test_image, root=True, cwd="/", **field)
        assert outcome.reason is ReasonCode.LAUNCH_FAILED
        assert f"is root in its container and cannot have the node's {what}" in outcome.message


def namespace() -> str:
    return str(Path("/proc/self/ns/ipc").readlink())


@pytest.mark.engine
async def test_the_nodes_ipc_is_had_by_those_who_ask(node: RealNode, test_image: str) -> None:
    own = namespace()
    asked = ("readlink", "/proc/self/ns/ipc")
    assert (await node.said(*asked, image=test_image, cwd="/", ipc="host")).strip() == own
    assert (await node.said(*asked, image=test_image, cwd="/")).strip() != own


def test_what_is_given_is_what_was_looked_at(folder: Path) -> None:
    """Links stay links, what they lead to stays whose it is, and so does what others own."""
    home, outside = folder / "home", folder / "outside"
    (home / "a/b").mkdir(parents=True)
    outside.write_text("root's")
    (home / "link").symlink_to(outside)
    (home / "a/up").symlink_to("../../..")
    for path in (home, home / "a", home / "a/b", home / "link"):
        os.chown(path, 4242, 4242, follow_symlinks=False)
    (home / "a/others").touch()
    (home / "a/shared").touch()
    os.chown(home / "a/shared", 4242, 100)
    (home / "a/b/tool").touch()
    os.chown(home / "a/b/tool", 4242, 4242)
    (home / "a/b/tool").chmod(0o4755)
    assert give(home, 5000, 5001, of=4242) == 6
    owners = {str(p.relative_to(home)): (p.lstat().st_uid, p.lstat().st_gid) for p in home.rglob("*")}
    assert owners == {
        "a": (5000, 5001), "a/b": (5000, 5001), "a/b/tool": (5000, 5001), "link": (5000, 5001),
        "a/up": (0, 0), "a/others": (0, 0), "a/shared": (5000, 100),
    }  # fmt: skip
    assert (home / "a/b/tool").stat().st_mode & 0o7777 == 0o755
    assert outside.stat().st_uid == 0
    assert give(home, 5000, 5001, of=4242) == 0
