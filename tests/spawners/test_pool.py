"""Warm jobs as the node's agent meets them: the runner's own, and hostile ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from waiting import becomes, until

from perijove.model import Attempt
from perijove_spawners.launcher import LaunchError
from perijove_spawners.node import pool
from perijove_spawners.protocol import Answers, ReportKind

if TYPE_CHECKING:
    from tests.spawners.conftest import Bench

ATTEMPT = Attempt(1, 1)


class Warm:
    """A job that only pretends to run, and a pool that really does in its directory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.directory = bench.directory / "node/attempts/1.1/job"
        self.process: subprocess.Popen[bytes] | None = None
        self.offset = 0
        self.ended: dict[str, dict[str, Any]] = {}
        self.begun: list[str] = []

    def start(self, idle: float = 60) -> None:
        """As the launcher would."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perijove.runner", "pool", "--idle", str(idle)],
            env={**os.environ, "PERIJOVE_JOB_DIR": str(self.directory)},
            stdout=(self.directory.parent / "stdout").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        """-9 to all of it."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def put(self, value: Any) -> str:
        return self.bench.store.put([cloudpickle.dumps(value)]).digest

    async def ask(self, contents: list[str] | None = None, wait: float = 5.0, **request: Any) -> Answers:
        """One call of the agent; what it heard is noted."""
        message = json.dumps({"offset": self.offset, "wait": wait, **request}).encode()
        answers = await self.bench.agent.compute(
            ATTEMPT, message, contents or [], self.offset, wait=wait + 20
        )
        self.offset = answers.offset
        for line in answers.lines:
            if "begun" in line:
                self.begun.append(line["call"])
            else:
                self.ended.setdefault(line["call"], line)
        return answers

    async def hear(self, *names: str) -> list[dict[str, Any]]:
        """Ask until these have ended."""

        async def all_ended() -> bool:
            if not set(names) <= set(self.ended):
                await self.ask(wait=0.5)
            return set(names) <= set(self.ended)

        await becomes(all_ended, f"that {names} ended", 60)
        return [self.ended[name] for name in names]

    @property
    def log(self) -> str:
        return (self.directory.parent / "stdout").read_text()


@pytest.fixture
async def job(bench: Bench) -> AsyncIterator[Warm]:
    bench.send(bench.order(1, "sleep", "600"))
    await bench.report(1, ReportKind.STARTED)
    warm = Warm(bench)
    yield warm
    warm.kill()


@pytest.fixture
async def warm(job: Warm) -> Warm:
    job.start()
    return job


def call(name: str, function: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "function": function, "call": {"args": list(args), "kwargs": {}}, **more}


async def test_calls_are_made_one_after_another_and_what_they_return_comes_back(warm: Warm) -> None:
    double = warm.put(lambda x: x * 2)
    calls = [call(f"1/double[{n}]/1", double, n) for n in range(300)]
    await warm.ask([double], calls=calls)
    ended = await warm.hear(*(one["id"] for one in calls))
    assert [line["value"] for line in ended] == [2 * n for n in range(300)]
    assert warm.begun == [one["id"] for one in calls]


async def test_results_that_are_not_json_are_kept_in_the_store(warm: Warm) -> None:
    small, large = warm.put(lambda: (1, 2)), warm.put(lambda: b"x" * 1_000_000)
    await warm.ask([small, large], calls=[call("1/small/1", small), call("1/large/1", large)])
    lines = await warm.hear("1/small/1", "1/large/1")
    with warm.bench.store.open(lines[0]["digest"]) as file:
        assert cloudpickle.load(file) == (1, 2)
    with warm.bench.store.open(lines[1]["digest"]) as file:
        assert cloudpickle.load(file) == b"x" * 1_000_000
    assert lines[1]["size"] > 1_000_000
    await warm.ask(wait=0.0, taken=warm.offset)
    assert not list((warm.directory / "pool").glob("result-*"))


