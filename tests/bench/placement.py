"""One pass of placement over a large queue and many nodes, on an empty and on a full cluster.

Everything is in memory and in one process. `PERIJOVE_BENCH_REPEAT` is how often each is done.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from math import log2
from typing import Any

from measure import show, spread

from perijove.model import Capabilities, Gpu, Job, JobSpec, Node, Reason, State
from perijove_hub.ledger import Ledger
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.plan import Plan, Rules, plan
from perijove_hub.policy.document import Policy

REPEAT = int(os.environ.get("PERIJOVE_BENCH_REPEAT", "3"))
GIB = 1 << 30
ALL = 1 << 30
WHO: dict[str, Any] = {
    "owner": "alice",
    "name": "j",
    "state": State.PENDING,
    "submitted": 0.0,
    "launcher": "memory",
}


class Open:
    """A gate without quotas."""

    def room(self, job: Job) -> tuple[int, Reason | None]:
        return ALL, None

    def take(self, job: Job, count: int) -> None:
        return None


def nodes(count: int, cpus: float = 128) -> Iterator[Node]:
    for i in range(count):
        gpus = [Gpu(index=g, uuid=f"{i}g{g}", model="H100") for g in range(8)] if i % 10 == 0 else []
        launchers = [Capabilities(name="memory")]
        yield Node(name=f"n{i:05}", cpus=cpus, memory=512 * GIB, gpus=gpus, launchers=launchers)


def empty(count: int, cpus: float = 128) -> Ledger:
    ledger = Ledger()
    for node in nodes(count, cpus):
        ledger.announce(node)
    return ledger


def full(count: int, jobs: int, free: float = 0.0) -> Ledger:
    """Each node holds `jobs` jobs that end at different times, and has `free` cores left."""
    ledger, number = empty(count), 10**9
    spec = JobSpec(command=["true"], cpu=(128 - free) / jobs, memory=500 * GIB // jobs)
    randomly = random.Random(1)
    for node in ledger.nodes:
        for _ in range(jobs):
            number += 1
            limited = spec.model_copy(update={"time_limit": randomly.uniform(1, 86400)})
            ledger.hold(job(number, limited).model_copy(update={"node": node.name, "started": 0.0}))
    return ledger


def job(number: int, spec: JobSpec) -> Job:
    return Job.model_construct(
        id=number, spec=spec, gpus=[], slots={}, failed_nodes=[], partition=None, attempt=0, **WHO
    )


SPECS = [
    JobSpec(command=["true"], cpu=cpu, memory=memory * GIB, time_limit=limit)
    for cpu in (1, 2, 4, 8)
    for memory in (1, 2, 4, 8)
    for limit in (600, 3600, 86400)
]


def arrays(members: int) -> Iterator[Entry]:
    """Arrays of 1,000 members."""
    for i in range(members // 1000):
        yield Entry(job(1 + i * 1001, SPECS[i % len(SPECS)]), 1000)


def singles(members: int) -> Iterator[Entry]:
    """Jobs of 48 shapes, one by one."""
    for i in range(members):
        yield Entry(job(i + 1, SPECS[i * 7 % len(SPECS)]))


def distinct(members: int) -> Iterator[Entry]:
    """Jobs of which no two are of the same shape."""
    for i in range(members):
        yield Entry(job(i + 1, SPECS[i * 7 % len(SPECS)].model_copy(update={"memory": GIB + i * 4096})))


def one_pass(ledger: Ledger, entries: Iterable[Entry], most: int = ALL) -> Plan:
    rules = Rules(Policy(), holdings=ledger.holdings)
    return plan(entries, ledger.table.copy(), rules, Open(), 0.0, most=most)


def timed(
    ledger: Ledger, entries: Callable[[], Iterable[Entry]], most: int = ALL
) -> tuple[list[float], Plan]:
    times, decided = [], Plan()

    def run() -> None:
        nonlocal decided
        decided = one_pass(ledger, queue, most)

    for _ in range(REPEAT):
        queue = list(entries())  # made before: the pass alone is measured
        begun = time.process_time()  # it does nothing but compute
        run()
        times.append(time.process_time() - begun)
    return times, decided


def row(name: str, times: list[float], decided: Plan) -> list[str]:
    started = sum(one.count for one in decided.placements)
    best = min(times)
    each = f"{best / started * 1e6:.2f}" if started else "-"
    return [name, spread([t * 1000 for t in times]), f"{started:,}", each, f"{len(decided.reasons):,}"]


def main() -> None:
    columns = ["", "ms of CPU", "members started", "us each", "reasons"]
    free, busy = empty(10_000), full(10_000, 16)
    nearly = full(10_000, 16, free=1.0)
    rows = []
    for name, ledger in (("empty", free), ("full", busy), ("one core free on each", nearly)):
        rows.append(row(f"{name}: 1,000,000 in 1,000 arrays", *timed(ledger, lambda: arrays(1_000_000))))
        rows.append(row(f"{name}: the same, at most 1,000", *timed(ledger, lambda: arrays(1_000_000), 1000)))
        rows.append(row(f"{name}: 100,000 single jobs", *timed(ledger, lambda: singles(100_000))))
        rows.append(row(f"{name}: 10,000 of as many shapes", *timed(ledger, lambda: distinct(10_000))))
    tiny, small = empty(1), JobSpec(command=["true"], cpu=0.01, memory=16 << 20)
    rows.append(
        row("1 node, 10,000 tiny", *timed(tiny, lambda: [Entry(job(i, small)) for i in range(1, 10_001)]))
    )
    show("one pass, 10,000 nodes", columns, rows)
    growth = []
    for what, entries, ledger in (("arrays", arrays, free), ("single jobs", singles, free)):
        base = None
        for members in (10_000, 100_000, 1_000_000):
            times, _ = timed(ledger, lambda m=members, e=entries: e(m))  # type: ignore[misc]
            base = base or min(times) / (10_000 * log2(10_000))
            ratio = min(times) / (members * log2(members)) / base
            growth.append([f"{members:,} in {what}", spread([t * 1000 for t in times]), f"{ratio:.2f}"])
    show(
        "growth, empty cluster of 10,000 nodes",
        ["", "ms of CPU", "per n log n, as a ratio to the first"],
        growth,
    )


if __name__ == "__main__":
    main()
