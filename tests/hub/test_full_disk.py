"""The disk of the state directory is full for a while."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation, installed
from tests.conftest import absent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        absent("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def site(state: Path) -> Iterator[Installation]:
    with installed(state, "--no-hub", "--port", "0", "--launcher", "process") as installation:
        yield installation
        (state / "ballast").unlink(missing_ok=True)


def fill(folder: Path) -> Path:
    """Use up the last byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def test_what_was_accepted_survives_a_full_disk_and_nothing_half_is_accepted(
    site: Installation, state: Path, tmp_path: Path
) -> None:
    spec = {"cpu": 0.1, "memory": "16M"}
    runs = tmp_path / "runs"
    runs.mkdir()

    def script(name: str, seconds: float) -> list[str]:
        return ["sh", "-c", f"echo {name} >> {runs}/{name}; sleep {seconds}; exit 3"]

    ending = [site.submit(command=script(f"e{i}", 4), **spec) for i in range(3)]
    for job in ending:
        site.until(job, ("running",))
    waiting = [site.submit(command=script(f"w{i}", 0), hold=True, **spec) for i in range(3)]
    ballast = fill(state)
    with site.client() as http:
        uploads = [http.post("/files", content=os.urandom(1 << 20)) for _ in range(2)]
        assert {answer.status_code for answer in uploads} <= {503, 507}
        assert "full" in uploads[0].json()["detail"]
        env = {"A": "x" * 100_000}
        refused = [
            http.post("/jobs", json={"command": script(f"r{i}", 0), "env": env, **spec}) for i in range(3)
        ]
        assert {answer.status_code for answer in refused} == {503}, refused[0].text
        # The first found out; it cannot be taken back, since the transaction may yet be written.
        assert "full); the request may yet be accepted" in refused[0].json()["detail"]
        assert "no work is accepted" in refused[1].json()["detail"]
        assert http.get("/health").status_code == 503
        assert http.get("/jobs").status_code == 200
    time.sleep(3)

    ballast.unlink()
    for job in ending:
        found = site.ended(job, 60)
        assert (found["state"], found["exit_code"], found["attempt"]) == ("failed", 3, 1), found
    with site.client() as http:
        for job in waiting:
            assert http.post(f"/jobs/{job}/release").status_code == 200
    for job in waiting:
        assert site.ended(job)["exit_code"] == 3
    assert site.ended(site.submit(command=["true"]))["state"] == "succeeded"
    for path in runs.iterdir():
        assert len(path.read_text().split()) == 1
    assert not (runs / "r1").exists()
    assert not (runs / "r2").exists()
