"""Real container engines for the tests that need one; `tests/setup` installs and starts what they use."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker
import psutil
import pytest
from docker.errors import DockerException, ImageNotFound
from postgres import database_url as database_url
from postgres import postgresql as postgresql
from registry import free_address
from waiting import wait_until

TEST_IMAGE = os.environ.get("PERIJOVE_TEST_IMAGE", "perijove-test:base")
"""A small Debian with bash, python3, procps and iproute2."""


# A shell has what it runs in the background ignore them, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def absent(reason: str) -> NoReturn:
    """Skip for want of something this machine lacks; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI must have it: run tests/setup)")
    pytest.skip(f"{reason}; tests/setup provides it")


def answers(url: str) -> bool:
    """Whether an engine is reached at `url`."""
    try:
        return bool(docker.APIClient(base_url=url, timeout=5).ping())
    except DockerException:
        return False


class PrivateEngine:
    """An engine of our own, in a folder of its own, that a test may kill and start again."""

    def __init__(self, argv: list[str], url: str, folder: Path, env: dict[str, str]) -> None:
        self.url = url
        self._argv = argv
        self._folder = folder
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        wait_until(lambda: self._died() or answers(self.url), f"the start of {self._argv[0]}", 60)
        if self._died():
            absent(f"{self._argv[0]} does not run here: {(self._folder / 'log').read_text()[-2000:]}")

    def _died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send it signal `number` and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None
            # dockerd takes its dead containerd for alive where init does not reap it
            (self._folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def load(self, image: bytes) -> None:
        """Give it an image."""
        client: Any = docker.APIClient(base_url=self.url, timeout=120)
        client.load_image(image, quiet=True)

    def clear(self) -> None:
        """Remove all of its containers."""
        client = docker.APIClient(base_url=self.url, timeout=60)
        for container in client.containers(all=True):
            client.remove_container(container["Id"], force=True, v=True)


def _end_all_of(folder: Path) -> None:
    """Kill what an engine that was killed has left: shims, and containers that were about to start."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(f"{folder}/" in word for word in process.cmdline()):
                for each in [*process.children(recursive=True), process]:
                    each.kill()


@contextlib.contextmanager
def engine_folder() -> Iterator[Path]:
    """A folder with a short path (sockets allow 108 bytes), whose mounts are undone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pj-"))
    try:
        yield folder
    finally:
        _end_all_of(folder)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def test_image() -> str:
    """The name of the test image."""
    return TEST_IMAGE


@pytest.fixture(scope="session")
def docker_url() -> str:
    """The machine's Docker Engine, with the test image."""
    url = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not answers(url):
        absent(f"no Docker Engine answers at {url}")
    client: Any = docker.APIClient(base_url=url)
    try:
        client.inspect_image(TEST_IMAGE)
    except ImageNotFound:
        absent(f"the Docker Engine has no image {TEST_IMAGE}")
    return url


@pytest.fixture(scope="session")
def image_archive(docker_url: str) -> bytes:
    """The test image as ``docker save`` gives it."""
    return b"".join(docker.APIClient(base_url=docker_url).get_image(TEST_IMAGE))


@pytest.fixture(scope="session")
def guarded_address() -> str:
    """Where the registry with passwords will be; engines must know that it is reached without TLS."""
    return free_address()


@pytest.fixture(scope="session")
def podman(image_archive: bytes, guarded_address: str) -> Iterator[PrivateEngine]:
    """A Podman service with its own storage and the test image."""
    if os.geteuid() != 0 or not shutil.which("podman"):
        absent("podman is not installed, or this is not root")
    with engine_folder() as folder:
        (folder / "containers.conf").write_text(_containers_conf())
        entry = f'[[registry]]\nlocation = "{guarded_address}"\ninsecure = true\n'
        (folder / "registries.conf").write_text(f"unqualified-search-registries = []\n{entry}")
        url = f"unix://{folder}/podman.sock"
        argv = [
            "podman",
            "--root",
            f"{folder}/root",
            "--runroot",
            f"{folder}/run",
            "--tmpdir",
            f"{folder}/tmp",
        ]
        argv += ["--log-level", "warn", "system", "service", "--time", "0", url]
        env = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }
        engine = PrivateEngine(argv, url, folder, env)
        engine.start()
        try:
            engine.load(image_archive)
            yield engine
            engine.clear()
        finally:
            engine.end()


def _containers_conf() -> str:
    """Settings for machines without systemd, with mixed cgroups, where a hard limit cannot be raised."""
    files = min(int(_hard_limit("Max open files")), 1 << 20)
    return f"""\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=8192:8192"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
"""


def _hard_limit(name: str) -> str:
    lines = Path("/proc/self/limits").read_text().splitlines()
    value = next(line for line in lines if line.startswith(name))[len(name) :].split()[1]
    return value if value != "unlimited" else str(1 << 20)


@pytest.fixture(scope="session")
def podman_url(podman: PrivateEngine) -> str:
    """The Podman service that answers the Engine API."""
    return podman.url


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """``host:port`` of a registry of images that anybody may push to."""
    if not shutil.which("docker-registry"):
        absent("docker-registry is not installed")
    with engine_folder() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        storage = f"{{filesystem: {{rootdirectory: {folder}/data}}}}"
        config = f"version: 0.1\nstorage: {storage}\nhttp: {{addr: '{address}'}}\n"
        (folder / "config.yml").write_text(config)
        argv = ["docker-registry", "serve", str(folder / "config.yml")]
        with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
            try:
                wait_until(lambda: _listens(address), "the start of docker-registry")
                yield address
            finally:
                process.terminate()


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture
def private_docker(image_archive: bytes) -> Iterator[PrivateEngine]:
    """A second Docker Engine, without networks, that a test may kill; it has the test image."""
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare"):
        absent("dockerd is not installed, or this is not root")
    with engine_folder() as folder:
        url = f"unix://{folder}/docker.sock"
        # in a network of its own: it would take down the bridge of the machine's engine
        argv = [
            "unshare",
            "--net",
            "dockerd",
            "--host",
            url,
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
        ]
        argv += ["--pidfile", f"{folder}/pid", "--bridge", "none", "--iptables=false"]
        argv += ["--config-file", f"{folder}/daemon.json"]
        (folder / "daemon.json").write_text("{}")
        engine = PrivateEngine(argv, url, folder, {})
        engine.start()
        try:
            engine.load(image_archive)
            yield engine
            engine.clear()
        finally:
            engine.end()
