"""`perijove up`: what it plans, and that what it starts is kept running and ends with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from perijove.connection import state_directory
from perijove.model import OperatorError
from perijove_hub.hub_config import PREFIX
from perijove_hub.private_files import kept_secret, write_private
from perijove_hub.up.engine import LauncherChoice, choose_launcher, gateway_of
from perijove_hub.up.leash import leashed
from perijove_hub.up.lock import StateLock
from perijove_hub.up.plan import Plan, UpOptions, make_plan, ports_wanted
from perijove_hub.up.ports import RANGE, choose_ports, is_free, keep_ports
from perijove_hub.up.run import in_a_terminal, prepare_state
from perijove_hub.up.supervisor import Child, Program, backoff, end_leftovers, record_process
from perijove_hub.up.trial import FIRST_UID, TrialAccount, trial_account

PORTS = {"scheduler": 20_001, "service": 20_002, "hub": 20_003, "proxy": 20_004, "public": 20_005}
DOCKER = LauncherChoice("docker", "an engine answers", gateway="172.17.0.1")
PROCESS = LauncherChoice("process", "no engine")
TRIAL = TrialAccount("tour", "pA55-of-the-trial", 20_000)


def plan(
    options: UpOptions, choice: LauncherChoice = DOCKER, env: dict[str, str] | None = None, **more: Any
) -> Plan:
    given: dict[str, Any] = {"installation": "abc", "root": True, **more}
    return make_plan(options, choice, PORTS, TRIAL, env or {}, ["node", "chp"], **given)


# the plan


def test_with_a_hub_scheduler_node_and_hub_start_in_this_order(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path))
    assert [program.name for program in made.programs] == ["scheduler", "node", "hub"]
    assert made.url == "http://127.0.0.1:8000"
    assert made.api_url == f"http://127.0.0.1:20002{PREFIX}"


def test_without_a_hub_the_service_listens_where_people_and_containers_reach_it(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path, hub=False))
    serve = made.programs[-1]
    assert (serve.name, made.url, made.hub) == ("serve", "http://127.0.0.1:8008", None)
    assert serve.env["PERIJOVE_LISTEN"] == "127.0.0.1:8008,172.17.0.1:8008"
    assert serve.env["PERIJOVE_MODE"] == "single"


def test_listening_everywhere_is_said_once(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path, hub=False, host="0.0.0.0", port=9000))
    assert made.programs[-1].env["PERIJOVE_LISTEN"] == "0.0.0.0:9000"
    assert made.url == "http://localhost:9000"


def test_containers_reach_hub_and_service_by_the_bridge(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path, port=0))
    assert made.hub is not None
    assert (made.hub.hub_host, made.hub.port) == ("172.17.0.1", PORTS["public"])
    assert made.hub.service_url == f"http://172.17.0.1:20002{PREFIX}"


def test_processes_stay_on_loopback(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path), PROCESS)
    assert made.hub is not None
    assert made.hub.hub_host == "127.0.0.1"
    assert made.programs[-1].env["PERIJOVE_LISTEN"] == "127.0.0.1:20002"


def test_users_of_a_hub_get_no_way_round_the_containers(tmp_path: Path) -> None:
    def offered(made: Plan) -> str:
        command = list(made.programs[1].command)
        return command[command.index("--launcher") + 1]

    assert offered(plan(UpOptions(tmp_path))) == "docker"
    assert offered(plan(UpOptions(tmp_path, hub=False))) == "docker,process"
    assert offered(plan(UpOptions(tmp_path, hub=False), PROCESS)) == "process"


def test_the_operators_accounts_stay_beside_the_trial_account(tmp_path: Path) -> None:
    mine = json.dumps({"guest": {"uid": 30_000, "gid": 30_000}})
    env = plan(UpOptions(tmp_path), env={"PERIJOVE_ACCOUNTS": mine}).programs[-1].env
    assert set(json.loads(env["PERIJOVE_ACCOUNTS"])) == {"guest", "tour"}


def test_an_ordinary_user_lets_nobody_else_in(tmp_path: Path) -> None:
    made = plan(UpOptions(tmp_path), root=False)
    assert made.hub is not None
    assert not made.hub.local_accounts


def test_no_secret_is_in_a_command_line(tmp_path: Path) -> None:
    for options in (UpOptions(tmp_path), UpOptions(tmp_path, hub=False)):
        for program in plan(options).programs:
            assert TRIAL.password not in " ".join(program.command)
            assert "token" not in " ".join(program.command).lower()


def test_the_command_it_recommends_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home of ada"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", "/usr/bin")
    program = f"{tmp_path}/bin/perijove"
    elsewhere = in_a_terminal(tmp_path / "a state", program)
    assert elsewhere == f"PERIJOVE_STATE='{tmp_path}/a state' {program} run -- hostname"
    usual = state_directory({"HOME": str(home)})
    assert in_a_terminal(usual, program) == f"{program} run -- hostname"


# launcher and gateway


def test_a_launcher_asked_for_is_taken() -> None:
    assert choose_launcher("process").name == "process"


def test_without_an_engine_jobs_are_processes_and_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    choice = choose_launcher()
    assert choice.name == "process"
    assert "no Docker Engine answers" in choice.why


@pytest.mark.parametrize(
    ("bridge", "interfaces", "expected"),
    [
        ({"IPAM": {"Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.9"}]}}, {}, "10.1.0.9"),
        ({"IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}}, {"docker0": "10.1.0.7"}, "10.1.0.7"),
        ({"IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}}, {}, "10.1.0.1"),
        ({"IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}]}}, {}, None),
        ({"IPAM": {"Config": None}, "Options": None}, {}, None),
        ({}, {"docker0": "10.1.0.7"}, "10.1.0.7"),
        (
            {"Options": {"com.docker.network.bridge.name": "br0"}},
            {"docker0": "10.1.0.7", "br0": "10.2.0.1"},
            "10.2.0.1",
        ),
    ],
)
def test_the_hosts_address_on_the_bridge(
    bridge: dict[str, Any], interfaces: dict[str, str], expected: str | None
) -> None:
    assert gateway_of(bridge, interfaces) == expected


# ports


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(RANGE.start, RANGE.stop - 1)),
    st.sets(st.integers(RANGE.start, RANGE.stop - 1), max_size=50),
    st.integers(),
)
def test_ports_are_distinct_free_and_kept_when_they_can_be(
    kept: dict[str, int], taken: set[int], seed: int
) -> None:
    wanted = dict.fromkeys("abcd", ("127.0.0.1",))
    chosen = choose_ports(wanted, kept, lambda _host, port: port not in taken, seed)
    assert set(chosen) == set(wanted)
    assert len(set(chosen.values())) == len(chosen)
    assert not taken & set(chosen.values())
    earlier: set[int] = set()
    for name in wanted:
        if name in kept and kept[name] not in taken | earlier:
            assert chosen[name] == kept[name]
        earlier.add(chosen[name])


def test_no_port_left_is_an_operators_error() -> None:
    with pytest.raises(OperatorError, match="free for service"):
        choose_ports({"service": ("127.0.0.1",)}, {}, lambda _host, _port: False)


def test_ports_stay_the_same_over_runs_that_want_different_ones(tmp_path: Path) -> None:
    file, loopback = tmp_path / "ports.json", ("127.0.0.1",)
    first = keep_ports(file, {"hub": loopback, "service": loopback})
    keep_ports(file, {"scheduler": loopback})
    assert keep_ports(file, {"service": loopback, "hub": loopback}) == first


def test_a_damaged_file_of_ports_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[not json")
    assert keep_ports(tmp_path / "ports.json", {"hub": ("127.0.0.1",)})["hub"] in RANGE


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free("127.0.0.1", server.getsockname()[1])


@pytest.mark.parametrize("hub", [True, False])
def test_every_port_the_plan_uses_is_asked_for(tmp_path: Path, hub: bool) -> None:
    options = UpOptions(tmp_path, hub=hub, port=0)
    wanted = ports_wanted(options, DOCKER)
    ports = {name: 20_000 + i for i, name in enumerate(wanted)}
    make_plan(options, DOCKER, ports, TRIAL, {}, [], installation="abc", root=False)
    assert DOCKER.gateway in wanted["service" if hub else "public"]


# files


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    secret = kept_secret(tmp_path / "token")
    assert kept_secret(tmp_path / "token") == secret
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_private(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=str(tmp_path / "file" / "state")):
        prepare_state(tmp_path / "file" / "state")


def test_the_trial_account_keeps_its_password_and_uid(tmp_path: Path) -> None:
    prepare_state(tmp_path)
    account = trial_account(tmp_path)
    assert trial_account(tmp_path) == account
    assert account.name != "root"
    if account.uid is not None:
        (tmp_path / "homes" / account.name).mkdir()
        os.chown(tmp_path / "homes" / account.name, FIRST_UID + 77, FIRST_UID + 77)
        assert trial_account(tmp_path) == replace(account, uid=FIRST_UID + 77)


def test_the_second_up_of_a_state_directory_names_the_first(tmp_path: Path) -> None:
    with (
        StateLock(tmp_path),
        pytest.raises(OperatorError, match=rf"pid {os.getpid()}\)"),
        StateLock(tmp_path),
    ):
        pass
    with StateLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


# children


def script(folder: Path, name: str, text: str) -> list[str]:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


@asynccontextmanager
async def child(state: Path, *command: str, grace: float = 5.0) -> AsyncIterator[Child]:
    prepare_state(state)
    made = Child(Program("it", command, dict(os.environ), grace=grace), state)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def starts(state: Path) -> list[int]:
    file = state / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def sleeper(folder: Path) -> list[str]:
    return script(
        folder,
        "sleeper.py",
        f"""
        import os, time
        with open({str(folder / "pids")!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep(60)
        """,
    )


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with child(tmp_path, *sleeper(tmp_path)):
        await until(lambda: starts(tmp_path), "the first start")
        os.kill(starts(tmp_path)[0], signal.SIGKILL)
        await until(lambda: len(starts(tmp_path)) == 2, "the second start")
    assert not any(psutil.pid_exists(pid) for pid in starts(tmp_path))


async def test_a_hopeless_child_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    program = script(tmp_path, "broken.py", 'raise SystemExit("the disk is full")')
    async with child(tmp_path, *program) as broken:
        with pytest.raises(OperatorError, match=r"it ended 5 times in a row(?s:.*)the disk is full"):
            await asyncio.wait_for(broken.failed, 30)


async def test_a_child_that_does_not_listen_is_killed_with_its_group(tmp_path: Path) -> None:
    stubborn = script(
        tmp_path,
        "stubborn.py",
        f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        with open({str(tmp_path / "pids")!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep(60)
        """,
    )
    async with child(tmp_path, *stubborn, grace=0.3):
        await until(lambda: len(starts(tmp_path)) == 2, "both processes")
    alive = [pid for pid in starts(tmp_path) if psutil.pid_exists(pid)]
    await until(
        lambda: all(
            not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
            for pid in alive
        ),
        "the end of the group",
    )


async def test_stopping_while_a_dead_child_waits_for_its_next_start(tmp_path: Path) -> None:
    program = script(tmp_path, "ends.py", f"open({str(tmp_path / 'pids')!r}, 'a').write('1\\n')")
    async with child(tmp_path, *program):
        await until(lambda: len(starts(tmp_path)) >= 2, "two starts")
    count = len(starts(tmp_path))
    await asyncio.sleep(0.6)
    assert len(starts(tmp_path)) == count


@pytest.mark.parametrize("deaths", range(40))
def test_the_pause_before_a_start_grows_and_is_bounded(deaths: int) -> None:
    assert 0.25 <= backoff(deaths) <= 30
    assert backoff(deaths) <= backoff(deaths + 1)


def test_what_is_on_a_leash_ends_with_a_killed_parent(tmp_path: Path) -> None:
    parent = script(
        tmp_path,
        "parent.py",
        f"""
        import subprocess
        subprocess.run({leashed(*sleeper(tmp_path))!r})
        """,
    )
    with subprocess.Popen(parent) as process:
        asyncio.run(until(lambda: starts(tmp_path), "the start"))
        leashed_child = psutil.Process(starts(tmp_path)[0])
        process.kill()
    leashed_child.wait(10)


def test_a_leash_whose_parent_has_gone_already_starts_nothing() -> None:
    env = {**os.environ, "PERIJOVE_PARENT_PID": "1"}
    done = subprocess.run(leashed("echo", "hi"), env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has gone" in done.stderr


def test_leftovers_are_ended_and_strangers_with_their_pid_are_not(tmp_path: Path) -> None:
    left, stranger = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        record_process(tmp_path / "node.json", left.pid)
        record_process(tmp_path / "hub.json", stranger.pid)
        record = json.loads((tmp_path / "hub.json").read_text())
        write_private(tmp_path / "hub.json", json.dumps({**record, "created": record["created"] - 1000}))
        (tmp_path / "serve.json").write_text("half writ")
        assert end_leftovers(tmp_path, grace=5) == [left.pid]
        assert not psutil.pid_exists(left.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert list(tmp_path.iterdir()) == []
