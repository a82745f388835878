"""A Perijove of several processes as a site runs it: scheduler, services and nodes started one by one.

Nodes may live in network namespaces of their own, so that a test can cut the wire.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from waiting import wait_until

BRIDGE, NETWORK = "pjchaos0", "10.213.7"
TOKEN = secrets.token_hex(16)


class Process:
    """One of Perijove's programs, which a test may kill, stop, let go on and start again."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name, self._argv, self._env, self.log = name, list(argv), env, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, umask=0o022
            )

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """-9, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return self._process.wait(60)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Cluster:
    """All of it, in `folder`."""

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", settings: dict[str, str] | None = None
    ) -> None:
        self.folder, self.state, self.host = folder, folder / "state", host
        self.state.mkdir(mode=0o711)
        (folder / "log").mkdir()
        self.ports: dict[str, int] = {}
        self.processes: dict[str, Process] = {}
        self.env = {**os.environ, "PERIJOVE_STATE": str(self.state), **(settings or {})}
        endpoint = {"url": "http://127.0.0.1:0", "token": TOKEN, "launchers": []}
        (self.state / "endpoint.json").write_text(json.dumps(endpoint))

    def scheduler(self) -> Process:
        port = self.ports.setdefault("scheduler", free_port(self.host))
        argv = ["--host", self.host, "--port", str(port), "--tls", str(self.state / "tls")]
        process = self._add("scheduler", "perijove_spawners.fabric.scheduler", argv)
        wait_until((self.state / "tls/ca.pem").exists, "the key of the links", 60)
        return process

    @property
    def scheduler_url(self) -> str:
        return f"tls://{self.host}:{self.ports['scheduler']}"

    def service(self, name: str = "serve", **settings: str) -> Process:
        """Another service over the same database."""
        port = self.ports.setdefault(name, free_port())
        own = {
            "PERIJOVE_MODE": "single",
            "PERIJOVE_LISTEN": f"127.0.0.1:{port}",
            "PERIJOVE_SCHEDULER": self.scheduler_url,
            **{f"PERIJOVE_{key.upper()}": value for key, value in settings.items()},
        }
        return self._add(name, "perijove_hub", ["serve"], own)

    def node(
        self, name: str, *options: str, cpus: float = 4, namespace: str | None = None, **env: str
    ) -> Process:
        """A node, in a network namespace of its own when `namespace` names one."""
        argv = ["node", "--name", name, "--state", str(self.folder / name), "--cpus", str(cpus)]
        argv += ["--scheduler", self.scheduler_url, "--tls", str(self.state / "tls")]
        argv += ["--store", f"file://{self.state / 'store'}", "--memory", "8G", "--gpus", "none", *options]
        within = ["ip", "netns", "exec", namespace] if namespace else []
        return self._add(name, "perijove_hub", argv, env, within)

    def joining(self, name: str, token: str, *options: str) -> Process:
        """A node on which nothing was set up but a token."""
        file = self.folder / f"{name}.token"
        file.write_text(token)
        argv = ["node", "--name", name, "--state", str(self.folder / name), "--gpus", "none", *options]
        argv += ["--join", f"http://127.0.0.1:{self.ports['serve']}", "--token-file", str(file)]
        return self._add(name, "perijove_hub", argv)

    def _add(
        self,
        name: str,
        module: str,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> Process:
        command = [*within, sys.executable, "-m", module, *argv]
        process = Process(name, command, {**self.env, **(env or {})}, self.folder / "log" / f"{name}.log")
        self.processes[name] = process
        process.start()
        return process

    def client(self, name: str = "serve") -> httpx.Client:
        """REST at one of the services."""
        url = f"http://127.0.0.1:{self.ports[name]}/api/v1"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def leader(self) -> str | None:
        """The service that accepts work."""
        for name in self.ports:
            if name != "scheduler" and self.processes[name].alive:
                with contextlib.suppress(httpx.TransportError), self.client(name) as http:
                    if http.get("/health", timeout=2).status_code == 200:
                        return name
        return None

    def ready(self, nodes: int = 1, seconds: float = 60) -> str:
        """Wait until some service leads and so many nodes are up; the service's name."""

        def up() -> str | None:
            if (name := self.leader()) is None:
                return None
            with contextlib.suppress(httpx.TransportError), self.client(name) as http:
                found = http.get("/nodes").json()
                return name if sum(v["node"]["state"] == "up" for v in found) >= nodes else None
            return None

        try:
            return wait_until(up, f"a service with {nodes} nodes", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.report()}") from None

    def report(self) -> str:
        """What they printed last."""
        logs = sorted((self.folder / "log").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in logs)

    def close(self) -> None:
        """End all of it; jobs that still run were to be killed before."""
        for process in reversed(list(self.processes.values())):
            if process.alive:
                process.send(signal.SIGCONT)
                process.end()


@contextmanager
def cluster(folder: Path, **options: Any) -> Iterator[Cluster]:
    """A cluster without processes yet; at the end those that were started are ended."""
    made = Cluster(folder, **options)
    try:
        yield made
    finally:
        made.close()


class Wire:
    """A network namespace joined to this machine by a bridge, whose link can be cut."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.inside = name, f"{NETWORK}.{number}"
        self._link = f"pjc{number}"
        peer = f"pjp{number}"
        _ip("netns", "add", name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", peer)
        _ip("link", "set", peer, "netns", name)
        _ip("link", "set", self._link, "master", BRIDGE)
        _ip("link", "set", self._link, "up")
        for words in (
            ("addr", "add", f"{self.inside}/24", "dev", peer),
            ("link", "set", peer, "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", f"{NETWORK}.1"),
        ):
            _ip("-n", name, *words)

    def cut(self) -> None:
        """No packet passes any more; nobody is told."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        _ip("link", "del", self._link, check=False)
        _ip("netns", "del", self.name, check=False)


@contextmanager
def wires(*names: str) -> Iterator[list[Wire]]:
    """Namespaces on a bridge that has the address ``NETWORK.1``."""
    found: list[Wire] = []
    _ip("link", "del", BRIDGE, check=False)
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names, start=2):
            found.append(Wire(name, number))
        yield found
    finally:
        for wire in found:
            wire.remove()
        _ip("link", "del", BRIDGE, check=False)


def can_wire() -> bool:
    """Whether this machine lets us make namespaces and bridges."""
    if os.geteuid() != 0:
        return False
    try:
        with wires("pjprobe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port
