"""The commands about the queue and the site, run in this process against the service of the test."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.conftest import Service
from typer.testing import CliRunner, Result

from perijove.cli.app import app
from perijove.cli.listing import view
from perijove.client import AsyncClient
from perijove.handle import AsyncJob

pytestmark = pytest.mark.slow

Command = Callable[..., Result]


@pytest.fixture
def perijove(fake_service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``perijove WORDS`` on a terminal of 80 columns that shows no colours."""
    monkeypatch.chdir(home)
    env = {"PERIJOVE_URL": fake_service.url, "PERIJOVE_TOKEN": fake_service.token, "COLUMNS": "80"}

    def run(*words: str, code: int = 0, **options: Any) -> Result:
        done = CliRunner().invoke(app, list(words), env=env, **options)
        assert done.exit_code == code, done.output + repr(done.exception)
        lines = [line for line in done.output.splitlines() if str(home) not in line]  # a path is not cut
        assert code or max(map(len, lines), default=0) <= 80 or "--json" in words
        return done

    return run


def submitted(perijove: Command, *words: str) -> str:
    return perijove("submit", *words).stdout.strip()


def test_an_array_is_one_row(perijove: Command) -> None:
    job = submitted(
        perijove, "--name", "a-name-that-is-rather-long-for-a-table", "--array", "1:1000%2", "--hold", "x"
    )
    rows = perijove("ls").stdout.splitlines()
    assert rows[0].split() == ["ID", "NAME", "STATE", "NODE", "TIME", "REASON"]
    assert len(rows) == 2
    assert "0/1000 done, 1000 held" in rows[1]
    perijove("kill", f"{job}_7")
    assert "1/1000 done, 999 held, 1 ki" in perijove("ls").stdout
    assert perijove("ls", "--members", job).stdout.splitlines()[1].split()[0] == f"{job}_7"
    shown = perijove("show", job).stdout
    assert "1:1000:1, at most 2 at once" in shown
    assert "1/1000 done" in shown


def test_why_and_show_name_what_blocks(perijove: Command) -> None:
    large = submitted(perijove, "--", "sleep", "60")
    job = submitted(perijove, "--", "true")
    lines = perijove("why", job).stdout.splitlines()
    assert lines[0] == f"job {job} pending: all nodes are full (place 1 in the queue)"
    assert f"job {large} of me runs on here" in lines[1]
    assert "starts between" in lines[2]
    assert lines[3].strip() == "with --cpus 0.25 it would start now"
    shown = perijove("show", job).stdout
    assert f"  blocked by  job {large} of me runs on here" in shown
    assert json.loads(perijove("why", job, "--json").stdout)["reason"]["code"] == "Resources"
    assert "0.5/1" in perijove("top").stdout
    perijove("kill", large)
    perijove("wait", job)
    assert "62% of CPU, 64M of 1G memory (6%)" in perijove("show", job).stdout


def test_changing_a_job(perijove: Command) -> None:
    job = submitted(perijove, "--hold", "--", "true")
    record = json.loads(perijove("update", job, "--time", "2h", "--priority", "7", "--json").stdout)
    assert (record["spec"]["time_limit"], record["spec"]["priority"]) == (7200, 7)
    assert perijove("update", job, code=2).stderr.count("--time") > 0
    assert "time_limit" in perijove("update", job, "--time", "soon", code=1).stderr
    perijove("release", job)
    perijove("wait", job)
    again = perijove("rerun", job).stdout.strip()
    assert again.isdecimal()
    perijove("wait", again)
    perijove("archive", job)
    assert "archived" in perijove("show", job).stdout
    assert perijove("archive", "--older-than", "1ms", code=1).stdout == ""
    assert "0 jobs archived" in perijove("archive", "--older-than", "30d", "--state", "failed,killed").stdout
    assert "--older-than" in perijove("archive", code=2).stderr
    perijove("purge", "--yes", again)
    perijove("show", again, code=1)


