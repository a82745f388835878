from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import stat
import time
from pathlib import Path

import pytest
from tests.kernel.conftest import Service
from tests.kernel.fake_service import serving

import perijove
from perijove.client import AsyncClient
from perijove.connection import Connection, NotConnectedError, find_connection, forget_login, store_login
from perijove.events import EventParser
from perijove.model import (
    InvalidSpecError,
    JobSpec,
    NotFoundError,
    OperatorError,
    State,
    UnauthorizedError,
    UnavailableError,
    UserError,
)


@pytest.fixture
def client(service: Service) -> perijove.Client:
    return perijove.Client(service.url, service.token)


# finding the service


def test_variables_come_first(home: Path) -> None:
    store_login(Connection("http://stored", "t"))
    found = find_connection({"HOME": str(home), "PERIJOVE_URL": "http://here:1/x/", "PERIJOVE_TOKEN": "a"})
    assert (found.url, found.token) == ("http://here:1/x", "a")


def test_a_hub_token_serves(home: Path) -> None:
    env = {
        "HOME": str(home),
        "PERIJOVE_URL": "https://hub/services/perijove/api/v1",
        "JUPYTERHUB_API_TOKEN": "h",
    }
    assert find_connection(env) == Connection("https://hub/services/perijove", "h", source="PERIJOVE_URL")


