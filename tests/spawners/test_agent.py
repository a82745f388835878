"""What a node agent does with orders and calls, on the in-memory engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from waiting import until

from perijove.model import Attempt, ReasonCode, State
from perijove_spawners.launcher import LaunchError, Mount
from perijove_spawners.protocol import LogStream, ReportKind

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench


async def test_a_job_is_reported_from_its_launch_to_its_end(bench: Bench) -> None:
    [outcome] = await bench.run(bench.order(1, "echo", "hello"))
    assert outcome.state is State.SUCCEEDED
    assert outcome.exit_code == 0 and outcome.started and outcome.ended
    assert bench.kinds(1)[:3] == [ReportKind.LAUNCHING, ReportKind.STARTED, ReportKind.ENDED]


@pytest.mark.parametrize(
    ("command", "reason", "exit_code", "said"),
    [
        (("exit", "3"), ReasonCode.NON_ZERO_EXIT, 3, "exit code 3"),
        (("signal", "11"), ReasonCode.SIGNALLED, 139, "SIGSEGV"),
        (("allocate", str(2 << 30)), ReasonCode.OUT_OF_MEMORY, 137, "memory of 1G"),
    ],
)
async def test_an_end_has_its_reason(
    bench: Bench, command: tuple[str, ...], reason: ReasonCode, exit_code: int, said: str
) -> None:
    [outcome] = await bench.run(bench.order(1, *command))
    assert (outcome.reason, outcome.exit_code) == (reason, exit_code)
    assert said in outcome.message
    assert outcome.state is State.FAILED


async def test_many_jobs_in_one_bundle_all_end(bench: Bench) -> None:
    outcomes = await bench.run(*(bench.order(n, "exit", str(n % 2)) for n in range(1, 201)))
    assert [o.exit_code for o in outcomes] == [n % 2 for n in range(1, 201)]


async def test_an_order_that_comes_twice_runs_once(bench: Bench) -> None:
    order = bench.order(1, "append", "ran", "x")
    first, second = bench.send(order), bench.send(order)
    await first
    await second
    await bench.run(order)
    assert (bench.directory / "node/attempts/1.1/job/ran").read_text() == "x\n"


async def test_the_engine_keeps_its_trace_until_the_end_is_recorded(bench: Bench) -> None:
    await bench.run(bench.order(1, "echo", "kept"))
    assert Attempt(1, 1) in bench.engine.runs
    await bench.agent.forget([Attempt(1, 1)])
    await until(lambda: Attempt(1, 1) not in bench.engine.runs, "the removal")
    chunk = await bench.agent.logs(Attempt(1, 1), "stdout", 0, 100)
    assert chunk and chunk.data == b"kept\n"


async def test_an_end_is_repeated_until_it_is_recorded(bench: Bench) -> None:
    await bench.run(bench.order(1, "true"))
    await until(lambda: bench.kinds(1).count(ReportKind.ENDED) >= 3, "the repetitions")
    await bench.agent.forget([Attempt(1, 1)])
    bench.reports.clear()
    await bench.run(bench.order(2, "sleep", "0.6"))
    assert bench.kinds(1) == []


async def test_stop_ends_a_job_as_killed(bench: Bench) -> None:
    task = bench.send(bench.order(1, "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.stop([Attempt(1, 1)], 5)
    outcome = await bench.outcome(1)
    assert (outcome.state, outcome.reason) == (State.KILLED, ReasonCode.KILLED_BY_USER)
    await task


async def test_a_job_that_ends_well_when_stopped_was_still_stopped(bench: Bench) -> None:
    bench.send(bench.order(1, "on-term", "0", ";", "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.stop([Attempt(1, 1)])
    assert (await bench.outcome(1)).state is State.KILLED


async def test_a_stop_before_the_order_keeps_it_from_running(bench: Bench) -> None:
    await bench.agent.stop([Attempt(1, 1)])
    assert (await bench.outcome(1)).state is State.KILLED
    await bench.agent.start([bench.order(1, "append", "ran", "x")])
    assert not (bench.directory / "node/attempts/1.1/job").exists()


async def test_suspended_and_resumed_jobs_say_so(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "0.3"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.suspend(Attempt(1, 1))
    [known] = await bench.agent.known([Attempt(1, 1)])
    assert known.kind is ReportKind.SUSPENDED
    await bench.agent.resume(Attempt(1, 1))
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert ReportKind.RESUMED in bench.kinds(1)


async def test_calls_for_what_does_not_run_say_so(bench: Bench) -> None:
    for call in (bench.agent.suspend, bench.agent.resume):
        with pytest.raises(LaunchError, match=r"7\.1 does not run on n1"):
            await call(Attempt(7, 1))
    with pytest.raises(LaunchError, match="does not run"):
        await bench.agent.exec(Attempt(7, 1), ["true"])
    assert (await bench.agent.stats(Attempt(7, 1))).pids == 0
    assert await bench.agent.logs(Attempt(7, 1), "stdout", 0, 10) is None
    assert await bench.agent.known([Attempt(7, 1)]) == []


async def test_exec_and_stats_of_a_running_job(bench: Bench) -> None:
    bench.send(bench.order(1, "allocate", "1000", ";", "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    assert await bench.agent.exec(Attempt(1, 1), ["echo", "beside"]) == (0, b"beside\n")
    assert (await bench.agent.stats(Attempt(1, 1))).memory == 1000
    await bench.agent.stop([Attempt(1, 1)], 0)
    await bench.outcome(1)


async def test_ports_of_a_job_come_with_its_start(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "60", ports=(8888,)))
    endpoint = (await bench.report(1, ReportKind.STARTED)).endpoint
    assert endpoint and endpoint.ports == {8888: "127.0.0.1:8888"}
    await bench.agent.stop([Attempt(1, 1)], 0)


async def test_logs_are_waited_for_and_end_with_the_job(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "0.2", ";", "echo", "a", ";", "sleep", "0.2", ";", "echo", "b"))
    await bench.report(1, ReportKind.LAUNCHING)
    said, offset = b"", 0
    while True:
        chunk = await bench.agent.logs(Attempt(1, 1), "stdout", offset, 100, wait=5)
        assert chunk and chunk.offset == offset
        said, offset = said + chunk.data, offset + len(chunk.data)
        if chunk.end:
            break
    assert said == b"a\nb\n"


async def test_outputs_are_taken_into_the_store(bench: Bench) -> None:
    order = bench.order(1, "append", "output/scores", "0.9", outputs={"scores": "file:scores"})
    [outcome] = await bench.run(order)
    assert outcome.state is State.SUCCEEDED
    with bench.store.open(outcome.outputs["scores"]) as file:
        assert file.read() == b"0.9\n"


async def test_a_declared_output_that_is_missing_fails_the_job(bench: Bench) -> None:
    order = bench.order(1, "append", "output/one", "1", outputs={"one": "file:one", "two": "file:two"})
    [outcome] = await bench.run(order)
    assert outcome.reason is ReasonCode.OUTPUT_MISSING
    assert outcome.message == "output two was not written: there is no file output/two"
    assert set(outcome.outputs) == {"one"}


async def test_a_link_as_output_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    task = bench.send(bench.order(1, "sleep", "0.3", outputs={"stolen": "file:stolen"}))
    await bench.report(1, ReportKind.STARTED)
    (bench.directory / "node/attempts/1.1/job/output/stolen").symlink_to(secret)
    await task
    outcome = await bench.outcome(1)
    assert outcome.reason is ReasonCode.OUTPUT_MISSING and outcome.outputs == {}


async def test_progress_is_read_from_the_display_stream(bench: Bench) -> None:
    lines = ('{"progress":0.25,"text":"one"}', "rubbish", '{"progress":0.5,"text":"two"}', '{"progress":"x"}')
    command = [word for line in lines for word in ("append", "display.jsonl", line, ";")]
    await bench.run(bench.order(1, *command, "true"))
    report = await bench.report(1, ReportKind.PROGRESS)
    assert (report.progress, report.message) == (0.5, "two")
    chunk = await bench.agent.logs(Attempt(1, 1), "display", 0, 1000)
    assert chunk and chunk.data.decode().splitlines() == list(lines)


async def test_a_missing_volume_fails_the_launch_and_is_named(bench: Bench, tmp_path: Path) -> None:
    order = bench.order(1, "true", mounts=(Mount(str(tmp_path / "nowhere"), "/data", name="reference"),))
    [outcome] = await bench.run(order)
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and not outcome.transient
    said = "volume reference cannot be had on node n1: it is not there, or no directory"
    assert outcome.message == said


async def test_a_missing_input_fails_the_launch(bench: Bench) -> None:
    digest = "sha256:" + "0" * 64
    [outcome] = await bench.run(bench.order(1, "true", inputs={"x": digest}))
    assert outcome.reason is ReasonCode.LAUNCH_FAILED
    assert digest in outcome.message


async def test_a_missing_image_fails_the_launch(bench: Bench) -> None:
    await bench.replace(options={"images": "lab:1 lab:2"})
    [outcome] = await bench.run(bench.order(1, "true", image="lab:3"))
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and not outcome.transient
    assert "lab:3" in outcome.message
    assert (await bench.agent.describe()).images == ["lab:1", "lab:2"]


async def test_a_launcher_the_node_lacks_may_be_elsewhere(bench: Bench) -> None:
    [outcome] = await bench.run(bench.order(1, "true", launcher="docker"))
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and outcome.transient
    assert "launcher docker is not ready on n1" in outcome.message


async def test_purge_removes_the_directory_and_an_old_order_does_not_come_back(bench: Bench) -> None:
    order = bench.order(1, "true")
    await bench.run(order)
    await bench.agent.purge([Attempt(1, 1)])
    await until(lambda: not (bench.directory / "node/attempts/1.1").exists(), "the removal")
    bench.reports.clear()
    await bench.agent.start([order])
    assert bench.reports == []
    assert not (bench.directory / "node/attempts/1.1").exists()


async def test_the_directories_that_are_there_are_named_in_order_and_in_parts(bench: Bench) -> None:
    attempts = [Attempt(2, 1), Attempt(10, 1), Attempt(11, 1)]
    await bench.run(*(bench.order(attempt.job, "true") for attempt in attempts))
    await bench.agent.forget(attempts)
    (bench.directory / "node/attempts/.removed-7.1").mkdir()
    assert await bench.agent.kept(None, 2) == attempts[:2]
    assert await bench.agent.kept(attempts[1], 2) == attempts[2:]
    await bench.agent.purge(attempts[:2])
    assert await bench.agent.kept(None, 2) == attempts[2:]


@pytest.mark.parametrize("stream", ["stdout", "stderr", "display"])
async def test_logs_of_an_ended_job_end_where_they_end(bench: Bench, stream: LogStream) -> None:
    await bench.run(bench.order(1, "true"))
    chunk = await bench.agent.logs(Attempt(1, 1), stream, 0, 100, wait=30)
    assert chunk and chunk.data == b"" and chunk.end


async def test_the_record_of_an_order_is_for_the_agent_alone(bench: Bench) -> None:
    await bench.run(bench.order(1, "true", env={"TOKEN": "secret"}))
    folder = bench.directory / "node/attempts/1.1"
    assert (folder / "record").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o711
    assert (folder / "job").stat().st_mode & 0o777 == 0o700
    assert (folder / "job").stat().st_uid == os.getuid()
