"""Hundreds of jobs while everything that runs them dies at random: each has one result per attempt, run once.

A job writes its attempt's name into a file of its own; the files, not the database, are the truth about what
ran. A job whose node died under it may end as `lost`; none may run twice under one attempt.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster import Cluster, can_wire, cluster, wires
from postgres import Postgres, postgres
from tests.conftest import absent
from waiting import wait_until
from witness import Witness, all_is_free, everything_ended, processes_of, submit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOBS, SECONDS = 300, 40.0


class Site:
    """What :mod:`witness` asks for, of whichever service leads."""

    def __init__(self, of: Cluster) -> None:
        self.cluster = of

    def client(self) -> Any:
        if (leader := self.cluster.leader()) is None:
            raise httpx.ConnectError("nobody leads")
        return self.cluster.client(leader)


def adds_up(site: Any, found: list[dict[str, Any]]) -> None:
    """What the accounting charges is what the jobs held, attempt by attempt."""
    with site.client() as http:
        rows = http.get("/usage", params={"by": "owner"}).json()
    charged = sum(row["cpu_hours"] for row in rows) * 3600
    seconds = sum((job["ended"] - job["started"]) * job["spec"]["cpu"] for job in found if job["started"])
    assert charged >= seconds - 1e-3 * len(found), (charged, seconds)


def torment(of: Cluster, database: Postgres, chance: random.Random, seconds: float) -> Counter[str]:
    """Kill what may be killed, at random, and have it started again as a service manager would."""
    died: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.3, 2.5))
        victim = chance.choice(["a", "b", "a", "b", "scheduler", "n1", "n2", "n1", "n2", "database"])
        died[victim] += 1
        if victim == "database":
            database.kill()
            time.sleep(chance.uniform(0, 1.5))
            database.start()
            continue
        process = of.processes[victim]
        if process.alive:
            process.kill()
        time.sleep(chance.uniform(0, 1.0))
        process.start()
    return died


def revive(of: Cluster) -> None:
    for process in of.processes.values():
        if not process.alive:
            process.start()


def test_everything_dies_at_random(tmp_path: Path, witness: Witness) -> None:
    chance = random.Random(20)
    with postgres(durable=True) as database, cluster(tmp_path) as of:
        of.env["PERIJOVE_DATABASE_URL"] = database.new()
        of.scheduler()
        for name in ("a", "b"):
            of.service(name)
        for name in ("n1", "n2"):
            of.node(name, cpus=8)
        of.ready(nodes=2)
        site: Any = Site(of)
        jobs: dict[str, int] = {}

        def submitting(worker: int) -> None:
            for i in range(worker, JOBS, 4):
                spec = witness.spec(f"j{i}", chance.uniform(0, 1.5), retries=0)
                jobs[f"j{i}"] = submit(site, spec, f"j{i}")
                time.sleep(SECONDS / JOBS)

        threads = [threading.Thread(target=submitting, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        died = torment(of, database, chance, SECONDS)
        for thread in threads:
            thread.join()
        stop = threading.Event()

        def reviving() -> None:
            while not stop.wait(1):
                revive(of)

        nurse = threading.Thread(target=reviving)
        nurse.start()
        try:
            of.ready(nodes=2, seconds=90)
            found = everything_ended(site, list(jobs.values()), 150)
            wait_until(lambda: all_is_free(site), "an empty ledger", 60)
        finally:
            stop.set()
            nurse.join()
        runs = witness.runs()
        ends = Counter(job["state"] for job in found)
        print(f"{len(jobs)} jobs ended {dict(ends)}; died: {dict(died)}")
        assert len(jobs) == len(set(jobs.values())) == JOBS
        assert set(ends) <= {"succeeded", "lost", "failed"}
        twice = {name: attempts for name, attempts in runs.items() if max(attempts.values()) > 1}
        assert not twice
        for job in found:
            attempts = runs.get(job["name"], Counter())
            assert len(attempts) <= job["attempt"]
            if job["state"] == "succeeded":
                assert job["exit_code"] == 0
                assert attempts[str(job["attempt"])] == 1
        assert ends["succeeded"] >= 0.9 * JOBS, ends
        adds_up(site, found)
        wait_until(lambda: not processes_of(witness.folder), "the end of all processes", 30)


def test_a_node_that_is_cut_off_comes_back_with_the_truth(tmp_path: Path, witness: Witness) -> None:
    """What ended meanwhile has its true exit code, what goes on is adopted, nothing ran twice."""
    if not can_wire():
        absent("network namespaces cannot be made")
    with wires("pjchaos1", "pjchaos2") as (near, _other), cluster(tmp_path, host="10.213.7.1") as of:
        of.scheduler()
        of.service()
        of.node("near", namespace=near.name, cpus=4)
        of.node("other", namespace=_other.name, cpus=4)
        of.ready(nodes=2)
        site: Any = Site(of)
        short = [submit(site, {**witness.spec(f"s{i}", 8), "node": "near"}, f"s{i}") for i in range(4)]
        failing = submit(
            site, {**witness.spec("f", 0), "command": ["sh", "-c", "sleep 8; exit 7"], "node": "near"}, "f"
        )
        long = submit(site, {**witness.spec("long", 45), "node": "near"}, "long")

        def all_run() -> bool:
            with site.client() as http:
                states = [http.get(f"/jobs/{job}").json()["state"] for job in (*short, failing, long)]
            return states == ["running"] * 6

        wait_until(all_run, "the start of all", 60)
        near.cut()

        def down() -> bool:
            with site.client() as http:
                return any(
                    v["node"]["name"] == "near" and v["node"]["state"] == "down"
                    for v in http.get("/nodes").json()
                )

        wait_until(down, "the node's being down", 60)
        with site.client() as http:
            assert http.get(f"/jobs/{long}").json()["state"] == "running"
            elsewhere = [submit(site, witness.spec(f"e{i}", 0.1), f"e{i}") for i in range(4)]
        time.sleep(5)
        near.mend()
        found = {job["id"]: job for job in everything_ended(site, [*short, failing, long, *elsewhere], 150)}
        assert [found[job]["state"] for job in short] == ["succeeded"] * 4
        assert (found[failing]["state"], found[failing]["exit_code"]) == ("failed", 7)
        assert (found[long]["state"], found[long]["attempt"]) == ("succeeded", 1)
        assert {found[job]["node"] for job in elsewhere} == {"other"}
        assert all(set(attempts.values()) == {1} for attempts in witness.runs().values())
        wait_until(lambda: all_is_free(site), "an empty ledger", 60)


def test_a_stale_leader_changes_nothing(tmp_path: Path, witness: Witness) -> None:
    """Paused past its lease and let go on: another leads, and what the first still had in mind is refused."""
    with postgres(durable=True) as database, cluster(tmp_path) as of:
        of.env["PERIJOVE_DATABASE_URL"] = database.new()
        of.scheduler()
        of.service("a")
        of.node("n1", cpus=8)
        assert of.ready() == "a"
        of.service("b")
        site: Any = Site(of)
        jobs = [submit(site, witness.spec(f"j{i}", 1), f"j{i}") for i in range(40)]
        of.processes["a"].send(signal.SIGSTOP)
        wait_until(lambda: of.leader() == "b", "the standby's leading", 30)
        more = [submit(site, witness.spec(f"k{i}", 0.2), f"k{i}") for i in range(10)]
        of.processes["a"].send(signal.SIGCONT)
        wait_until(lambda: not of.processes["a"].alive, "the end of the stale leader", 30)
        found = everything_ended(site, [*jobs, *more], 120)
        assert Counter(job["state"] for job in found) == {"succeeded": 50}
        assert all(attempts == Counter({"1": 1}) for attempts in witness.runs().values())
