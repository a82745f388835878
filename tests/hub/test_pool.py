"""Shared functions from the service to real warm jobs and back; service and agent are in this process."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from waiting import becomes, until

import perijove
from perijove.model import JobSpec, ReasonCode, State
from perijove_hub.jobs.events import Kill
from perijove_hub.settings import Settings
from perijove_hub.workflows.calls import Call, Done
from perijove_hub.workflows.pool import Pool
from perijove_spawners.containers.docker import DockerLauncher
from perijove_spawners.launcher import Launcher, LauncherContext
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.process.launcher import ProcessLauncher
from perijove_spawners.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.hub.conftest import Service

SECONDS = 60
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Notebook:
    """What is written down, as the engine of workflows does; it outlives services."""

    def __init__(self) -> None:
        self.sent_to: dict[str, tuple[Call, int]] = {}
        self.ended: dict[str, Done] = {}
        self.began_at: dict[str, float] = {}

    async def sent(self, calls: Sequence[tuple[Call, int]]) -> None:
        await asyncio.sleep(0)
        self.sent_to.update((call.label, (call, job)) for call, job in calls)

    def began(self, calls: Sequence[tuple[Call, float]]) -> None:
        self.began_at.update((call.label, at) for call, at in calls)

    async def done(self, ended: Sequence[Done]) -> None:
        await asyncio.sleep(0)
        for one in ended:
            assert one.call.label not in self.ended, "ended twice"
            self.ended[one.call.label] = one

    @property
    def left(self) -> list[tuple[Call, int]]:
        return [found for label, found in self.sent_to.items() if label not in self.ended]

    def value(self, label: str) -> Any:
        done = self.ended[label]
        assert done.output, done.outcome.message
        return done.output.value

    async def until(self, *labels: str) -> list[Done]:
        await until(lambda: set(labels) <= set(self.ended), f"the end of {labels[:3]}", SECONDS)
        return [self.ended[label] for label in labels]


class Bench:
    """A node on plain processes, and services one after another over it."""

    def __init__(self, folder: Path, running: Callable[..., Any]) -> None:
        self.folder, self._running = folder, running
        self.settings = Settings(state=folder, mode="single", shared_idle=300)
        self.store = Store(self.settings.store)
        self.notes = Notebook()
        self.agent: NodeAgent
        self.service: Service
        self.pool: Pool
        self.spec = JobSpec(
            command=[sys.executable, "-m", "perijove.runner", "step"], memory=256 << 20, cwd=str(folder)
        )

    async def open_node(self, docker_url: str | None = None) -> None:
        """A node on plain processes, or on the Docker Engine there."""
        options = {"url": docker_url} if docker_url else {}
        context = LauncherContext(f"pool-{self.folder.name[-6:]}", self.folder / "launcher", options)
        context.directory.mkdir(exist_ok=True)
        launchers: dict[str, Launcher] = (
            {"docker": DockerLauncher(context)} if docker_url else {"process": ProcessLauncher(context)}
        )
        config = NodeConfig("n1", self.folder / "node", cpus=4, memory=8 << 30, poll=0.2, repeat=0.5)
        self.agent = NodeAgent(config, launchers, self.store)
        await self.agent.open()

    @asynccontextmanager
    async def serving(self, *calls: Call) -> AsyncIterator[None]:
        """A service; what an earlier one left and `calls` are what it begins with."""
        async with self._running(self.settings, [self.agent]) as self.service:
            controller = self.service.controller
            await controller.joined.wait()
            self.pool = Pool(controller, notes=self.notes)
            self.pool.resume(self.notes.left)
            self.pool.submit(calls)
            controller.core.spawn_vital(self.pool.run())
            yield

    def put(self, value: Any) -> str:
        return self.store.put([cloudpickle.dumps(value)]).digest

    def calls(self, called: Callable[..., Any], *args: Any, run: int = 1, **more: Any) -> list[Call]:
        """A call for each of `args`."""
        digest, name = self.put(called), called.__name__
        fields: dict[str, Any] = {"owner": getpass.getuser(), "spec": self.spec, "function": digest, **more}
        return [
            Call(
                run=run,
                label=f"{name}[{i}]",
                number=1,
                call={"args": [{"value": one}], "kwargs": {}},
                **fields,
            )
            for i, one in enumerate(args)
        ]

    async def kill_jobs(self) -> None:
        """End what is left."""
        async with self.serving():
            controller = self.service.controller
            for job in list(controller.board.jobs.values()):
                await controller.act(job.id, Kill("test"))
            await until(lambda: not controller.board.jobs, "the end of all jobs", SECONDS)

    def warm_jobs(self) -> set[int]:
        return {job for _, job in self.notes.sent_to.values()}


@pytest.fixture
async def bench(tmp_path: Path, running_service: Callable[..., Any]) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, running_service)
    await made.open_node()
    yield made
    made.notes.sent_to.clear()
    await made.kill_jobs()
    await made.agent.close()


def double(n: int) -> int:
    return n * 2


def note(path: str) -> str:
    """Leave a mark, and wait until it is let go on, if its mark has a gate."""
    import time

    with Path(path).open("a") as file:
        file.write("x")
    while Path(f"{path}.gate").exists():
        time.sleep(0.01)
    return path


def shut(mark: str) -> None:
    """Keep the call that leaves this mark waiting."""
    Path(f"{mark}.gate").touch()


def let_go(mark: str) -> None:
    Path(f"{mark}.gate").unlink()


def all_once(marks: Sequence[str]) -> bool:
    return all(Path(mark).read_text() == "x" for mark in marks)


def labels(calls: Sequence[Call]) -> list[str]:
    return [call.label for call in calls]


async def test_many_calls_are_made_in_few_jobs(bench: Bench) -> None:
    calls = bench.calls(double, *range(2000))
    async with bench.serving(*calls):
        await bench.notes.until(*labels(calls))
        assert [bench.notes.value(call.label) for call in calls] == [2 * n for n in range(2000)]
        assert len(bench.warm_jobs()) <= 4
        job = bench.service.job(bench.warm_jobs().pop())
        assert job and (job.name, job.spec.memory) == ("shared functions", 256 << 20)


async def test_a_warm_job_with_nothing_to_do_makes_room_for_jobs_that_wait(bench: Bench) -> None:
    calls = bench.calls(double, 1, 2)
    async with bench.serving(*calls):
        await bench.notes.until(*labels(calls))
        whole = await bench.service.submit(command=["true"], cpu=4, cwd=str(bench.folder))

        async def ended() -> bool:
            return bool((await bench.service.show(whole["id"]))["state"] == "succeeded")

        await becomes(ended, "the end of a job that needs the whole node", SECONDS)
        more = bench.calls(double, 21, run=2)
        await_these = [replace(call, label=f"more-{call.label}") for call in more]
        bench.pool.submit(await_these)
        await bench.notes.until(*labels(await_these))
        assert bench.notes.value("more-double[0]") == 42


async def test_calls_that_take_long_get_more_jobs_up_to_what_there_is(bench: Bench) -> None:
    def wait(path: str) -> None:
        import time

        while not Path(path).exists():
            time.sleep(0.01)

    gate = bench.folder / "gate"
    calls = bench.calls(wait, *[str(gate)] * 20)
    async with bench.serving(*calls):
        await until(lambda: len(bench.notes.began_at) >= 4, "four calls at once", SECONDS)
        gate.touch()
        await bench.notes.until(*labels(calls))


async def test_errors_and_what_is_not_json_come_back(bench: Bench) -> None:
    def odd(n: int) -> Any:
        if n == 1:
            raise ValueError("not one")
        return (n, b"bytes") if n else None

    calls = bench.calls(odd, 0, 1, 2)
    async with bench.serving(*calls):
        none, failed, pickled = await bench.notes.until(*labels(calls))
    assert none.output and none.output.valued and none.output.value is None
    assert failed.outcome.reason is ReasonCode.NON_ZERO_EXIT
    assert failed.outcome.message == "ValueError: not one"
    assert pickled.output and pickled.output.digest
    with bench.store.open(pickled.output.digest) as file:
        assert cloudpickle.load(file) == (2, b"bytes")


async def test_failures_are_tried_again_as_often_as_asked(bench: Bench) -> None:
    def fail(path: str) -> int:
        with Path(path).open("a") as file:
            file.write("x")
        if len(Path(path).read_text()) < 3:
            raise RuntimeError("not yet")
        return 3

    calls = bench.calls(fail, str(bench.folder / "tries"), retries=2)
    async with bench.serving(*calls):
        [done] = await bench.notes.until(*labels(calls))
    assert (done.call.number, bench.notes.value("fail[0]")) == (3, 3)


async def test_a_killed_warm_job_loses_the_call_it_was_making_and_no_other(bench: Bench) -> None:
    marks = [str(bench.folder / f"mark{n}") for n in range(50)]
    shut(marks[7])
    calls = bench.calls(note, *marks)
    async with bench.serving(*calls):
        await until(lambda: Path(marks[7]).exists(), "the eighth call", SECONDS)
        [job] = {job for _, job in bench.notes.sent_to.values()} & _jobs_at(bench, 7)
        _kill_all(_pids_of(bench.folder / f"node/attempts/{job}.1/job"))
        done = await bench.notes.until(*labels(calls))
    assert [one.call.label for one in done if one.outcome.reason] == ["note[7]"]
    assert done[7].outcome.state is State.LOST
    assert "how far it had come is not known" in done[7].outcome.message
    assert all_once(marks)


async def test_a_lost_call_is_made_again_when_that_was_asked_for(bench: Bench) -> None:
    mark = str(bench.folder / "mark")
    shut(mark)
    calls = bench.calls(note, mark, retries=1)
    async with bench.serving(*calls):
        await until(lambda: Path(mark).exists(), "the call", SECONDS)
        [job] = bench.warm_jobs()
        _kill_all(_pids_of(bench.folder / f"node/attempts/{job}.1/job"))
        await until(lambda: Path(mark).read_text() == "xx", "the second try", SECONDS)
        let_go(mark)
        [done] = await bench.notes.until("note[0]")
    assert done.outcome.reason is None and done.job != job


async def test_a_service_that_comes_after_goes_on_with_each_call_once(bench: Bench) -> None:
    marks = [str(bench.folder / f"mark{n}") for n in range(300)]
    shut(marks[20])
    calls = bench.calls(note, *marks)
    async with bench.serving(*calls):
        await until(lambda: Path(marks[20]).exists(), "the gate", SECONDS)
    rest = [call for call in calls if call.label not in bench.notes.sent_to]
    let_go(marks[20])
    async with bench.serving(*rest):
        await bench.notes.until(*labels(calls))
    assert all_once(marks)
    assert not any(done.outcome.reason for done in bench.notes.ended.values())


async def test_a_service_that_comes_after_its_warm_job_ended_knows_what_that_did(bench: Bench) -> None:
    marks = [str(bench.folder / f"mark{n}") for n in range(30)]
    shut(marks[5])
    calls = bench.calls(note, *marks)
    async with bench.serving(*calls):
        await until(lambda: Path(marks[5]).exists(), "the gate", SECONDS)
    for job in bench.warm_jobs():
        _kill_all(_pids_of(bench.folder / f"node/attempts/{job}.1/job"))
    rest = [call for call in calls if call.label not in bench.notes.sent_to]
    async with bench.serving(*rest):
        done = await bench.notes.until(*labels(calls))
    assert [one.call.label for one in done if one.outcome.reason] == ["note[5]"]
    assert all_once(marks)


async def test_a_killed_run_leaves_the_other_run_in_the_same_job_alone(bench: Bench) -> None:
    mark = str(bench.folder / "mark")
    shut(mark)
    first = bench.calls(note, *[mark] * 50)
    second = bench.calls(double, *range(50), run=2)
    async with bench.serving(*first, *second):
        await until(lambda: Path(mark).exists(), "the first call", SECONDS)
        bench.pool.cancel(1)
        done = await bench.notes.until(*labels(first))
        others = await bench.notes.until(*labels(second))
    assert {one.outcome.state for one in done} == {State.KILLED}
    assert [one.output.value for one in others if one.output] == [2 * n for n in range(50)]


async def test_a_time_limit_is_of_each_call(bench: Bench) -> None:
    def wait(seconds: float) -> float:
        import time

        time.sleep(seconds)
        return seconds

    calls = bench.calls(wait, 600, 0, time_limit=1.0)
    async with bench.serving(*calls):
        late, quick = await bench.notes.until(*labels(calls))
    assert late.outcome.reason is ReasonCode.TIME_LIMIT
    assert quick.output and quick.output.value == 0


async def test_what_no_node_offers_is_refused_with_the_reason(bench: Bench) -> None:
    calls = bench.calls(double, 1, spec=bench.spec.model_copy(update={"cpu": 1000.0}))
    async with bench.serving(*calls):
        [done] = await bench.notes.until(*labels(calls))
    assert done.outcome.reason is ReasonCode.LAUNCH_FAILED
    assert "cpu" in done.outcome.message


async def test_jobs_that_never_make_a_call_are_given_up(bench: Bench) -> None:
    spec = bench.spec.model_copy(update={"command": ["/bin/false", "step"]})
    calls = bench.calls(double, 1, spec=spec)
    async with bench.serving(*calls):
        [done] = await bench.notes.until(*labels(calls))
    assert done.outcome.reason is ReasonCode.LAUNCH_FAILED
    assert "made none" in done.outcome.message


async def test_a_function_that_is_gone_from_the_store_fails_its_calls_only(bench: Bench) -> None:
    lost = bench.calls(double, 1, function=f"sha256:{'0' * 64}")
    others = bench.calls(note, str(bench.folder / "mark"))
    async with bench.serving(*lost, *others):
        [failed, good] = await bench.notes.until(*labels([*lost, *others]))
    assert "could not be staged" in failed.outcome.message
    assert good.outcome.reason is None


@pytest.mark.engine
async def test_in_containers_too(
    tmp_path: Path, running_service: Callable[..., Any], docker_url: str, test_image: str
) -> None:
    folders = {"stdlib": _standard_library(), "site": _packages(), "perijove": _sources()}
    made = Bench(tmp_path, running_service)
    volumes = {
        name: {"source": path, "target": f"/py/{name}", "read_only": True} for name, path in folders.items()
    }
    made.settings = Settings.model_validate({**made.settings.model_dump(), "volumes": volumes})
    made.spec = JobSpec.model_validate(
        {
            "command": ["python3", "-m", "perijove.runner", "step"],
            "image": test_image,
            "memory": "256M",
            "cwd": "/py/perijove",
            "volumes": list(folders),
            "env": {"PYTHONPATH": "/py/stdlib:/py/stdlib/lib-dynload:/py/site:/py/perijove"},
        }
    )
    await made.open_node(docker_url)
    try:
        calls = made.calls(double, *range(300))
        odd = made.calls(_account, 0, run=2)
        async with made.serving(*calls, *odd):
            await made.notes.until(*labels([*calls, *odd]))
        assert [made.notes.value(call.label) for call in calls] == [2 * n for n in range(300)]
        uid = made.service.controller.identify(getpass.getuser()).account.uid
        assert made.notes.value("_account[0]") == [uid, "/run/perijove"]
    finally:
        made.notes.sent_to.clear()
        await made.kill_jobs()
        await made.agent.close()


def _account(_: int) -> list[Any]:
    return [os.getuid(), os.environ["PERIJOVE_JOB_DIR"]]


def _standard_library() -> str:
    """Of the system's Python, which the test image has the rest of."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no /usr/bin/python3")
    said = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_path('stdlib'))"
    major, minor, path = subprocess.run(
        ["/usr/bin/python3", "-c", said], check=True, capture_output=True, text=True
    ).stdout.split()
    if (int(major), int(minor)) != sys.version_info[:2]:
        pytest.skip("the tests run on another Python than the system's")
    return path


def _packages() -> str:
    return str(Path(cloudpickle.__file__).parent.parent)


def _sources() -> str:
    return str(Path(perijove.__file__).parent.parent)


def _jobs_at(bench: Bench, number: int) -> set[int]:
    return {bench.notes.sent_to[f"note[{number}]"][1]}


def _pids_of(directory: Path) -> list[int]:
    """The processes of the job whose directory that is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PERIJOVE_JOB_DIR={directory}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    assert found
    return found


def _kill_all(pids: Sequence[int]) -> None:
    """-9 to each that is still there: one may end because another did."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
