"""``/workflows``: what is refused, who sees what, lists, events and outputs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from perijove.model import StepRun
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_spawners.fabric.port import DirectFabric

from .conftest import Tokens
from .working import Flows, WorkingNode, flowing

VALUE = {"command": ["make", json.dumps({"v": [1, {"a": None}]})], "outputs": {"v": "record:v"}}
ABSENT = f"sha256:{'1' * 64}"


@pytest.fixture
async def flows(settings: Settings) -> AsyncIterator[Flows]:
    async with flowing(settings) as found:
        yield found


STEP = {"command": ["x"]}
LOCAL = "imported by the client"


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ({"a": {**STEP, "after": ["b"]}, "b": {**STEP, "after": ["a"]}}, "steps.a", "a -> b -> a"),
        ({"a": {"command": ["${{ jobs:b/x }}"]}}, "steps.a.command.0", "there is no step b"),
        ({"a": {**STEP, "inputs": {"i": "file:/etc/passwd"}}}, "steps.a.inputs.i", LOCAL),
        ({"a": {**STEP, "inputs": {"i": "https://h/x"}}}, "steps.a.inputs.i", LOCAL),
        ({"a": {"notebook": "fit.ipynb"}}, "steps.a.notebook", LOCAL),
        ({"a": {**STEP, "inputs": {"i": ABSENT}}}, "steps.a.inputs.i", "no such file"),
        ({"a": {"function": ABSENT}}, "steps.a.function", "no such file"),
        ({"a": {**STEP, "memory": "9000T"}}, "steps.a.memory", "largest"),
        ({"a": {**STEP, "launcher": "nope"}}, "steps.a.launcher", "no node offers it"),
        ({"a": {**STEP, "image": "python:3"}}, "steps.a.image", "runs no images"),
        ({"a": {**STEP, "colour": 1}}, "steps.a.colour", "unknown field"),
        ({}, "steps", ""),
    ],
)
async def test_what_is_wrong_is_said_at_submission_with_its_field(
    flows: Flows, steps: dict[str, Any], field: str, words: str
) -> None:
    answer = await flows.service.http.post("/workflows", json={"workflow": {"steps": steps}})
    assert answer.status_code == 422, answer.text
    found = {error["field"]: error["message"] for error in answer.json()["errors"]}
    [name] = [name for name in found if name.endswith(field)]
    assert words in found[name]


@pytest.mark.parametrize("value", [3, "abc", {"a": 1}, None])
async def test_what_steps_are_mapped_over_is_checked_at_submission(flows: Flows, value: Any) -> None:
    document = {"parameters": {"xs": {}}, "steps": {"a": {**STEP, "map": "parameters:xs"}}}
    body = {"workflow": document, "parameters": {"xs": value}}
    answer = await flows.service.http.post("/workflows", json=body)
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["field"] == "parameters.xs" and "must be a list: step a" in error["message"]


@pytest.mark.parametrize("path", ["", "/steps", "/explain", "/record", "/capsule", "/events"])
async def test_numbers_beyond_all_ids_are_those_of_no_run(flows: Flows, path: str) -> None:
    for number in ("9" * 23, "-1"):
        answer = await flows.service.http.get(f"/workflows/{number}{path}")
        assert answer.status_code == 404, answer.text
    assert not flows.service.controller.board.jobs


async def test_parameters_are_checked_against_those_of_the_workflow(flows: Flows) -> None:
    document = {"parameters": {"n": 1, "who": {"type": "text"}}, "steps": {"a": {"command": ["x"]}}}
    given = {"n": "x", "m": 1}
    answer = await flows.service.http.post("/workflows", json={"workflow": document, "parameters": given})
    assert answer.status_code == 422
    found = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert set(found) == {"parameters.m", "parameters.n", "parameters.who"}


async def test_unknown_fields_of_the_request_are_refused(flows: Flows) -> None:
    body = {"workflow": {"steps": {"a": {"command": ["x"]}}}, "retries": 3}
    answer = await flows.service.http.post("/workflows", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "retries"


async def test_steps_are_listed_by_their_run_and_a_run_is_no_job(flows: Flows) -> None:
    number = await flows.begin({"a": {"command": ["x"], "map": [1, 2, 3]}}, labels={"k": "v"}, project=None)
    await flows.ended(number)
    plain = (await flows.service.submit())["id"]
    http = flows.service.http

    async def listed(**params: Any) -> list[int]:
        return [job["id"] for job in (await http.get("/jobs", params=params)).json()["jobs"]]

    jobs = [step["job"] for step in (await flows.steps(number)).values()]
    assert await listed() == [plain]
    assert await listed(run=number) == jobs[::-1]
    assert await listed(run="any") == [plain, *jobs[::-1]]
    job = (await http.get(f"/jobs/{jobs[1]}")).json()
    assert (job["run"], job["step"], job["name"], job["spec"]["kind"]) == (number, "a[1]", "a[1]", "step")
    assert job["spec"]["labels"] == {"k": "v"}
    answer = await http.get(f"/jobs/{number}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["field"] == "workflow"
    assert f"see /workflows/{number}" in answer.json()["detail"]
    assert (await http.get("/workflows/77")).status_code == 404
    page = (await http.get(f"/workflows/{number}/steps", params={"limit": 2})).json()
    assert [step["index"] for step in page["steps"]] == [0, 1]
    rest = (await http.get(f"/workflows/{number}/steps", params={"after": page["next"]})).json()
    assert ([step["index"] for step in rest["steps"]], rest["next"]) == ([2], None)


async def test_steps_come_page_by_page_in_the_order_of_the_document(flows: Flows) -> None:
    steps: dict[str, Any] = {
        "z": {"command": ["show"]},
        "each": {"command": ["show", "${{ item }}"], "map": [1, 2, 3], "after": ["z"]},
        "none": {"command": ["show", "${{ item }}"], "map": []},
        "y": {"command": ["show"]},
        "gone": {"command": ["show"], "map": [1], "when": "parameters:no"},
        "fails": {"command": ["fail"], "after": ["each"]},
        "a": {"command": ["wait"], "after": ["y"]},
        "last": {"command": ["show"], "after": ["fails"], "map": [1, 2]},
    }
    parameters = {"no": {"type": "boolean", "default": False}}
    number = await flows.begin(steps, parameters_of=parameters)
    await flows.until(number, "a", "running")
    await flows.until(number, "last", "rejected")
    wanted = ["z", "each[0]", "each[1]", "each[2]", "y", "gone", "fails", "a", "last"]

    async def paged(limit: int, **more: Any) -> list[str]:
        found, after = list[str](), 0
        while True:
            params = {"limit": limit, "after": after, **more}
            answer = (await flows.service.http.get(f"/workflows/{number}/steps", params=params)).json()
            assert len(answer["steps"]) <= limit
            some = [StepRun.model_validate(step).label for step in answer["steps"]]
            found += some
            if answer["next"] is None:
                return found
            assert len(some) == limit
            after = answer["next"]

    async def check() -> None:
        for limit in (1, 2, 3, 100):
            assert await paged(limit) == wanted
            assert await paged(limit, step="each") == wanted[1:4]
            assert await paged(limit, step="gone") == ["gone"]
            assert await paged(limit, step="nothing") == []
            assert await paged(limit, state=["failed", "skipped"]) == ["gone", "fails"]
            assert await paged(limit, state="succeeded") == wanted[:5]
            assert await paged(limit, state="succeeded", step="each") == wanted[1:4]

    await check()
    await flows.act(number, "kill")
    await flows.ended(number)
    await flows.service.settled()
    assert number not in flows.service.runs.live
    await check()


async def test_runs_are_listed_newest_first_without_their_documents(flows: Flows) -> None:
    numbers = [await flows.begin({"a": {"command": ["x"]}}, name=f"w{i}") for i in range(3)]
    for number in numbers:
        await flows.ended(number)
    waiting = await flows.begin({"a": {"command": ["wait"]}}, hold=True)
    http = flows.service.http
    found = (await http.get("/workflows", params={"limit": 2})).json()
    assert [run["id"] for run in found["workflows"]] == [waiting, numbers[2]]
    assert found["workflows"][0]["workflow"] is None
    assert found["workflows"][0]["steps"] == {"waiting": 1}
    more = (await http.get("/workflows", params={"before": found["next"]})).json()
    assert [run["id"] for run in more["workflows"]] == numbers[1::-1]
    held = (await http.get("/workflows", params={"state": "held"})).json()["workflows"]
    assert [run["id"] for run in held] == [waiting]


async def test_what_a_step_made_is_fetched_by_name(flows: Flows) -> None:
    http = flows.service.http
    digest = (await http.post("/files", content=b"a,b\n")).json()["digest"]
    flows.node.outputs["f"] = {"t": digest}
    number = await flows.begin({"f": {"command": ["x"], "outputs": {"t": "file:t.csv"}}, "v": VALUE})
    await flows.ended(number)
    steps = f"/workflows/{number}/steps"
    answer = await http.get(f"{steps}/f/outputs/t")
    assert answer.content == b"a,b\n"
    assert answer.headers["etag"] == f'"{digest}"'
    assert (await http.get(f"{steps}/v/outputs/v")).json() == [1, {"a": None}]
    missing = await http.get(f"{steps}/v/outputs/w")
    assert (missing.status_code, "it has: v" in missing.text) == (404, True)
    assert (await http.get(f"{steps}/nope/outputs/v")).status_code == 404


def parsed(text: str) -> tuple[str, int, dict[str, Any]]:
    fields = dict(line.split(": ", 1) for line in text.splitlines())
    return fields["event"], int(fields["id"]), json.loads(fields["data"])


async def events(flows: Flows, number: int, last: int | None = None) -> list[tuple[str, int, dict[str, Any]]]:
    """All of a run's stream, to its end."""
    headers = {"Last-Event-ID": str(last)} if last is not None else {}
    answer = await flows.service.http.get(f"/workflows/{number}/events", headers=headers)
    return [parsed(text) for text in answer.text.split("\n\n") if text and not text.startswith(":")]


