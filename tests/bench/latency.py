"""From submission to the first line of output, beside a bare `docker run` of the same image.

python tests/bench/latency.py [IMAGE]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from measure import Installation, show, site, spread

RUNS = 20
LINE = "hello"


def bare(image: str) -> float:
    """Seconds until `docker run` prints its first line."""
    argv = ["docker", "run", "--rm", "--network", "none", image, "echo", LINE]
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == LINE
        took = time.perf_counter() - begun
    return took


def ours(installation: Installation) -> float:
    """Seconds from `POST /jobs` to the first event of the followed log, as a notebook cell gets it."""
    with installation.client() as http:
        begun = time.perf_counter()
        job = http.post("/jobs", json={"command": ["echo", LINE], "network": "none"}).json()["id"]
        with http.stream("GET", f"/jobs/{job}/logs", params={"follow": True}) as stream:
            for text in stream.iter_text():
                if LINE in text:
                    return time.perf_counter() - begun
    raise AssertionError("no output")


def main() -> None:
    image = sys.argv[1] if len(sys.argv) > 1 else "perijove-notebook:latest"
    floor, mine = [], []
    with site("--launcher", "docker", default_image=image) as installation:
        for _ in range(3):
            ours(installation)
        for _ in range(RUNS):
            floor.append(1000 * bare(image))
            mine.append(1000 * ours(installation))
    added = statistics.median(mine) - statistics.median(floor)
    rows = [
        ["Perijove, submission to first line", spread(mine, 0), f"{added:+.0f}"],
        ["docker run, start to first line", spread(floor, 0), ""],
    ]
    show(f"{RUNS} runs of `echo` in {image}", ["what", "ms", "on top"], rows)


if __name__ == "__main__":
    main()
