"""What only containers have, on real engines. The contract that all launchers share: tests/conformance."""

from __future__ import annotations

import asyncio
import os
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from waiting import becomes

from perijove.model import Account, Attempt, Gpu
from perijove_spawners.containers.docker import DockerLauncher
from perijove_spawners.containers.launcher import EngineLauncher
from perijove_spawners.containers.podman import PodmanLauncher
from perijove_spawners.launcher import (
    EngineError,
    ImageMissingError,
    Launch,
    LauncherContext,
    LaunchError,
    Mount,
    Phase,
    Status,
)

pytestmark = pytest.mark.engine

ALICE = Account("alice", 4242, 4242, "/home/alice", groups=(100, 5555))
A, B = Attempt(1, 1), Attempt(2, 1)


class Site:
    """One installation on one engine, with a folder for its state."""

    def __init__(self, cls: type[EngineLauncher], url: str, image: str, folder: Path) -> None:
        self.installation = uuid.uuid4().hex[:8]
        self.url = url
        self._cls = cls
        self._image = image
        self._folder = folder
        self._open: list[EngineLauncher] = []

    async def launcher(self, **options: str) -> EngineLauncher:
        """A launcher as a new agent would make it."""
        directory = self._folder / "launcher"
        directory.mkdir(mode=0o700, exist_ok=True)
        launcher = self._cls(LauncherContext(self.installation, directory, {"url": self.url, **options}))
        await launcher.open()
        self._open.append(launcher)
        return launcher

    def launch(self, *command: str, attempt: Attempt = A, **changes: Any) -> Launch:
        """A launch of the test image as alice."""
        directory = self._folder / "attempts" / str(attempt)
        job = directory / "job"
        job.mkdir(parents=True, exist_ok=True)
        os.chown(job, ALICE.uid, ALICE.gid)
        fields: dict[str, Any] = {"account": ALICE, "image": self._image, "memory": 256 << 20, **changes}
        return Launch(attempt=attempt, owner="alice", command=command, directory=directory, **fields)

    async def close(self) -> None:
        """Remove all that the test left."""
        last = await self.launcher()
        for attempt in await last.recover():
            await last.stop(attempt, grace=0)
            await last.remove(attempt)
        await self.launcher()
        for launcher in self._open:
            await launcher.close()

    @property
    def api(self) -> Any:
        """The engine, asked behind the launcher's back."""
        return docker.APIClient(base_url=self.url, timeout=30)


@pytest.fixture(params=["docker", "podman"])
async def site(request: pytest.FixtureRequest, test_image: str, tmp_path: Path) -> AsyncIterator[Site]:
    url = request.getfixturevalue(f"{request.param}_url")
    cls = {"docker": DockerLauncher, "podman": PodmanLauncher}[request.param]
    site = Site(cls, url, test_image, tmp_path)
    yield site
    await site.close()


@pytest.fixture
async def docker_site(docker_url: str, test_image: str, tmp_path: Path) -> AsyncIterator[Site]:
    """For what no other engine is asked for."""
    site = Site(DockerLauncher, docker_url, test_image, tmp_path)
    yield site
    await site.close()


async def reached(
    launcher: EngineLauncher, attempt: Attempt, wanted: Callable[[Status], bool], seconds: float = 30
) -> Status:
    async def look() -> Status | None:
        status = (await launcher.status([attempt]))[attempt]
        return status if wanted(status) else None

    return await becomes(look, f"what is expected of {attempt}", seconds)


def exited(status: Status) -> bool:
    return status.phase is Phase.EXITED


async def output(launcher: EngineLauncher, launch: Launch, code: int | None = 0) -> str:
    """What `launch` prints until its end."""
    await launcher.start(launch)
    status = await reached(launcher, launch.attempt, exited)
    text = await launcher.logs(launch.attempt, "stdout", offset=0, limit=1 << 20)
    error = await launcher.logs(launch.attempt, "stderr", offset=0, limit=1 << 20)
    assert status.exit_code == code, error.decode()
    return text.decode()


