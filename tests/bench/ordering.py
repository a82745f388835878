"""The order of a queue: 10,000 jobs of 100 users in 20 projects, by each scheduler, beside a plain sort.

python tests/bench/ordering.py

The sort is of the same jobs by a key that is there already: what no order can do without. "all start": each
job is taken as soon as it comes, so that every one changes who is next. "first": a pass that ends after
100 jobs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import islice
from random import Random
from typing import Any

from measure import seconds, show, spread

from perijove_hub.accounting import Allocation
from perijove_hub.policy import registry
from perijove_hub.policy.document import Policy, load
from perijove_hub.policy.standing import Standing

JOBS, USERS, PROJECTS, ROUNDS = 10_000, 100, 20, 15
NOW = 1_790_000_000.0
DAY = 86400.0


def policy() -> Policy:
    """Unequal shares."""
    users = ", ".join(f"u{i}: {{shares: {1 + i % 4}}}" for i in range(USERS))
    projects = ", ".join(f"p{i}: {{members: ['*'], shares: {1 + i % 3}}}" for i in range(PROJECTS))
    return load(f"users: {{{users}}}\nprojects: {{{projects}}}")


def history(random: Random) -> list[Allocation]:
    """A month of ended jobs."""
    found = []
    for number in range(20_000):
        user = random.randrange(USERS)
        begin = NOW - random.uniform(0, 30 * DAY)
        end = min(NOW, begin + random.uniform(60, DAY))
        project = f"p{user % PROJECTS}"
        found.append(
            Allocation(
                job=number,
                attempt=1,
                owner=f"u{user}",
                project=project,
                kind="batch",
                image=None,
                partition=None,
                node="n",
                cpu=random.choice([1.0, 4.0, 16.0]),
                memory=4 << 30,
                gpus=0,
                begin=begin,
                end=end,
                label=str(number),
            )
        )
    return found


def main() -> None:
    from lines import lines_of, waiting

    random, rules = Random(1), policy()
    jobs = []
    for _ in range(JOBS):
        user = random.randrange(USERS)
        priority, ago = random.randint(0, 100), random.uniform(0, DAY)
        jobs.append(waiting(f"u{user}", f"p{user % PROJECTS}", priority=priority, submitted=NOW - ago))
    past = history(random)
    begun = seconds(lambda: Standing(rules, past))
    standing = Standing(rules, past)
    for job in jobs:
        standing.waits(job)
    queues = [Ready(list(queue), queue.owner, queue.project) for queue in lines_of(jobs)]
    keys = [(random.random(), job.id) for job in jobs]

    def order(name: str, *, take: bool = False, most: int | None = None) -> None:
        shares = standing.shares(NOW)
        gate = standing.gate(NOW, shares)
        for entry in islice(registry.create(name, rules).order(queues, shares, NOW), most):
            if take:
                gate.take(entry.job, 1)

    works: dict[str, Callable[[], object]] = {"a plain sort": partial(sorted, keys)}
    for name in registry.names():
        works[f"{name}, none starts"] = partial(order, name)
        works[f"{name}, all start"] = partial(order, name, take=True)
        works[f"{name}, first"] = partial(order, name, most=100)
    results: dict[str, list[float]] = {title: [] for title in works}
    for _ in range(ROUNDS):
        for title, work in works.items():
            results[title].append(seconds(work) * 1000)
    floor = statistics.median(results["a plain sort"])
    rows = [
        [title, spread(values, 2), f"{statistics.median(values) / floor:.1f}"]
        for title, values in results.items()
    ]
    show(f"Order of {JOBS:,} jobs, {USERS} users, {PROJECTS} projects", ["what", "ms", "to the sort"], rows)
    print(f"standing from {len(past):,} allocations: {begun * 1000:.0f} ms")


class Ready:
    """A line whose entries are there already: making them is the board's part."""

    def __init__(self, entries: list[Any], owner: str, project: str | None) -> None:
        self.owner, self.project, self._entries = owner, project, entries

    def __iter__(self) -> Any:
        return iter(self._entries)


if __name__ == "__main__":
    main()
