"""How long runs and their results are kept, and what a migration makes of a database without them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from first_form import FIRST_FORM, old, to
from sqlalchemy import text

from perijove.model import Run, State
from perijove_hub.settings import Settings
from perijove_hub.store.database import Batch, Database, Page
from perijove_hub.store.engine import writing
from perijove_hub.store.workflow_queries import RunPage
from perijove_hub.store.workflow_rows import Flows, ResultLine, StepLine

from .working import flowing

NOW = 1_700_000_000.0


def run(number: int, **changes: Any) -> Run:
    fields = {"owner": "alice", "name": "w", "state": State.RUNNING, "submitted": NOW + number}
    return Run.model_validate({"id": number, **fields, **changes})


def line(number: int, step: str, item: int = -1, **changes: Any) -> StepLine:
    fields: dict[str, Any] = {
        "state": "succeeded",
        "job": None,
        "number": 0,
        "key": None,
        "cached_from": None,
    }
    return StepLine(
        **{"run": number, "step": step, "item": item, **fields, "seq": 1, "detail": {}, **changes}
    )


def result(key: str, owner: str = "alice", **changes: Any) -> ResultLine:
    fields: dict[str, Any] = {"sealed": False, "workflow": "w", "step": "a", "run": 1, "job": None, "at": NOW}
    return ResultLine(**{"key": key, "owner": owner, **fields, "outputs": {}, "ingredients": {}, **changes})


@pytest.fixture
def database(database_url: str) -> Any:
    made = Database(database_url)
    made.migrate()
    yield made
    made.close()


def write(database: Database, **flows: Any) -> None:
    database.commit(Batch(flows=Flows(**flows)))


def test_runs_and_steps_come_back_as_they_were(database: Database) -> None:
    one = run(
        3, labels={"k": "ü"}, parameters={"x": [1, {"a": None}]}, project="p", fail_fast=True, priority=9
    )
    first = line(
        3, "b", 1, detail={"outputs": {"o": {"value": 1, "valued": True}}}, key="k", job=1 << 40, seq=7
    )
    write(database, new={3: (one, '{"steps": {}}')}, steps={(3, "b", 1): first, (3, "a", -1): line(3, "a")})
    found = database.workflows
    assert found.run(3) == one
    assert found.document(3) == '{"steps": {}}'
    assert sorted(found.steps(3), key=lambda s: s.step) == [line(3, "a"), first]
    assert found.live() == [one]
    assert database.last() == (3, 7)
    changed = one.model_copy(update={"state": State.FAILED, "ended": NOW, "pinned": True})
    again = line(3, "b", 1, state="failed", seq=9)
    write(database, changed={3: changed}, steps={(3, "b", 1): again})
    assert found.run(3) == changed
    assert found.live() == []
    assert {s.step: s.state for s in found.steps(3)} == {"a": "succeeded", "b": "failed"}


def test_runs_are_found_by_owner_project_and_state(database: Database) -> None:
    runs = [
        run(1),
        run(2, owner="bob", project="p"),
        run(3, state=State.FAILED, ended=NOW),
        run(4, state=State.SUCCEEDED, ended=NOW + 5, project="p"),
    ]
    write(database, new={one.id: (one, "{}") for one in runs})

    def found(**page: Any) -> list[int]:
        return [one.id for one in database.workflows.runs(RunPage(**page))]

    assert found() == [4, 3, 2, 1]
    assert found(owner="alice", limit=2) == [4, 3]
    assert found(before=3) == [2, 1]
    assert found(project="p") == [4, 2]
    assert found(states=(State.FAILED, State.RUNNING)) == [3, 2, 1]
    assert [one.id for one in database.workflows.ended_before(NOW + 1, 10, archived=False)] == [3]


def test_results_are_ones_own_or_sealed_and_the_latest(database: Database) -> None:
    lines = [
        result("k1", outputs={"v": 1}),
        result("k1", "bob", sealed=True, outputs={"v": 2}),
        result("k2", "bob", outputs={"v": 3}),
        result("k3", "bob", sealed=True, outputs={"v": 4}),
    ]
    write(database, results={(one.key, one.owner): one for one in lines})
    found = database.workflows.results(["k1", "k2", "k3", "k4"] * 400, "alice")
    assert {key: one.outputs["v"] for key, one in found.items()} == {"k1": 1, "k3": 4}
    write(database, results={("k1", "alice"): result("k1", run=2, at=NOW + 1, outputs={"v": 5})})
    assert database.workflows.results(["k1"], "alice")["k1"].outputs == {"v": 5}
    assert database.workflows.latest("alice", "w", ["a", "b"])["a"].run == 2


async def test_old_runs_are_archived_then_forgotten_unless_pinned_or_kept(settings: Settings) -> None:
    step = {"command": ["make", json.dumps({"v": 1})], "outputs": {"v": "record:v"}, "cache": True}
    async with flowing(settings) as flows:
        controller, runs = flows.service.controller, flows.service.runs
        policy = "retention: {archive_after: 1h, purge_after: 2h, keep: [paper]}"
        await controller.set_policy(policy, "test")
        plain = await flows.begin({"a": step})
        await flows.ended(plain)
        pinned = await flows.begin({"a": {**step, "env": {"B": "1"}}})
        await flows.ended(pinned)
        await flows.act(pinned, "pin")
        kept = await flows.begin({"a": {**step, "env": {"B": "2"}}}, labels={"paper": "x"})
        await flows.ended(kept)
        now = controller.clock()
        controller.clock = lambda: now + 3700
        await runs.retaining.round()
        assert {one.run for one in _results(controller.database)} == {pinned, kept}
        assert await flows.states(plain) == {"a": "succeeded"}
        controller.clock = lambda: now + 7300
        await runs.retaining.round()
        listed = (await flows.service.http.get("/workflows")).json()["workflows"]
        assert [one["id"] for one in listed] == [kept, pinned]
        assert (await flows.service.http.get(f"/workflows/{plain}")).status_code == 404
        assert controller.database.workflows.steps(plain) == []
        await flows.act(pinned, "unpin")
        await runs.retaining.round()
        await runs.retaining.round()
        assert (await flows.service.http.get(f"/workflows/{pinned}")).status_code == 404


def _results(database: Database) -> list[ResultLine]:
    return [line for number in range(10) for line in database.workflows.results_of(number)]


def test_a_database_of_before_workflows_keeps_its_jobs(database_url: str) -> None:
    made = Database(database_url)
    with writing(made.engine) as connection:
        to(connection, "0001")
        rows = [old(1, "succeeded", ended=2.0), old(2, "held"), old(3, "pending", spec={"project": "p"})]
        connection.execute(text(FIRST_FORM), rows)
        to(connection, "0002")
    made.migrate()
    assert [job.id for job in made.jobs(Page())] == [3, 2, 1]
    assert [job.id for job in made.jobs(Page(project="p"))] == [3]
    assert [job.run for job in made.live()] == [None, None]
    write(made, new={4: (run(4), "{}")})
    assert made.last() == (4, 0)
    made.close()
