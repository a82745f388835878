"""The command line against a whole Perijove of one user."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation, installed

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    state = tmp_path_factory.mktemp("state")
    with installed(state, "--no-hub", "--launcher", "process", "--port", "0") as installation:
        yield installation


def perijove(site: Installation, *words: str) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERIJOVE_")}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("perijove")), *words],
        env={**env, "PERIJOVE_STATE": str(site.state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def printed(site: Installation, *words: str) -> bytes:
    out, err = perijove(site, *words).communicate(timeout=60)
    assert err == b""
    return out


def test_a_reader_that_leaves_is_no_crash_and_the_job_goes_on(site: Installation) -> None:
    run = perijove(site, "run", "--", "sh", "-c", "seq 1 200000; sleep 20")
    assert run.stdout and run.stderr
    assert run.stdout.readline() == b"1\n"
    run.stdout.close()
    told = run.stderr.read().decode()
    assert run.wait(30) != 0
    assert told.startswith("perijove: left job ")
    assert told.count("\n") == 1
    job_id = told.split()[3].rstrip(",")
    assert b"running" in printed(site, "show", job_id)
    printed(site, "kill", job_id)


def test_logs_of_an_array_are_those_of_its_members_in_their_order(site: Installation) -> None:
    array = printed(site, "submit", "--array", "1:9:4", "--", "sh", "-c", "echo $PERIJOVE_TASK_ID").decode()
    array = array.strip()
    assert printed(site, "logs", "-f", array) == b"1\n5\n9\n"
    assert printed(site, "logs", array) == b"1\n5\n9\n"
    assert printed(site, "logs", f"{array}_5") == b"5\n"
    assert b"1:9:4" in printed(site, "show", array)


def test_bytes_that_are_no_text_come_as_they_are(site: Installation) -> None:
    script = "head -c 300000 /dev/urandom > random; cat random"
    out = printed(site, "run", "--cwd", str(site.state), "--", "sh", "-c", script)
    assert out == (site.state / "random").read_bytes()


def on_terminal(site: Installation, *words: str) -> bytes:
    """What somebody at a terminal sees, both streams together."""
    near, far = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    env = {**env, "PERIJOVE_STATE": str(site.state), "TERM": "xterm-256color"}
    command = [str(Path(sys.executable).with_name("perijove")), *words]
    process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=env)
    os.close(far)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal, on Linux
        while data := os.read(near, 65536):
            seen += data
    os.close(near)
    process.wait(60)
    return seen


def test_verbose_shows_the_calls_of_the_engine(site: Installation) -> None:
    out, err = perijove(site, "run", "-v", "--", "sh", "-c", "echo out; echo err >&2").communicate(timeout=60)
    assert out == b"out\n"
    call = next(line for line in err.decode().splitlines() if line != "err")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  process  execve sh -c 'echo out; echo err >&2'", call)
    job = json.loads(printed(site, "ls", "--json", "-n", "1"))[0]["id"]
    again, told = perijove(site, "logs", "-v", str(job)).communicate(timeout=60)
    assert (again, told.decode().splitlines()) == (b"out\n", [call, "err"])
    _, whole = perijove(site, "logs", "-vv", str(job)).communicate(timeout=60)
    assert '"argv": [\n    "sh",' in whole.decode()
    raw = json.loads(printed(site, "logs", str(job), "--stream", "engine"))
    assert raw["body"]["env"]["PERIJOVE_JOB_ID"] == str(job)
    assert raw["body"]["env"]["PATH"] == "***"
    assert json.loads(printed(site, "logs", str(job), "-v", "--json").splitlines()[0])["stream"] == "engine"


def test_standard_error_has_a_colour_where_both_are_seen(site: Installation) -> None:
    words = ("--", "sh", "-c", "echo out; echo err >&2; sleep 0.2")
    assert b"\x1b[33merr\r\n\x1b[0m" in on_terminal(site, "run", *words)
    assert b"\x1b" not in on_terminal(site, "--no-color", "run", *words)
    _, err = perijove(site, "run", *words).communicate(timeout=60)
    assert err == b"err\n"