async def test_the_account_is_known_and_has_no_privilege(site: Site) -> None:
    launcher = await site.launcher()
    script = "whoami; id; echo ~alice; grep -E 'CapBnd|NoNew' /proc/self/status"
    lines = (await output(launcher, site.launch("bash", "-c", script))).splitlines()
    assert lines[0] == "alice"
    assert lines[1] == "uid=4242(alice) gid=4242(alice) groups=4242(alice),100(users),5555(g5555)"
    assert lines[2] == "/home/alice"
    assert [line.split()[1] for line in lines[3:]] == ["0000000000000000", "1"]


async def test_the_job_directory_is_the_accounts(site: Site) -> None:
    launcher = await site.launcher()
    launch = site.launch("bash", "-c", "echo made > /run/perijove/file")
    await output(launcher, launch)
    made = launch.directory / "job" / "file"
    assert (made.read_text(), made.stat().st_uid) == ("made\n", ALICE.uid)


async def test_every_byte_and_every_line_is_kept_while_somebody_reads(site: Site) -> None:
    launcher = await site.launcher()
    lines = 60_000
    script = f"""
import sys
for i in range({lines}):
    print(i, "x" * 50)
sys.stdout.flush()
sys.stdout.buffer.write(bytes([255, 0]) + b"end")
"""

    launch = site.launch("python3", "-c", script)
    await launcher.start(launch)
    read = b""
    async with asyncio.timeout(60):
        while not exited((await launcher.status([A]))[A]):
            read += await launcher.logs(A, "stdout", offset=len(read), limit=1 << 20)
    while piece := await launcher.logs(A, "stdout", offset=len(read), limit=1 << 20):
        read += piece
    expected = b"".join(b"%d %s\n" % (i, b"x" * 50) for i in range(lines)) + b"\xff\x00end"
    assert read == expected
    await launcher.remove(A)
    assert (launch.directory / "stdout").read_bytes() == expected


async def test_a_log_goes_on_under_another_agent_and_outlives_the_container(site: Site) -> None:
    first = await site.launcher()
    wait = "echo one; until [ -e /run/perijove/go ]; do sleep 0.05; done; echo two; echo oops >&2"
    launch = site.launch("bash", "-c", wait)
    await first.start(launch)
    assert await becomes(lambda: first.logs(A, "stdout", offset=0, limit=100), "the first line") == b"one\n"
    await first.close()
    second = await site.launcher()
    assert await second.recover() == [A]
    assert await second.logs(A, "stdout", offset=0, limit=100) == b"one\n"
    await second.start(launch)
    (launch.directory / "job" / "go").touch()
    await reached(second, A, exited)
    await second.remove(A)
    assert (launch.directory / "stdout").read_bytes() == b"one\ntwo\n"
    assert (launch.directory / "stderr").read_bytes() == b"oops\n"


async def test_starts_at_the_same_time_run_it_once(site: Site) -> None:
    agents = [await site.launcher() for _ in range(2)]
    launch = site.launch("bash", "-c", "echo ran >> /run/perijove/runs; sleep 1")
    await asyncio.gather(*(agent.start(launch) for agent in agents * 3))
    await reached(agents[0], A, exited)
    await agents[1].start(launch)
    assert (launch.directory / "job" / "runs").read_text() == "ran\n"


async def test_a_container_that_was_made_and_not_started_is_gone_on_with(site: Site) -> None:
    launcher = await site.launcher()
    launch = site.launch("sleep", "60")
    await launcher.start(launch)
    name = f"perijove-{site.installation}-{A}"
    config = site.api.inspect_container(name)
    site.api.remove_container(name, force=True)
    body = {"Image": config["Config"]["Image"], "Cmd": ["true"], "Labels": config["Config"]["Labels"]}
    site.api.create_container_from_config(body, name)
    assert (await launcher.status([A]))[A].phase is Phase.CREATED
    await launcher.start(launch)
    assert (await reached(launcher, A, exited)).exit_code == 0