def test_dependants_go_too_when_asked(perijove: Command) -> None:
    first = submitted(perijove, "--hold", "--", "true")
    second = submitted(perijove, "--hold", "--depends", first, "--", "true")
    perijove("kill", "--dependants", first)
    assert json.loads(perijove("show", second, "--json").stdout)["state"] == "killed"


def test_what_one_refuses_does_not_stop_the_others(perijove: Command) -> None:
    job = submitted(perijove, "--hold", "--", "true")
    done = perijove("release", "999", job, code=1)
    assert "there is no job 999" in done.stderr
    perijove("wait", job)


def test_a_script_carries_options_and_the_command_line_wins(perijove: Command, home: Path) -> None:
    (home / "job.sh").write_text(
        "#!/bin/sh\n#PERIJOVE --cpus 0.5 --env A=1 --hold --name one\ntrue\n#PERIJOVE -c 2\n"
    )
    done = perijove("submit", "--json", "--name", "two", "--no-hold", "-e", "B=2", "job.sh")
    spec = json.loads(done.stdout)["spec"]
    assert (spec["cpu"], spec["name"], spec["hold"], spec["env"]) == (0.5, "two", False, {"A": "1", "B": "2"})
    assert "line 4" in done.stderr
    (home / "job.sh").write_text("#!/bin/sh\n#PERIJOVE --cpu\n")
    assert perijove("submit", "job.sh", code=1).stderr.startswith("perijove: job.sh:2: ")


def test_new_options_reach_the_spec(perijove: Command) -> None:
    words = "--partition long --reservation course --exclusive --signal USR1@5m --preemptible --retries 3"
    words += " --retry-on node,exit:75 --oom-retry 2x --nodes 2 --gpus a100:2@40G --hold --json --port 8888"
    spec = json.loads(perijove("submit", *words.split(), "--", "true").stdout)["spec"]
    assert (spec["partition"], spec["reservation"], spec["nodes"]) == ("long", "course", 2)
    assert (spec["exclusive"], spec["preemptible"], spec["oom_retry"]) == (True, True, 2.0)
    assert (spec["signal"], spec["ports"]) == ({"signal": "USR1", "before": 300.0}, [8888])
    assert spec["retry_on"] == [{"cause": "node", "code": None}, {"cause": "exit", "code": 75}]
    assert spec["gpus"] == {"count": 2, "model": "a100", "memory": 40 << 30}


def test_what_a_job_ran_in_is_named_as_its_registry_does() -> None:
    digest = f"sha256:{'a' * 64}"
    document = {"id": 1, "name": "fit", "state": "succeeded", "spec": {"image": "r.example/a:1"}}
    for more, said in (
        ({}, None),
        ({"image_digest": digest}, digest),
        ({"image_digest": "sha256:0", "image_manifest": f"r.example/a@{digest}"}, f"r.example/a@{digest}"),
    ):
        job = AsyncJob(AsyncClient("http://127.0.0.1:1", token="x"), {**document, **more})
        assert dict(view(job, {}, {}, [])).get("image ran") == said


def test_usage_and_share(perijove: Command) -> None:
    lines = perijove("usage", "--by", "owner,day").stdout.splitlines()
    assert lines[0].split() == ["OWNER", "DAY", "JOBS", "CPU", "h", "GiB", "h", "GPU", "h"]
    assert lines[1].split() == ["me", "2026-07-31", "3", "12.5", "100.0", "0.00"]
    assert "25.0%" in perijove("share").stdout
    shown = perijove("projects").stdout
    assert shown.startswith("lab: the lab (default, you lead it)\n")
    assert "cores" in shown
    assert "1T" in shown
    for command in ("usage", "share", "projects", "top"):
        json.loads(perijove(command, "--json").stdout)


def test_the_policy_is_seen_checked_and_applied(perijove: Command, home: Path) -> None:
    assert perijove("policy", "show").stdout == "scheduler: fairshare\n"
    (home / "new.yaml").write_text("scheduler: fifo\n")
    checked = perijove("policy", "check", "new.yaml")
    assert "+scheduler: fifo" in checked.stdout
    assert perijove("policy", "show").stdout == "scheduler: fairshare\n"
    assert "version 2" in perijove("policy", "apply", "new.yaml").stderr
    assert perijove("policy", "show", "--version", "1").stdout == "scheduler: fairshare\n"
    assert perijove("policy", "versions").stdout.splitlines()[1].split()[0] == "2"
    assert "schedular" in perijove("policy", "apply", "-", input="schedular: fifo\n", code=1).stderr
    assert "cannot be read" in perijove("policy", "check", "absent.yaml", code=1).stderr


