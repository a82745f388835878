"""Actions and lists over REST: arrays as one row, members, leads, changes, and pages that stay small."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from waiting import becomes

from perijove_hub.settings import Settings

from .conftest import Service
from .test_api_policy import put
from .test_roles import site

POLICY = """
projects:
  genomics: {members: [alice], leads: [bob]}
  physics: {members: [alice], leads: [carol]}
"""


async def submit(http: httpx.AsyncClient, **spec: Any) -> dict[str, Any]:
    answer = await http.post("/jobs", json={"command": ["true"], **spec})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(http: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await http.get("/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [
        f"{job['array_id']}_{job['array_task']}" if job["array_id"] else str(job["id"])
        for job in answer.json()["jobs"]
    ]


# ---- arrays


async def test_an_array_is_one_row_and_its_members_answer(service: Service) -> None:
    array = await service.submit(array="1:1000:3%2", cpu=1)
    after = await service.submit(hold=True)
    assert after["id"] == array["id"] + 334 + 1
    await service.settled()
    assert await listed(service.http) == [str(after["id"]), str(array["id"])]
    shown = await service.show(array["id"])
    assert shown["tasks"] == {"running": 2, "pending": 332}
    first, last = await service.show("1_1"), await service.show("1_1000")
    assert (first["state"], first["id"], first["array_task"]) == ("running", 2, 1)
    assert (last["state"], last["id"], last["array_id"]) == ("pending", 335, 1)
    for wrong in ("1_2", "1_0", "1_1003", "2_1", "336_1"):
        assert (await service.http.get(f"/jobs/{wrong}")).status_code == 404
    assert await listed(service.http, array=1) == ["1_4", "1_1"]
    assert await listed(service.http, members=True) == ["336", "1_4", "1_1", "1"]


async def test_members_are_acted_on_by_themselves(service: Service) -> None:
    await service.submit(array="0:9%1")
    await service.settled()
    held = await service.http.post("/jobs/1_5/hold")
    assert held.status_code == 200, held.text
    assert (await service.show("1_5"))["state"] == "held"
    killed = await service.http.post("/jobs/1_6/kill")
    assert killed.json()["state"] == "killed"
    tasks = (await service.show(1))["tasks"]
    assert tasks == {"running": 1, "pending": 7, "held": 1, "killed": 1}
    await service.http.post("/jobs/1/kill")
    await service.until(1, "killed")
    assert (await service.show("1_9"))["state"] == "killed"


# ---- leads


async def test_leads_see_and_manage_the_jobs_of_their_project_and_no_others(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        hers = await submit(by["alice"], project="genomics", env={"TOKEN": "s3cret"}, hold=True)
        other = await submit(by["alice"], project="physics", hold=True)
        bob = by["bob"]
        assert await listed(bob) == []
        assert await listed(bob, project="genomics") == [str(hers["id"])]
        assert await listed(bob, project="genomics", owner="alice") == [str(hers["id"])]
        assert await listed(bob, project="physics") == []
        shown = await bob.get(f"/jobs/{hers['id']}")
        assert shown.status_code == 200
        assert "s3cret" not in shown.text + (await bob.get("/jobs?project=genomics")).text
        for verb in ("hold", "release", "kill"):
            answer = await bob.post(f"/jobs/{hers['id']}/{verb}")
            assert answer.status_code == 200, answer.text
            assert "s3cret" not in answer.text
            missing = await bob.post(f"/jobs/{other['id']}/{verb}")
            assert missing.json()["detail"] == f"there is no job {other['id']}"
        for path in ("", "/why", "/usage", "/events", "/logs", "/stats"):
            assert (await bob.get(f"/jobs/{other['id']}{path}")).status_code == 404
        assert (await bob.patch(f"/jobs/{other['id']}", json={"priority": 1})).status_code == 404
        assert (await bob.delete(f"/jobs/{other['id']}")).status_code == 404
        assert (await bob.delete(f"/jobs/{hers['id']}")).status_code == 403
        assert (await bob.post(f"/jobs/{hers['id']}/rerun")).status_code == 403


async def test_a_lead_is_one_only_as_long_as_the_policy_says_so(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        job = await submit(by["alice"], project="genomics", hold=True)
        assert (await by["bob"].get(f"/jobs/{job['id']}")).status_code == 200
        await put(by["boss"], POLICY.replace("leads: [bob]", "leads: []"))
        assert (await by["bob"].get(f"/jobs/{job['id']}")).status_code == 404


async def test_projects_show_members_what_they_use(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY.replace("leads: [bob]", "leads: [bob], limits: {cpus: 8}"))
        await submit(by["alice"], project="genomics", hold=True)
        (one, two) = (await by["alice"].get("/projects")).json()
        assert [one["name"], two["name"]] == ["genomics", "physics"]
        assert (one["limits"], one["used"]["pending"], one["lead"]) == ({"cpus": 8.0}, 1, False)
        (led,) = (await by["bob"].get("/projects")).json()
        assert (led["name"], led["lead"], led["mine"]["pending"]) == ("genomics", True, 0)
        assert len((await by["boss"].get("/projects")).json()) == 2


# ---- changes


async def test_a_field_is_changed_by_whom_the_policy_says(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        job = await submit(by["alice"], project="genomics", hold=True, time="1h", name="a")
        path = f"/jobs/{job['id']}"

        async def change(who: str, **fields: Any) -> httpx.Response:
            return await by[who].patch(path, json=fields)

        lowered = await change("alice", time="30m", priority=10, name="b")
        assert lowered.status_code == 200, lowered.text
        body = lowered.json()
        assert (body["spec"]["time_limit"], body["spec"]["priority"], body["name"]) == (1800, 10, "b")
        raised = await change("alice", time="2h")
        assert raised.status_code == 403
        assert "you may lower it" in raised.json()["detail"]
        assert (await change("bob", cpu=2)).status_code == 403  # a lead
        assert (await change("boss", time="2h")).json()["spec"]["time_limit"] == 7200


async def test_what_the_policy_lets_nobody_change_is_named_with_what_can_be(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY + "\nupdatable: {priority: [lead]}\n")
        job = await submit(by["alice"], project="genomics", hold=True)
        for who in ("alice", "boss"):
            answer = await by[who].patch(f"/jobs/{job['id']}", json={"name": "b", "priority": 1})
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["field"] == "name"
            assert error["message"] == "cannot be changed later; can be: priority"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"cpu": 64}, 422, "cpu"),
        ({"memory": "lots"}, 422, "memory"),
        ({"memory": "1T"}, 422, "memory"),
        ({"partition": "nowhere"}, 422, "partition"),
        ({"owner": "bob"}, 422, "owner"),
        ({"command": ["false"]}, 422, "command"),
        ({"env": {"A": "b"}}, 422, "env"),
        ({"priority": 1000}, 422, "priority"),
        ({}, 422, ""),
        ({"cpu": None}, 422, "cpu"),
    ],
)
async def test_a_wrong_change_names_the_field(
    service: Service, fields: dict[str, Any], status: int, field: str
) -> None:
    job = await service.submit(hold=True)
    answer = await service.http.patch(f"/jobs/{job['id']}", json=fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)
    assert (await service.show(job["id"]))["spec"] == job["spec"]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 100_000])
async def test_what_is_no_change_is_refused(service: Service, body: bytes) -> None:
    await service.submit(hold=True)
    assert (await service.http.patch("/jobs/1", content=body)).status_code in {413, 422}


# ---- again, and away


async def test_a_job_is_run_again_as_a_new_one(service: Service) -> None:
    job = await service.submit(name="once", env={"A": "b"})
    await service.until(job["id"], "running")
    assert (await service.http.post("/jobs/1/rerun")).status_code == 409
    await service.http.post("/jobs/1/kill")
    await service.until(1, "killed")
    again = await service.http.post("/jobs/1/rerun")
    assert again.status_code == 201, again.text
    body = again.json()
    assert (body["id"], body["rerun_of"], body["name"], body["spec"]["env"]) == (2, 1, "once", {"A": "b"})


async def test_records_are_archived_and_removed_only_after_the_end(service: Service) -> None:
    job = await service.submit()
    await service.until(job["id"], "running")
    assert (await service.http.post("/jobs/1/archive")).status_code == 409
    assert (await service.http.delete("/jobs/1")).status_code == 409
    await service.http.post("/jobs/1/kill")
    await service.until(1, "killed")
    archived = await service.http.post("/jobs/1/archive")
    assert archived.status_code == 200, archived.text
    assert archived.json()["archived"] is True
    assert (await service.http.delete("/jobs/1")).status_code == 204
    assert (await service.http.get("/jobs/1")).status_code == 404


async def test_many_are_archived_by_age_and_label(service: Service) -> None:
    for label in ("keep", "drop", "drop"):
        job = await service.submit(labels={"do": label}, hold=True)
        await service.http.post(f"/jobs/{job['id']}/kill")
    young = await service.http.post("/archive", json={"older_than": "1d", "label": "do=drop"})
    assert young.json() == {"jobs": 0, "more": False}
    some = await service.http.post("/archive", json={"older_than": 0.001, "label": "do=drop"})
    assert some.json() == {"jobs": 2, "more": False}
    wrong = await service.http.post("/archive", json={"older_than": "1s", "state": ["running"]})
    assert wrong.status_code == 409


# ---- why, usage, top, share


async def test_why_tells_what_keeps_a_job(service: Service) -> None:
    first = await service.submit(cpu=4)
    await service.until(first["id"], "running")
    second = await service.submit(cpu=4)
    await service.settled()
    why = (await service.http.get(f"/jobs/{second['id']}/why")).json()
    assert why["reason"]["code"] == "Resources"
    assert [one["name"] for one in why["reason"]["blockers"]] == ["1"]
    assert set(why) == {"job", "reason", "forecast", "hints"}
    ended = (await service.http.get(f"/jobs/{first['id']}/why")).json()
    assert ended["hints"] == []


async def test_why_names_nobody_whose_jobs_one_may_not_see(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        first = await submit(by["alice"], cpu=4, project="physics")
        await submit(by["alice"], cpu=4, project="physics")
        mine = await submit(by["bob"], cpu=4)

        async def runs() -> bool:
            shown = await by["alice"].get(f"/jobs/{first['id']}")
            return bool(shown.json()["state"] == "running")

        await becomes(runs, "the first runs", 10)
        answer = await by["bob"].get(f"/jobs/{mine['id']}/why")
        assert answer.json()["reason"]["blockers"], answer.text
        assert "alice" not in answer.text
        assert "alice" in (await by["boss"].get(f"/jobs/{mine['id']}/why")).text
        assert "alice" not in (await by["bob"].get("/jobs")).text


async def test_use_and_what_was_asked_for(service: Service) -> None:
    job = await service.submit(cpu=2, time="1h")
    await service.until(job["id"], "running")
    used = (await service.http.get("/jobs/1/usage")).json()
    assert set(used) == {"cpu", "memory", "gpu", "time"}
    assert used["time"]["asked"] == 3600
    assert used["gpu"]["efficiency"] is None
    (busy,) = (await service.http.get("/top")).json()
    assert (busy["job"]["id"], busy["stats"]["cpu"]) == (1, 0.5)


async def test_usage_is_summed_by_what_is_asked_for(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        await submit(by["alice"], project="genomics", cpu=2)
        both = (await by["alice"].get("/usage", params={"by": "owner,project"})).json()
        assert [(row["owner"], row["project"], row["jobs"]) for row in both] == [("alice", "genomics", 1)]
        assert "image" not in both[0]
        assert (await by["bob"].get("/usage")).json() == []
        (led,) = (await by["bob"].get("/usage", params={"project": "genomics"})).json()
        assert led["owner"] == "alice"
        assert (await by["bob"].get("/usage", params={"project": "physics"})).json() == []
        assert (await by["bob"].get("/usage", params={"owner": "alice"})).status_code == 404
        (all_of_it,) = (await by["boss"].get("/usage", params={"by": "day", "since": "1d"})).json()
        assert set(all_of_it) == {"day", "jobs", "cpu_hours", "memory_hours", "gpu_hours"}


@pytest.mark.parametrize(
    "query",
    [
        {"by": "color"},
        {"by": ""},
        {"since": "yesterday"},
        {"since": "9" * 39},
        {"until": "-1"},
        {"since": "1e300d"},
        {"by": ",".join(["owner"] * 100)},
    ],
)
async def test_an_odd_question_about_usage_is_refused(service: Service, query: dict[str, str]) -> None:
    answer = await service.http.get("/usage", params=query)
    assert answer.status_code in {400, 422}, answer.text


async def test_a_question_about_centuries_is_answered_soon(service: Service) -> None:
    answer = await service.http.get("/usage", params={"by": "day", "since": "1000-01-01"})
    assert answer.status_code in {200, 400}


async def test_shares_of_others_are_not_shown(settings: Settings) -> None:
    async with site(settings) as by:
        await put(by["boss"], POLICY)
        await submit(by["alice"], project="genomics")
        await submit(by["bob"])
        assert {row["owner"] for row in (await by["alice"].get("/share")).json()} == {"alice"}
        assert {row["owner"] for row in (await by["bob"].get("/share")).json()} == {"alice", "bob"}
        assert len((await by["boss"].get("/share")).json()) >= 2


# ---- lists stay small


async def test_a_list_of_large_jobs_is_cut_and_goes_on(service: Service) -> None:
    service.controller.settings.max_body = 8 << 20
    script = "# " + "x" * 900_000
    specs = [{"script": script, "hold": True, "env": {"A": "y" * 100_000}} for _ in range(6)]
    for spec in specs:
        await service.submit(**{"command": None, **spec})
    answer = await service.http.get("/jobs")
    assert len(answer.content) < 200_000
    row = answer.json()["jobs"][0]
    assert row["shortened"] == ["script", "env"]
    assert row["spec"]["script"].startswith("# xxx")
    whole = await service.show(row["id"])
    assert whole["spec"]["script"] == script


async def test_pages_of_a_list_meet_without_a_gap(service: Service) -> None:
    bulk = [{"command": ["true"], "hold": True, "name": f"j{i}"} for i in range(130)]
    assert (await service.http.post("/jobs/bulk", json=bulk)).status_code == 201
    seen: list[int] = []
    before = None
    while True:
        query = {"limit": 37, **({"before": before} if before else {})}
        body = (await service.http.get("/jobs", params=query)).json()
        seen += [job["id"] for job in body["jobs"]]
        before = body["next"]
        if before is None:
            break
    assert seen == list(range(130, 0, -1))
