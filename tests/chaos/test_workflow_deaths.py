"""The service dies in the middle of a run of a workflow, on plain processes; every step runs once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import Installation, installed
from waiting import wait_until
from witness import Witness

from perijove_spawners import failpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
OPTIONS = ("--no-hub", "--port", "0", "--launcher", "process")
SMALL = {"cpu": 0.1, "memory": "16M"}


def traced(folder: Path, name: str, more: str = "") -> list[str]:
    """A command that leaves a line each time it runs."""
    return ["sh", "-c", f'echo ran >> "{folder}/{name}"; {more}']


def workflow(folder: Path) -> dict[str, Any]:
    """A list printed as JSON, something for each of its elements, and all of that together."""
    each = 'echo "$((${{ item }} * ${{ item }}))"'
    steps = {
        "list": {"command": traced(folder, "list", "echo '[1, 2, 3, 4, 5]'"), "outputs": {"xs": "fd:1"}},
        "square": {
            "command": traced(folder, "square-${{ index }}", each),
            "map": "jobs:list/xs",
            "outputs": {"y": "fd:1"},
        },
        "sum": {
            "command": traced(folder, "sum", 'cat "$INPUT_all"/*'),
            "inputs": {"all": "jobs:square/y"},
            "outputs": {"total": "fd:1"},
        },
        "show": {"command": traced(folder, "show", 'cat "${{ jobs:sum/total }}"'), "outputs": {"t": "fd:1"}},
    }
    return {"name": "squares", "steps": {name: {**SMALL, **step} for name, step in steps.items()}}


EXPECTED = {"list": 1, **{f"square-{i}": 1 for i in range(5)}, "sum": 1, "show": 1}


def begin(site: Installation, folder: Path) -> int:
    """A run; asked for again with the same key when the service dies over it."""

    def accepted() -> int | None:
        with contextlib.suppress(httpx.TransportError, OSError), site.client() as http:
            body, headers = {"workflow": workflow(folder)}, {"Idempotency-Key": "one"}
            answer = http.post("/workflows", json=body, headers=headers)
            if answer.status_code == 201:
                return int(answer.json()["id"])
            assert answer.status_code >= 500, answer.text
        return None

    return wait_until(accepted, "the run is accepted", 90)


def ended(site: Installation, number: int) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        with contextlib.suppress(httpx.TransportError, OSError), site.client() as http:
            answer = http.get(f"/workflows/{number}")
            found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
            return found if found.get("ended") is not None else None
        return None

    return wait_until(over, f"run {number} ends", 120)


def steps(site: Installation, number: int) -> list[tuple[str, str, Any]]:
    with site.client() as http:
        found = http.get(f"/workflows/{number}/steps").json()["steps"]
        return [(step["step"], step["state"], step["reason"]) for step in found if step["reason"]]


def shown(site: Installation, number: int) -> list[str]:
    with site.client() as http:
        return str(http.get(f"/workflows/{number}/steps/show/outputs/t").text).split()


def runs(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text().split()) for path in folder.iterdir()}


def check(site: Installation, number: int, folder: Path) -> None:
    run = ended(site, number)
    assert run["state"] == "succeeded", steps(site, number)
    assert run["steps"] == {"succeeded": 8}
    assert shown(site, number) == ["1", "4", "9", "16", "25"]
    assert runs(folder) == EXPECTED


def test_a_death_anywhere_runs_no_step_twice(tmp_path: Path, witness: Witness) -> None:
    died = {place: tmp_path / place for place in failpoints.WORKFLOWS}
    env = {"PERIJOVE_FAILPOINTS": ",".join(f"{place}={mark}" for place, mark in died.items())}
    with installed(tmp_path / "state", *OPTIONS, env=env) as site:
        check(site, begin(site, witness.folder), witness.folder)
    assert [place for place, mark in died.items() if not mark.exists()] == [], "these were never reached"


def test_killed_again_and_again_a_run_comes_to_its_end(tmp_path: Path, witness: Witness) -> None:
    with installed(tmp_path / "state", *OPTIONS) as site:
        number = begin(site, witness.folder)
        for step in ("list", "square-2", "sum"):
            wait_until(lambda step=step: (witness.folder / step).exists(), f"{step} runs", 90)  # type: ignore[misc]
            site.kill("serve")
        check(site, number, witness.folder)
