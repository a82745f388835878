"""Workflows of 1 -> N -> 1 steps that do nothing, beside Snakemake, redun and a bare Dask graph, in one run.

python tests/bench/graphs.py [wide] [commands] [plan] [verify] [--peers FOLDER] [-n 200,1000,10000]

The peers live in a virtual environment of their own, FOLDER, which is made when it is missing. Each figure is
the time from asking for the run to its end, with all servers up and warm: `wide` compares function steps (in
shared isolation) with redun and a bare Dask graph, `commands` steps that are processes with Snakemake's,
`plan` is a graph of a million steps, `verify` 100,000 steps whose results are all taken from the cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
from measure import Installation, seconds, show, site

from perijove.model import StepState
from perijove.model.validation import parse_workflow
from perijove_hub.workflows.graph import Graph
from perijove_hub.workflows.progress import Progress

PEERS = ("snakemake>=9", "redun>=0.44", "dask[distributed]")
ENDED = {"succeeded", "failed", "killed"}
cloudpickle.register_pickle_by_value(sys.modules[__name__])

DASK = """
import json, sys, time
from dask import delayed
from distributed import Client, LocalCluster
def start(): return 0
def each(x, i): return i
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster):
        found = []
        for n in [50, *map(int, sys.argv[1:])]:
            begun = time.perf_counter()
            one = delayed(start, pure=False)()
            total = delayed(sum)([delayed(each)(one, i) for i in range(n)])
            assert total.compute() == n * (n - 1) // 2
            found.append(time.perf_counter() - begun)
    print(json.dumps(found[1:]))
"""
REDUN = """
import json, logging, sys, time
from redun import Scheduler, task
from redun.config import Config
logging.disable(logging.CRITICAL)
redun_namespace = "bench"
@task()
def start(n): return 0
@task()
def each(x, i): return i
@task()
def total(xs): return sum(xs)
@task()
def main(n):
    one = start(n)
    return total([each(one, i + n * 1_000_000) for i in range(n)])
if __name__ == "__main__":
    found = []
    for n in [50, *map(int, sys.argv[1:])]:
        scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{n}.db"}}))
        scheduler.load()
        for _ in range(2):
            begun = time.perf_counter()
            scheduler.run(main(n))
            found.append(time.perf_counter() - begun)
    print(json.dumps(found[2:]))
"""
SNAKEFILE = """
N = int(config["size"])
rule all:
    input: "total"
rule start:
    output: "start"
    shell: "touch {output}"
rule each:
    input: "start"
    output: "each/{i}"
    shell: "touch {output}"
rule total:
    input: expand("each/{i}", i=range(N))
    output: "total"
    shell: "touch {output}"
"""


def start() -> int:
    return 0


def each(_before: int, i: int) -> int:
    return i


class Service:
    """An installation, as a client sees it."""

    def __init__(self, made: Installation) -> None:
        self.http: httpx.Client = made.client()
        self.http.timeout = httpx.Timeout(600)

    def put(self, function: Callable[..., Any]) -> str:
        return str(self.http.post("/files", content=cloudpickle.dumps(function)).json()["digest"])

    def run(self, workflow: dict[str, Any]) -> float:
        """Seconds from asking for a run to its end."""
        begun = time.perf_counter()
        answer = self.http.post("/workflows", json={"workflow": workflow})
        assert answer.status_code == 201, answer.text
        run = answer.json()
        while run["state"] not in ENDED:
            time.sleep(0.01)
            run = self.http.get(f"/workflows/{run['id']}").json()
        assert run["state"] == "succeeded", run
        return time.perf_counter() - begun

    def functions(self, n: int) -> dict[str, Any]:
        """1 -> N -> 1 calls; `n` makes them unlike those of another size."""
        own = {"isolation": "shared", "cache": True, "memory": "256M"}
        one, some, total = (self.put(function) for function in (start, each, sum))
        return {
            "name": f"wide{n}",
            "steps": {
                "start": {"function": one, "env": {"SIZE": "1"}, **own},
                "each": {
                    "function": some,
                    "args": [{"from": "jobs:start/result"}, {"from": "item"}],
                    "map": list(range(n * 1_000_000, n * 1_000_000 + n)),
                    **own,
                },
                "total": {"function": total, "args": [{"from": "jobs:each/result"}], **own},
            },
        }

    def commands(self, n: int) -> dict[str, Any]:
        """1 -> N -> 1 processes."""
        own = {"cache": True, "memory": "64M"}
        return {
            "name": f"commands{n}",
            "steps": {
                "start": {"command": ["true", str(n)], **own},
                "each": {
                    "command": ["true", "${{ item }}"],
                    "map": list(range(n)),
                    "after": ["start"],
                    "labels": {"n": str(n)},
                    **own,
                },
                "total": {"command": ["true", "total", str(n)], "after": ["each"], **own},
            },
        }


class Peers:
    """The virtual environment of the others."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        if not self.bin.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([self.bin / "pip", "install", "-q", *PEERS], check=True)

    def python(self, text: str, sizes: list[int]) -> list[float]:
        """What the program prints, run in a folder of its own."""
        with tempfile.TemporaryDirectory(prefix="perijove-bench-") as folder:
            script = Path(folder) / "peer.py"
            script.write_text(text)
            words = [str(self.bin / "python"), str(script), *map(str, sizes)]
            done = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        found: list[float] = json.loads(done.stdout)
        return found

    def snakemake(self, n: int) -> tuple[float, float]:
        """Seconds of a first run and of one in which nothing is to be done."""
        with tempfile.TemporaryDirectory(prefix="perijove-bench-") as folder:
            (Path(folder) / "Snakefile").write_text(SNAKEFILE)
            words = [str(self.bin / "snakemake"), "--cores", "2", "-q", "all", "--config", f"size={n}"]

            def run() -> None:
                subprocess.run(words, cwd=folder, check=True, capture_output=True)

            return seconds(run), seconds(run)


