"""Ways out of a container, each tried in a real one. What a user may ask for: tests/hub/test_attacks.py."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.conftest import absent
from tests.spawners.real_node import RealNode

from perijove.model import Account, ReasonCode
from perijove_spawners.launcher import Mount

pytestmark = pytest.mark.engine

ALICE = Account("alice", 4242, 4243, "/home/alice", groups=(100, 5555))
BOB = 4244

ATTACKS = r"""
import os, pwd, socket, subprocess
won = []
def sh(name, line):
    if subprocess.run(["sh", "-c", line], capture_output=True).returncode == 0:
        won.append(name)
def does(name, act):
    try:
        act()
        won.append(name)
    except (OSError, KeyError):
        pass
for name in ("b 8 0", "b 254 0", "c 1 1", "c 195 0"):
    sh("mknod " + name, "mknod /tmp/device " + name)
sh("mount", "mount -t tmpfs none /mnt")
sh("bind mount", "mount --bind /data /mnt")
sh("remount", "mount -o remount,rw,bind /data && touch /data/written")
sh("write to a read-only volume", "touch /data/written")
sh("write to what is mounted in one", "touch /data/below/written")
sh("write to the account files", "echo x >> /etc/passwd || umount /etc/passwd")
sh("chroot", "chroot / true")
sh("user namespace", "unshare --user --map-root-user true")
sh("mount namespace", "unshare --mount true")
sh("another's namespaces", "nsenter --target 1 --mount true || nsenter --target $PPID --net true")
sh("become root", "setpriv --reuid 0 true")
sh("become bob", "setpriv --reuid 4244 true")
sh("take a group", "setpriv --regid 0 --clear-groups true")
sh("give away", "touch /tmp/x && chown 0 /tmp/x")
sh("setuid program", "/setuid -c 'import os; os.setuid(0)'")
sh("setuid by itself", "[ $(/setuid -c 'import os; print(os.geteuid())') = 0 ]")
sh("host name", "echo x > /proc/sys/kernel/hostname")
sh("core pattern", "echo x > /proc/sys/kernel/core_pattern")
sh("sysrq", "echo h > /proc/sysrq-trigger")
sh("kernel memory", "head -c 1 /proc/kcore")
sh("control groups", "mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x")
sh("a disk", "head -c 1 /dev/sda || head -c 1 /dev/vda || head -c 1 /dev/loop0")
sh("another's job", "ls /state/node/attempts || cat /run/perijove/../../state/secret")
does("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
does("packets", lambda: socket.socket(17, socket.SOCK_RAW, 3))
does("signal another", lambda: os.kill(int(os.environ["AGENT"]), 0))
does("the agent's root", lambda: os.listdir("/proc/%s/root" % os.environ["AGENT"]))
for path in ("/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"):
    if os.path.exists(path):
        won.append(path)
usual = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
won += ["device " + name for name in os.listdir("/dev") if not os.path.isdir("/dev/" + name)
        and not os.path.islink("/dev/" + name) and name not in usual]
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
caps = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
facts = {name: status[name] for name in (*caps, "NoNewPrivs", "Seccomp")}
facts["id"] = (os.getuid(), os.getgid(), sorted(set(os.getgroups())))
facts["name"] = pwd.getpwuid(os.getuid())[0]
facts["masked"] = os.path.getsize("/proc/kcore") if os.path.isfile("/proc/kcore") else 0
print((won, facts))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below tmp_path no other account gets."""
    if os.geteuid() != 0:
        absent("only root runs jobs of several accounts")
    path = Path(tempfile.mkdtemp(prefix="pj-escapes-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def volume(folder: Path) -> Iterator[Mount]:
    """Read-only, with another file system in it, in which anybody could write."""
    below = folder / "data/below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    (below / "seen").touch()
    below.chmod(0o777)
    (folder / "data").chmod(0o755)
    yield Mount(str(folder / "data"), "/data", read_only=True)
    subprocess.run(["umount", str(below)], check=True)


@pytest.fixture
async def node(docker_url: str, folder: Path) -> AsyncIterator[RealNode]:
    made = RealNode(folder, "docker", ALICE, url=docker_url, pids_limit="64")
    await made.open()
    yield made
    await made.close()


@pytest.fixture(scope="module")
def hostile_image(docker_url: str, test_image: str) -> Iterator[str]:
    """Where the job's uid has another name, and a program is root's and setuid."""
    client: Any = docker.APIClient(base_url=docker_url)
    script = "cp $(readlink -f /usr/bin/python3) /setuid; chmod 4755 /setuid;"
    script += "echo carol:x:4242:4242::/:/bin/sh >> /etc/passwd"
    made = client.create_container(test_image, ["sh", "-c", script], user="0:0")
    client.start(made)
    assert client.wait(made)["StatusCode"] == 0
    name = f"perijove-test-hostile:{os.getpid()}"
    client.commit(made, *name.split(":"))
    client.remove_container(made)
    yield name
    client.remove_image(name, force=True)


async def test_no_way_out_of_a_container_is_open(node: RealNode, hostile_image: str, volume: Mount) -> None:
    said = await node.said(
        "python3", "-c", ATTACKS,
        image=hostile_image, cwd="/", env={"AGENT": str(os.getpid())},
        mounts=(volume,),
    )  # fmt: skip
    won, facts = ast.literal_eval(said)
    assert won == []
    assert {name: int(value, 16) for name, value in facts.items() if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert facts["id"] == (4242, 4243, [100, 4243, 5555]) or facts["id"] == (4242, 4243, [100, 5555])
    assert facts["name"] == "alice"


async def test_what_is_mounted_in_a_read_only_volume_is_there_to_read(
    node: RealNode, test_image: str, volume: Mount
) -> None:
    assert await node.said("ls", "/data/below", image=test_image, cwd="/", mounts=(volume,)) == "seen\n"


async def test_a_fork_bomb_ends_at_the_limit(node: RealNode, test_image: str) -> None:
    script = """
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except OSError as error:
    print(made < 64, error.errno)
"""
    assert await node.said("python3", "-c", script, image=test_image, cwd="/") == "True 11\n"


async def test_a_path_that_is_swapped_while_it_is_looked_at_gives_nothing_away(
    node: RealNode, test_image: str
) -> None:
    """Its owner turns a directory into a link to somebody else's, and back, as fast as they can."""
    secret = node.directory / "bobs"
    secret.mkdir(mode=0o755)
    (secret / "secret").write_text("bob's")
    mine = node.directory / "alices"
    (mine / "volume").mkdir(parents=True)
    os.chown(mine, ALICE.uid, ALICE.gid)
    over = threading.Event()

    def swap() -> None:
        (mine / "link").symlink_to(secret)
        for path in (mine / "volume", mine / "link"):
            os.chown(path, ALICE.uid, ALICE.gid, follow_symlinks=False)
        while not over.is_set():
            for old, new in (
                ("volume", "aside"),
                ("link", "volume"),
                ("volume", "link"),
                ("aside", "volume"),
            ):
                with contextlib.suppress(OSError):
                    (mine / old).rename(mine / new)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(20):
            mount = Mount(str(mine / "volume"), "/data")
            outcome = await node.run("cat", "/data/secret", image=test_image, cwd="/", mounts=(mount,))
            assert outcome.reason is ReasonCode.LAUNCH_FAILED, outcome
    finally:
        over.set()
        swapping.join()


@pytest.mark.parametrize("launcher", ["process", "docker", "podman"])
async def test_nothing_that_is_said_of_a_job_becomes_an_order_to_its_launcher(
    launcher: str, folder: Path, test_image: str, request: pytest.FixtureRequest
) -> None:
    """The service refuses most of this; a launcher does not count on it."""
    more = {} if launcher == "process" else {"url": request.getfixturevalue(f"{launcher}_url")}
    node = RealNode(folder, launcher, ALICE, **more)
    await node.open()
    try:
        values = {"A": "1\nINJECTED=2", "B": "--privileged", "C": "$(id)`id`;'\"", "D": "é=\u2028x"}
        order = node.order(
            "env", "-0", "--", "PLAIN=-v/:/host",
            image=None if launcher == "process" else test_image, cwd="/", env=values,
            labels={"perijove.attempt": "99.1", "perijove.directory": "/etc", "x\n--privileged": "y\n--pid"},
            outputs={"said": "fd:1"},
        )  # fmt: skip
        await node.agent.start([order])
        outcome = await node.outcome(order)
        assert outcome.exit_code == 0, outcome
        found = dict(line.split("=", 1) for line in node.text(outcome.outputs["said"]).split("\0") if line)
        assert {name: found.get(name) for name in values} == values
        assert "INJECTED" not in found and found["PLAIN"] == "-v/:/host"
        if launcher != "process":
            client: Any = docker.APIClient(base_url=node.url)
            [name] = [
                one["Id"]
                for one in client.containers(all=True)
                if one["Labels"].get("perijove.directory", "").startswith(str(folder))
            ]
            info = client.inspect_container(name)
            assert info["Config"]["Labels"]["perijove.attempt"] == str(order.attempt)
            assert not info["HostConfig"]["Privileged"] and info["HostConfig"]["PidMode"] in {"", "private"}
    finally:
        await node.close()


async def test_a_value_with_a_null_is_refused_and_not_cut(node: RealNode, test_image: str) -> None:
    outcome = await node.run("env", image=test_image, cwd="/", env={"A": "x\0B=y"})
    assert outcome.exit_code != 0 and outcome.reason is ReasonCode.LAUNCH_FAILED
