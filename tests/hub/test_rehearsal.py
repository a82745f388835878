"""A service's own record, replayed: the policy of then does again what it did."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perijove.model import Attempt, Job, JobSpec, State
from perijove_hub.jobs import arrays
from perijove_hub.policy.document import Policy, load
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.simulation.opening import opened, record_of
from perijove_hub.simulation.rehearsal import agreement, rehearse, replay, site_of
from perijove_hub.store.database import Database

from .conftest import Service, SimulatedNode, node, running

pytestmark = pytest.mark.slow

USERS = ("ann", "bob", "cec")
FIFO = "scheduler: fifo\nbackfill: {reservations: 1}\n"
FAIR = "scheduler: fairshare\nusers: {ann: {shares: 3}}\n"


@pytest.fixture
def several(settings: Settings) -> Settings:
    """Of users that the system does not know."""
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000) for i, name in enumerate(USERS)}
    return settings.model_copy(update={"accounts": accounts, "mode": "hub"})


async def submit(service: Service, owner: str, **fields: Any) -> Job:
    controller = service.controller
    spec = JobSpec.model_validate({"command": ["true"], "memory": 1 << 30, "time_limit": "1h", **fields})
    [number] = controller.board.new_ids([arrays.size(spec)])
    state = State.HELD if spec.hold else State.PENDING
    job = Job(
        id=number,
        owner=owner,
        name="j",
        state=state,
        launcher="process",
        submitted=controller.clock(),
        spec=spec,
    )
    [made] = await controller.submit([job], {})
    return made


def finish_one(service: Service, chance: random.Random) -> bool:
    on = [job for job in service.controller.board.jobs.values() if job.state is State.RUNNING and job.node]
    if not on:
        return False
    job = chance.choice(sorted(on, key=lambda job: job.id))
    service.nodes[job.node or ""].finish(
        Attempt(job.id, job.attempt), chance.choice((0, 0, 0, 1)), started=job.started, ended=time.time()
    )
    return True


async def live_through(service: Service, chance: random.Random, steps: int) -> None:
    """Users submit, jobs end, in an order that only chance knows."""
    for _ in range(steps):
        owner = chance.choice(USERS)
        draw = chance.random()
        if draw < 0.45:
            fields: dict[str, Any] = {"cpu": chance.choice((1, 1, 2, 4))}
            if chance.random() < 0.2:
                fields["gpus"] = 1
            if chance.random() < 0.2:
                fields["array"] = "1-4%2"
            elif chance.random() < 0.1:
                fields |= {"nodes": 2, "cpu": 1}
            if chance.random() < 0.2:
                fields["retries"] = 1
            if chance.random() < 0.1:
                fields["priority"] = 80
            await submit(service, owner, **fields)
        elif draw < 0.97:
            finish_one(service, chance)
        else:
            await service.controller.set_policy(FAIR if chance.random() < 0.5 else FIFO, "admin")
        await service.settled()
    while finish_one(service, chance):
        await service.settled()


@pytest.fixture(params=[1, 2, 3])
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


async def test_the_policy_of_then_starts_jobs_in_the_recorded_order(
    several: Settings, chance: random.Random
) -> None:
    (several.state / "policy.yaml").write_text(FAIR)
    began = time.time()
    nodes = [SimulatedNode(node("n1")), SimulatedNode(node("n2", cpus=6.0))]
    async with running(several, nodes) as service:
        await service.settled()
        await live_through(service, chance, 60)
        await service.controller.core.inventory.write()
    record = await asyncio.to_thread(record_of, several.state, None, time.time() - began + 1.0)
    report, starts = replay(record, site_of(record))
    assert starts.order == [label for _, label in record.starts]
    assert report.unfinished == 0
    assert len(starts.order) > 20


async def test_a_record_that_begins_in_the_midst(several: Settings, chance: random.Random) -> None:
    async with running(several, [SimulatedNode(), SimulatedNode(node("n2"))]) as service:
        await service.settled()
        await live_through(service, chance, 15)
        for _ in range(6):
            await submit(service, "ann", cpu=2)
        await service.settled()
        middle = time.time()
        await live_through(service, chance, 30)
        await service.controller.core.inventory.write()
    now = time.time()
    record = await asyncio.to_thread(record_of, several.state, None, now - middle, now)
    assert record.present
    _, starts = replay(record, site_of(record))
    assert starts.order == [label for _, label in record.starts]


async def test_a_rehearsal_changes_nothing_and_names_who_gains(several: Settings, tmp_path: Path) -> None:
    began = time.time()
    async with running(several, [SimulatedNode()]) as service:
        await service.settled()
        for owner in ["bob"] * 12 + ["ann"] * 4:
            await submit(service, owner, cpu=4)
        chance = random.Random(0)
        for _ in range(16):
            await service.settled()
            finish_one(service, chance)
        await service.controller.core.inventory.write()
        before = Database(several.database_at).documents("policy")
        record = await asyncio.to_thread(record_of, several.state, None, time.time() - began + 1.0)
        found = await asyncio.to_thread(rehearse, record, load("scheduler: fifo"))
        assert found.agreement == 1.0
        change = {one.user: one for one in found.users}
        assert change["ann"].mean > 0 > change["bob"].mean
        assert Database(several.database_at).documents("policy") == before
        path = tmp_path / "new.yaml"
        path.write_text("scheduler: fifo")
        arguments = ["--policy", str(path), "--since", "1h", "--state", str(several.state), "--json"]
        done = await asyncio.to_thread(command, "rehearse", *arguments)
        assert done.returncode == 0, done.stderr
        assert {one["user"] for one in json.loads(done.stdout)["users"]} == {"ann", "bob"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    run = [sys.executable, "-c", "from perijove.cli import main; main()", *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=environment)


def test_nothing_is_written(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    database.close()
    reading = opened(database_url)
    with pytest.raises(Exception, match=r"(?i)read-?only|readonly"):
        reading.save_document("policy", "", "admin", 0.0)
    reading.close()


def test_what_cannot_be_rehearsed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text("scheduler: fifo")
    missing = command("rehearse", "--policy", str(path), "--state", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert "there is no" in missing.stderr
    path.write_text("scheduler: nobody")
    wrong = command("rehearse", "--policy", str(path), "--state", str(tmp_path))
    assert wrong.returncode == 1
    assert "there is no such scheduler" in wrong.stderr


def test_agreement() -> None:
    assert agreement("abcd", "abcd") == 1.0
    assert agreement("abcd", "bacd") == 0.75
    assert agreement("aab", "aba") == pytest.approx(2 / 3)
    assert agreement("", "") == 1.0
    assert agreement("ab", "") == 0.0


def test_all_equal() -> None:
    assert Policy() == load("")
