"""A notebook server from request to ready, through Perijove and through DockerSpawner, on the same image.

python tests/bench/spawn.py [IMAGE]
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from measure import installed, show, spread

from perijove_hub.proxy import find_proxy
from perijove_hub.up.engine import choose_launcher

RUNS = 6
USER = "tour"
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://{gateway}:{hub}"
c.JupyterHub.spawner_class = "docker"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users = {{"{user}"}}
c.ConfigurableHTTPProxy.command = {proxy}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.DockerSpawner.image = "{image}"
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.remove = True
c.DockerSpawner.prefix = "perijove-bench"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.network_name = "bridge"
c.DockerSpawner.extra_create_kwargs = {{"user": "20000:20000", "working_dir": "/tmp"}}
c.DockerSpawner.environment = {{"HOME": "/tmp"}}
c.DockerSpawner.notebook_dir = "/tmp"
c.DockerSpawner.cpu_limit, c.DockerSpawner.mem_limit = 1.0, "1G"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
scopes = ["admin:servers", "admin:users"]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"], "scopes": scopes}}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def spawn(hub: httpx.Client) -> float:
    """Seconds from the request until the server is ready; it is stopped afterwards."""
    begun = time.perf_counter()
    hub.post(f"/users/{USER}/server").raise_for_status()
    while not hub.get(f"/users/{USER}").json()["servers"].get("", {}).get("ready"):
        time.sleep(0.05)
    took = time.perf_counter() - begun
    hub.delete(f"/users/{USER}/server").raise_for_status()
    while hub.get(f"/users/{USER}").json()["servers"]:
        time.sleep(0.05)
    return took


@contextmanager
def perijove(folder: Path, image: str) -> Iterator[httpx.Client]:
    env = {"PERIJOVE_DEFAULT_IMAGE": image}
    with installed(folder, "--port", "0", "--launcher", "docker", env=env) as site:
        base = f"{site.url}/hub/api"
        setup = (folder / "hub" / "setup.token").read_text().strip()
        body = {"scopes": ["servers!user", "read:users!user"], "note": "bench"}
        headers = {"Authorization": f"token {setup}"}
        token = httpx.post(f"{base}/users/{USER}/tokens", json=body, headers=headers).raise_for_status()
        headers = {"Authorization": f"token {token.json()['token']}"}
        with httpx.Client(base_url=base, headers=headers, timeout=120) as hub:
            yield hub


@contextmanager
def dockerspawner(folder: Path, image: str) -> Iterator[httpx.Client]:
    ports = {name: free_port() for name in ("public", "hub", "api")}
    text = CONFIG.format(
        **ports,
        gateway=choose_launcher("docker").gateway,
        user=USER,
        proxy=json.dumps(find_proxy()),
        image=image,
        token="bench-token",
    )
    (folder / "config.py").write_text(text)
    argv = [sys.executable, "-m", "jupyterhub", "-f", "config.py"]
    with (folder / "log").open("wb") as log:
        hub = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env={**os.environ})
    headers = {"Authorization": "token bench-token"}
    base = f"http://127.0.0.1:{ports['public']}/hub/api"
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=120) as client:
            for _ in range(300):
                try:
                    if client.get(f"/users/{USER}").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            yield client
    except BaseException:
        print((folder / "log").read_text()[-3000:])
        raise
    finally:
        hub.terminate()
        hub.wait(60)


def main() -> None:
    image = sys.argv[1] if len(sys.argv) > 1 else "perijove-notebook:latest"
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="perijove-bench-") as top:
        for name, hub_of in (("Perijove", perijove), ("DockerSpawner", dockerspawner)):
            folder = Path(top) / name.lower()
            folder.mkdir(mode=0o711)
            Path(top).chmod(0o711)
            with hub_of(folder, image) as hub:
                spawn(hub)
                figures[name] = [spawn(hub) for _ in range(RUNS)]
    base = statistics.median(figures["DockerSpawner"])
    rows = [
        [name, spread(values, 2), f"{statistics.median(values) / base:.2f}"]
        for name, values in figures.items()
    ]
    show(f"{RUNS} servers of {image}", ["spawner", "seconds", "to DockerSpawner"], rows)


if __name__ == "__main__":
    main()
