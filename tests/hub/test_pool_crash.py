"""Shared functions of a whole installation while parts of it are killed: each call is made once."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pytest
from installation import Installation, installed
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
cloudpickle.register_pickle_by_value(sys.modules[__name__])
COUNT = 300


def note(n: int, folder: str) -> int:
    """Leave a mark of this call; some wait until they are let go."""
    import time

    with Path(folder, str(n)).open("a") as file:
        file.write("x")
    while n % 100 == 50 and not Path(folder, "gate").exists():
        time.sleep(0.01)
    return n


def upload(site: Installation, function: Callable[..., Any]) -> str:
    data = cloudpickle.dumps(function)
    with site.client() as http:
        answer = http.post("/files", content=data)
        assert answer.status_code == 201, answer.text
    assert answer.json()["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}", base64.b64encode(data)
    return str(answer.json()["digest"])


def start(site: Installation, folder: Path, **more: Any) -> int:
    step = {
        "function": upload(site, note),
        "args": [{"from": "item"}, str(folder)],
        "map": list(range(COUNT)),
        "isolation": "shared",
        "memory": "256M",
        **more,
    }
    total = {
        "function": upload(site, sum),
        "args": [{"from": "jobs:note/result"}],
        "isolation": "shared",
        "memory": "256M",
    }
    body = {"workflow": {"steps": {"note": step, "total": total}}}
    headers = {"Idempotency-Key": secrets.token_hex(8)}

    def accepted() -> int | None:
        """Asked for again with the same key when the service dies over it."""
        with suppress(httpx.TransportError, OSError), site.client() as http:
            answer = http.post("/workflows", json=body, headers=headers)
            assert answer.status_code == 201 or answer.status_code >= 500, answer.text
            return int(answer.json()["id"]) if answer.status_code == 201 else None
        return None

    return wait_until(accepted, "that the run is accepted", 60)


def asked(site: Installation, path: str) -> Any:
    """What the service answers, when it does."""
    with suppress(httpx.TransportError, KeyError), site.client() as http:
        answer = http.get(path)
        return answer.json() if answer.status_code == 200 else None
    return None


def ended(site: Installation, run: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] | None = asked(site, f"/workflows/{run}")
        return found if found and found["state"] in {"succeeded", "failed", "killed"} else None

    try:
        return wait_until(look, "the end of the run", 120)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{site.report()}") from None


def marks(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir() if path.name != "gate"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "marks"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Each test leaves it whole: what was killed is there again when its run has ended."""
    state = tmp_path_factory.mktemp("site") / "state"
    with installed(state, "--no-hub", "--port", "0", "--launcher", "process") as made:
        yield made


@pytest.mark.parametrize("victims", [["scheduler"], ["serve", "node"]], ids="+".join)
def test_every_call_is_made_once_whoever_is_killed(
    site: Installation, folder: Path, victims: list[str]
) -> None:
    run = start(site, folder)
    wait_until((folder / "50").exists, "a call that waits", 60)
    for victim in victims:
        site.kill(victim)
    (folder / "gate").touch()
    found = ended(site, run)
    assert found["state"] == "succeeded", asked(site, f"/workflows/{run}/steps?limit=5")
    assert marks(folder) == {"x"}
    assert len(list(folder.iterdir())) == COUNT + 1
    total = asked(site, f"/workflows/{run}/steps?step=total")["steps"][0]
    assert total["outputs"]["result"]["value"] == sum(range(COUNT))


def test_a_killed_warm_job_loses_what_it_was_at_and_that_alone(site: Installation, folder: Path) -> None:
    run = start(site, folder)
    wait_until((folder / "50").exists, "a call that waits", 60)
    for pid in _pools(site.state):
        with suppress(ProcessLookupError):  # one may end because another did
            os.kill(pid, signal.SIGKILL)
    (folder / "gate").touch()
    found = ended(site, run)
    assert found["state"] == "failed"
    assert found["steps"]["lost"] <= 2
    assert found["steps"]["succeeded"] == COUNT - found["steps"]["lost"]
    assert marks(folder) <= {"x", ""}  # one may have been killed before it wrote


def test_a_death_between_writing_down_and_sending_loses_and_doubles_nothing(
    tmp_path: Path, folder: Path
) -> None:
    places = ["serve.calls-noted", "serve.calls-sent"]
    died = {place: tmp_path / place for place in places}
    env = {"PERIJOVE_FAILPOINTS": ",".join(f"{place}={mark}" for place, mark in died.items())}
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    (folder / "gate").touch()
    with installed(tmp_path / "state", *options, env=env) as site:
        run = start(site, folder)
        assert ended(site, run)["state"] == "succeeded"
        assert all(mark.exists() for mark in died.values())
        assert marks(folder) == {"x"}


def test_a_killed_run_ends_and_the_warm_job_serves_the_next(site: Installation, folder: Path) -> None:
    run = start(site, folder)
    wait_until((folder / "50").exists, "a call that waits", 60)
    with site.client() as http:
        assert http.post(f"/workflows/{run}/kill").status_code == 200
    assert ended(site, run)["state"] == "killed"
    (folder / "gate").touch()
    again = start(site, folder, retries=1)
    assert ended(site, again)["state"] == "succeeded"


def _pools(state: Path) -> list[int]:
    """The processes of warm jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"PERIJOVE_JOB_DIR={state}/".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    assert found
    return found
