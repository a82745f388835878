"""The command line against a whole Perijove of one user."""

from __future__ import annotations

import os
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
