"""Any process may die at any line: real processes, killed with -9, and every job runs once."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from installation import Installation, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    with installed(tmp_path / "state", *options) as installation:
        yield installation


def runs_of(folder: Path) -> Counter[str]:
    """How often each job wrote its line: the truth about what ran."""
    return Counter(line for path in folder.glob("*") for line in path.read_text().split())


def spec(folder: Path, name: str, seconds: float) -> dict[str, object]:
    command = ["sh", "-c", f'sleep {seconds}; echo {name} >> "{folder}/{name}"']
    return {"command": command, "name": name, "cpu": 0.1, "memory": "16M"}


@pytest.mark.parametrize("victim", ["serve", "node", "scheduler"])
def test_a_killed_part_loses_and_doubles_nothing(site: Installation, tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    jobs = [site.submit(**spec(folder, f"j{i}", 0.2 + i % 5)) for i in range(30)]
    time.sleep(1)
    site.kill(victim)
    for job in jobs:
        found = site.ended(job, 120)
        assert (found["state"], found["exit_code"], found["attempt"]) == ("succeeded", 0, 1)
    assert runs_of(folder) == Counter({f"j{i}": 1 for i in range(30)})


def test_the_service_killed_during_submission_keeps_what_it_accepted(
    site: Installation, tmp_path: Path
) -> None:
    """A client that repeats what got no answer, with the same key, ends up with exactly one job each."""
    folder = tmp_path / "runs"
    folder.mkdir()
    base, token, accepted = f"{site.url}/api/v1", site.token, dict[str, int]()

    def submit(worker: int) -> None:
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=10) as http:
            for i in range(25):
                name, key = f"w{worker}i{i}", str(uuid.uuid4())
                for _ in range(200):
                    try:
                        answer = http.post(
                            "/jobs", json=spec(folder, name, 0), headers={"Idempotency-Key": key}
                        )
                    except httpx.TransportError:
                        time.sleep(0.1)
                        continue
                    if answer.status_code == 201:
                        accepted[name] = answer.json()["id"]
                        break
                    time.sleep(0.1)

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.7)
        site.kill("serve")
        time.sleep(2)
    for thread in threads:
        thread.join()
    assert len(accepted) == len(set(accepted.values())) == 100
    for job in accepted.values():
        assert site.ended(job, 120)["state"] == "succeeded"
    assert runs_of(folder) == Counter(dict.fromkeys(accepted, 1))


def test_up_again_picks_up_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    first = Installation(tmp_path / "state", *options).start()
    jobs = [first.submit(**spec(folder, f"j{i}", 3)) for i in range(5)]
    for job in jobs:
        first.until(job, ("running",))
    assert first.stop() == 0
    with installed(tmp_path / "state", *options) as second:
        assert [second.ended(job)["state"] for job in jobs] == ["succeeded"] * 5
        assert second.submit(command=["true"]) == 6
    assert runs_of(folder) == Counter({f"j{i}": 1 for i in range(5)})