def test_login_is_private_and_comes_before_the_endpoint(home: Path, tmp_path: Path) -> None:
    (tmp_path / "endpoint.json").write_text(
        json.dumps({"url": "http://up:1", "token": "u", "launchers": ["process"]})
    )
    env = {"HOME": str(home), "PERIJOVE_STATE": str(tmp_path)}
    assert find_connection(env).launchers == ("process",)
    path = store_login(Connection("http://login:1", "secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_connection(env).token == "secret"
    assert forget_login()
    assert not forget_login()
    assert find_connection(env).url == "http://up:1"


def test_without_any_service_the_error_says_what_to_do(home: Path) -> None:
    with pytest.raises(NotConnectedError, match="perijove login"):
        find_connection()


def test_a_damaged_login_is_named(home: Path) -> None:
    path = store_login(Connection("http://x", "t"))
    path.write_text("{")
    with pytest.raises(UserError, match=r"login\.json"):
        find_connection()


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Connection("http://x", "secret"))


# jobs


def test_a_command_runs(client: perijove.Client) -> None:
    job = client.submit({"command": ["sh", "-c", "echo hällo; echo oops >&2; exit 3"], "name": "greeting"})
    assert job.wait(30).state is State.FAILED
    assert (job.exit_code, job.name) == (3, "greeting")
    assert job.logs() == "hällo\n"
    assert job.logs("stderr") == "oops\n"
    with pytest.raises(perijove.JobFailedError, match="oops"):
        job.result()


def test_a_spec_object_is_accepted(client: perijove.Client) -> None:
    job = client.submit(JobSpec(command=["true"], cpu=0.5))
    assert job.wait(30).state is State.SUCCEEDED
    assert job.record.spec.cpu == 0.5


def test_a_function_comes_back_with_its_result(client: perijove.Client) -> None:
    job = client.run(lambda a, b: {"sum": a + b}, 2, b=40)
    assert job.result(60) == {"sum": 42}


def test_a_function_fails_with_its_own_traceback(client: perijove.Client) -> None:
    def broken() -> None:
        raise LookupError("no such thing: ü")

    job = client.run(broken)
    with pytest.raises(perijove.JobFailedError, match="LookupError: no such thing: ü") as caught:
        job.result(60)
    assert any("broken" in line for line in caught.value.traceback)


def test_errors_name_the_field(client: perijove.Client) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        client.submit({"command": ["true"], "memory": "12X"})
    assert [error.field for error in caught.value.errors] == ["memory"]


def test_bulk_is_all_or_nothing(client: perijove.Client) -> None:
    name = f"bulk-{time.time_ns()}"
    with pytest.raises(InvalidSpecError):
        client.submit_many([{"command": ["true"], "name": name}, {"command": [], "name": name}])
    assert client.jobs(name=name) == []
    jobs = client.submit_many([{"command": ["true"], "name": name}] * 3)
    assert {job.wait(30).state for job in jobs} == {State.SUCCEEDED}
    assert [job.id for job in client.jobs(name=name, limit=2)] == [jobs[2].id, jobs[1].id]


def test_hold_release_and_kill(client: perijove.Client) -> None:
    job = client.submit({"command": ["sleep", "60"], "hold": True})
    assert job.state is State.HELD
    job.release()
    deadline = time.monotonic() + 30
    while job.refresh().state is not State.RUNNING and time.monotonic() < deadline:
        time.sleep(0.02)
    assert job.suspend().refresh().state is State.SUSPENDED
    assert job.resume().refresh().state is State.RUNNING
    assert job.stats()["memory"] >= 0
    job.kill()
    assert job.wait(30).state is State.KILLED


def test_an_unknown_job_and_a_foreign_token(client: perijove.Client, service: Service) -> None:
    with pytest.raises(NotFoundError):
        client.job(10**9)
    with pytest.raises(UnauthorizedError):
        perijove.Client(service.url, "wrong").jobs()


def test_wait_times_out_and_the_job_goes_on(client: perijove.Client) -> None:
    job = client.submit({"command": ["sleep", "60"]})
    with pytest.raises(TimeoutError):
        job.wait(0.3)
    assert not job.refresh().ended
    job.kill()


def test_following_is_live(client: perijove.Client) -> None:
    job = client.submit({"command": ["sh", "-c", "echo one; sleep 0.6; echo two"]})
    at = [(text, time.monotonic()) for text in job.follow()]
    assert "".join(text for text, _ in at) == "one\ntwo\n"
    assert at[-1][1] - at[0][1] > 0.3


async def test_await_works_in_a_running_loop(client: perijove.Client) -> None:
    job = client.submit({"command": ["true"]})
    assert (await job).state is State.SUCCEEDED


async def test_the_asynchronous_client(service: Service) -> None:
    async with AsyncClient(service.url, service.token) as client:
        jobs = await asyncio.gather(*(client.submit({"command": ["echo", str(i)]}) for i in range(5)))
        await asyncio.gather(*(job.wait(30) for job in jobs))
        assert sorted([await job.logs() for job in jobs]) == [f"{i}\n".encode() for i in range(5)]
        history = await jobs[0].history()
        assert [event["state"] for event in history][-1] == "succeeded"
        assert (await client.me())["name"]
        assert (await client.nodes())[0]["node"]["cpus"] > 0


def _in_child(url: str, token: str, job_id: int) -> None:
    os._exit(0 if perijove.Client(url, token).job(job_id).ended else 1)


def test_the_client_works_in_a_forked_child(client: perijove.Client, service: Service) -> None:
    job = client.submit({"command": ["true"]}).wait(30)
    child = multiprocessing.get_context("fork").Process(
        target=_in_child, args=(service.url, service.token, job.id)
    )
    child.start()
    child.join(20)
    assert child.exitcode == 0


# faults


def test_a_hub_without_the_service_is_said_to_be_one(service: Service) -> None:
    for path, said in (
        ("/services/perijove", "the hub has not started it yet"),
        ("/x", "HUB/services/perijove"),
    ):
        with pytest.raises(OperatorError, match=said):
            perijove.Client(f"{service.url}{path}", service.token).me()


def test_a_service_that_is_not_there(home: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = perijove.Client(f"http://127.0.0.1:{unused.getsockname()[1]}", "t")
        with pytest.raises(UnavailableError, match="does not answer"):
            client.jobs()


def test_streams_that_break_are_taken_up_where_they_were(fake_service: Service) -> None:
    assert fake_service.fake is not None
    fake_service.fake.break_streams_after = 1
    client = perijove.Client(fake_service.url, fake_service.token)
    job = client.submit({"command": ["sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.15; done"]})
    assert "".join(job.follow()) == "1\n2\n3\n4\n5\n"


def test_waiting_survives_a_restart_of_the_service(tmp_path: Path) -> None:
    with serving(tmp_path / "a") as (url, fake):
        port = int(url.rpartition(":")[2])
        client = perijove.Client(url, "token-of-the-fake")
        job = client.submit({"command": ["sleep", "60"], "hold": True})
        waiting = asyncio.run_coroutine_threadsafe(job.async_job.wait(20), perijove.sync.LOOP.loop())
        record = dict(job.document)
    with serving(tmp_path / "b", port=port) as (_, fake):
        from tests.kernel.fake_service import Held

        ended = {**record, "state": "killed", "ended": 1.0}
        fake.jobs[job.id] = Held(ended, tmp_path)
        assert waiting.result(20).state is State.KILLED


async def test_a_submission_whose_answer_is_lost_is_neither_lost_nor_doubled(fake_service: Service) -> None:
    assert fake_service.fake is not None
    port = int(fake_service.url.rpartition(":")[2])
    lost = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        back, there = await asyncio.open_connection("127.0.0.1", port)
        request = await reader.readuntil(b"}")
        there.write(request)
        answer = await back.readuntil(b"\r\n\r\n")
        if b"POST /api/v1/jobs" in request and lost < 2:
            lost += 1
        else:
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            writer.write(answer + await back.readexactly(length))
            await writer.drain()
        writer.close()
        there.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url, fake_service.token) as client:
            job = await client.submit({"command": ["true"]})
    assert lost == 2
    assert list(fake_service.fake.jobs) == [job.id]


def test_events_are_parsed_as_the_standard_says() -> None:
    parser = EventParser()
    lines = [": comment", "id: 7", "event: job", "data: a", "data:b", "", "data: c", ""]
    events = [event for line in lines for event in parser.feed(line)]
    assert [(event.name, event.data, event.id) for event in events] == [
        ("job", "a\nb", "7"),
        ("message", "c", "7"),
    ]
