"""The policy over REST: who may read and change it, what hostile text does, reservations and maintenance."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from perijove_hub.settings import Settings

from .conftest import Service
from .test_roles import site

POLICY = """
# shares of our two groups
projects:
  genomics: {members: [alice], leads: [bob], shares: 3}
"""
YAML = {"Content-Type": "text/yaml"}


async def put(http: httpx.AsyncClient, text: str | bytes) -> httpx.Response:
    return await http.put("/policy", content=text, headers=YAML)


async def test_a_policy_is_applied_kept_and_shown(service: Service) -> None:
    assert (await service.http.get("/policy")).text == ""
    applied = await put(service.http, POLICY)
    assert (applied.status_code, applied.text) == (200, POLICY)
    assert service.controller.board.policy.projects["genomics"].shares == 3
    shown = await service.http.get("/policy")
    assert shown.text == POLICY
    assert shown.headers["content-type"].startswith("text/yaml")
    await put(service.http, "{}")
    versions = (await service.http.get("/policy/versions")).json()
    assert [one["version"] for one in versions] == [2, 1]
    assert (await service.http.get("/policy", params={"version": 1})).text == POLICY
    gone = await service.http.get("/policy", params={"version": 7})
    assert gone.status_code == 404
    assert "there are: 1 to 2" in gone.json()["detail"]


async def test_a_check_changes_nothing_and_shows_the_difference(service: Service) -> None:
    await put(service.http, POLICY)
    checked = await service.http.post("/policy/check", content=POLICY.replace("3", "4"), headers=YAML)
    assert checked.status_code == 200, checked.text
    assert any(line.startswith("+") and "shares: 4" in line for line in checked.json()["difference"])
    assert (await service.http.get("/policy")).text == POLICY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("projects: {genomics: {shares: -1}}", "projects.genomics.shares"),
        ("shedular: fifo", "shedular"),
        (" \n", "no policy was sent"),
        ("scheduler: nothing-like-this", "nothing-like-this"),
        ("- a\n- b", ""),
        ("a: [", "not YAML"),
        ("just text", ""),
        ("users: {? [a] : {}}", ""),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("reservations: {a: {nodes: [x], start: 2026-02-31, end: 2026-03-01}}", ""),
        ("max_time: " + "9" * 5000, ""),
        ("max_time: .nan", ""),
        ("window: 0x" + "f" * 9000, ""),
        ("a: &a [x]\nb: [*a, *a]", "aliases"),
        ("a: &a\n  <<: *a", "aliases"),
        ("[" * 100_000, ""),
        ("{a: " * 30 + "1" + "}" * 30, "nested more than"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not UTF-8"),
        ("\x00", "not YAML"),
    ],
)
async def test_what_is_no_policy_is_refused_and_changes_nothing(
    service: Service, text: str | bytes, said: str
) -> None:
    await put(service.http, POLICY)
    for answer in (
        await put(service.http, text),
        await service.http.post("/policy/check", content=text, headers=YAML),
    ):
        assert answer.status_code == 422, answer.text
        assert said in answer.text
        assert len(answer.content) < 20_000
    assert (await service.http.get("/policy")).text == POLICY


async def test_a_bomb_of_aliases_takes_no_time_and_no_memory(service: Service) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    async with asyncio.timeout(5):
        answer = await put(service.http, "\n".join(lines))
    assert answer.status_code == 422
    assert "aliases" in answer.json()["detail"]


async def test_a_huge_policy_is_refused_unread(service: Service) -> None:
    assert (await put(service.http, b"#" * (2 << 20))).status_code == 413


ADMINISTRATIVE: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/policy", {}),
    ("PUT", "/policy", {"content": "{}"}),
    ("POST", "/policy/check", {"content": "{}"}),
    ("GET", "/policy/versions", {}),
    (
        "PUT",
        "/reservations/x",
        {"json": {"nodes": ["n1"], "start": "2030-01-01T00:00", "end": "2030-01-02T00:00"}},
    ),
    ("DELETE", "/reservations/x", {}),
    ("PUT", "/maintenance", {"json": {"on": True}}),
    ("POST", "/nodes/n1/drain", {"json": {"reason": "x"}}),
    ("POST", "/nodes/n1/undrain", {}),
    ("POST", "/archive", {"json": {"older_than": "1s", "all_users": True}}),
]


@pytest.mark.parametrize(("method", "path", "more"), ADMINISTRATIVE)
async def test_what_is_for_administrators_is_for_nobody_else(
    settings: Settings, method: str, path: str, more: dict[str, Any]
) -> None:
    async with site(settings) as by:
        assert (await put(by["boss"], POLICY)).status_code == 200
        for who in ("alice", "bob", "spawner"):  # bob leads a project
            answer = await by[who].request(method, path, **more)
            assert answer.status_code == 403, (who, answer.text)
        assert (await by["boss"].get("/policy")).text == POLICY
        assert (await by["alice"].get("/maintenance")).json() == {"on": False, "reason": ""}


async def test_what_administrators_do_is_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "perijove.audit"):
        async with site(settings) as by:
            await put(by["boss"], POLICY)
            await by["alice"].post("/jobs", json={"command": ["true"]})
            await by["alice"].post("/jobs/1/hold")
            await by["boss"].post("/jobs/1/kill")
            await by["boss"].put("/maintenance", json={"on": True, "reason": "disks"})
            await by["boss"].post("/nodes/n1/drain", json={"reason": "fan"})
    lines = [record.getMessage() for record in caplog.records if record.name == "perijove.audit"]
    assert [line.split('"act": "')[1].split('"')[0] for line in lines] == [
        "policy",
        "kill",
        "maintenance",
        "drain",
    ]
    assert '"by": "boss"' in lines[1]
    assert '"owner": "alice"' in lines[1]


# ---- reservations


RESERVED = {
    "nodes": ["n1"],
    "start": "2030-01-01T08:00:00",
    "end": "2030-01-02T08:00:00Z",
    "users": ["alice"],
    "reason": "course",
}


async def test_reservations_become_part_of_the_policy(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        kept = await by["boss"].put("/reservations/course", json=RESERVED)
        assert kept.status_code == 200, kept.text
        assert "genomics" in (await by["boss"].get("/policy")).text
        (hers,) = (await by["alice"].get("/reservations")).json()
        assert (hers["mine"], hers["users"], hers["start"][:16]) == (True, ["alice"], "2030-01-01T08:00")
        (his,) = (await by["bob"].get("/reservations")).json()
        assert (his["mine"], his["users"]) == (False, [])
        assert (await by["boss"].delete("/reservations/course")).status_code == 204
        assert (await by["bob"].get("/reservations")).json() == []
        gone = await by["boss"].delete("/reservations/course")
        assert (gone.status_code, gone.json()["detail"]) == (
            404,
            "there is no reservation course; there are: none",
        )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("course", {"end": "2029-01-01T00:00"}),
        ("course", {"start": "soon"}),
        ("course", {"nodes": "n1"}),
        ("course", {"color": "red"}),
        ("a b", {}),
        ("x" * 65, {}),
    ],
)
async def test_what_is_no_reservation_is_refused(service: Service, name: str, change: dict[str, Any]) -> None:
    answer = await service.http.put(f"/reservations/{name}", json={**RESERVED, **change})
    assert answer.status_code == 422, answer.text
    assert (await service.http.get("/reservations")).json() == []


async def test_reservations_made_at_once_are_all_kept(service: Service) -> None:
    answers = await asyncio.gather(
        *(service.http.put(f"/reservations/r{i}", json=RESERVED) for i in range(8))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len((await service.http.get("/reservations")).json()) == 8


# ---- maintenance


async def test_during_maintenance_jobs_are_accepted_and_wait(service: Service) -> None:
    on = await service.http.put("/maintenance", json={"on": True, "reason": "disks"})
    assert on.json() == {"on": True, "reason": "disks"}
    job = await service.submit()
    await service.settled()
    waits = await service.show(job["id"])
    assert (waits["state"], waits["reason"]["code"]) == ("pending", "Maintenance")
    await service.http.put("/maintenance", json={"on": False})
    await service.until(job["id"], "running")
    assert (await service.http.get("/maintenance")).json() == {"on": False, "reason": ""}


async def test_a_drained_node_starts_nothing_and_says_why(service: Service) -> None:
    drained = await service.http.post("/nodes/n1/drain", json={"reason": "fan"})
    assert drained.status_code == 200, drained.text
    assert (drained.json()["node"]["state"], drained.json()["node"]["reason"]) == ("drain", "fan")
    job = await service.submit()
    await service.settled()
    assert (await service.show(job["id"]))["state"] == "pending"
    await service.http.post("/nodes/n1/undrain")
    await service.until(job["id"], "running")
    missing = await service.http.post("/nodes/nowhere/drain", json={"reason": ""})
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "there is no node nowhere; there are: n1",
    )
