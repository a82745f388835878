"""The process launcher where something is killed, torn or refused; for the rest see tests/conformance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import absent
from waiting import becomes, until, wait_until

from perijove.model import Account, Attempt
from perijove_spawners.launcher import Launch, LauncherContext, LaunchError, Phase, Status
from perijove_spawners.process import processes
from perijove_spawners.process.attempt_journal import AttemptJournal, Entries
from perijove_spawners.process.launcher import ProcessLauncher
from perijove_spawners.process.processes import Identity

pytestmark = pytest.mark.slow

ATTEMPT = Attempt(12, 1)


class Site:
    """A launcher, and the launches for it."""

    def __init__(self, base: Path, cgroup: str | None) -> None:
        self.base = base
        options = {"cgroup": cgroup} if cgroup else {}
        self.context = LauncherContext(f"test-{base.name[-6:]}", base / "launcher", options)
        self.context.directory.mkdir()
        self.launcher = ProcessLauncher(self.context)
        self.journal = AttemptJournal(str(self.context.directory / "attempts" / str(ATTEMPT)))

    def launch(self, script: str, **changes: Any) -> Launch:
        directory = self.base / "attempt"
        (directory / "job").mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "attempt": ATTEMPT,
            "owner": "me",
            "command": ("/bin/sh", "-c", script),
            "account": Account("me", os.geteuid(), os.getegid(), "/", ()),
            "directory": directory,
            "env": {"PATH": os.defpath, "PERIJOVE_JOB_DIR": str(directory / "job")},
        }
        return Launch(**{**values, **changes})

    def file(self, name: str) -> str:
        path = self.base / "attempt/job" / name
        return path.read_text() if path.exists() else ""

    def record(self, word: str) -> dict[str, Any]:
        entries = self.journal.read()
        record: dict[str, Any] | None = entries.get(word) if entries else None
        assert record is not None
        return record

    def rewrite(self, **records: dict[str, Any]) -> None:
        """Put the journal back to where it held no more than this."""
        self.journal.remove()
        self.journal.create(records.pop("launch"))
        for word, record in records.items():
            self.journal.append(word, record)

    async def status(self) -> Status:
        return (await self.launcher.status([ATTEMPT]))[ATTEMPT]

    async def until(self, phase: Phase, launcher: ProcessLauncher | None = None) -> Status:
        async def reached() -> Status | None:
            status = (await (launcher or self.launcher).status([ATTEMPT]))[ATTEMPT]
            return status if status.phase is phase else None

        return await becomes(reached, phase)


@pytest.fixture
def base() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="perijove-"))
    base.chmod(0o711)
    yield base
    # A supervisor without work removes its own pipe just then.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(base)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=[None, "off"], ids=["cgroups", "no cgroups"])
async def site(request: pytest.FixtureRequest, base: Path) -> AsyncIterator[Site]:
    site = Site(base, request.param)
    await site.launcher.open()
    try:
        yield site
    finally:
        await site.launcher.stop(ATTEMPT, grace=0.0)
        await site.launcher.remove(ATTEMPT)
        await site.launcher.close()


async def test_a_killed_supervisor_is_found_and_what_it_left_killed(site: Site) -> None:
    script = 'sleep 60 & echo $! > "$PERIJOVE_JOB_DIR/child"; wait'
    await site.launcher.start(site.launch(script))
    await until(lambda: site.file("child"), "the child")
    child = processes.identify(int(site.file("child")))
    assert child is not None
    watching = asyncio.create_task(_first(site.launcher))
    await asyncio.sleep(0)
    record = site.record("running")
    os.kill(record["supervisor"][0], signal.SIGKILL)
    assert ATTEMPT in await asyncio.wait_for(watching, 10)
    status = await site.until(Phase.EXITED)
    assert status.exit_code is None
    assert "supervisor was killed" in status.message
    assert status.started is not None and status.ended is not None
    assert not processes.alive(Identity(*record["command"]))
    assert not processes.alive(child)


async def _first(launcher: ProcessLauncher) -> Any:
    async for attempts in launcher.watch():
        return attempts


async def test_a_new_job_finds_a_new_supervisor(site: Site) -> None:
    await site.launcher.start(site.launch("exit 0"))
    await site.until(Phase.EXITED)
    os.kill(site.record("running")["supervisor"][0], signal.SIGKILL)
    await site.launcher.remove(ATTEMPT)
    await site.launcher.start(site.launch("exit 5"))
    assert (await site.until(Phase.EXITED)).exit_code == 5


async def test_an_end_that_cannot_be_written_is_written_later_and_ends_nobody_else(site: Site) -> None:
    """Something is in the way of the journal when the command ends."""
    launch = site.launch("read line < $PERIJOVE_JOB_DIR/go; exit 3")
    os.mkfifo(site.base / "attempt/job/go")
    await site.launcher.start(launch)
    await site.until(Phase.RUNNING)
    supervisor = site.record("running")["supervisor"][0]
    command = site.record("running")["command"][0]
    path = site.context.directory / "attempts" / str(ATTEMPT)
    aside = path.with_name("aside")
    path.rename(aside)
    path.mkdir()
    (site.base / "attempt/job/go").write_text("now\n")
    await until(lambda: not Path(f"/proc/{command}").exists(), "the command to end")
    log = next(site.context.directory.glob("*.log"))
    await until(lambda: "IsADirectoryError" in log.read_text(), "a try to write it")
    path.rmdir()
    aside.rename(path)
    status = await site.until(Phase.EXITED)
    assert status.exit_code == 3
    os.kill(supervisor, 0)  # it lives


async def test_the_number_of_a_dead_supervisor_given_to_another_does_not_deceive(site: Site) -> None:
    await site.launcher.start(site.launch("sleep 60"))
    record = site.record("running")
    await site.launcher.stop(ATTEMPT, grace=0.0)
    stranger = processes.identify(os.getpid())
    assert stranger is not None
    record["supervisor"] = [stranger.pid, stranger.started - 5]
    site.rewrite(launch=site.record("launch"), running=record)
    anew = await _another(site)
    status = (await anew.status([ATTEMPT]))[ATTEMPT]
    assert (status.phase, status.exit_code) == (Phase.EXITED, None)
    await anew.close()


async def _another(site: Site) -> ProcessLauncher:
    launcher = ProcessLauncher(site.context)
    await launcher.open()
    return launcher


@pytest.mark.parametrize("last", ["running", "launch"])
async def test_after_a_restart_of_the_machine_nothing_is_run_again(site: Site, last: str) -> None:
    await site.launcher.start(site.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"; sleep 0.1'))
    await site.until(Phase.EXITED)
    words = ["launch"] if last == "launch" else ["launch", "running"]
    site.rewrite(**{word: {**site.record(word), "boot": "an earlier one"} for word in words})
    anew = await _another(site)
    await anew.start(site.launch("unused"))
    status = (await anew.status([ATTEMPT]))[ATTEMPT]
    assert (status.phase, status.exit_code) == (Phase.EXITED, None)
    assert "machine was restarted" in status.message
    assert site.file("ran") == "ran\n"
    await anew.close()


async def test_a_start_cut_short_after_its_record_goes_on(site: Site) -> None:
    launch = site.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"')
    await site.launcher.start(launch)
    await site.until(Phase.EXITED)
    site.rewrite(launch=site.record("launch"))
    anew = await _another(site)
    assert (await anew.status([ATTEMPT]))[ATTEMPT].phase is Phase.CREATED
    assert await anew.recover() == [ATTEMPT]
    # Once to have a record to cut, and once for the start that goes on.
    await anew.start(launch)
    await site.until(Phase.EXITED, anew)
    assert site.file("ran") == "ran\nran\n"
    await anew.close()


async def test_what_was_only_recorded_can_be_stopped_and_is_not_started_then(site: Site) -> None:
    launch = site.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"')
    await site.launcher.start(launch)
    await site.until(Phase.EXITED)
    site.rewrite(launch=site.record("launch"))
    anew = await _another(site)
    await anew.stop(ATTEMPT, grace=1.0)
    await anew.start(launch)
    status = (await anew.status([ATTEMPT]))[ATTEMPT]
    assert (status.phase, status.message) == (Phase.EXITED, "it was stopped before it was started")
    assert site.file("ran") == "ran\n"
    await anew.close()


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.008])
async def test_whenever_the_supervisor_is_killed_a_job_never_runs_twice(site: Site, delay: float) -> None:
    launch = site.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"; sleep 0.2')
    pid = int(next((site.context.directory / "supervisors").iterdir()).name.partition(".")[0])
    starting = asyncio.create_task(site.launcher.start(launch))
    await asyncio.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(starting, 20)
    await site.until(Phase.EXITED)
    # It either ran to its end once, or was cut down with its supervisor, and then says so.
    status = await site.status()
    assert site.file("ran") in {"ran\n", ""}
    assert status.exit_code == 0 or "supervisor was killed" in status.message
    await asyncio.sleep(0.3)
    assert site.file("ran") in {"ran\n", ""}


def test_a_torn_line_is_no_line() -> None:
    whole = b'\nlaunch {"boot": "x"}\n\nrunning {"boot": "x"}\n'
    for cut in range(len(whole) - 1):
        assert "running" not in Entries(whole[:cut])
    assert Entries(whole).get("running") == {"boot": "x"}
    assert Entries(b"\nlaunch {\x00\x00\n").get("launch") is None


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "12.1"
    path.write_bytes(b'\nlaunch {}\n\nrunning {"bo')
    journal = AttemptJournal(str(path))
    journal.append("ended", {"message": "x"})
    entries = journal.read()
    assert entries is not None
    assert entries.get("ended") == {"message": "x"}


def test_a_journal_is_begun_once(tmp_path: Path) -> None:
    journal = AttemptJournal(str(tmp_path / "12.1"))
    assert journal.read() is None
    journal.append("ended", {})
    assert journal.read() is None
    journal.create({"first": 1})
    journal.create({"first": 2})
    entries = journal.read()
    assert entries is not None
    assert entries.get("launch") == {"first": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["12.1"]


def test_one_claim_at_a_time(tmp_path: Path) -> None:
    journal = AttemptJournal(str(tmp_path / "12.1"))
    assert journal.claim() is None
    journal.create({})
    claim = journal.claim()
    assert claim is not None
    assert journal.claim() is None
    os.close(claim)
    assert journal.claim() is not None


async def test_a_journal_that_lost_its_text_with_the_power(site: Site) -> None:
    os.close(os.open(site.journal.path, os.O_CREAT | os.O_WRONLY))
    await site.launcher.start(site.launch('echo ran >> "$PERIJOVE_JOB_DIR/ran"'))
    status = await site.status()
    assert (status.phase, status.exit_code) == (Phase.EXITED, None)
    assert site.file("ran") == ""


async def test_the_working_directory_must_be_there(site: Site) -> None:
    launch = site.launch("true", cwd="/no/such/directory")
    with pytest.raises(LaunchError, match="cwd: cannot enter /no/such/directory: No such file or directory"):
        await site.launcher.start(launch)
    assert (await site.status()).phase is Phase.UNKNOWN
    assert await site.launcher.recover() == []


async def test_the_users_output_file_must_be_writable(site: Site) -> None:
    launch = site.launch("true", stdout="/no/such/directory/out")
    with pytest.raises(LaunchError, match="stdout: cannot write /no/such/directory/out"):
        await site.launcher.start(launch)
    assert (await site.status()).phase is Phase.UNKNOWN


async def test_a_preparation_that_never_ends_holds_up_nobody(site: Site) -> None:
    pipe = site.base / "pipe"
    os.mkfifo(pipe)
    blocked = asyncio.create_task(site.launcher.start(site.launch("true", stdout=str(pipe))))
    await asyncio.sleep(0.2)
    other = Attempt(13, 1)
    directory = site.base / "other"
    directory.mkdir()
    await asyncio.wait_for(site.launcher.start(site.launch("exit 4", attempt=other, directory=directory)), 10)
    await asyncio.wait_for(site.launcher.stop(ATTEMPT, grace=0.0), 10)
    with pytest.raises(LaunchError, match="stopped while it was being prepared"):
        await asyncio.wait_for(blocked, 10)
    await site.launcher.stop(other, grace=1.0)
    await site.launcher.remove(other)


async def test_who_is_not_root_runs_nobody_elses_jobs(site: Site) -> None:
    if os.geteuid() != 0:
        absent("the rights of root, to be somebody else,")
    stranger = Account("alice", 20011, 20011, "/", ())
    launch = site.launch("true", account=stranger)
    for folder in (site.context.directory, site.context.directory / "attempts"):
        os.chmod(folder, 0o755)  # noqa: PTH101
    with as_user(20099), pytest.raises(LaunchError, match=r"uid 20099 .* not as alice \(uid 20011\)"):
        await site.launcher.start(launch)
    assert (await site.status()).phase is Phase.UNKNOWN


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("site", ["off"], indirect=True)
async def test_without_a_cgroup_memory_is_bounded_for_each_process(site: Site) -> None:
    script = "held=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"
    await site.launcher.start(site.launch(script, memory=64 << 20))
    status = await site.until(Phase.EXITED)
    assert status.exit_code != 0
    assert b"survived" not in await site.launcher.logs(ATTEMPT, "stdout", offset=0, limit=100)


async def test_no_end_is_removed_while_it_runs(site: Site) -> None:
    await site.launcher.start(site.launch("sleep 60"))
    with pytest.raises(LaunchError, match="still runs"):
        await site.launcher.remove(ATTEMPT)


async def test_nothing_is_left_after_removal(site: Site) -> None:
    await site.launcher.start(site.launch("sleep 60 & sleep 0.2"))
    record = site.record("running")
    await site.until(Phase.EXITED)
    await site.launcher.remove(ATTEMPT)
    assert site.journal.read() is None
    assert not processes.session_members(Identity(*record["command"]))
    groups = (record["cgroup"] or {}).get("directories", {})
    assert not any(os.path.exists(directory) for directory in groups.values())  # noqa: ASYNC240, PTH110


async def test_what_ends_as_soon_as_it_goes_on_was_resumed(site: Site) -> None:
    script = "trap 'exit 3' TERM; echo yes > \"$PERIJOVE_JOB_DIR/ready\"; sleep 60 & wait"
    await site.launcher.start(site.launch(script))
    await until(lambda: site.file("ready"), "the trap")
    await site.launcher.suspend(ATTEMPT)
    os.kill(site.record("running")["command"][0], signal.SIGTERM)
    resuming = asyncio.create_task(site.launcher.resume(ATTEMPT))
    await asyncio.sleep(0)
    # The launcher has given its order, and cannot look before all is over.
    wait_until(lambda: (entries := site.journal.read()) and "ended" in entries, "the end")
    await resuming
    assert (await site.status()).exit_code == 3


async def test_what_is_lost_while_suspended_was_not_resumed(site: Site) -> None:
    await site.launcher.start(site.launch("sleep 60"))
    await site.launcher.suspend(ATTEMPT)
    os.kill(site.record("running")["supervisor"][0], signal.SIGKILL)
    with pytest.raises(LaunchError, match="does not run"):
        await site.launcher.resume(ATTEMPT)


async def test_exec_is_cut_at_its_size(site: Site) -> None:
    await site.launcher.start(site.launch("sleep 60"))
    code, output = await site.launcher.exec(ATTEMPT, ["head", "-c", "3000000", "/dev/zero"])
    assert (code, len(output)) == (0, 1 << 20)
