"""What a hostile user may send: it is answered with what is wrong, and the service goes on for the others."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from perijove_hub.settings import Settings

from .conftest import Service
from .test_roles import site

HUGE = "9" * 30


async def test_one_key_sent_twice_at_once_makes_one_job(service: Service) -> None:
    """As a client does that gave up waiting and tries again while the first is still being committed."""

    async def submit() -> Any:
        return await service.http.post(
            "/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "the-same"}
        )

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(submit() for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == {1}
    assert (await service.submit())["id"] == 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/jobs?before={HUGE}", {}),
        (f"/jobs?before=-{HUGE}", {}),
        (f"/jobs?array={HUGE}", {}),
        (f"/jobs/{HUGE}", {}),
        (f"/jobs/1_{HUGE}", {}),
        (f"/jobs/1/logs?offset={HUGE}", {}),
        (f"/jobs/1/logs?limit={HUGE}", {}),
        ("/jobs?limit=" + "9" * 5000, {}),
        ("/jobs?label=a%00=b", {}),
        ("/jobs?name=%00&owner=%ff", {}),
        ("/jobs?label=" + "a" * 64 + "%3D" + "x" * 10_000, {}),
        ("/jobs/%00", {}),
        ("/jobs/1/outputs/..%2f..%2fetc%2fpasswd", {}),
        ("/jobs/1/outputs/%0d%0aX-Evil:%201", {}),
    ],
)
async def test_odd_questions_are_answered(service: Service, path: str, headers: dict[str, str]) -> None:
    await service.submit()
    async with asyncio.timeout(10):
        answer = await service.http.get(path, headers=headers)
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "last", [HUGE, "9" * 5000, "-1", "x", "\u0663".encode("latin-1", "replace").decode()]
)
async def test_an_odd_last_event_id_is_none(service: Service, last: str) -> None:
    job = await service.submit()
    await service.until(job["id"], "running")
    headers = {"Last-Event-ID": last, "Accept": "text/event-stream"}
    for path in (f"/events?job={job['id']}", f"/jobs/{job['id']}/logs?follow=true"):
        task = asyncio.ensure_future(service.http.get(path, headers=headers))
        await asyncio.sleep(0.2)
        if task.done():
            assert task.exception() is None
            assert task.result().status_code < 500
        task.cancel()


async def test_a_database_that_comes_back_after_its_clients_gave_up_doubles_nothing(service: Service) -> None:
    """Somebody else holds the database's lock; the client asks again with the same key."""
    service.controller.writer.patience = 0.3

    async def submit() -> Any:
        return await service.http.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "k"})

    holder = sqlite3.connect(service.controller.settings.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert [(await submit()).status_code for _ in range(3)] == [503, 503, 503]
    assert service.nodes["n1"].received == []
    holder.execute("ROLLBACK")
    holder.close()
    await service.until(1, "running")
    again = await submit()
    assert (again.status_code, again.json()["id"]) == (201, 1)
    assert [str(attempt) for attempt in service.nodes["n1"].received] == ["1.1"]


async def test_users_of_a_hub_get_the_network_of_the_host_only_when_the_operator_says_so(
    settings: Settings,
) -> None:
    """From there they would reach what listens on 127.0.0.1, and abstract sockets."""
    spec = {"command": ["true"], "launcher": "docker", "network": "host"}
    async with site(settings) as by:
        answer = await by["alice"].post("/jobs", json=spec)
    assert answer.status_code == 422
    assert "does not give it to its users; allowed: bridge, none" in answer.json()["detail"]
    async with site(settings.model_copy(update={"networks": ["host"]})) as by:
        assert (await by["alice"].post("/jobs", json=spec)).status_code == 201
        answer = await by["alice"].post("/jobs", json={**spec, "network": "bridge"})
    assert "allowed: host" in answer.json()["detail"]


async def test_in_mode_single_any_network_may_be_asked_for(service: Service) -> None:
    await service.submit(launcher="docker", network="host")


HOSTILE: list[dict[str, Any]] = [
    {"name": "x\x1b[2J"},
    {"name": "a\nb"},
    {"name": "\ud800"},
    {"labels": {"perijove.owner=root\n": "x"}},
    {"labels": {"a": "b\nc"}},
    {"env": {"A=B": "c"}},
    {"env": {"": "c"}},
    {"env": {"A": "b\x00c"}},
    {"image": "--privileged"},
    {"image": "a b"},
    {"image": "../../etc"},
    {"volumes": ["/etc"]},
    {"volumes": ["../etc"]},
    {"volumes": ["home:rw:shared"]},
    {"volumes": [{"name": "home", "source": "/etc"}]},
    {"cwd": "/home/alice/../bob"},
    {"cwd": "/home/alice\n/x"},
    {"notebook": "/home/alice/../../etc/x.ipynb", "command": None},
    {"outputs": ["../../order.json"]},
    {"outputs": [".."]},
    {"inputs": {"../x": "sha256:" + "0" * 64}},
    {"inputs": {"a": "sha256:../../perijove.db"}},
    {"ports": [0]},
    {"ports": [65536]},
    {"user": "root"},
    {"launcher": "process;id"},
    {"shm_size": 2**70},
    {"time_limit": 1e308},
    {"priority": 10**30},
    {"array": "0:999999999999"},
    {"depends_on": [10**30]},
    {"node": "../n1"},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
async def test_what_would_reach_further_than_it_may_is_refused(
    settings: Settings, change: dict[str, Any]
) -> None:
    async with site(settings) as by:
        body = json.dumps({"command": ["true"], "launcher": "docker", **change})
        answer = await by["alice"].post("/jobs", content=body)
        assert answer.status_code == 422, answer.text
        assert (await by["bob"].get("/jobs")).json()["jobs"] == []