async def test_pickles_and_files_are_given_to_calls(warm: Warm) -> None:
    def show(data: list[int], path: str) -> list[Any]:
        return [data, Path(path).name, Path(path).read_text()]

    function, data = warm.put(show), warm.put([1, 2])
    text = warm.bench.store.put([b"hello"]).digest
    made = call(
        "1/show/1",
        function,
        {"pickle": "data.pkl"},
        {"path": "greeting.txt"},
        inputs={"data.pkl": data, "greeting.txt": text},
    )
    await warm.ask([function, data, text], calls=[made])
    [line] = await warm.hear("1/show/1")
    assert line["value"] == [[1, 2], "greeting.txt", "hello"]


async def test_files_that_it_lacks_are_named_and_no_call_is_taken(warm: Warm) -> None:
    function = warm.put(abs)
    made = call("1/abs/1", function, -3)
    assert (await warm.ask(calls=[made])).missing == (function,)
    assert (await warm.ask([function], calls=[made])).missing == ()
    [line] = await warm.hear("1/abs/1")
    assert line["value"] == 3


async def test_files_that_are_not_in_the_store_are_told_from_a_job_that_does_not_answer(warm: Warm) -> None:
    nowhere = f"sha256:{'0' * 64}"
    answers = await warm.ask([nowhere], calls=[call("1/abs/1", nowhere, -3)])
    assert "not in the store" in answers.unstaged[nowhere]


async def test_a_call_that_comes_twice_is_made_once(warm: Warm) -> None:
    def note(path: str) -> None:
        with Path(path).open("a") as file:
            file.write("x")

    function, kept = warm.put(note), warm.directory.parent / "kept"
    made = call("1/note/1", function, str(kept))
    await warm.ask([function], calls=[made])
    await warm.ask([function], wait=0.0, calls=[made])
    await warm.hear("1/note/1")
    await warm.ask([function], calls=[made, call("1/note/2", function, str(kept))])
    await warm.hear("1/note/2")
    assert kept.read_text() == "xx"


async def test_errors_come_back_as_text_and_the_next_call_is_made(warm: Warm) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fail(how: str) -> None:
        print(f"failing by {how}")
        if how == "raise":
            raise ValueError("not this one")
        if how == "odd":
            raise OddError
        if how == "leave":
            sys.exit(7)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)

    function = warm.put(fail)
    ways = ["raise", "odd", "leave", "kill", "end", "raise"]
    calls = [call(f"1/{how}[{n}]/1", function, how) for n, how in enumerate(ways)]
    await warm.ask([function], calls=calls)
    lines = await warm.hear(*(one["id"] for one in calls))
    said = [line["error"] for line in lines]
    assert said[0] == "ValueError: not this one"
    assert "not this one" in lines[0]["traceback"]
    assert "pool_worker" not in lines[0]["traceback"]
    assert said[1] == "OddError"
    assert lines[2]["exit_code"] == 7
    assert (lines[3]["reason"], lines[3]["exit_code"]) == ("RaisedSignal", 137)
    assert lines[4]["exit_code"] == 3
    assert said[5] == said[0]
    assert "raise[0]: failing by raise" in warm.log


async def test_a_result_that_cannot_be_pickled_is_an_error_of_that_call(warm: Warm) -> None:
    function = warm.put(lambda: sys._getframe())
    await warm.ask([function], calls=[call("1/frame/1", function)])
    [line] = await warm.hear("1/frame/1")
    assert "cannot be pickled" in line["error"]


async def test_a_call_that_takes_too_long_is_ended_and_the_others_are_made(warm: Warm) -> None:
    def wait(seconds: float) -> float:
        import time

        time.sleep(seconds)
        return seconds

    function = warm.put(wait)
    calls = [call("1/long/1", function, 600, time_limit=0.5), call("1/short/1", function, 0, time_limit=60)]
    await warm.ask([function], calls=calls)
    late, short = await warm.hear("1/long/1", "1/short/1")
    assert late["reason"] == "TimeLimit"
    assert short["value"] == 0


