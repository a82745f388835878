"""Was each job run once, and is nothing left over? What tests that kill things ask in the end."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from installation import Installation
from waiting import wait_until


@dataclass
class Witness:
    """Jobs that each append to a file of their own, and what must be true of them in the end."""

    folder: Path

    def spec(self, name: str, seconds: float, **more: Any) -> dict[str, Any]:
        """A job that writes one line per run before it sleeps, and exits with 0."""
        script = f'echo "$PERIJOVE_ATTEMPT" >> "{self.folder}/{name}"; sleep {seconds}'
        return {"command": ["sh", "-c", script], "name": name, "cpu": 0.1, "memory": "16M", **more}

    def runs(self) -> dict[str, Counter[str]]:
        """Job's name -> attempt -> how often it ran: the truth about what ran."""
        return {path.name: Counter(path.read_text().split()) for path in self.folder.iterdir()}


def submit(site: Installation, spec: dict[str, Any], key: str, seconds: float = 120) -> int:
    """Submit until it is accepted, whatever dies meanwhile; the same key makes no second job."""

    def accepted() -> int | None:
        with contextlib.suppress(httpx.TransportError, OSError, ValueError), site.client() as http:
            answer = http.post("/jobs", json=spec, headers={"Idempotency-Key": key})
            if answer.status_code == 201:
                return int(answer.json()["id"])
            assert answer.status_code >= 500, answer.text
        return None

    return int(wait_until(accepted, f"the submission of {key}", seconds))


def everything_ended(site: Installation, jobs: list[int], seconds: float) -> list[dict[str, Any]]:
    """The jobs, when all have ended."""

    def ended() -> list[dict[str, Any]] | None:
        with contextlib.suppress(httpx.TransportError, OSError, ValueError), site.client() as http:
            if http.get("/jobs", params={"state": "live", "limit": 1}).json()["jobs"]:
                return None
            return [http.get(f"/jobs/{job}").json() for job in jobs]
        return None

    found: list[dict[str, Any]] = wait_until(ended, "the end of all jobs", seconds)
    return found


def all_is_free(site: Installation) -> bool:
    """The ledger is empty."""
    with contextlib.suppress(httpx.TransportError, OSError), site.client() as http:
        views = http.get("/nodes").json()
        return all(
            (v["free"]["cpu"], v["free"]["memory"], v["jobs"]) == (v["node"]["cpus"], v["node"]["memory"], 0)
            for v in views
        )
    return False


def processes_of(folder: Path) -> list[str]:
    """Processes whose arguments or environment name `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid():
                continue
            if f"{folder}" in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(" ".join(process.cmdline()))
    return found
