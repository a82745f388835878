"""No-op jobs from submission to end, beside their floors: fork+exec, `docker run`, the bare Docker SDK.

python tests/bench/throughput.py [process] [docker] [peers]

`peers` sets the process launcher beside a real Slurm and a real Grid Engine where these are installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import docker
import grid_engine
import slurm
from measure import Installation, seconds, show, site, spread

PROCESSES, CONTAINERS, ROUNDS = 500, 60, 3
IMAGE = "perijove-test:base"


def jobs(installation: Installation, count: int, **spec: object) -> float:
    """Seconds from the first submission until `count` jobs of `spec` have ended."""
    with installation.client() as http:
        begun = time.perf_counter()
        for i in range(0, count, 100):
            body = [{"command": ["true"], "memory": "16M", **spec}] * min(100, count - i)
            http.post("/jobs/bulk", json=body).raise_for_status()
        while http.get("/jobs", params={"state": "live", "limit": 1}).json()["jobs"]:
            time.sleep(0.1)  # each look costs both sides some milliseconds of the same two cores
        took = time.perf_counter() - begun
        last = http.get("/jobs", params={"limit": min(count, 1000)}).json()["jobs"]
        assert {job["state"] for job in last} == {"succeeded"}, [j["reason"] for j in last if j["reason"]]
    return took


def fork_exec(count: int) -> float:
    with ThreadPoolExecutor(8) as pool:
        return seconds(lambda: list(pool.map(lambda _: subprocess.run(["/bin/true"]), range(count))))


def bare_sdk(client: docker.DockerClient, count: int, parallel: int, network: str) -> float:
    def one(_: int) -> None:
        container = client.containers.create(IMAGE, ["true"], network_mode=network)
        container.start()
        container.wait()
        container.remove()

    with ThreadPoolExecutor(parallel) as pool:
        return seconds(lambda: list(pool.map(one, range(count))))


def docker_run(count: int, parallel: int, network: str) -> float:
    argv = ["docker", "run", "--rm", "--network", network, IMAGE, "true"]
    with ThreadPoolExecutor(parallel) as pool:
        return seconds(lambda: list(pool.map(lambda _: subprocess.run(argv, check=True), range(count))))


def processes() -> None:
    ours, floor = [], []
    with site("--launcher", "process") as installation:
        jobs(installation, 50, cpu=0.05)
        for _ in range(ROUNDS):
            floor.append(PROCESSES / fork_exec(PROCESSES))
            ours.append(PROCESSES / jobs(installation, PROCESSES, cpu=0.05))
    ratio = statistics.median(ours) / statistics.median(floor)
    rows = [
        ["Perijove, process, every transition durable", spread(ours), f"{ratio:.2f}"],
        ["fork+exec, 8 threads", spread(floor), "1.00"],
    ]
    show(f"{PROCESSES} jobs of `true`", ["what", "jobs/s", "to the floor"], rows)


def peers() -> None:
    """Alternated in blocks: ours, Slurm (loop, array), Grid Engine (loop, array)."""
    figures: dict[str, list[float]] = {}

    def note(name: str, count: int, took: float) -> None:
        figures.setdefault(name, []).append(count / took)

    for _ in range(ROUNDS):
        with site("--launcher", "process") as installation:
            jobs(installation, 50, cpu=0.03)
            note("Perijove, process, durable", 1000, jobs(installation, 1000, cpu=0.03))
        if not slurm.missing():
            with slurm.slurm() as peer:
                peer.as_array(64)
                note("Slurm, 64 slots, array", 500, peer.as_array(500))
                note("Slurm, 64 slots, loop", 300, peer.one_by_one(300))
        if not grid_engine.missing():
            with grid_engine.grid_engine() as other:
                note("Grid Engine, 64 slots, array", 200, other.as_array(200))
                note("Grid Engine, 64 slots, loop", 60, other.one_by_one(60))
    base = statistics.median(figures.get("Slurm, 64 slots, array", [1.0]))
    rows = [
        [name, spread(rates), f"{statistics.median(rates) / base:.2f}"] for name, rates in figures.items()
    ]
    show("jobs of `true`, from the first submission to the last end", ["what", "jobs/s", "to Slurm"], rows)


def containers() -> None:
    client, rows = docker.from_env(), []
    with site("--launcher", "docker", default_image=IMAGE) as installation:
        jobs(installation, 4, cpu=0.25)
        for network in ("none", "bridge"):
            for parallel in (4, 8):
                cpu = {4: 0.5, 8: 0.25}[parallel]
                figures: dict[str, list[float]] = {"Perijove": [], "bare SDK": [], "docker run": []}
                for _ in range(ROUNDS):
                    figures["bare SDK"].append(CONTAINERS / bare_sdk(client, CONTAINERS, parallel, network))
                    took = jobs(installation, CONTAINERS, cpu=cpu, network=network)
                    figures["Perijove"].append(CONTAINERS / took)
                    figures["docker run"].append(CONTAINERS / docker_run(CONTAINERS, parallel, network))
                floor = statistics.median(figures["bare SDK"])
                for name, values in figures.items():
                    row = [f"{name}, {network}, {parallel} at once", spread(values, 2)]
                    rows.append([*row, f"{statistics.median(values) / floor:.2f}"])
    show(f"{CONTAINERS} containers of `true`", ["what", "jobs/s", "to the bare SDK"], rows)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["process", "docker"]
    if "process" in wanted:
        processes()
    if "docker" in wanted:
        containers()
    if "peers" in wanted:
        peers()
