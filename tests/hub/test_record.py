"""Result records: one for each way to end, with the machine as it was then."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from waiting import becomes

from perijove.model import (
    Attempt,
    Capabilities,
    Job,
    JobEvent,
    JobSpec,
    Machine,
    Output,
    Reason,
    ReasonCode,
    State,
    StepRun,
    StepState,
)
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.workflows.record import record_of, record_of_step, shareable
from perijove_spawners.fabric.port import DirectFabric

from .conftest import Service, Tokens, node
from .working import WorkingNode

DATA = "sha256:" + "b" * 64
MADE = "sha256:" + "c" * 64
MACHINE = Machine(host="h1", kernel="6.1", arch="x86_64", cpu_model="Some CPU", cores=8, memory=1 << 34)

_OUTPUTS = {"table": "file:t.csv", "loss": "record:loss"}


def job(reason: ReasonCode | None = None, state: State = State.SUCCEEDED, **changes: Any) -> Job:
    spec = JobSpec.model_validate(
        {
            "command": ["fit"],
            "inputs": {"data": DATA},
            "outputs": {"table": "file:t.csv", "loss": "record:loss"},
        }
    )
    fields: dict[str, Any] = {
        "reason": Reason(code=reason) if reason else None,
        "exit_code": 0,
        "submitted": 1.0,
        "started": 2.0,
        "ended": 12.0,
        "suspended_seconds": 3.0,
        "outputs": {"table": MADE},
        "sizes": {"table": 30},
        "values": {"loss": 0.5},
        "memory_peak": 1000,
        "cpu_seconds": 8.0,
        "attempt": 2,
        "image_digest": "sha256:" + "d" * 64,
        "image_manifest": "r.example/a@sha256:" + "e" * 64,
    }
    return Job(id=7, owner="ada", name="fit", state=state, spec=spec, **{**fields, **changes})


def event(attempt: int, **detail: Any) -> JobEvent:
    return JobEvent(attempt, 7, "ada", 1.0, "ended", State.FAILED, attempt, detail)


@pytest.mark.parametrize(
    ("state", "reason", "exit_code", "status", "signal"),
    [
        (State.SUCCEEDED, None, 0, "ok", None),
        (State.FAILED, ReasonCode.NON_ZERO_EXIT, 3, "failed", None),
        (State.FAILED, ReasonCode.NON_ZERO_EXIT, 137, "failed", None),
        (State.FAILED, ReasonCode.SIGNALLED, 139, "failed", 11),
        (State.FAILED, ReasonCode.OUT_OF_MEMORY, 137, "failed", 9),
        (State.FAILED, ReasonCode.TIME_LIMIT, 143, "timeout", 15),
        (State.FAILED, ReasonCode.OUTPUT_MISSING, 0, "failed", None),
        (State.KILLED, ReasonCode.KILLED_BY_USER, 143, "killed", 15),
        (State.LOST, ReasonCode.NODE_LOST, None, "lost", None),
        (State.REJECTED, ReasonCode.DEPENDENCY_NEVER_SATISFIED, None, "rejected", None),
        (State.RUNNING, None, None, "running", None),
    ],
)
def test_how_it_ended(
    state: State, reason: ReasonCode | None, exit_code: int | None, status: str, signal: int | None
) -> None:
    record = record_of(job(reason, state, exit_code=exit_code))
    assert (record.status, record.exit_code, record.signal) == (status, exit_code, signal)
    assert record.out_of_memory == (reason is ReasonCode.OUT_OF_MEMORY)


def test_what_it_took_and_made() -> None:
    record = record_of(job(), base="https://x/api/v1", locations={MADE: ["s3://b/c"]}, input_bytes=12)
    assert record.inputs == {"data": DATA}
    assert record.outputs == {"table": Output(digest=MADE, size=30, name="t.csv")}
    assert record.output_locations == {"table": ["https://x/api/v1/jobs/7/outputs/table", "s3://b/c"]}
    assert (record.image_digest, record.image_manifest) == (job().image_digest, job().image_manifest)
    assert (record.wall_seconds, record.cpu_seconds, record.memory_peak) == (7.0, 8.0, 1000)
    assert (record.input_bytes, record.output_bytes, record.values) == (12, 30, {"loss": 0.5})


def test_the_machine_is_that_of_its_last_attempt() -> None:
    history = [event(1, machine={"host": "h0"}), event(2, machine=asdict_of(MACHINE)), event(2, other=1)]
    assert record_of(job(), history).machine == MACHINE
    assert record_of(job(attempt=3), history).machine is None


def asdict_of(machine: Machine) -> dict[str, Any]:
    return machine.model_dump(exclude_defaults=True)


def test_a_cached_steps_record_is_that_of_the_job_that_made_it() -> None:
    outputs = {"table": Output(digest=MADE, size=30), "result": Output(value=3, valued=True)}
    step = StepRun(
        step="fit", index=3, state=StepState.CACHED, key="sha256:k", cached_from=4, outputs=outputs
    )
    record = record_of_step(step, 9, record_of(job(run=4, step="fit[3]")))
    assert (record.run, record.step, record.status, record.cached_from) == (9, "fit[3]", "cached", 4)
    assert record.job is not None
    assert (record.job.id, record.outputs, record.values) == (7, outputs, {"loss": 0.5, "result": 3})


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (StepState.SUCCEEDED, "ok"),
        (StepState.SKIPPED, "skipped"),
        (StepState.REJECTED, "rejected"),
        (StepState.WAITING, "waiting"),
    ],
)
def test_a_step_without_a_job(state: StepState, status: str) -> None:
    record = record_of_step(StepRun(step="fit", state=state, started=1.0, ended=3.0), 9, None)
    assert (record.job, record.status, record.wall_seconds) == (None, status, 2.0)


def test_secrets_are_not_handed_on() -> None:
    with_env = job()
    spec = with_env.spec.model_copy(update={"env": {"API_TOKEN": "s3cret", "LEVEL": "1"}})
    record = shareable(record_of(with_env.model_copy(update={"spec": spec})))
    assert record.job is not None
    assert record.job.spec.env == {"API_TOKEN": "(hidden)", "LEVEL": "1"}


async def test_the_service_keeps_the_machine_of_a_job_that_has_ended(service: Service) -> None:
    [simulated] = service.nodes.values()
    answer = await service.http.post("/files", content=b"some data")
    data = answer.json()["digest"]
    simulated.described = node(machine=MACHINE)
    service.controller.nodes.announced(simulated.described)
    made = await service.submit(inputs={"data": data}, outputs={"table": "file:t.csv"})
    await service.until(made["id"], "running")
    live = await service.http.get(f"/jobs/{made['id']}/record")
    assert (live.json()["status"], live.json()["machine"]["host"]) == ("running", "h1")
    simulated.finish(Attempt(made["id"], 1), outputs={"table": data}, sizes={"table": 9})
    await service.until(made["id"], "succeeded")
    service.controller.nodes.announced(node(machine=Machine(host="another")))
    record = (await service.http.get(f"/jobs/{made['id']}/record")).json()
    assert record["status"] == "ok"
    assert Machine.model_validate(record["machine"]) == MACHINE
    assert (record["input_bytes"], record["output_bytes"], record["inputs"]) == (9, 9, {"data": data})
    [url] = record["output_locations"]["table"]
    assert url == f"http://service/api/v1/jobs/{made['id']}/outputs/table"
    assert (await service.http.get(url)).content == b"some data"


async def test_there_is_no_record_of_what_is_not_there(service: Service) -> None:
    assert (await service.http.get("/jobs/99/record")).status_code == 404


async def test_the_record_of_a_result_taken_from_somebody_else_says_nothing_of_their_job(
    settings: Settings,
) -> None:
    """Sealed results are everybody's; who made them, and how their job is called, is not."""
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000 + i) for i, name in enumerate(("ada", "bob"))}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub", "images": ["*"]})
    callers = {name: Caller(name) for name in accounts}
    docker = Capabilities(
        name="docker",
        containers=True,
        features=frozenset({"sealed", "memory", "cpu"}),
        networks=frozenset({"none"}),
    )
    work = WorkingNode(described=node(launchers=[docker], machine=MACHINE))
    app = create_app(settings, fabric=DirectFabric([work]), identities=Tokens(callers))
    step = {"command": ["show"], "image": "lab/fit@sha256:" + "a" * 64, "sealed": True, "launcher": "docker"}
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        records = {}
        for name in accounts:
            headers = {"Authorization": f"Bearer {name}"}
            http = httpx.AsyncClient(transport=transport, base_url="http://s/api/v1", headers=headers)
            body = {"workflow": {"steps": {"fit": {**step, "labels": {"of": name}}}}}
            answer = await http.post("/workflows", json=body)
            assert answer.status_code == 201, answer.text
            number = answer.json()["id"]

            async def over(http: httpx.AsyncClient = http, number: int = number) -> bool:
                return bool((await http.get(f"/workflows/{number}")).json()["state"] == "succeeded")

            await becomes(over, f"the run of {name}", 30)
            answer = await http.get(f"/workflows/{number}/record")
            [records[name]] = answer.json()["records"]
            other = await http.get("/workflows/1/record")
            assert other.status_code == (200 if number == 1 else 404)
            await http.aclose()
    assert records["ada"]["job"]["owner"] == "ada"
    assert (records["bob"]["status"], records["bob"]["cached_from"]) == ("cached", 1)
    assert records["bob"]["key"] == records["ada"]["key"]
    assert records["bob"]["machine"]["host"] == "h1"
    assert "ada" not in json.dumps(records["bob"])
