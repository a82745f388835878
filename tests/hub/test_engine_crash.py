"""A whole installation on a container engine: whatever is killed, all jobs run once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import psutil
import pytest
from installation import Installation, installed

if TYPE_CHECKING:
    from tests.conftest import PrivateEngine

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(400)]

OPTIONS = ("--no-hub", "--port", "0", "--launcher", "docker")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder that all jobs have as the volume ``runs``: a line for each time one runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    state = tmp_path / "state"
    state.mkdir(mode=0o711)
    (state / "perijove.yaml").write_text(f"volumes: {{runs: {{source: {folder}, target: /runs}}}}\n")
    return folder


def environment(url: str, image: str) -> dict[str, str]:
    return {
        "PERIJOVE_DEFAULT_IMAGE": image,
        "PERIJOVE_NODE_LAUNCHER_OPTIONS": f"docker.url={url} docker.network=none docker.pull=never",
        "PERIJOVE_NODE_CPUS": "4",
    }


@pytest.fixture
def site(
    private_docker: PrivateEngine, test_image: str, tmp_path: Path, runs: Path
) -> Iterator[Installation]:
    env = environment(private_docker.url, test_image)
    with installed(tmp_path / "state", *OPTIONS, env=env) as installation:
        yield installation


def spec(name: str, seconds: float, **more: Any) -> dict[str, Any]:
    script = f"echo {name} >> /runs/{name}; sleep {seconds}"
    return {
        "command": ["sh", "-c", script],
        "name": name,
        "cpu": 0.5,
        "memory": "32M",
        "volumes": ["runs"],
        "cwd": "/tmp",
        **more,
    }


def counted(folder: Path) -> Counter[str]:
    return Counter(line for path in folder.glob("*") for line in path.read_text().split())


def all_is_free(site: Installation) -> bool:
    with site.client() as http:
        [view] = http.get("/nodes").json()
    node, free = view["node"], view["free"]
    return bool((free["cpu"], free["memory"], view["jobs"]) == (node["cpus"], node["memory"], 0))


def explained(site: Installation, jobs: Iterable[int]) -> bool:
    """Whether each job that has neither begun nor ended says why, and one of them that it is Docker."""
    with site.client() as http:
        now = [http.get(f"/jobs/{job}").json() for job in jobs]
    left = [job["reason"] for job in now if job["ended"] is None and job["state"] != "running"]
    messages = [reason["message"] if reason else "" for reason in left]
    return all(messages) and any("docker" in message.lower() for message in messages)


def wait(condition: Any, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


def test_an_engine_that_dies_under_jobs(
    site: Installation, private_docker: PrivateEngine, runs: Path
) -> None:
    """What ran has ended and says so; what was starting and what waited runs later, and nothing twice."""
    # Small enough that some that wait come to the engine even when all that start were running.
    long = [site.submit(**spec(f"long{i}", 600, cpu=0.1)) for i in range(4)]
    for job in long:
        site.until(job, ("running",))
    starting = [site.submit(**spec(f"s{i}", 0.2)) for i in range(4)]
    private_docker.end(signal.SIGKILL)
    waiting = [site.submit(**spec(f"w{i}", 0.2)) for i in range(6)]
    wait(lambda: explained(site, (*starting, *waiting)), "a reason for each job that cannot start", 60)

    private_docker.start()
    for job in long:
        found = site.ended(job, 60)
        assert (found["state"], found["attempt"]) == ("failed", 1)
        assert found["reason"]["message"]
    for job in (*starting, *waiting):
        found = site.ended(job, 120)
        if found["state"] != "succeeded":  # it ran when the engine died
            assert job in starting
            assert found["reason"]["message"]
    times = counted(runs)
    assert set(times.values()) == {1}
    assert times.keys() >= {f"w{i}" for i in range(6)}
    wait(lambda: all_is_free(site), "an empty ledger")
    client: Any = docker.APIClient(base_url=private_docker.url)
    wait(lambda: not client.containers(all=True), "the removal of all containers")


def test_whatever_is_killed_each_container_runs_once(
    docker_url: str, test_image: str, tmp_path: Path, runs: Path
) -> None:
    """Agent, service, scheduler and `up` itself die at odd moments while 60 containers come and go."""
    site = Installation(tmp_path / "state", *OPTIONS, env=environment(docker_url, test_image)).start()
    chance = random.Random(7)
    try:
        jobs = [site.submit(**spec(f"j{i}", chance.uniform(0, 1.5))) for i in range(60)]
        for victim in ["node", "serve", "up", "scheduler", "node", "up", "serve"]:
            time.sleep(chance.uniform(0.2, 2.5))
            if victim == "up":
                assert site.process is not None
                site.process.kill()
                site.process.wait()
                site.url = ""
                site.start()
            else:
                site.kill(victim)
        for job in jobs:
            found = site.ended(job, 120)
            assert (found["state"], found["exit_code"]) == ("succeeded", 0), found
        # The files are the truth; an attempt that a busy engine did not begin is followed by another.
        assert counted(runs) == Counter({f"j{i}": 1 for i in range(60)})
        wait(lambda: all_is_free(site), "an empty ledger")
        wait(lambda: not containers(docker_url, site), "the removal of all containers")
    finally:
        site.stop()
    assert leftovers(site) == []


def containers(url: str, site: Installation) -> list[Any]:
    client: Any = docker.APIClient(base_url=url)
    name = (site.state / "installation").read_text().strip()
    everything = client.containers(all=True, filters={"label": "perijove.installation"})
    return [c for c in everything if c["Labels"]["perijove.installation"].startswith(name)]


def leftovers(site: Installation) -> list[str]:
    """Processes that have the state directory in their arguments."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and str(site.state) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
    return found