async def test_a_run_that_is_killed_leaves_the_calls_of_others_alone(warm: Warm) -> None:
    def wait(path: str) -> str:
        import time

        while not Path(path).exists():
            time.sleep(0.01)
        return "done"

    function, gate = warm.put(wait), warm.directory.parent / "gate"
    calls = [call(f"{run}/wait[{n}]/1", function, str(gate)) for n in range(60) for run in (1, 2)]
    await warm.ask([function], calls=calls)

    async def begun() -> bool:
        await warm.ask(wait=0.5)
        return bool(warm.begun)

    await becomes(begun, "the first call")
    await warm.ask(cancel=["1/"])
    killed = await warm.hear(*(one["id"] for one in calls if one["id"].startswith("1/")))
    assert {line["reason"] for line in killed} == {"KilledByUser"}
    gate.touch()
    others = await warm.hear(*(one["id"] for one in calls if one["id"].startswith("2/")))
    assert {line["value"] for line in others} == {"done"}


async def test_what_a_killed_job_had_done_is_known_and_so_is_what_it_had_begun(warm: Warm) -> None:
    def work(n: int) -> int:
        import time

        if n == 5:
            time.sleep(600)
        return n

    function = warm.put(work)
    calls = [call(f"1/work[{n}]/1", function, n) for n in range(10)]
    await warm.ask([function], calls=calls)
    journal = warm.directory / pool.JOURNAL
    await until(lambda: b'"1/work[5]/1", "begun"' in journal.read_bytes(), "the sixth call")
    warm.kill()
    with pytest.raises(LaunchError):
        await warm.bench.agent.compute(ATTEMPT, b"{}", [], 0, wait=-9)
    await warm.bench.agent.stop([ATTEMPT], 0)
    await warm.bench.outcome(1)
    while not (await warm.ask()).end:
        pass
    assert [line["value"] for line in warm.ended.values()] == [0, 1, 2, 3, 4]
    assert warm.begun == [one["id"] for one in calls[:6]]


async def test_another_agent_goes_on_where_the_first_was_killed(warm: Warm) -> None:
    function = warm.put(lambda n: n)
    calls = [call(f"1/id[{n}]/1", function, n) for n in range(100)]
    await warm.ask([function], calls=calls[:50])
    await warm.bench.replace()
    await warm.bench.report(1, ReportKind.STARTED)
    await warm.ask(calls=calls)
    lines = await warm.hear(*(one["id"] for one in calls))
    assert [line["value"] for line in lines] == list(range(100))
    assert warm.begun == [one["id"] for one in calls]


async def test_it_ends_when_nothing_is_asked_of_it(job: Warm) -> None:
    job.start(idle=0.5)
    function = job.put(abs)
    await job.ask([function], calls=[call("1/abs/1", function, -1)])
    await job.hear("1/abs/1")
    assert job.process
    assert await asyncio.to_thread(job.process.wait, 30) == 0
    assert not (job.directory / pool.SOCKET).exists()


# hostile ones


@contextmanager
def listening(directory: Path, answer: Callable[[socket.socket], Any] | None = None) -> Iterator[None]:
    """A job's socket at which nobody answers, or `answer` does."""
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(directory, os.O_RDONLY)
    server.bind(f"/proc/self/fd/{folder}/{pool.SOCKET}")
    os.close(folder)
    server.listen()

    def serve() -> None:
        with suppress(OSError):
            while answer:
                link, _ = server.accept()
                with link, suppress(OSError):
                    answer(link)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def endless(link: socket.socket) -> None:
    link.sendall((pool.ANSWER).to_bytes(4, "big"))
    while True:
        link.sendall(b" " * 4096)