async def test_events_tell_each_change_and_end_with_the_run(flows: Flows) -> None:
    number = await flows.begin({"a": {"command": ["x"]}, "b": {"command": ["x"], "after": ["a"]}}, hold=True)
    reading = asyncio.create_task(events(flows, number, 0))
    await flows.service.settled()
    await flows.act(number, "release")
    found = await asyncio.wait_for(reading, 30)
    states: dict[str, list[str]] = {"a": [], "b": []}
    for kind, _, data in found:
        if kind == "step":
            states[data["step"]].append(data["state"])
    assert states["a"][-1] == states["b"][-1] == "succeeded"
    order = ["waiting", "pending", "starting", "running", "succeeded"]
    assert all(seen == sorted(seen, key=order.index) for seen in states.values()), states
    assert (found[-1][0], found[-1][2]["state"]) == ("run", "succeeded")
    numbers = [at for _, at, _ in found]
    assert numbers == sorted(numbers)
    again = await events(flows, number, 0)
    assert {data["step"] for kind, _, data in again if kind == "step"} == {"a", "b"}
    assert again[-1][2]["state"] == "succeeded"
    assert [kind for kind, _, _ in await events(flows, number, numbers[-1])] == ["run"]


async def test_somebody_elses_run_is_as_if_it_were_not_there(settings: Settings) -> None:
    accounts = {n: ManagedAccount(uid=20_000 + i, gid=20_000 + i) for i, n in enumerate(("alice", "bob"))}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    callers = {"alice": Caller("alice"), "bob": Caller("bob"), "boss": Caller("boss", admin=True)}
    app = create_app(settings, fabric=DirectFabric([WorkingNode()]), identities=Tokens(callers))
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        transport = httpx.ASGITransport(app=app)
        by = {}
        for name in callers:
            client = httpx.AsyncClient(
                transport=transport, base_url="http://s/api/v1", headers={"Authorization": f"Bearer {name}"}
            )
            by[name] = await stack.enter_async_context(client)
        body = {"workflow": {"steps": {"a": {"command": ["wait"], "env": {"SECRET": "s3cr3t"}}}}}
        number = (await by["alice"].post("/workflows", json=body)).json()["id"]
        for method, path in [
            ("GET", ""),
            ("GET", "/steps"),
            ("GET", "/events"),
            ("GET", "/explain"),
            ("GET", "/steps/a/outputs/x"),
            ("POST", "/kill"),
            ("POST", "/hold"),
            ("POST", "/release"),
            ("POST", "/pin"),
            ("POST", "/resume"),
            ("PATCH", ""),
        ]:
            content = {"priority": 1} if method == "PATCH" else {}
            missing = await by["bob"].request(method, f"/workflows/999{path}", json=content)
            hidden = await by["bob"].request(method, f"/workflows/{number}{path}", json=content)
            assert (hidden.status_code, hidden.text) == (404, missing.text.replace("999", f"{number}"))
        assert (await by["bob"].get("/workflows")).json()["workflows"] == []
        assert (await by["bob"].get("/jobs", params={"run": number})).status_code == 404
        assert "/workflows" not in (await by["bob"].get(f"/jobs/{number}")).text
        seen = await by["boss"].get(f"/workflows/{number}")
        assert "s3cr3t" not in seen.text
        assert "s3cr3t" in (await by["alice"].get(f"/workflows/{number}")).text
        answer = await by["boss"].post(f"/workflows/{number}/kill")
        assert (answer.status_code, "s3cr3t" in answer.text) == (200, False)
        assert (await by["boss"].post(f"/workflows/{number}/resume", json={})).status_code in {403, 409}
