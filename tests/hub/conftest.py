"""The real service application over simulated nodes: everything but engines and Dask."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import becomes

from perijove.model import (
    Attempt,
    Capabilities,
    Gpu,
    Job,
    Node,
    Outcome,
    ReasonCode,
    Stats,
    UnauthorizedError,
)
from perijove_hub.app import create_app
from perijove_hub.identity import Caller, SingleUser
from perijove_hub.jobs.controller import Controller
from perijove_hub.settings import Settings
from perijove_hub.store.database import Database
from perijove_hub.workflows.runs import Runs
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.launcher import LaunchError, StaleFenceError
from perijove_spawners.protocol import Answers, LogChunk, LogStream, Order, Report, ReportKind

TOKEN = "token-of-the-test"


def node(name: str = "n1", **changes: Any) -> Node:
    """A node with 4 cores, 8 GiB and 2 GPUs."""
    gpus = [Gpu(index=i, uuid=f"{name}-gpu{i}", model="NVIDIA A100", memory=40 << 30) for i in range(2)]
    launchers = [
        Capabilities(name="process", features=frozenset({"cpu", "gpus", "memory", "suspend"})),
        Capabilities(
            name="docker",
            containers=True,
            features=frozenset({"cpu", "gpus", "memory", "ports", "shm_size", "suspend"}),
            networks=frozenset({"none", "bridge", "host"}),
        ),
    ]
    fields = {"name": name, "cpus": 4.0, "memory": 8 << 30, "gpus": gpus, "launchers": launchers}
    return Node.model_validate({"incarnation": "1", **fields, **changes})


def _unheard(_reports: list[Report]) -> None:
    pass


@dataclass
class SimulatedNode:
    """A node agent without an engine: a job runs until the test (or `stop`) ends it."""

    described: Node = field(default_factory=node)
    orders: dict[Attempt, Order] = field(default_factory=dict)
    ended: dict[Attempt, Outcome] = field(default_factory=dict)
    received: list[Attempt] = field(default_factory=list)
    forgotten: list[Attempt] = field(default_factory=list)
    stopped: list[Attempt] = field(default_factory=list)
    frozen: set[Attempt] = field(default_factory=set)
    homes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Path -> bytes and whose they are."""
    signals: list[tuple[Attempt, str]] = field(default_factory=list)
    limits: dict[Attempt, float | None] = field(default_factory=dict)
    on_report: Any = field(init=False, default=_unheard)
    name: str = ""
    fence: int = 0

    def __post_init__(self) -> None:
        self.name = self.described.name

    def restart(self) -> SimulatedNode:
        """The agent's next incarnation, with what its disk held."""
        again = replace(self, described=self.described.model_copy(update={"incarnation": "2"}))
        again.on_report = _unheard
        return again

    def finish(self, attempt: Attempt, exit_code: int = 0, **changes: Any) -> None:
        """The job's program ends."""
        reason = None if exit_code == 0 else ReasonCode.NON_ZERO_EXIT
        outcome = Outcome(
            **{"exit_code": exit_code, "reason": reason, "started": 1.0, "ended": 2.0, **changes}
        )
        self.ended[attempt] = outcome
        self.say(attempt, ReportKind.ENDED, outcome=outcome)

    def say(self, attempt: Attempt, kind: ReportKind, **more: Any) -> None:
        self.on_report([Report(self.name, attempt, kind, time.time(), **more)])

    async def describe(self) -> Node:
        return self.described

    async def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.received.append(order.attempt)
            if order.attempt in self.orders:
                continue
            self.orders[order.attempt] = order
            self.say(order.attempt, ReportKind.STARTED)

    async def known(self, attempts: Sequence[Attempt] | None = None) -> list[Report]:
        found = []
        for attempt in self.orders if attempts is None else set(attempts) & set(self.orders):
            outcome = self.ended.get(attempt)
            alive = ReportKind.SUSPENDED if attempt in self.frozen else ReportKind.STARTED
            kind = ReportKind.ENDED if outcome else alive
            if attempts is not None or attempt not in self.forgotten:
                order = self.orders[attempt] if outcome is None else None
                gpus = tuple(gpu.uuid for gpu in order.gpus) if order else ()
                slots = order.slots if order else {}
                report = Report(self.name, attempt, kind, time.time(), outcome=outcome)
                found.append(replace(report, gpus=gpus, slots=slots))
        return found

    async def stop(self, attempts: Sequence[Attempt], grace: float | None = None) -> None:
        for attempt in attempts:
            self.stopped.append(attempt)
            self.orders.setdefault(attempt, None)  # type: ignore[arg-type]
            self.finish(attempt, 143, reason=ReasonCode.KILLED_BY_USER)

    def meet(self, fence: int) -> None:
        if fence < self.fence:
            raise StaleFenceError(f"fence {fence} is lower than {self.fence}")
        self.fence = fence

    async def signal(self, attempts: Sequence[Attempt], name: str) -> None:
        self.signals += [(attempt, name) for attempt in attempts]

    async def update(self, attempt: Attempt, time_limit: float | None) -> None:
        self.limits[attempt] = time_limit

    async def disk(self, attempts: Sequence[Attempt]) -> dict[Attempt, int]:
        return {attempt: 1 << 20 for attempt in attempts if attempt in self.orders}

    async def measure_home(self, path: str) -> int | None:
        return self.homes[path][0] if path in self.homes else None

    async def remove_home(self, path: str) -> None:
        self.homes.pop(path, None)

    async def hand_over(self, path: str, old_uid: int, uid: int, gid: int, to: str | None = None) -> int:
        if self.homes[path][1] == old_uid:
            self.homes[to or path] = (self.homes.pop(path)[0], uid)
        return 1

    async def suspend(self, attempt: Attempt) -> None:
        self.frozen.add(attempt)
        self.say(attempt, ReportKind.SUSPENDED)

    async def resume(self, attempt: Attempt) -> None:
        self.frozen.discard(attempt)
        self.say(attempt, ReportKind.RESUMED)

    async def logs(
        self, attempt: Attempt, stream: LogStream, offset: int, limit: int, wait: float = 0.0
    ) -> LogChunk | None:
        text = f"{stream} of {attempt} äöü\n".encode()
        return LogChunk(text[offset : offset + limit], offset, end=attempt in self.ended)

    async def stats(self, attempt: Attempt) -> Stats:
        return Stats(cpu=0.5, memory=1 << 20)

    async def exec(self, attempt: Attempt, command: Sequence[str]) -> tuple[int, bytes]:
        return 0, b""

    async def compute(
        self, attempt: Attempt, message: bytes, contents: Sequence[str], offset: int | None, wait: float = 0.0
    ) -> Answers:
        raise LaunchError(f"{attempt} answers no calls")

    async def forget(self, attempts: Sequence[Attempt]) -> None:
        self.forgotten.extend(attempts)

    async def kept(self, after: Attempt | None, limit: int) -> list[Attempt]:
        return sorted(one for one in self.orders if after is None or one > after)[:limit]

    async def purge(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self.orders.pop(attempt, None)


@dataclass
class Service:
    """A running service and the ends of it that a test pulls at."""

    http: httpx.AsyncClient
    controller: Controller
    fabric: DirectFabric
    nodes: dict[str, SimulatedNode]
    runs: Runs

    async def submit(self, **spec: Any) -> dict[str, Any]:
        answer = await self.http.post("/jobs", json={"command": ["true"], **spec})
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def show(self, job: int | str) -> dict[str, Any]:
        answer = await self.http.get(f"/jobs/{job}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def until(self, job: int | str, *states: str) -> dict[str, Any]:
        """Wait until the job is in one of `states`."""

        async def reached() -> dict[str, Any] | None:
            found = await self.show(job)
            return found if found["state"] in states else None

        return await becomes(reached, f"{job}: {' or '.join(states)}", 10)

    async def settled(self) -> None:
        """Let everything that is under way come to rest."""
        for _ in range(3):
            await self.controller.committed()
            await asyncio.sleep(0.02)
        self.controller.ledger.check()

    def job(self, job: int) -> Job | None:
        return self.controller.board.find(job)


@dataclass
class Tokens:
    """Callers by token."""

    callers: dict[str, Caller]

    async def caller(self, token: str) -> Caller:
        if token not in self.callers:
            raise UnauthorizedError
        return self.callers[token]

    async def administers(self, name: str) -> bool | None:
        return next((one.admin for one in self.callers.values() if one.name == name), None)

    async def issued(self, caller: Caller) -> float:
        return 1.0


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of this version: each migration waits for the disk several times."""
    path = tmp_path_factory.mktemp("migrated") / "perijove.db"
    database = Database.at(path)
    database.migrate()
    database.close()
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    made = Settings(state=tmp_path, mode="single", max_body=1 << 20)
    shutil.copy(migrated, made.database)
    return made


@asynccontextmanager
async def running(
    settings: Settings,
    nodes: Sequence[SimulatedNode],
    *,
    user: str | None = None,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Service]:
    """The service over `nodes`, in this process; leaving it is like a clean stop."""
    fabric = DirectFabric(nodes)
    identities = SingleUser(user or getpass.getuser(), TOKEN)
    app = create_app(settings, fabric=fabric, identities=identities)
    controller: Controller = app.state.controller
    controller.clock = controller.core.clock = clock
    controller.core.steady = steady
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        base = f"http://service{settings.prefix}/api/v1"
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as http:
            yield Service(http, app.state.controller, fabric, {n.name: n for n in nodes}, app.state.runs)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with running(settings, [SimulatedNode()]) as service:
        yield service


def home() -> str:
    return os.path.expanduser("~")  # noqa: PTH111 - compared with what the service answers


@pytest.fixture
def running_service() -> Callable[..., AbstractAsyncContextManager[Service]]:
    """:func:`running`, for tests that bring nodes of their own."""
    return running


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of the test's own, on each of the two."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


async def ask_as(app: Any, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
    """What the application answers to who has the token `who`."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {who}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://s", headers=headers) as http:
        return await http.request(method, f"/api/v1{path}", json=body)
