"""A job does what its launch says, as whom and where it says, and its end is told truly."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import absent

from perijove_spawners.launcher import LaunchError, Phase

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand

UNICODE = "Grüße, 木星 🪐 'quoted' \"twice\" $HOME `id` \\ *"


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_the_exit_code_is_told(stand: Stand, code: int) -> None:
    before = time.time()
    result = await stand.run(stand.programs.exit(code))
    assert result.status.phase is Phase.EXITED
    assert result.status.exit_code == code
    assert not result.status.out_of_memory and not result.status.timed_out
    assert result.status.started and result.status.ended
    # Engines round their clocks.
    assert before - 1 <= result.status.started <= result.status.ended <= time.time() + 1


@pytest.mark.parametrize("number", [9, 15])
async def test_an_end_by_signal_is_told_as_by_a_shell(stand: Stand, number: int) -> None:
    result = await stand.run(stand.programs.signal(number))
    assert result.status.exit_code == 128 + number


async def test_what_runs_is_running(stand: Stand) -> None:
    launch = await stand.start(stand.programs.sleep(60))
    status = await stand.status(launch)
    assert status.phase is Phase.RUNNING
    assert status.exit_code is None
    assert status.started is not None


async def test_both_streams_are_kept_apart(stand: Stand) -> None:
    programs = stand.programs
    result = await stand.run(programs.echo("to out"), programs.complain("to err"), programs.echo("and out"))
    assert result.stdout == b"to out\nand out\n"
    assert result.stderr == b"to err\n"


async def test_the_environment_is_as_given(stand: Stand) -> None:
    result = await stand.run(stand.programs.print("GREETING"), env={"GREETING": UNICODE})
    assert result.stdout.decode() == UNICODE + "\n"


@pytest.mark.needs("real")
async def test_nothing_of_the_agents_environment_is_handed_on(stand: Stand) -> None:
    os.environ["PERIJOVE_OF_THE_AGENT"] = "secret"
    try:
        result = await stand.run("env")
    finally:
        del os.environ["PERIJOVE_OF_THE_AGENT"]
    assert b"secret" not in result.stdout


async def test_64_kib_of_environment(stand: Stand) -> None:
    value = "x" * (64 * 1024)
    result = await stand.run(stand.programs.print("LARGE"), env={"LARGE": value})
    assert result.stdout.decode() == value + "\n"


async def test_arguments_arrive_as_they_were_given(stand: Stand) -> None:
    result = await stand.run(stand.programs.echo(UNICODE))
    assert result.stdout.decode() == UNICODE + "\n"


@pytest.mark.needs("real")
async def test_no_shell_looks_at_the_arguments(stand: Stand) -> None:
    result = await stand.run(command=("printf", "%s\n", "$HOME; echo", "", "two words", "a\nb"))
    assert result.stdout.decode() == "$HOME; echo\n\ntwo words\na\nb\n"


async def test_the_working_directory(stand: Stand) -> None:
    inner = stand.folder("home/inner")
    result = await stand.run(stand.programs.pwd(), cwd=str(inner))
    assert result.text == str(inner)


async def test_uid_gid_and_groups_are_in_force(stand: Stand) -> None:
    result = await stand.run(stand.programs.account())
    ids, _, groups = result.text.partition(" ")
    assert ids == f"{stand.account.uid}:{stand.account.gid}"
    wanted = {str(group) for group in stand.account.groups}
    assert wanted <= set(groups.split(",")) <= wanted | {str(stand.account.gid)}


@pytest.mark.needs("real")
async def test_files_belong_to_the_account(stand: Stand) -> None:
    await stand.run('touch "$HOME/mine"')
    made = (stand.home / "mine").stat()
    assert (made.st_uid, made.st_gid) == (stand.account.uid, stand.account.gid)
    assert made.st_mode & 0o777 == 0o644


@pytest.mark.needs("real")
async def test_others_files_are_out_of_reach(stand: Stand) -> None:
    if os.geteuid() != 0:
        absent("the rights of root, to run jobs of others,")
    secret = stand.home / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    result = await stand.run(f"cat {secret}")
    assert result.status.exit_code != 0
    assert b"of root" not in result.stdout


async def test_the_job_directory_is_the_jobs(stand: Stand) -> None:
    launch = await stand.start(stand.programs.append("notes", "here"))
    await stand.end_of(launch)
    assert stand.file(launch, "notes") == "here\n"


@pytest.mark.needs("real")
async def test_there_is_nothing_to_read_on_standard_input(stand: Stand) -> None:
    result = await stand.run("cat; echo read")
    assert result.text == "read"


@pytest.mark.needs("real")
async def test_signals_are_as_new(stand: Stand) -> None:
    result = await stand.run("grep -E 'Sig(Blk|Ign)' /proc/self/status; yes | head -1")
    masks = dict(line.split(":") for line in result.text.splitlines()[:2])
    # Signals 32 and 33 are the C library's own, and no program can change what it does with them.
    assert {int(mask, 16) & 0x7FFF_FFFF for mask in masks.values()} == {0}
    assert result.stderr == b""


@pytest.mark.needs("real")
async def test_a_program_that_is_not_there(stand: Stand) -> None:
    launch = stand.launch(command=("no-such-program", "x"))
    refused = ""
    try:
        await stand.launcher.start(launch)
    except LaunchError as error:
        # An engine may find out at the start already.
        refused = str(error)
    if refused:
        assert "no-such-program" in refused
        assert (await stand.status(launch)).phase is Phase.UNKNOWN
    else:
        assert (await stand.end_of(launch)).exit_code == stand.target.not_found
        said = await stand.log(launch, "stderr")
        assert b"no-such-program" in said or b"failed to exec" in said


@pytest.mark.needs("real")
async def test_no_new_privileges(stand: Stand) -> None:
    result = await stand.run("grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status")
    assert result.text.split() == ["NoNewPrivs:", "1", "CapEff:", "0000000000000000"]


@pytest.mark.needs("real")
async def test_no_descriptor_of_the_agent_is_handed_on(stand: Stand) -> None:
    result = await stand.run("ls /proc/self/fd")
    # The fourth is of ls itself.
    assert result.text.split() == ["0", "1", "2", "3"]


@pytest.mark.needs("real", "processes")
async def test_output_goes_to_the_users_files(stand: Stand) -> None:
    launch = await stand.start("echo out; echo err >&2", stdout="out.txt", stderr="err.txt")
    assert (await stand.end_of(launch)).exit_code == 0
    assert (stand.home / "out.txt").read_text() == "out\n"
    assert (stand.home / "err.txt").read_text() == "err\n"
    assert (stand.home / "out.txt").stat().st_uid == stand.account.uid


async def test_running_another_command_beside_it(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(programs.sleep(60), env={"GREETING": UNICODE})
    parts = (
        programs.print("GREETING"),
        programs.account(),
        programs.pwd(),
        programs.complain("oh"),
        programs.exit(4),
    )
    code, output = await stand.launcher.exec(launch.attempt, programs.command(*parts))
    assert code == 4
    lines = output.decode().splitlines()
    # the two streams may pass each other
    lines.remove("oh")
    greeting, account, cwd = lines
    assert greeting == UNICODE
    assert account.startswith(f"{stand.account.uid}:{stand.account.gid}")
    assert cwd == str(stand.home)


@pytest.mark.needs("real")
async def test_a_start_is_noted_or_follows_from_the_launch(stand: Stand) -> None:
    launch = await stand.start(stand.programs.exit(0), env={"PASSWORD": "s3cret"})
    await stand.end_of(launch)
    noted = [call for attempt, call in stand.calls if attempt == launch.attempt]
    told = stand.launcher.call(launch)
    assert bool(noted) != bool(told), "one of the two, and never both"
    calls = noted + ([told] if told else [])
    assert "exit 0" in json.dumps([call.body for call in calls])
    assert "s3cret" not in repr(calls)
