"""A whole Perijove on this machine, started as a user starts it: `perijove up`."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from waiting import wait_until

READY = "Perijove is ready at "


class Installation:
    """`perijove up` in the foreground of a child process, its state in `state`."""

    def __init__(self, state: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.state, self.options = state, options
        self.env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.output: list[str] = []

    def start(self, seconds: float = 90) -> Self:
        """Start it and wait for the line that says it is ready."""
        argv = [
            str(Path(sys.executable).with_name("perijove")),
            "up",
            "--state",
            str(self.state),
            *self.options,
        ]
        self.process = subprocess.Popen(
            argv,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pump, args=(self.process.stdout, lines), daemon=True).start()
        deadline = time.monotonic() + seconds
        while not self.url:
            try:
                line = lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"not ready after {seconds:g} s:\n{self.report()}") from None
            if line is None:
                raise RuntimeError(f"perijove up ended:\n{self.report()}")
            self.output.append(line)
            if line.startswith(READY):
                self.url = line.removeprefix(READY).split()[0]
        threading.Thread(target=_drain, args=(lines, self.output), daemon=True).start()
        return self

    def stop(self, number: int = signal.SIGINT, seconds: float = 60) -> int:
        """Ctrl-C; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(seconds)
        self.url = ""
        return status

    def report(self) -> str:
        """What it and its children printed."""
        logs = [f"== {path.name}\n{path.read_text()[-3000:]}" for path in (self.state / "log").glob("*.log")]
        return "\n".join([*self.output, *logs])

    def pid(self, child: str) -> int:
        """The process id of ``scheduler``, ``node``, ``serve`` or ``hub``."""
        return int(json.loads((self.state / "run" / f"{child}.json").read_text())["pid"])

    def kill(self, child: str) -> None:
        """-9 to a child; `up` will start it again. One that `up` is just starting is waited for."""

        def killed() -> bool:
            try:
                os.kill(self.pid(child), signal.SIGKILL)
            except ProcessLookupError:
                return False
            return True

        wait_until(killed, f"{child} being there to be killed", 60)

    @property
    def endpoint(self) -> dict[str, Any]:
        """What `up` left for the command line: ``url`` and ``token``."""
        found: dict[str, Any] = json.loads((self.state / "endpoint.json").read_text())
        return found

    @property
    def token(self) -> str:
        return str(self.endpoint["token"])

    def client(self) -> httpx.Client:
        """REST, as the command line of whoever runs `up` has it; waits a little for who does not listen."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=f"{self.endpoint['url']}/api/v1",
            headers=headers,
            timeout=60,
            transport=httpx.HTTPTransport(retries=4),
        )

    def submit(self, **spec: Any) -> int:
        """Submit one job; its id."""
        with self.client() as http:
            answer = http.post("/jobs", json=spec)
            assert answer.status_code == 201, answer.text
            return int(answer.json()["id"])

    def until(self, job: int, states: Sequence[str], seconds: float = 60) -> dict[str, Any]:
        """Wait until a job is in one of `states`; survives a service that is away meanwhile."""
        deadline, found = time.monotonic() + seconds, {}
        while time.monotonic() < deadline:
            try:
                with self.client() as http:
                    found = http.get(f"/jobs/{job}").json()
            except httpx.TransportError:
                found = {}
            if found.get("state") in states:
                return found
            time.sleep(0.05)
        raise TimeoutError(f"job {job} is not {'/'.join(states)} but {found}\n{self.report()}")

    def ended(self, job: int, seconds: float = 60) -> dict[str, Any]:
        """Wait for the job's end."""
        return self.until(job, ("succeeded", "failed", "killed", "lost", "rejected"), seconds)

    def log(self, job: int, stream: str = "stdout") -> str:
        """What it wrote."""
        with self.client() as http:
            return http.get(f"/jobs/{job}/logs", params={"stream": stream}).text


@contextmanager
def installed(state: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Installation]:
    """A running installation; at the end it is stopped and so are its jobs."""
    installation = Installation(state, *options, "--on-exit", "stop", env=env)
    try:
        yield installation.start()
    finally:
        if installation.process is not None:
            installation.stop()


def _pump(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _drain(lines: queue.Queue[str | None], output: list[str]) -> None:
    while (line := lines.get()) is not None:
        output.append(line)