def test_nodes_are_reserved_and_drained(perijove: Command) -> None:
    words = (
        "--nodes",
        "gpu-*,n1",
        "--start",
        "2026-09-01T08:00+00:00",
        "--duration",
        "10h",
        "--projects",
        "lab",
    )
    perijove(
        "reservation", "set", "course", *words, "--reason", "a course with a long name that goes on and on"
    )
    found = json.loads(perijove("reservation", "ls", "--json").stdout)[0]
    assert (found["start"], found["end"]) == ("2026-09-01T08:00:00+00:00", "2026-09-01T18:00:00+00:00")
    assert (found["nodes"], found["projects"]) == (["gpu-*", "n1"], ["lab"])
    assert "course" in perijove("reservation", "ls").stdout
    perijove("reservation", "rm", "course")
    assert perijove("reservation", "rm", "course", code=1).stderr.startswith(
        "perijove: there is no reservation"
    )
    for wrong in (("--end", "soon"), ("--duration", "soon")):
        assert wrong[0] in perijove("reservation", "set", "x", "--nodes", "n", *wrong, code=1).stderr
    perijove("reservation", "set", "x", "--nodes", "n", code=2)
    perijove("drain", "here", "--reason", "a fan")
    assert "a fan" in perijove("nodes").stdout
    perijove("undrain", "here")
    assert "a fan" not in perijove("nodes").stdout
    assert "there are: here" in perijove("drain", "elsewhere", code=1).stderr


def test_maintenance(perijove: Command) -> None:
    assert perijove("maintenance", "status").stdout == "maintenance is off\n"
    assert perijove("maintenance", "on", "--reason", "a fan").stdout == "maintenance is on: a fan\n"
    assert perijove("maintenance", "on", "new disks").stdout == "maintenance is on: new disks\n"
    job = submitted(perijove, "--", "true")
    assert "maintenance: new disks" in perijove("why", job).stdout
    perijove("maintenance", "off")
    perijove("wait", job)


def test_every_command_has_an_example_in_its_help() -> None:
    from typer.main import get_command

    def walk(command: Any, path: list[str]) -> list[tuple[list[str], Any]]:
        found = [(path, command)]
        for name, sub in getattr(command, "commands", {}).items():
            found += walk(sub, [*path, name])
        return found

    without = [
        " ".join(path)
        for path, command in walk(get_command(app), ["perijove"])
        if not hasattr(command, "commands") and " ".join(path) not in (command.help or "")
    ]
    assert without == ["perijove version"] or without == []


def on_a_terminal(words: list[str], env: dict[str, str], cwd: Path) -> str:
    """What a command prints when both its outputs are a terminal."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", "from perijove.cli import main; main()", *words]
    running = subprocess.Popen(program, env=env, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not chunk:
            break
        text += chunk
    os.close(ours)
    assert running.wait(60) == 0
    return text.decode().replace("\r\n", "\n")


def test_at_a_terminal_submit_says_why_the_job_waits(
    perijove: Command, fake_service: Service, home: Path
) -> None:
    env = {**os.environ, **fake_service.env, "HOME": str(home)}
    large = submitted(perijove, "--", "sleep", "60")
    number, *lines = on_a_terminal(["submit", "--", "true"], env, home).splitlines()
    assert number.isdecimal()
    assert lines[0] == f"perijove: job {number} pending: all nodes are full (place 1 in the queue)"
    assert "starts between" in lines[2]
    assert "it would start now" in lines[3]
    shown = on_a_terminal(["submit", "--json", "--", "true"], env, home)
    assert json.loads(shown)["state"] == "pending"
    perijove("kill", large)
