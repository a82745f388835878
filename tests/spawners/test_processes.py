"""Who is who among the processes of this machine."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator

import pytest

from perijove_spawners.process import processes
from perijove_spawners.process.processes import Identity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None and processes.alive(identity)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    # Its parent has not looked yet, so the number is still taken.
    assert processes.read(sleeper.pid) is not None
    assert not processes.alive(identity)
    sleeper.wait()
    assert processes.identify(sleeper.pid) is None


def test_a_number_given_to_another_is_not_the_same_process(sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    earlier = Identity(identity.pid, identity.started - 1)
    assert not processes.alive(earlier)
    assert not processes.send_signal(earlier, signal.SIGKILL)
    assert processes.session_members(earlier) == []
    assert sleeper.poll() is None
    assert processes.send_signal(identity, signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL


def test_too_many_open_files_are_not_the_end_of_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid)
    assert identity is not None
    with _no_more_files(), pytest.raises(OSError, match="Too many open files"):
        processes.alive(identity)
    assert processes.alive(identity)


@contextlib.contextmanager
def _no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(held[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def test_a_name_with_spaces_and_parentheses() -> None:
    script = "printf 'a) R 1 (b' > /proc/$$/comm; echo ready; sleep 60 & wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    try:
        seen = processes.read(process.pid)
        assert seen is not None
        assert (seen.parent, seen.session) == (os.getpid(), process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_descendants_and_those_who_left_the_session() -> None:
    script = "setsid sleep 61 & sleep 62 & echo ready; wait"
    env = {"PATH": os.environ["PATH"], "PERIJOVE_JOB_DIR": "/nowhere/at/all"}
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True, env=env)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    below = processes.descendants(process.pid)
    try:
        assert len(below) == 2
        process.kill()
        process.wait()
        mark = "PERIJOVE_JOB_DIR=/nowhere/at/all"
        assert {p.pid for p in processes.related(process.pid, mark)} == {p.pid for p in below}
        assert processes.related(process.pid, mark[:-1]) != below
    finally:
        processes.send_all(below, signal.SIGKILL)