HOSTILE: dict[str, Callable[[socket.socket], Any]] = {
    "closes": lambda link: None,
    "says it will be long": lambda link: link.sendall(b"\xff" * 64),
    "garbage": lambda link: link.sendall(b"\0\0\0\x05hello"),
    "no object": lambda link: link.sendall(b"\0\0\0\x02[]"),
    "deep": lambda link: link.sendall((100_000).to_bytes(4, "big") + b"[" * 100_000),
    "odd digests": lambda link: link.sendall(b'\0\0\0\x11{"missing": [17]}'),
    "endless": endless,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_job_that_answers_nonsense_is_an_error_and_the_agent_goes_on(job: Warm, kind: str) -> None:
    with listening(job.directory, HOSTILE[kind]), pytest.raises(LaunchError, match="does not answer"):
        await job.ask()
    assert (await job.bench.agent.describe()).name == "n1"


async def test_a_job_that_answers_nothing_is_given_up(job: Warm) -> None:
    with listening(job.directory), pytest.raises(LaunchError, match="does not answer"):
        await job.bench.agent.compute(ATTEMPT, b"{}", [], 0, wait=0.2 - pool.PATIENCE)


async def test_a_link_to_another_socket_is_not_followed(job: Warm) -> None:
    elsewhere = job.bench.directory / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(elsewhere))
    server.listen()
    server.setblocking(False)
    (job.directory / pool.SOCKET).symlink_to(elsewhere)
    with server:
        with pytest.raises(LaunchError, match="does not answer"):
            await job.ask()
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a socket for another account")
async def test_a_socket_of_another_account_is_not_spoken_to(job: Warm) -> None:
    with listening(job.directory):
        os.chown(job.directory / pool.SOCKET, 12345, 12345)
        with pytest.raises(LaunchError, match="not a socket of its account"):
            await job.ask()


STRANGER = """
import os, socket, time
os.setgid(12345); os.setuid(12345)
server = socket.socket(socket.AF_UNIX)
server.bind("pool.sock")
server.listen()
print("listening", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to listen as another account")
async def test_a_socket_at_which_another_account_listens_is_not_spoken_to(job: Warm) -> None:
    job.directory.chmod(0o777)
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-ISc", STRANGER], cwd=job.directory, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout
        assert await asyncio.to_thread(stranger.stdout.readline) == b"listening\n"
        os.chown(job.directory / pool.SOCKET, os.getuid(), os.getgid())
        with pytest.raises(LaunchError, match="another account listens"):
            await job.ask()
        stranger.kill()


async def test_a_journal_that_is_no_file_or_has_no_lines_is_an_error(job: Warm) -> None:
    journal = job.directory / pool.JOURNAL
    await job.bench.agent.stop([ATTEMPT], 0)
    await job.bench.outcome(1)
    os.mkfifo(journal)
    with pytest.raises(LaunchError, match="not a regular file"):
        await job.ask()
    journal.unlink()
    journal.symlink_to("/etc/passwd")
    with pytest.raises(LaunchError, match="cannot be opened"):
        await job.ask()
    journal.unlink()
    with journal.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LaunchError, match="a line of more than"):
        await job.ask()


async def test_lines_that_are_none_are_passed_over_and_results_elsewhere_not_taken(job: Warm) -> None:
    (job.directory / "pool").mkdir()
    (job.directory / "pool" / "link").symlink_to("/etc/passwd")
    lines = [
        b"\xff\xfe",
        b"[1]",
        b'{"call": 7}',
        b"[" * 100_000,
        b'{"call": "1/a/1", "ended": 1, "file": "../../../../../../../../etc/passwd"}',
        b'{"call": "1/b/1", "ended": 1, "file": "link"}',
        b'{"call": "1/c/1", "ended": 1, "data": "no base64!"}',
        b'{"call": "1/d/1", "ended": 1, "file": ".."}',
        b'{"call": "1/e/1", "ended": 1, "value": 5}',
        b'{"call": "1/f/1", "ended": 1, "digest": "sha256:00", "size": 7}',
        b'{"call": "1/g/1", "en',
    ]
    await job.bench.agent.stop([ATTEMPT], 0)
    await job.bench.outcome(1)
    (job.directory / pool.JOURNAL).write_bytes(b"\n".join(lines))
    answers = await job.ask()
    assert answers.end
    assert {name: line.get("reason") for name, line in job.ended.items()} == {
        **dict.fromkeys(("1/a/1", "1/b/1", "1/c/1", "1/d/1"), "OutputMissing"),
        "1/e/1": None,
        "1/f/1": None,
    }
    assert "digest" not in job.ended["1/f/1"]
    assert job.ended["1/e/1"]["value"] == 5


async def test_nobody_is_asked_before_it_runs_or_when_it_is_unknown(bench: Bench) -> None:
    with pytest.raises(LaunchError, match="nothing is known"):
        await bench.agent.compute(Attempt(9, 1), b"{}", [], 0)
