"""The GPU table through the whole system: stand-in devices, real containers and processes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation, installed
from tests.conftest import absent

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def devices() -> Iterator[list[str]]:
    """Two device nodes that behave like /dev/null."""
    if os.geteuid() != 0:
        absent("device nodes are made by root")
    paths = [f"/dev/perijove-gpu{os.getpid()}-{i}" for i in range(2)]
    for path in paths:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    yield paths
    for path in paths:
        Path(path).unlink()


@pytest.fixture(scope="module", params=["process", "docker"])
def site(
    request: pytest.FixtureRequest,
    devices: list[str],
    docker_url: str,
    test_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    env = {
        "PERIJOVE_NODE_GPUS": ",".join(f"a100={path}" for path in devices),
        "PERIJOVE_NODE_CPUS": "8",
        "PERIJOVE_DEFAULT_IMAGE": test_image,
    }
    state = tmp_path_factory.mktemp("gpus") / "state"
    with installed(state, "--no-hub", "--port", "0", "--launcher", request.param, env=env) as site:
        yield site


def test_jobs_get_devices_of_their_own_and_wait_for_more(site: Installation) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; ls /dev | grep -c perijove-gpu; exec sleep 30"
    spec = {"command": ["sh", "-c", script], "cpu": 1, "memory": "32M", "gpus": "a100:1"}
    jobs = [site.submit(**spec) for _ in range(3)]
    held = [site.until(job, ("running",))["gpus"][0]["uuid"] for job in jobs[:2]]
    assert len(set(held)) == 2
    with site.client() as http:
        waiting = http.get(f"/jobs/{jobs[2]}").json()
        assert waiting["state"] == "pending"
        assert "1 a100 GPU (0 free)" in waiting["reason"]["message"]
        http.post(f"/jobs/{jobs[0]}/kill")
    third = site.until(jobs[2], ("running",))
    assert third["gpus"][0]["uuid"] == held[0]
    if third["launcher"] == "docker":
        assert site.log(jobs[1]).split()[-1] == "1", "the container has its own device and no other"
    with site.client() as http:
        for job in jobs[1:]:
            http.post(f"/jobs/{job}/kill")
    for job in jobs:
        assert site.ended(job)["state"] == "killed"


def test_more_devices_than_there_are_is_refused(site: Installation) -> None:
    with site.client() as http:
        answer = http.post("/jobs", json={"command": ["true"], "gpus": 64})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["message"] == "no node has 64 GPUs; the largest has 2"


def test_a_job_without_gpus_sees_none(site: Installation) -> None:
    job = site.submit(command=["sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES]"'], memory="32M")
    assert site.ended(job)["state"] == "succeeded"
    assert site.log(job) == "[]\n"