async def test_a_container_of_others_with_the_name_is_left_alone(site: Site, test_image: str) -> None:
    launcher = await site.launcher()
    name = f"perijove-{site.installation}-{A}"
    body = {"Image": test_image, "Cmd": ["sleep", "60"], "Labels": {"whose": "not ours"}}
    made = site.api.create_container_from_config(body, name)
    try:
        site.api.start(name)
        with pytest.raises(LaunchError, match="in use") as error:
            await launcher.start(site.launch("true"))
        assert not error.value.transient
        await launcher.stop(A, grace=0)
        await launcher.remove(A)
        assert (await launcher.status([A]))[A].phase is Phase.UNKNOWN
        assert site.api.inspect_container(name)["State"]["Running"]
    finally:
        site.api.remove_container(made["Id"], force=True)


async def test_a_failed_start_says_why_and_leaves_nothing(site: Site) -> None:
    launcher = await site.launcher()
    missing = Gpu(index=0, uuid="x", device="/dev/nosuch")
    with pytest.raises(LaunchError, match="/dev/nosuch"):
        await launcher.start(site.launch("true", gpus=(missing,)))
    with pytest.raises(LaunchError, match="does not exist"):
        await launcher.start(site.launch("true", mounts=(Mount("/nosuch", "/data"),)))
    assert not await asyncio.to_thread(Path("/nosuch").exists)
    assert await launcher.recover() == []


async def test_a_missing_image_is_named_before_and_at_the_start(site: Site) -> None:
    said: list[str] = []
    launcher = await site.launcher(pull="never")
    launch = site.launch("true", image="perijove-test:nosuch")
    with pytest.raises(ImageMissingError, match="perijove-test:nosuch is not on this node"):
        await launcher.prepare(launch, said.append)
    assert said == []
    with pytest.raises(ImageMissingError, match="perijove-test:nosuch"):
        await launcher.start(launch)


async def test_a_registry_that_does_not_answer_may_later(site: Site) -> None:
    said: list[str] = []
    launcher = await site.launcher()
    launch = site.launch("true", image="127.0.0.1:9/lab/nosuch:1")
    with pytest.raises(LaunchError, match=r"127\.0\.0\.1:9 is silent: .*connection refused") as refused:
        await launcher.prepare(launch, said.append)
    assert refused.value.transient
    assert said[0] == "pulling image 127.0.0.1:9/lab/nosuch:1"
    assert all(text.endswith("trying again") for text in said[1:])
    told = len(said)
    await launcher.prepare(site.launch("true"), said.append)
    assert len(said) == told


