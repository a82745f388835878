"""The command line as people and scripts meet it: a real process, its output and its exit code."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.conftest import Service
from typer.testing import CliRunner

from perijove.cli.app import app
from perijove.cli.submit import work

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Perijove = Callable[..., Done]


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from perijove.cli import main; main()", *words]


@pytest.fixture
def perijove(service: Service, home: Path) -> Perijove:
    """Runs ``perijove WORDS`` with an own home and the service in the environment."""
    env = {**os.environ, **service.env, "HOME": str(home)}

    def run(*words: str, env: dict[str, str] = env, stdin: str = "", cwd: Path | None = None) -> Done:
        done = subprocess.run(
            command(*words), env=env, input=stdin, cwd=cwd or home, capture_output=True, text=True, timeout=60
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def test_submit_prints_the_id_and_nothing_else(perijove: Perijove) -> None:
    done = perijove("submit", "--name", "first", "--", "echo", "hi")
    assert (done.code, done.err) == (0, "")
    job_id = done.out.strip()
    assert job_id.isdecimal()
    assert perijove("wait", job_id) == Done(0, f"{job_id} succeeded\n", "")
    assert perijove("logs", job_id) == Done(0, "hi\n", "")
    shown = perijove("show", job_id, "--json").json()
    names = {"id", "state", "exit_code", "reason", "node", "attempt", "submitted", "started", "ended"}
    assert names <= shown.keys()
    assert (shown["id"], shown["state"], shown["exit_code"], shown["name"]) == (
        int(job_id),
        "succeeded",
        0,
        "first",
    )


def test_wait_streams_and_exits_like_the_job(perijove: Perijove) -> None:
    done = perijove("submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done == Done(7, "out\n", "err\n")
    assert perijove("run", "--", "echo", "ok") == Done(0, "ok\n", "")


def test_run_and_logs_as_json(perijove: Perijove) -> None:
    done = perijove("run", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    job = json.loads(done.out)
    assert (done.code, job["state"], job["exit_code"]) == (7, "failed", 7)
    for options in ((), ("-f",)):
        lines = perijove("logs", "--json", *options, str(job["id"])).out.splitlines()
        pieces = sorted((piece["stream"], piece["text"]) for piece in map(json.loads, lines))
        assert pieces == [("stderr", "err\n"), ("stdout", "out\n")]


def test_a_signal_is_128_and_its_number(perijove: Perijove) -> None:
    assert perijove("run", "--", "sh", "-c", "kill -9 $$").code == 137


def test_a_killed_job_is_1_with_a_word(perijove: Perijove, service: Service, home: Path) -> None:
    env = {**os.environ, **service.env, "HOME": str(home)}
    waiting = subprocess.Popen(
        command("run", "--name", "killed", "--", "sleep", "60"), env=env, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (running := perijove("ls", "--name", "killed", "-s", "running", "--json").json()):
        assert time.monotonic() < deadline
    assert perijove("kill", str(running[0]["id"])).code == 0
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 1
    assert "killed" in err


def test_an_interrupt_leaves_the_job_and_says_so(perijove: Perijove, service: Service, home: Path) -> None:
    env = {**os.environ, **service.env, "HOME": str(home)}
    waiting = subprocess.Popen(
        command("run", "--name", "left", "--", "sleep", "60"), env=env, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (running := perijove("ls", "--name", "left", "-s", "running", "--json").json()):
        assert time.monotonic() < deadline
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    job_id = str(running[0]["id"])
    assert waiting.returncode == 130
    assert f"perijove kill {job_id}" in err
    assert "Traceback" not in err
    assert perijove("show", job_id, "--json").json()["state"] == "running"
    perijove("kill", job_id)


def test_a_script_file_travels_as_text(perijove: Perijove, home: Path) -> None:
    script = home / "job.sh"
    script.write_text("#!/bin/sh\necho from $# arguments: $1\n")
    assert perijove("run", "job.sh", "one").out == "from 1 arguments: one\n"
    done = perijove("submit", "--json", "--", "job.sh")
    assert done.json()["name"] == "job.sh"


def test_what_is_a_script_and_what_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain, program = tmp_path / "plain.sh", tmp_path / "program"
    plain.write_text("echo hi\n")
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\xff")
    assert work(["plain.sh"], True) == {"name": "plain.sh", "script": "echo hi\n"}
    assert work(["plain.sh", "a"], False) == {"name": "plain.sh", "script": "echo hi\n", "args": ["a"]}
    assert work(["./program", "a"], True) == {"command": ["./program", "a"]}
    assert work(["./binary"], False) == {"command": ["./binary"]}
    assert work(["ls", "-l"], False) == {"command": ["ls", "-l"]}


def test_a_program_of_another_language_is_not_given_to_the_shell(perijove: Perijove, home: Path) -> None:
    program = home / "train.py"
    program.write_text("import sys\nprint(sys.argv[1:])\n")
    done = perijove("submit", "train.py", "a")
    assert (done.code, done.out) == (1, "")
    assert "-- python3 train.py" in done.err
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    assert perijove("run", "train.py", "a") == Done(0, "['a']\n", "")


def test_options_of_the_command_are_its_own(perijove: Perijove) -> None:
    assert perijove("run", "echo", "--json", "-v").out == "--json -v\n"


def test_options_reach_the_spec(perijove: Perijove) -> None:
    words = (
        "--cpus 0.5 --memory 64M --time 1d12h -e A=1 --env B=x=y --label k=v --priority 7 --retries 2 --hold"
    )
    spec = perijove("submit", *words.split(), "--json", "--", "true").json()["spec"]
    assert (spec["cpu"], spec["memory"], spec["time_limit"]) == (0.5, 64 << 20, 36 * 3600)
    assert (spec["env"], spec["labels"]) == ({"A": "1", "B": "x=y"}, {"k": "v"})
    assert (spec["priority"], spec["retries"], spec["hold"]) == (7, 2, True)


def test_the_working_directory_travels_where_processes_run(perijove: Perijove, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert perijove("run", "--cwd", str(elsewhere), "--", "pwd").out == f"{elsewhere}\n"


def test_errors_are_one_line_each_and_name_the_field(perijove: Perijove) -> None:
    done = perijove("submit", "--memory", "12X", "--gpus", "-1", "--", "true")
    assert (done.code, done.out) == (1, "")
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["memory", "gpus"]
    assert "512M, 8G" in done.err
    assert (
        perijove("submit", "--env", "A", "--", "true").err
        == "perijove: env: must be written KEY=VALUE (given: A)\n"
    )
    assert perijove("show", "999999").code == 1


def test_usage_errors_are_2(perijove: Perijove) -> None:
    for words in (["submit"], ["submit", "--bogus", "--", "true"], ["nonsense"], ["ls", "-n", "0"]):
        assert perijove(*words).code == 2, words


def test_bytes_pass_unchanged(perijove: Perijove, service: Service, home: Path) -> None:
    env = {**os.environ, **service.env, "HOME": str(home)}
    script = r"printf 'a\377\376\n\303\050\360\237 \342\202\254'"
    expected = b"a\xff\xfe\n\xc3(\xf0\x9f \xe2\x82\xac"
    for words in (["run", "--", "sh", "-c", script], ["logs", "-f", ""], ["logs", ""]):
        if not words[-1]:
            words[-1] = str(perijove("ls", "-n", "1", "--json").json()[0]["id"])
        assert subprocess.run(command(*words), env=env, capture_output=True, timeout=60).stdout == expected


def test_what_is_no_service_is_told_apart(perijove: Perijove, service: Service) -> None:
    done = perijove("ls", env={**service.env, "PERIJOVE_TOKEN": ""})
    assert done.code == 1
    assert "perijove login" in done.err


def test_an_absent_service_is_3(perijove: Perijove, home: Path) -> None:
    env = {**os.environ, "PERIJOVE_URL": "http://127.0.0.1:9", "PERIJOVE_TOKEN": "x"}
    done = perijove("ls", env=env)
    assert done.code == 3
    assert done.err.count("\n") == 1
    env.pop("PERIJOVE_URL")
    env.update(HOME=str(home), PERIJOVE_STATE=str(home / "nothing"))
    done = perijove("ls", env=env)
    assert done.code == 3
    assert "perijove up" in done.err


def test_a_wrong_token(perijove: Perijove, service: Service) -> None:
    done = perijove("ls", env={**service.env, "PERIJOVE_TOKEN": "wrong"})
    assert done.code == 1
    assert "wrong" not in done.err


def test_listing(perijove: Perijove) -> None:
    perijove("run", "--name", "listed", "--", "true")
    plain = perijove("ls", "--name", "listed")
    assert "listed" in plain.out
    assert "\x1b" not in plain.out
    assert {job["state"] for job in perijove("ls", "-s", "ended", "-n", "5", "--json").json()} <= {
        "succeeded",
        "failed",
        "killed",
        "lost",
        "rejected",
    }
    assert perijove("ls", "-s", "sleeping").code == 1


def test_verbose_shows_requests_without_the_token(perijove: Perijove, service: Service) -> None:
    done = perijove("-v", "ls")
    assert "GET http" in done.err
    assert "/api/v1/jobs" in done.err
    assert service.token not in done.err


def test_holding_and_releasing(perijove: Perijove) -> None:
    job_id = perijove("submit", "--hold", "--", "true").out.strip()
    assert perijove("show", job_id, "--json").json()["state"] == "held"
    assert perijove("release", job_id).code == 0
    assert perijove("wait", job_id).code == 0
    assert perijove("hold", job_id).code == 1


def test_wait_gives_up(perijove: Perijove) -> None:
    job_id = perijove("submit", "--hold", "--", "true").out.strip()
    done = perijove("wait", "--timeout", "0.3", job_id)
    assert done.code == 1
    assert "not ended" in done.err
    perijove("kill", job_id)


def test_login_and_logout(perijove: Perijove, service: Service, home: Path) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("PERIJOVE_")} | {"HOME": str(home)}
    done = perijove("login", service.url, "--token-file", "-", env=bare, stdin=service.token + "\n")
    assert done.code == 0, done.err
    assert service.token not in done.out + done.err
    assert perijove("ls", env=bare).code == 0
    again = perijove(
        "login", service.url, "--json", "--token-file", "-", env=bare, stdin=service.token + "\n"
    )
    assert set(json.loads(again.out)) == {"url", "name", "kept_in"}
    assert perijove("logout", env=bare).code == 0
    assert not (home / ".config" / "perijove" / "login.json").exists()


def test_a_login_that_does_not_work_is_not_kept(perijove: Perijove, service: Service, home: Path) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("PERIJOVE_")} | {"HOME": str(home)}
    assert perijove("login", service.url, env=bare, stdin="wrong\n").code == 1
    assert not (home / ".config" / "perijove" / "login.json").exists()


def test_nodes_and_version(perijove: Perijove) -> None:
    assert "CPUS" in perijove("nodes").out
    assert perijove("nodes", "--json").json()[0]["free"]["cpu"] > 0
    assert perijove("version").out.startswith("perijove ")


def test_help_teaches() -> None:
    runner = CliRunner()
    top = runner.invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert top.exit_code == 0
    for name in ("submit", "run", "ls", "show", "logs", "wait", "kill", "login", "nodes", "up", "serve"):
        assert f" {name} " in top.output, name
    for name in ("submit", "run", "logs", "wait", "login"):
        assert f"perijove {name}" in runner.invoke(app, [name, "--help"], env={"COLUMNS": "120"}).output


def test_help_loads_no_server_side() -> None:
    program = "import sys; sys.argv=['perijove','--help']\nfrom perijove.cli import main\n"
    program += (
        "try: main()\nexcept SystemExit: pass\nprint('perijove_hub' in sys.modules, 'httpx' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"


def test_a_terminal_is_not_steered_by_names() -> None:
    from perijove.inert import printable

    assert printable("a\x1b[2Jb\nc") == "a�[2Jb\nc"
