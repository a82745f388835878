"""Runs as files: capsules that are the same each time and hold no secrets; crates that the library reads."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rocrate.rocrate import ROCrate

from perijove.capsule import Row, compared, prepared, read_capsule
from perijove.model import (
    InvalidSpecError,
    Output,
    ResultRecord,
    Run,
    State,
    StepRun,
    UserError,
    parse_workflow,
)
from perijove_hub.settings import Settings
from perijove_hub.workflows.capsule import Source, contents, documents, write
from perijove_spawners.store import Manifest

from .test_cells import notebook
from .working import Flows, flowing

CODE = json.dumps(notebook(["x = 1"])).encode()
DATA = b"a,b\n1,2\n"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def flows(settings: Settings) -> AsyncIterator[Flows]:
    async with flowing(settings) as found:
        yield found


async def upload(flows: Flows, data: bytes) -> str:
    answer = await flows.service.http.post("/files", content=data)
    digest: str = answer.json()["digest"]
    assert digest == digest_of(data)
    return digest


async def finished(flows: Flows) -> int:
    """A run of a command, a notebook and a mapped step."""
    data, code, made = await upload(flows, DATA), await upload(flows, CODE), await upload(flows, b"made")
    flows.node.outputs = {"prep": {"table": made}, "report": {"notebook": made}}
    number = await flows.begin(
        {
            "prep": {
                "command": ["make", '{"loss": 0.5}'],
                "inputs": {"data": data},
                "outputs": {"table": "file:t.csv", "loss": "record:loss"},
                "env": {"API_TOKEN": "s3cret", "LEVEL": "1"},
            },
            "report": {"notebook": code, "after": ["prep"]},
            "each": {"command": ["show", "${{ item }}"], "map": [1, 2], "after": ["prep"]},
        },
        name="fit",
        parameters_of={"lr": 0.1, "name": "x"},
        parameters={"lr": 0.2},
    )
    assert (await flows.ended(number))["state"] == "succeeded"
    return number


async def fetched(flows: Flows, number: int, what: str = "capsule", **params: Any) -> bytes:
    answer = await flows.service.http.get(f"/workflows/{number}/{what}", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return answer.content


async def test_the_records_of_a_run(flows: Flows) -> None:
    number = await finished(flows)
    answer = await flows.service.http.get(f"/workflows/{number}/record", params={"limit": 3})
    body = answer.json()
    assert [(one["step"], one["status"]) for one in body["records"]] == [
        ("prep", "ok"),
        ("report", "ok"),
        ("each[0]", "ok"),
    ]
    prep = body["records"][0]
    assert prep["outputs"]["loss"]["value"] == 0.5
    assert prep["inputs"] == {"data": digest_of(DATA)}
    assert prep["input_bytes"] == len(DATA)
    assert prep["key"]
    answer = await flows.service.http.get(f"/workflows/{number}/record", params={"after": body["next"]})
    assert [one["step"] for one in answer.json()["records"]] == ["each[1]"]
    assert answer.json()["next"] is None


async def test_a_capsule_holds_what_is_needed_to_run_it_again(flows: Flows, tmp_path: Path) -> None:
    number = await finished(flows)
    file = tmp_path / "fit.zip"
    file.write_bytes(await fetched(flows, number))
    capsule = read_capsule(file)
    assert capsule.index.run.parameters == {"lr": 0.2, "name": "x"}
    assert [record.step for record in capsule.records] == ["prep", "report", "each[0]", "each[1]"]
    assert capsule.missing == [digest_of(DATA)]
    assert capsule.index.contents[digest_of(DATA)].size == len(DATA)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("code/report.ipynb") == CODE
        assert b"s3cret" not in b"".join(archive.read(name) for name in archive.namelist())
    with pytest.raises(UserError, match="prep: API_TOKEN is hidden in the capsule"):
        prepared(capsule, {})
    document = prepared(capsule, {"API_TOKEN": "other"})
    assert document["steps"]["prep"]["env"] == {"API_TOKEN": "other", "LEVEL": "1"}
    assert document["steps"]["prep"]["launcher"] == "process"


async def test_capsules_of_one_run_are_the_same_and_hold_data_when_asked(
    flows: Flows, tmp_path: Path
) -> None:
    number = await finished(flows)
    first, second = [await fetched(flows, number, data=True) for _ in range(2)]
    assert first == second
    (tmp_path / "fit.zip").write_bytes(first)
    capsule = read_capsule(tmp_path / "fit.zip")
    assert capsule.missing == []
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.read(capsule.index.contents[digest_of(DATA)].path or "") == DATA


async def test_a_capsule_holds_nothing_that_is_not_its_owners(flows: Flows) -> None:
    """A digest in a text is a claim, which is not looked into before something takes the file."""
    with flows.service.http._transport.app.state.store.writer() as writer:  # type: ignore[attr-defined]
        writer.write(b"somebody's secret")
        secret = writer.commit().digest
    number = await flows.begin({"a": {"command": ["show", secret]}})
    await flows.ended(number)
    content = await fetched(flows, number, data=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert secret in archive.read("workflow.json").decode()
        assert b"somebody's secret" not in b"".join(archive.read(name) for name in archive.namelist())
        index = json.loads(archive.read("capsule.json"))
    assert index["contents"][secret].get("path") is None
    assert index["contents"][secret].get("size") is None


async def test_only_what_has_ended_is_handed_on(flows: Flows) -> None:
    number = await flows.begin({"long": {"command": ["wait"]}})
    for what in ("capsule", "crate"):
        answer = await flows.service.http.get(f"/workflows/{number}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await flows.service.http.get("/workflows/999/capsule")).status_code == 404


async def test_too_much_data_is_said_so(settings: Settings) -> None:
    async with flowing(settings.model_copy(update={"max_upload": 1 << 10})) as flows:
        data = await upload(flows, b"x" * 1000)
        more = await upload(flows, b"y" * 1000)
        number = await flows.begin({"a": {"command": ["show"], "inputs": {"x": data, "y": more}}})
        await flows.ended(number)
        answer = await flows.service.http.get(f"/workflows/{number}/capsule", params={"data": True})
        assert answer.status_code == 413
        assert "leave out the data" in answer.json()["detail"]
        await fetched(flows, number)


async def test_a_crate_is_read_by_the_library(flows: Flows, tmp_path: Path) -> None:
    number = await finished(flows)
    with zipfile.ZipFile(io.BytesIO(await fetched(flows, number, "crate"))) as archive:
        archive.extractall(tmp_path / "crate")
    crate = ROCrate(tmp_path / "crate")
    assert crate.mainEntity.id == "workflow.json"
    assert "ComputationalWorkflow" in crate.mainEntity.type
    assert [one["name"] for one in crate.root_dataset["conformsTo"]] == [
        "Process Run Crate",
        "Workflow Run Crate",
        "Workflow RO-Crate",
    ]
    actions = {one["name"]: one for one in crate.get_by_type("CreateAction")}
    assert set(actions) == {f"Run {number} of fit", "prep", "report", "each[0]", "each[1]"}
    assert actions[f"Run {number} of fit"]["instrument"] is crate.mainEntity
    prep = actions["prep"]
    assert prep["actionStatus"].endswith("CompletedActionStatus")
    [given] = prep["object"]
    assert (given["name"], given["sha256"]) == ("data", hashlib.sha256(DATA).hexdigest())
    assert {one["name"] for one in prep["result"]} == {"t.csv", "loss"}
    assert prep["agent"].type == "Person"
    assert actions["report"]["instrument"].id == "code/report.ipynb"
    for entity in crate.data_entities:
        if not entity.id.startswith(("ni:", "#")):
            assert (tmp_path / "crate" / entity.id).is_file(), entity.id
    for entity in crate.get_entities():
        for value in entity.properties().values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and set(one) == {"@id"} and not one["@id"].startswith("http"):
                    assert crate.dereference(one["@id"]) is not None, one


# Capsules that somebody made in order to do harm


def record(step: str, **changes: Any) -> ResultRecord:
    return ResultRecord(step=step, status="ok", **changes)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A capsule that no service made."""
    steps = {
        "prep": {"command": ["make"], "inputs": {"data": digest_of(DATA)}, "outputs": ["table"]},
        "report": {"notebook": digest_of(CODE), "after": ["prep"]},
        "each": {"command": ["show"], "map": [1, 2]},
    }
    workflow = parse_workflow({"steps": steps})
    run = Run(id=3, owner="ada", name="fit", state=State.SUCCEEDED, submitted=1.0)
    files = {digest_of(data): data for data in (CODE, DATA)}
    source = Source(
        lambda digest: len(files[digest]), lambda _: Manifest(()), lambda digest: io.BytesIO(files[digest])
    )
    made = Output(digest=digest_of(b"made"), size=4)
    records = [
        record("prep", outputs={"table": made, "loss": Output(value=0.5, valued=True)}),
        record("report", outputs={"notebook": made}),
        record("each[0]"),
        record("each[1]"),
    ]
    file = tmp_path / "good.zip"
    with file.open("wb") as target:
        found = contents(workflow, {}, source, data=True, limit=1 << 20)
        write(target, run, documents(run, workflow, records), found, source.open)
    return file


