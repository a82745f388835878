"""Warnings, changed limits and suspended time, across agents."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from perijove.model import Attempt, ReasonCode, State
from perijove_spawners.launcher import LaunchError, Phase
from perijove_spawners.node.attempts import Attempts, Times
from perijove_spawners.node.deadlines import Deadlines, due
from perijove_spawners.protocol import ReportKind

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

ONE = Attempt(1, 1)
LIMITS = st.none() | st.floats(0.1, 1e6)


@given(limit=LIMITS, before=st.none() | st.floats(0, 1e6), warned=LIMITS, enforce=st.booleans())
def test_the_warning_never_comes_after_the_limit(
    limit: float | None, before: float | None, warned: float | None, enforce: bool
) -> None:
    coming = due(Times(limit=limit, warned=warned), before, enforce=enforce)
    assert coming.limit == (limit if enforce else None)
    if coming.warning is not None:
        assert limit is not None
        assert 0 <= coming.warning <= limit
        assert warned != limit
    else:
        assert limit is None or before is None or warned == limit


async def test_run_time_leaves_out_what_was_suspended(tmp_path: Path) -> None:
    folder = Attempts(tmp_path / "attempts").folder(ONE)
    folder.make()
    now = time.time()
    deadlines = Deadlines(folder, Times(limit=100.0, paused=30.0), None, enforce=True)
    deadlines.begin(now - 50)
    assert deadlines.ran() == pytest.approx(20, abs=1)
    deadlines.pause()
    on_record = folder.read().times
    assert on_record and on_record.paused_at
    # An agent that finds it suspended for ten seconds.
    later = Deadlines(folder, Times(limit=100.0, paused=30.0, paused_at=now - 10), None, enforce=True)
    later.begin(now - 50)
    assert later.ran() == pytest.approx(10, abs=1)
    later.go_on()
    assert later.ran() == pytest.approx(10, abs=1)
    assert later.times.paused == pytest.approx(40, abs=1)
    later.cancel()


async def test_a_clock_that_was_put_back_gives_no_more_time(tmp_path: Path) -> None:
    folder = Attempts(tmp_path / "attempts").folder(ONE)
    folder.make()
    deadlines = Deadlines(folder, Times(limit=100.0), None, enforce=True)
    deadlines.begin(time.time() + 3600)
    assert deadlines.ran() == pytest.approx(0, abs=1)
    deadlines.cancel()


WARNED_JOB = ("on-signal", "10", "caught", ";", "sleep", "60")


async def _log(bench: Bench) -> bytes:
    chunk = await bench.agent.logs(ONE, "stdout", 0, 1000)
    return chunk.data if chunk else b""


async def test_a_job_is_warned_before_its_limit(bench: Bench) -> None:
    bench.send(bench.order(1, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3599.8)))
    warned = await bench.report(1, ReportKind.WARNED)
    assert warned.message.startswith("sent USR1: ")
    assert await _log(bench) == b"caught\n"
    assert (await bench.agent.known([ONE]))[0].kind is ReportKind.STARTED


async def test_another_agent_does_not_warn_again(bench: Bench) -> None:
    bench.send(bench.order(1, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3600.0)))
    await bench.report(1, ReportKind.WARNED)
    await bench.replace()
    bench.send(bench.order(2, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3600.0)))
    await bench.report(2, ReportKind.WARNED)
    assert ReportKind.WARNED not in bench.kinds(1)
    assert await _log(bench) == b"caught\n"


async def test_a_warning_due_while_no_agent_was_there_comes_late(bench: Bench) -> None:
    bench.send(bench.order(1, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3599.5)))
    started = (await bench.report(1, ReportKind.STARTED)).at
    await bench.agent.close()
    bench.reports.clear()
    await until(lambda: time.time() > started + 0.6, "the moment of the warning")
    await bench.open()
    await bench.report(1, ReportKind.WARNED)
    assert await _log(bench) == b"caught\n"


async def test_a_limit_that_is_put_off_brings_another_warning(bench: Bench) -> None:
    bench.send(bench.order(1, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3600.0)))
    await bench.report(1, ReportKind.WARNED)
    bench.reports.clear()
    await bench.agent.update(ONE, 3600.5)
    await bench.report(1, ReportKind.WARNED)
    assert await _log(bench) == b"caught\ncaught\n"


async def test_a_launcher_without_signals_leaves_the_event(bench: Bench) -> None:
    bench.lacking = {"signal"}
    await bench.replace()
    bench.send(bench.order(1, *WARNED_JOB, time_limit=3600.0, warning=("USR1", 3600.0)))
    await bench.report(1, ReportKind.WARNED)
    assert await _log(bench) == b""


@pytest.mark.parametrize("lacking", [set(), {"time_limit"}])
async def test_a_running_job_gets_another_limit(bench: Bench, lacking: set[str]) -> None:
    bench.lacking = lacking
    await bench.replace()
    bench.send(bench.order(1, "sleep", "60", time_limit=3600.0))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.update(ONE, 0.1)
    outcome = await bench.outcome(1)
    assert outcome.reason is ReasonCode.TIME_LIMIT


@pytest.mark.parametrize("lacking", [set(), {"time_limit"}])
async def test_another_agent_keeps_the_changed_limit(bench: Bench, lacking: set[str]) -> None:
    bench.lacking = lacking
    await bench.replace()
    bench.send(bench.order(1, "sleep", "1.5", time_limit=1.0, grace=0.1))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.update(ONE, None)
    # What was recorded and not yet told to the launcher is told by the next agent.
    run = bench.engine.runs[ONE]
    if not lacking:
        run.limit(1.0)
    await bench.replace()
    assert (await bench.outcome(1)).state is State.SUCCEEDED


async def test_a_limit_changed_before_the_start_counts(bench: Bench) -> None:
    bench.launcher.down = True
    bench.send(bench.order(1, "sleep", "60", time_limit=3600.0))
    await until(lambda: any("switched off" in r.message for r in bench.reports), "the news of the fault")
    await bench.agent.update(ONE, 0.1)
    bench.launcher.down = False
    assert (await bench.outcome(1)).reason is ReasonCode.TIME_LIMIT


async def test_what_has_ended_gets_no_limit(bench: Bench) -> None:
    await bench.run(bench.order(1, "true"))
    for attempt in (ONE, Attempt(7, 1)):
        with pytest.raises(LaunchError, match="does not run"):
            await bench.agent.update(attempt, 10.0)


async def test_what_ended_while_it_was_resumed_stays_ended(bench: Bench) -> None:
    bench.send(bench.order(1, "sleep", "0.3", time_limit=60.0))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.suspend(ONE)
    bench.launcher.answering.clear()
    resuming = asyncio.ensure_future(bench.agent.resume(ONE))
    await bench.outcome(1)
    await bench.agent.forget([ONE])
    folder = bench.directory / "node/attempts/1.1"
    await until(lambda: (folder / "closed").exists(), "its record to be closed")
    bench.launcher.answering.set()
    await resuming
    assert not (folder / "record").exists()
    assert bench.kinds(1)[-1] is ReportKind.ENDED


async def test_suspended_time_does_not_count_where_the_agent_keeps_the_limit(bench: Bench) -> None:
    bench.lacking = {"time_limit"}
    await bench.replace()
    bench.send(bench.order(1, "sleep", "0.6", time_limit=1.0, grace=0.1))
    started = (await bench.report(1, ReportKind.STARTED)).at
    await bench.agent.suspend(ONE)
    await bench.replace()
    await until(lambda: time.time() > started + 1.3, "more than its limit")
    assert bench.engine.runs[ONE].phase is Phase.SUSPENDED
    await until(lambda: ReportKind.SUSPENDED in bench.kinds(1), "the agent to see that it is suspended")
    await bench.agent.resume(ONE)
    assert (await bench.outcome(1)).state is State.SUCCEEDED


async def test_a_signal_is_sent_to_those_that_run(bench: Bench) -> None:
    bench.send(bench.order(1, *WARNED_JOB))
    await bench.report(1, ReportKind.STARTED)
    await bench.agent.signal([ONE, Attempt(9, 1)], "USR1")
    await bench.agent.signal([ONE], "SIGUSR1")
    assert await _log(bench) == b"caught\ncaught\n"
    for name in ("KILL", "STOP", "NONSENSE", "usr1"):
        with pytest.raises(LaunchError, match="must be the name of a signal"):
            await bench.agent.signal([ONE], name)