def wide(peers: Peers, sizes: list[int]) -> None:
    dask, redun = peers.python(DASK, sizes), peers.python(REDUN, sizes)
    with site("--launcher", "process") as made:
        service = Service(made)
        service.run(service.functions(50))
        rows = []
        for i, n in enumerate(sizes):
            workflow = service.functions(n)
            first, again = service.run(workflow), service.run(workflow)
            rows.append(
                [
                    f"{n:,}",
                    *(f"{value:.2f}" for value in (dask[i], redun[2 * i], redun[2 * i + 1], first, again)),
                    f"{1e3 * dask[i] / n:.2f}",
                    f"{1e3 * first / n:.2f}",
                    f"{first / dask[i]:.2f}",
                    f"{first / redun[2 * i]:.3f}",
                    f"{again / redun[2 * i + 1]:.3f}",
                ]
            )
    columns = ["N", "Dask s", "redun s", "redun again", "first s", "again s", "Dask ms/step", "ms/step"]
    show("Functions, 1 -> N -> 1", [*columns, "to Dask", "to redun", "again"], rows)


def commands(peers: Peers, sizes: list[int]) -> None:
    rows = []
    with site("--launcher", "process") as made:
        service = Service(made)
        service.run(service.commands(5))
        for n in sizes:
            theirs, ours = peers.snakemake(n), service.commands(n)
            first, again = service.run(ours), service.run(ours)
            figures = [*theirs, first, again]
            ratios = [first / theirs[0], again / theirs[1]]
            rows.append([f"{n:,}", *(f"{one:.2f}" for one in figures), *(f"{one:.3f}" for one in ratios)])
    show(
        "Processes, 1 -> N -> 1",
        ["N", "Snakemake s", "again", "first s", "again s", "to Snakemake", "again"],
        rows,
    )


def plan(_peers: Peers, _sizes: list[int]) -> None:
    """A million steps: 1,000 chains of 1,000 steps between one first and one last. Seconds of one core."""
    chains, length = 1_000, 1_000
    steps: dict[str, Any] = {"first": {"command": ["true"]}}
    for c in range(chains):
        for i in range(length):
            before = f"s{c}.{i - 1}" if i else "first"
            steps[f"s{c}.{i}"] = {"command": ["true"], "after": [before]}
    steps["last"] = {"command": ["true"], "after": [f"s{c}.{length - 1}" for c in range(chains)]}
    text = json.dumps({"name": "million", "steps": steps})
    del steps
    # As the service has it (perijove_hub.app.serve).
    gc.freeze()
    gc.set_threshold(50_000, 5, 2000)
    begun = time.process_time()
    workflow = parse_workflow(text)
    read = time.process_time()
    progress = Progress(Graph.of(workflow))
    planned = time.process_time()
    while progress.due:
        due, progress.due = progress.due, []
        for step in due:
            progress.open(step, 1)
            progress.end(step, StepState.SUCCEEDED)
    assert progress.finished
    ended = time.process_time()
    figures = (read - begun, planned - read, planned - begun, ended - planned)
    show(
        f"{chains * length + 2:,} steps",
        ["read and checked s", "planned s", "both s", "each ended and the next found s"],
        [[f"{one:.1f}" for one in figures]],
    )


def verify(_peers: Peers, sizes: list[int]) -> None:
    rows = []
    with site("--launcher", "process") as made:
        service = Service(made)
        service.run(service.functions(50))
        for n in [*sizes, 100_000]:
            workflow = service.functions(n)
            first = service.run(workflow)
            again = service.run(workflow)
            figures = [first, again, 1e3 * first / n, 1e3 * again / n]
            rows.append([f"{n:,}", *(f"{one:.2f}" for one in figures)])
    show("All from the cache", ["N", "first s", "again s", "first ms/step", "again ms/step"], rows)


PARTS: dict[str, Callable[[Peers, list[int]], None]] = {
    "wide": wide,
    "commands": commands,
    "plan": plan,
    "verify": verify,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all")
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir()) / "perijove-bench-peers")
    parser.add_argument(
        "-n", dest="sizes", default="", help="by default what each part does in a minute or two"
    )
    given = parser.parse_args()
    usual = {"wide": [200, 1_000, 10_000], "commands": [200, 1_000], "plan": [], "verify": [10_000]}
    peers = Peers(given.peers)
    for part in given.parts or PARTS:
        PARTS[part](peers, [int(one) for one in given.sizes.split(",") if one] or usual[part])


if __name__ == "__main__":
    main()