def remade(file: Path, changes: dict[str, bytes | None], index: Any = None) -> Path:
    """A copy with other members; `index` changes the index."""
    target = file.with_name("bad.zip")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        members: dict[str, bytes | None] = {name: old.read(name) for name in old.namelist()}
        if index is not None:
            found = json.loads(members["capsule.json"] or b"")
            index(found)
            members["capsule.json"] = json.dumps(found).encode()
        for name, content in {**members, **changes}.items():
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"../../etc/passwd": b"x"}, "is not in its index"),
        ({"/etc/passwd": b"x"}, "is not in its index"),
        ({"contents/extra": b"x"}, "is not in its index"),
        ({"capsule.json": None}, "has no capsule.json"),
        ({"records.json": None}, "has no records.json"),
        ({"capsule.json": b"{"}, "is no capsule"),
        ({"capsule.json": b'{"version": 99, "run": null}'}, "is no capsule"),
        ({"records.json": b'[{"job": 3}]'}, "is no capsule"),
        ({"code/report.ipynb": None}, "is in its index and not there"),
        ({"code/report.ipynb": b"short"}, "is not as large as the index says"),
    ],
    ids=range(10),
)
def test_capsules_that_are_not_whole_are_refused(
    good: Path, changes: dict[str, bytes | None], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_capsule(remade(good, changes))


@pytest.mark.parametrize("path", ["../x", "/x", "contents/../x", "code/a/b", "contents/", "C:\\x"])
def test_paths_that_lead_elsewhere_are_refused(good: Path, path: str) -> None:
    def elsewhere(index: dict[str, Any]) -> None:
        index["contents"][digest_of(CODE)]["path"] = path

    with pytest.raises(UserError, match="must be code/NAME or contents/NAME"):
        read_capsule(remade(good, {path: CODE, "code/report.ipynb": None}, elsewhere))


def test_a_bomb_is_refused(good: Path) -> None:
    zeros = b"\0" * (65 << 20)

    def large(index: dict[str, Any]) -> None:
        index["contents"][digest_of(CODE)]["size"] = len(zeros)

    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        read_capsule(remade(good, {"code/report.ipynb": zeros}, large))


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 nonsense")
    with pytest.raises(UserError, match="is no capsule"):
        read_capsule(tmp_path / "x.zip")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_capsule(tmp_path / "y.zip")
    (tmp_path / "workflow").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_capsule(tmp_path / "workflow")


def test_a_workflow_that_is_none_is_refused(good: Path) -> None:
    with pytest.raises(InvalidSpecError, match="steps"):
        read_capsule(remade(good, {"workflow.json": b'{"steps": {}}'}))


def test_what_differs_is_told(good: Path) -> None:
    capsule = read_capsule(good)
    records = {record.step: record for record in capsule.records}
    steps = {label: StepRun(step=label.partition("[")[0]) for label in records}
    assert all(row.verdict in {"same", "not compared"} for row in compared(capsule, steps, capsule.records))
    prep = records["prep"]
    changed = {
        "status": "failed",
        "outputs": {"table": Output(digest=digest_of(b"other")), "more": Output(digest=digest_of(b"x"))},
        "values": {},
    }
    after = [prep.model_copy(update=changed), records["report"], records["each[0]"]]
    rows = list(compared(capsule, steps, [*after, prep.model_copy(update={"step": "each[2]"})]))
    found = {(row.step, row.what): row.verdict for row in rows}
    assert found == {
        ("prep", "status"): "differs",
        ("prep", "table"): "differs",
        ("prep", "loss"): "missing",
        ("prep", "more"): "new",
        ("report", "status"): "same",
        ("report", "notebook"): "not compared",
        ("each[0]", "status"): "same",
        ("each[1]", "step"): "missing",
        ("each[2]", "step"): "new",
    }
    assert Row("prep", "loss", "0.5", "", "missing") in rows