async def test_a_missing_image_is_pulled_once_for_all_who_wait(
    docker_site: Site, registry: str, tmp_path: Path
) -> None:
    site = docker_site
    small = tmp_path / "small.tar"
    with tarfile.open(small, "w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    image = f"{registry}/lab/small"
    site.api.import_image_from_file(str(small), repository=image, tag="1")
    site.api.push(f"{image}:1")
    site.api.remove_image(f"{image}:1")
    said: list[str] = []
    launcher = await site.launcher()
    assert f"{image}:1" not in await launcher.images()
    launch = site.launch("true", image=f"{image}:1")
    await asyncio.gather(*(launcher.prepare(launch, said.append) for _ in range(5)))
    assert said.count(f"pulling image {image}:1") == 1
    assert f"{image}:1" in await launcher.images()
    with pytest.raises(ImageMissingError, match="has no such image"):
        await launcher.prepare(site.launch("true", image=f"{image}:2"), said.append)
    site.api.remove_image(f"{image}:1")


@pytest.mark.parametrize("image", ["../containers/json", "a b", "", "-v", "x" * 600])
async def test_what_is_no_image_name_never_reaches_the_engine(site: Site, image: str) -> None:
    launcher = await site.launcher()
    with pytest.raises(LaunchError):
        await launcher.start(site.launch("true", image=image))


async def test_images_are_listed_as_users_write_them(site: Site, test_image: str) -> None:
    assert test_image in await (await site.launcher()).images()


async def test_a_stand_in_device_is_handed_in_and_no_other(site: Site) -> None:
    launcher = await site.launcher()
    gpu = Gpu(index=0, uuid="x", device="/dev/kmsg")
    assert await output(launcher, site.launch("bash", "-c", "ls /dev/kmsg", gpus=(gpu,))) == "/dev/kmsg\n"
    other = site.launch("bash", "-c", "ls /dev/kmsg", attempt=B)
    assert await output(launcher, other, code=2) == ""


async def test_ports_are_reached_from_the_host(site: Site) -> None:
    launcher = await site.launcher()
    serve = "import socket as s; l = s.create_server(('', 8888)); c, _ = l.accept(); c.sendall(b'hello')"
    await launcher.start(site.launch("python3", "-c", serve, ports=(8888,), network="bridge"))
    host, port = (await launcher.endpoint(A)).ports[8888].split(":")
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                break
            except OSError:
                await asyncio.sleep(0.05)
        assert await reader.read() == b"hello"
        writer.close()


async def test_owners_jobs_share_a_network_that_goes_when_unused(site: Site) -> None:
    launcher = await site.launcher()
    for attempt in (A, B):
        await launcher.start(site.launch("sleep", "60", attempt=attempt, network="user"))
    infos = [site.api.inspect_container(f"perijove-{site.installation}-{a}") for a in (A, B)]
    first, second = (set(info["NetworkSettings"]["Networks"]) for info in infos)
    assert first == second
    (name,) = first
    await site.launcher()
    assert [n["Name"] for n in site.api.networks(names=[name])] == [name]
    for attempt in (A, B):
        await launcher.stop(attempt, grace=0)
        await launcher.remove(attempt)
    await site.launcher()
    assert site.api.networks(names=[name]) == []


async def test_a_stop_reaches_the_children_too(docker_site: Site) -> None:
    # Podman's init (catatonit) passes signals to the first process only
    site = docker_site
    launcher = await site.launcher()
    script = "(trap 'echo child >> /run/perijove/heard; exit' TERM; while :; do sleep 0.05; done) & wait"
    launch = site.launch("bash", "-c", f"trap 'wait' TERM; {script}; wait")
    await launcher.start(launch)
    await asyncio.sleep(0.5)
    await launcher.stop(A, grace=10)
    assert (launch.directory / "job" / "heard").read_text() == "child\n"


async def test_an_image_is_read_for_its_accounts_once(site: Site) -> None:
    launcher = await site.launcher()
    await output(launcher, site.launch("true"))
    left = site.api.containers(all=True, filters={"label": f"perijove.installation={site.installation}"})
    assert len(left) == 1
    await output(await site.launcher(), site.launch("true", attempt=B))


async def test_many_are_asked_for_at_once(site: Site) -> None:
    launcher = await site.launcher(network="none")
    attempts = [Attempt(n, 1) for n in range(1, 11)]
    for attempt in attempts:
        await launcher.start(site.launch("sleep", "60" if attempt.job % 2 else "0", attempt=attempt))
    for attempt in attempts[1::2]:
        await reached(launcher, attempt, exited)
    for _ in range(2):
        found = await launcher.status([*attempts, Attempt(99, 1)])
        assert [found[a].phase for a in attempts] == [Phase.RUNNING, Phase.EXITED] * 5
        assert all(found[a].started for a in attempts)
        assert found[Attempt(99, 1)].phase is Phase.UNKNOWN
    assert sorted(await launcher.recover()) == attempts


async def test_an_engine_that_is_not_there_is_an_engine_error(tmp_path: Path) -> None:
    launcher = DockerLauncher(LauncherContext("lab", tmp_path, {"url": f"unix://{tmp_path}/no.sock"}))
    with pytest.raises(EngineError, match=r"docker at unix:.*no\.sock does not answer"):
        await launcher.open()
    with pytest.raises(EngineError, match="not connected"):
        await launcher.status([A])
