"""Agents that end without a word, engines that go away, orders from another time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from waiting import until

from perijove.model import Attempt, Gpu, OperatorError, Outcome, ReasonCode, State
from perijove_spawners.launcher import Phase, Status
from perijove_spawners.node.agent import NodeAgent
from perijove_spawners.node.attempts import Attempts, Record, Started, Taken, boot_id
from perijove_spawners.node.outcomes import recovery
from perijove_spawners.protocol import Report, ReportKind

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

ONE = Attempt(1, 1)


async def test_a_running_job_is_adopted(bench: Bench) -> None:
    bench.send(bench.order(1, "append", "ran", "x", ";", "sleep", "0.5"))
    await bench.report(1, ReportKind.STARTED)
    await bench.replace()
    assert (await bench.agent.known())[0].kind is ReportKind.STARTED
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert (bench.directory / "node/attempts/1.1/job/ran").read_text() == "x\n"


async def test_what_an_attempt_was_given_is_told_until_it_ends(bench: Bench) -> None:
    card = Gpu(index=0, uuid="GPU-1", model="H100")
    bench.send(bench.order(1, "sleep", "60", gpus=(card,), slots={"port": (1,)}))
    await bench.report(1, ReportKind.STARTED)
    for _ in range(2):
        [report] = await bench.agent.known()
        assert (report.kind, report.gpus, report.slots) == (ReportKind.STARTED, ("GPU-1",), {"port": (1,)})
        assert Report.from_wire(report.to_wire()) == report
        await bench.replace()
    await bench.agent.suspend(ONE)
    [report] = await bench.agent.known()
    assert (report.kind, report.gpus) == (ReportKind.SUSPENDED, ("GPU-1",))
    await bench.agent.stop([ONE], 0.0)
    await bench.outcome(1)
    [report] = await bench.agent.known()
    assert (report.kind, report.gpus, report.slots) == (ReportKind.ENDED, (), {})


async def test_an_end_that_came_meanwhile_is_reported(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "0.2", ";", "exit", "3"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.close()
    await until(lambda: bench.engine.runs[ONE].phase is Phase.EXITED, "the end")
    bench.reports.clear()
    await bench.open()
    assert (await bench.outcome(1)).exit_code == 3


async def test_an_unrecorded_end_is_reported_by_the_next_agent(bench: Bench) -> None:
    await bench.run(bench.order(1, "exit", "3"))
    await bench.replace()
    assert (await bench.outcome(1)).exit_code == 3
    await bench.agent.forget([ONE])
    await until(lambda: ONE not in bench.engine.runs, "the removal")
    await bench.replace()
    assert await bench.agent.known() == []
    assert (await bench.agent.known([ONE]))[0].kind is ReportKind.ENDED


async def test_after_an_absence_every_attempt_is_answered_for(bench: Bench) -> None:
    runs, meanwhile, recorded, purged = (Attempt(number, 1) for number in range(1, 5))
    bench.send(bench.order(1, "sleep", "60"), bench.order(2, "sleep", "0.3", ";", "exit", "3"))
    await bench.run(bench.order(3, "exit", "4"), bench.order(4, "exit", "5"))
    await bench.agent.forget([recorded])
    await bench.agent.purge([purged])
    await bench.report(2, ReportKind.STARTED)
    await until(lambda: bench.engine.runs.keys() == {runs, meanwhile}, "the removal of two")
    await bench.agent.close()
    await until(lambda: bench.engine.runs[meanwhile].phase is Phase.EXITED, "the end of one")
    bench.reports.clear()
    await bench.open()
    await bench.outcome(2)
    asked = [runs, meanwhile, recorded, purged]
    answers = {report.attempt: report for report in await bench.agent.known(asked)}
    assert [answers[a].kind for a in asked[:3]] == [ReportKind.STARTED, ReportKind.ENDED, ReportKind.ENDED]
    codes = [outcome.exit_code for a in asked[1:3] if (outcome := answers[a].outcome)]
    assert codes == [3, 4]
    assert purged not in answers
    # Of its own accord it speaks of what the service has not recorded.
    assert {report.attempt for report in await bench.agent.known()} == {runs, meanwhile}
    await bench.agent.stop([runs], 0)


async def test_what_is_purged_is_gone_from_engine_and_disk(bench: Bench) -> None:
    await bench.run(bench.order(1, "echo", "x"), bench.order(2, "echo", "x"))
    # As the next agent finds them: ended, and nobody has recorded it.
    await bench.replace()
    bench.launcher.down = True
    both = [ONE, Attempt(2, 1)]
    await bench.agent.purge(both)
    bench.launcher.down = False
    await until(lambda: not bench.engine.runs, "the removal from the engine")
    folders = bench.directory / "node/attempts"
    await until(lambda: not list(folders.iterdir()), "the removal of the folders")
    assert await bench.agent.known(both) == []
    assert await bench.agent.disk(both) == {}


async def test_another_attempt_of_a_job_begins_in_a_fresh_directory(bench: Bench) -> None:
    await bench.run(bench.order(1, "append", "state", "x"))
    again = replace(bench.order(1, "append", "state", "y"), attempt=Attempt(1, 2))
    bench.reports.clear()
    await bench.agent.start([again])
    folders = bench.directory / "node/attempts"
    assert (folders / "1.1/job/state").read_text() == "x\n"
    assert (folders / "1.2/job/state").read_text() == "y\n"


async def test_an_order_taken_but_not_started_is_started(bench: Bench) -> None:
    order = bench.order(1, "append", "ran", "x")
    await bench.agent.close()
    Attempts(bench.directory / "node/attempts").folder(ONE).take(Taken(order, boot_id()))
    await bench.open()
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert (bench.directory / "node/attempts/1.1/job/ran").read_text() == "x\n"


async def test_an_order_of_an_earlier_boot_is_not_started_again(bench: Bench) -> None:
    order = bench.order(1, "append", "ran", "x")
    await bench.agent.close()
    Attempts(bench.directory / "node/attempts").folder(ONE).take(Taken(order, "another-boot"))
    await bench.open()
    assert (await bench.outcome(1)).state is State.LOST
    assert not (bench.directory / "node/attempts/1.1/job").exists()


async def test_an_order_for_another_incarnation_is_refused(bench: Bench) -> None:
    order = bench.order(1, "append", "ran", "x", incarnation="an-earlier-one")
    await bench.agent.start([order])
    outcome = await bench.outcome(1)
    assert (outcome.state, outcome.reason) == (State.LOST, ReasonCode.NODE_LOST)
    assert not (bench.directory / "node/attempts/1.1").exists()
    await until(lambda: bench.kinds(1).count(ReportKind.ENDED) >= 2, "the repetition")


async def test_a_repeated_order_after_a_restart_waits_for_the_adopted_job(bench: Bench) -> None:
    order = bench.order(1, "sleep", "0.4")
    bench.send(order)
    await bench.report(1, ReportKind.STARTED)
    await bench.replace()
    await bench.agent.start([order])
    assert (await bench.outcome(1)).state is State.SUCCEEDED


async def test_a_job_that_vanished_from_its_engine_is_lost(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    del bench.engine.runs[ONE]
    outcome = await bench.outcome(1)
    assert outcome.state is State.LOST and "no longer has it" in outcome.message


async def test_a_stop_survives_the_agent(bench: Bench) -> None:
    bench.send(bench.order(1, "ignore-term", ";", "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.stop([ONE], 0.5)
    await bench.replace()
    assert (await bench.outcome(1)).state is State.KILLED


async def test_what_is_on_the_engine_without_a_record_is_removed(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "60"))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.close()
    Attempts(bench.directory / "node/attempts").remove_all([ONE])
    await bench.open()
    await until(lambda: ONE not in bench.engine.runs, "the removal")
    assert await bench.agent.known() == []


async def test_a_time_limit_holds_across_agents(bench: Bench) -> None:
    bench.lacking = {"time_limit"}
    await bench.replace()
    bench.send(bench.order(1, "sleep", "60", time_limit=0.6, grace=0.1))
    await bench.report(1, ReportKind.STARTED)
    await bench.replace()
    outcome = await bench.outcome(1)
    assert outcome.reason is ReasonCode.TIME_LIMIT and "time limit of 1s" in outcome.message


async def test_an_engine_that_is_away_does_not_end_its_jobs(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "0.3"))
    await bench.report(1, ReportKind.STARTED)
    bench.launcher.down = True
    await until(lambda: bench.engine.runs[ONE].phase is Phase.EXITED, "the end")
    with pytest.raises(TimeoutError):
        await bench.outcome(1, seconds=0.6)
    bench.launcher.down = False
    assert (await bench.outcome(1)).state is State.SUCCEEDED


async def test_a_start_that_was_cut_short_is_found_running(bench: Bench) -> None:
    bench.launcher.cut_after_start = True
    bench.send(bench.order(1, "append", "ran", "x", ";", "sleep", "0.3"))
    await until(lambda: bench.launcher.down, "the fault")
    await asyncio.sleep(0.3)
    bench.launcher.down = False
    assert (await bench.outcome(1)).state is State.SUCCEEDED
    assert (bench.directory / "node/attempts/1.1/job/ran").read_text() == "x\n"


async def test_a_job_waiting_for_its_engine_can_be_stopped(bench: Bench) -> None:
    bench.launcher.down = True
    bench.send(bench.order(1, "true"))
    await until(lambda: any("switched off" in r.message for r in bench.reports), "the news of the fault")
    await bench.agent.stop([ONE])
    bench.launcher.down = False
    assert (await bench.outcome(1)).state is State.KILLED
    assert ONE not in bench.engine.runs


async def test_two_agents_do_not_share_a_directory(bench: Bench) -> None:
    second = NodeAgent(bench.agent.config, {}, bench.store)
    with pytest.raises(OperatorError, match="another node agent runs on"):
        await second.open()


@pytest.mark.parametrize(
    ("phase", "started", "boot", "then"),
    [
        (Phase.RUNNING, False, "b", Phase.RUNNING),
        (Phase.SUSPENDED, True, "b", Phase.RUNNING),
        (Phase.EXITED, False, "b", Phase.EXITED),
        (Phase.CREATED, False, "b", Phase.CREATED),
        (Phase.UNKNOWN, False, "b", Phase.CREATED),
        (Phase.UNKNOWN, True, "b", Phase.EXITED),
        (Phase.UNKNOWN, False, "earlier", Phase.EXITED),
    ],
)
async def test_what_is_done_with_an_attempt_after_a_restart(
    bench: Bench, phase: Phase, started: bool, boot: str, then: Phase
) -> None:
    record = Record(ONE, Taken(bench.order(1, "true"), boot), started=Started(1.0) if started else None)
    assert recovery(record, Status(phase), "b") is then


def test_a_torn_line_counts_as_absent(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts")
    folder = attempts.folder(ONE)
    folder.make()
    folder.note_started(Started(1.0))
    with (folder.path / "record").open("ab") as record:
        record.write(b'\noutcome {"exit_')
    assert folder.outcome() is None
    folder.note_outcome(Outcome(exit_code=0))
    with (folder.path / "record").open("ab") as record:
        record.write(b'\noutcome {"exit_code": 1')
    assert folder.outcome() == Outcome(exit_code=0)
    assert [(r.started, r.outcome) for r in attempts.active()] == [(Started(1.0), Outcome(exit_code=0))]
    folder.note_forgotten()
    folder.note_forgotten()
    assert folder.outcome() == Outcome(exit_code=0)
    assert list(attempts.active()) == []


async def test_an_adopted_server_is_reachable(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "60", ports=(8888,)))
    await bench.report(1, ReportKind.STARTED)
    record = bench.directory / "node/attempts/1.1/record"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(line for line in lines if not line.startswith(b"started")))
    await bench.replace()
    endpoint = (await bench.report(1, ReportKind.STARTED)).endpoint
    assert endpoint and endpoint.ports == {8888: "127.0.0.1:8888"}
    await bench.agent.stop([ONE], 0)


async def test_an_order_that_cannot_be_recorded_is_refused(bench: Bench) -> None:
    attempts = bench.directory / "node/attempts"
    attempts.rmdir()
    attempts.touch()
    await bench.agent.start([bench.order(1, "true")])
    outcome = await bench.outcome(1)
    assert outcome.reason is ReasonCode.LAUNCH_FAILED and outcome.transient
    assert "cannot be recorded on n1" in outcome.message
    assert ONE not in bench.engine.runs
