"""Resident memory of service, scheduler and node with 0, 1,000 and 10,000 pending jobs.

python tests/bench/memory.py
"""

from __future__ import annotations

import psutil
from measure import show, site


def main() -> None:
    rows, pending = [], 0
    with site("--launcher", "process") as installation, installation.client() as http:
        # One job holds all cores: the others wait.
        cores = http.get("/nodes").json()[0]["node"]["cpus"]
        http.post("/jobs", json={"command": ["sleep", "3600"], "cpu": cores}).raise_for_status()
        for wanted in (0, 1_000, 10_000):
            while pending < wanted:
                body = [{"command": ["true"], "name": f"job {pending + i}"} for i in range(500)]
                http.post("/jobs/bulk", json=body).raise_for_status()
                pending += 500
            row = [f"{wanted}"]
            for part in ("serve", "scheduler", "node"):
                process = psutil.Process(installation.pid(part))
                row.append(f"{process.memory_info().rss / 2**20:.0f} MiB")
            rows.append(row)
    show("Resident memory", ["pending jobs", "service", "scheduler", "node"], rows)


if __name__ == "__main__":
    main()
