"""Arrays through the client: one job that stands for its members."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.conftest import Service

import perijove
from perijove import Client, ConflictError, JobFailedError, State


@pytest.fixture
def client(fake_service: Service) -> Iterator[Client]:
    with Client(fake_service.url, fake_service.token) as client:
        yield client


def test_an_array_is_one_job_with_members(client: Client) -> None:
    job = client.submit({"command": ["sh", "-c", "echo $PERIJOVE_TASK_ID"], "array": "1:10:3"})
    assert job.is_array
    assert job.tasks == {State.PENDING: 4} or sum(job.tasks.values()) == 4
    job.wait(60)
    assert job.tasks == {State.SUCCEEDED: 4}
    assert [member.label for member in job.members()] == [f"{job.id}_{n}" for n in (1, 4, 7, 10)]
    assert [member.logs() for member in job] == ["1\n", "4\n", "7\n", "10\n"]
    assert job[7].logs() == "7\n"
    assert [found.id for found in client.jobs()] == [job.id]
    assert "4/4 done" in job._repr_mimebundle_()["text/plain"]


def test_a_number_that_is_no_members(client: Client) -> None:
    job = client.submit({"command": ["true"], "array": "1:10:3", "hold": True})
    with pytest.raises(IndexError, match="no member 2; it has 1 to 10, step 3"):
        job[2]
    with pytest.raises(TypeError, match="has no members"):
        iter(client.submit({"command": ["true"], "hold": True}))


def test_results_come_in_the_order_of_the_numbers(client: Client) -> None:
    def square() -> int:
        import os

        return int(os.environ["PERIJOVE_TASK_ID"]) ** 2

    job = client.run(square, options={"array": "1:3"})
    assert list(job.results()) == [1, 4, 9]


def test_results_stop_at_the_first_that_failed(client: Client) -> None:
    job = client.submit({"command": ["sh", "-c", "test $PERIJOVE_TASK_ID != 2"], "array": "1:3"})
    results = job.results()
    assert next(results) is None
    with pytest.raises(JobFailedError, match=f"job {job.id}_2 failed"):
        next(results)


def test_a_limit_holds_members_back(client: Client, fake_service: Service) -> None:
    assert fake_service.fake
    fake_service.fake.cores = 8
    job = client.submit({"command": ["sleep", "60"], "array": "1:100%2"})
    assert sum(member.state.on_node for member in job.members()) <= 2
    job.kill()
    job.wait(60)
    assert job.tasks == {State.KILLED: 100}


def test_a_member_is_acted_on_by_itself(client: Client) -> None:
    job = client.submit({"command": ["true"], "array": "1:3", "hold": True})
    assert job[2].kill().state is State.KILLED
    assert job.refresh().tasks == {State.KILLED: 1, State.HELD: 2}
    job.release().wait(60)
    assert job.tasks == {State.KILLED: 1, State.SUCCEEDED: 2}


def test_a_job_is_changed_run_again_and_cleared_away(client: Client) -> None:
    job = client.submit({"command": ["true"], "hold": True})
    assert job.update(priority=70, time="2h").spec["priority"] == 70
    assert job.spec["time_limit"] == 7200
    with pytest.raises(perijove.InvalidSpecError, match="image: cannot be changed later"):
        job.update(image="python:3.12")
    with pytest.raises(ConflictError):
        job.rerun()
    job.release().wait(60)
    again = job.rerun().wait(60)
    assert again.id != job.id
    assert again.document["rerun_of"] == job.id
    assert job.archive().document["archived"]
    job.purge()
    with pytest.raises(perijove.NotFoundError):
        client.job(job.id)


def test_a_rescheduled_job_keeps_its_id(client: Client) -> None:
    job = client.submit({"command": ["sh", "-c", "test $PERIJOVE_JOB_ID -gt 0 && sleep 1"]})
    for _ in job.follow():
        pass
    assert job.attempt == 1
    job = client.submit({"command": ["sleep", "60"]})
    for _ in client.job(job.id).async_job.task_numbers:
        pass
    while job.refresh().state is not State.RUNNING:
        assert not job.ended
    job.reschedule()
    while job.refresh().attempt < 2:
        assert not job.ended
    assert job.kill().wait(60).state is State.KILLED


def test_why_a_job_waits(client: Client) -> None:
    client.submit({"command": ["sleep", "60"], "name": "large"})
    job = client.submit({"command": ["true"]})
    why = job.why()
    assert why["reason"]["code"] == "Resources"
    text = repr(why)
    assert text.startswith(f"job {job.label} pending: all nodes are full (place 1 in the queue)")
    assert "starts between" in text
    assert text.endswith("with --cpus 0.25 it would start now")
    for each in client.jobs():
        each.kill()


def test_dependants_are_killed_when_asked(client: Client) -> None:
    first = client.submit({"command": ["true"], "hold": True})
    second = client.submit({"command": ["true"], "hold": True, "depends_on": [first.id]})
    third = client.submit({"command": ["true"], "hold": True})
    first.kill(dependants=True)
    assert second.refresh().state is State.KILLED
    assert third.refresh().state is State.HELD


def test_the_site_is_asked_too(
    client: Client, fake_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERIJOVE_URL", fake_service.url)
    monkeypatch.setenv("PERIJOVE_TOKEN", fake_service.token)
    perijove.connect()
    assert perijove.usage(["owner", "day"], since="7d")[0]["day"] == "2026-07-31"
    assert perijove.share()[0]["target"] == 0.25
    assert perijove.top() == []
    assert client.projects()[0]["name"] == "lab"
    assert client.job(client.submit({"command": ["true"]}).id).usage()["cpu"]["efficiency"] == 0.62


def test_requests_go_to_the_service_that_leads(
    client: Client, fake_service: Service, service: Service
) -> None:
    assert fake_service.fake
    fake_service.fake.leader = f"{service.url}/"
    job = client.submit({"command": ["true"]}).wait(60)
    assert job.state is State.SUCCEEDED
    asked = len(fake_service.fake.requests)
    client.job(job.id)
    assert len(fake_service.fake.requests) == asked


def test_a_token_does_not_leave_https(fake_service: Service) -> None:
    import httpx

    from perijove.client import AsyncClient
    from perijove.connection import Connection

    answer = httpx.Response(503, headers={"Perijove-Leader": "http://elsewhere"})
    assert AsyncClient(connection=Connection("https://here"))._leader(answer) == ""
    assert AsyncClient(connection=Connection("http://here"))._leader(answer) == "http://elsewhere"
    assert AsyncClient(connection=Connection("http://elsewhere"))._leader(answer) == ""
