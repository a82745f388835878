"""JupyterHub's spawner: someone's notebook server is a job like any other."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub.spawner import Spawner
from jupyterhub.utils import random_port
from sqlalchemy.orm import object_session
from tornado.web import HTTPError
from traitlets import Integer, List, Unicode, default

from perijove.model import (
    ConflictError,
    Endpoint,
    Job,
    JobSpec,
    Kind,
    NotFoundError,
    PerijoveError,
    State,
    UnavailableError,
    UserError,
)
from perijove.model.values import NAME_LENGTH
from perijove_spawners.hub.server_options import ServerOptions, form_html, launcher_of
from perijove_spawners.hub.service_client import ServiceClient

SERVER_LABEL = "jupyterhub-server"
FOREVER = 30 * 86400
"""A server may wait in the queue; only its user decides when that is too long."""
STOP_SECONDS = 90.0
SERVICE_SECONDS = 300.0
"""How long a hub waits for the service that it starts itself."""
FORM_SECONDS = 20.0
PORT_SECONDS = 0.05
JOB_SECONDS = 1.0
"""Between two looks at a server's port, and at its job, while it starts."""

T = TypeVar("T")


class PerijoveSpawner(Spawner):  # type: ignore[misc]
    """A thin client of Perijove's service: submits, watches and kills one job for each server.

    What it keeps is the job's number; so the server survives restarts of hub and service.
    """

    api_url = Unicode("http://127.0.0.1:8008", config=True, help="Perijove's service, with its prefix.")
    notebook_api_url = Unicode(config=True, help="The same as notebooks reach it; api_url when empty.")
    token_file = Unicode(config=True, help="File with the token of a hub service that may act for users.")
    launcher = Unicode(config=True, help="Launcher of notebook servers; the site's default when empty.")
    container_port = Integer(8888, config=True, help="Port of the server within its container.")
    container_cmd = List(
        Unicode(), ["jupyterhub-singleuser"], config=True, help="Command of the server within a container."
    )

    @default("start_timeout")
    def _start_timeout(self) -> int:
        return FOREVER

    @default("http_timeout")
    def _http_timeout(self) -> int:
        return 120

    @default("poll_interval")
    def _poll_interval(self) -> int:
        return 10

    @default("env_keep")
    def _env_keep(self) -> list[str]:
        # The hub's own PATH and PYTHONPATH mean nothing on the node.
        return []

    @default("apply_user_options")
    def _apply_user_options(self) -> Any:
        # `start` does it, when it makes the job's specification.
        return lambda _spawner, _options: None

    @default("options_form")
    def _options_form(self) -> Any:
        return self._form

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id: int | None = None
        self._job: Job | None = None
        self._changed = asyncio.Condition()
        self._starting = False
        # The hub went away while this server was starting: nobody waits for it any more.
        self._abandoned = False
        self._service: ServiceClient | None = None

    # what the hub keeps for us

    def get_state(self) -> dict[str, Any]:
        """The job's number, and whether the start was still going on."""
        state: dict[str, Any] = super().get_state()
        if self.job_id is not None:
            state |= {"job": self.job_id, "starting": self._starting}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """After a restart of the hub."""
        super().load_state(state)
        self.job_id = state.get("job")
        self._abandoned = bool(state.get("starting"))

    def clear_state(self) -> None:
        """After the end of the server."""
        super().clear_state()
        self.job_id, self._job = None, None
        self._starting = self._abandoned = False

    # start, poll, stop

    async def start(self) -> tuple[str, int]:
        """Where the server listens, once it runs; waits in the queue for as long as that takes."""
        try:
            await self._patiently(self._end_strays)
            spec, key = await self._patiently(self._spec), uuid.uuid4().hex
            job = await self._patiently(lambda: self.service.submit(spec, self.user.name, key))
        except PerijoveError as error:
            raise self._refusal(error) from error
        self.job_id, self._starting = job.id, True
        self._remember()
        self.log.info("server %s is job %s", self._log_name, job.id)
        await self._note(job)
        job = await self._until(lambda job: (job.state is State.RUNNING and job.endpoint) or job.state.ended)
        if job.state.ended or job.endpoint is None:
            raise self._refusal(ConflictError(f"the server's job {job.label} {ending(job)}"))
        host, port = address_of(job.endpoint)
        await self._listens(host, port)
        self._starting = False
        return host, port

    async def poll(self) -> int | None:
        """None while the job has not ended, or nobody can say; else its exit code."""
        if self.job_id is None:
            return 0
        if self._abandoned:
            await self.stop(now=True)
            return 1
        try:
            job = await self.service.job(self.job_id)
        except NotFoundError:
            return 1
        except PerijoveError as error:
            self.log.warning("the state of %s is not known: %s", self._log_name, error)
            return None
        if not job.state.ended:
            return None
        return job.exit_code if job.exit_code is not None else 1

    async def stop(self, now: bool = False) -> None:
        """Kill the job, and return when it has ended."""
        if (number := self.job_id) is None:
            return
        try:
            # The hub forgets the server whatever comes of this; so an answer is worth waiting for.
            job = await self._patiently(lambda: self.service.kill(number))
        except (NotFoundError, ConflictError):
            return
        except PerijoveError as error:
            raise self._refusal(error) from error
        if not now and not job.state.ended:
            async with asyncio.timeout(STOP_SECONDS):
                await self._until(lambda job: job.state.ended)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the page says while the server starts: state, place in the queue, and why it waits."""
        said = ""
        while self._start_pending:
            job = self._job
            percent, message = progress_of(job) if job else (0, "Asking Perijove for a place")
            if message != said:
                said = message
                yield {"progress": percent, "message": message}
            if job and job.state.ended:
                return
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), 1.0)
                except TimeoutError:
                    continue

    # the form

    async def options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, Any]:
        """What was chosen; ``ValueError`` in words for the page."""
        return ServerOptions.from_form(formdata).model_dump(exclude_none=True)

    async def _form(self, _: Spawner) -> str:
        try:
            site = await self._patiently(self.service.site, FORM_SECONDS)
        except PerijoveError as error:
            self.log.error("no options form for %s: %s", self.user.name, error)
            raise self._refusal(error) from error
        _, containers = launcher_of(site, self.launcher)
        return form_html(site, self._defaults(), containers)

    # within

    @property
    def service(self) -> ServiceClient:
        """The service, with the token that acts for users; it never gets into a server's environment."""
        if self._service is None:
            token = Path(self.token_file).read_text().strip() if self.token_file else ""
            self._service = ServiceClient(self.api_url, token)
        return self._service

    def _defaults(self) -> ServerOptions:
        return ServerOptions(cpus=self.cpu_limit or 1.0, memory=int(self.mem_limit or 1 << 30))

    async def _spec(self) -> JobSpec:
        try:
            chosen = ServerOptions.parse(self.user_options)
        except ValueError as error:
            raise UserError(str(error)) from error
        launcher, containers = launcher_of(await self.service.site(), self.launcher)
        if containers:
            self.ip, self.port, command = "0.0.0.0", self.container_port, list(self.container_cmd)  # noqa: S104
        else:
            self.ip, self.port = "127.0.0.1", random_port()
            command = [str(Path(sys.executable).parent / "jupyterhub-singleuser")]
        options = self._defaults().merged(chosen)
        wanted: dict[str, Any] = {
            "kind": Kind.SERVER,
            "name": self._title,
            "command": [*command, *self.get_args()],
            "env": self._environment(containers),
            "ports": [self.port],
            "labels": {SERVER_LABEL: self._label},
            **({"launcher": launcher} if launcher else {}),
            **options.spec_fields(containers),
        }
        return JobSpec.model_validate(wanted)

    def _environment(self, containers: bool) -> dict[str, str]:
        env = {name: str(value) for name, value in self.get_env().items() if value is not None}
        env.setdefault("PERIJOVE_URL", self.notebook_api_url or self.api_url)
        if not containers:
            programs = str(Path(sys.executable).parent)
            env.setdefault("PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
        return env

    @property
    def _title(self) -> str:
        return f"Jupyter server {self.name}".rstrip()[:NAME_LENGTH]

    @property
    def _label(self) -> str:
        return f"/{self.name}"[:NAME_LENGTH]

    async def _end_strays(self) -> None:
        """End what an earlier start left in the queue when the hub was killed: its token is void."""
        for job in await self.service.live(self.user.name, self._title):
            if job.spec.labels.get(SERVER_LABEL) == self._label:
                self.log.warning("ending job %s, an earlier server %s", job.id, self._log_name)
                await self.service.kill(job.id)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], seconds: float = SERVICE_SECONDS) -> T:
        """What `ask` answers, asked again while the service does not answer, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await ask()
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                self.log.warning("waiting for Perijove's service: %s", error)
                await asyncio.sleep(1)

    def _remember(self) -> None:
        """Write the job's number to the hub's database now; the hub itself does so after the start."""
        if self.orm_spawner is not None and (session := object_session(self.orm_spawner)):
            self.orm_spawner.state = self.get_state()
            session.commit()

    async def _until(self, reached: Any) -> Job:
        """Follow the job until `reached` says so; an unreachable service only makes it longer."""
        started = time.monotonic()
        while True:
            assert self.job_id is not None
            try:
                job = await self.service.job(self.job_id)
            except UnavailableError as error:
                self.log.warning("waiting for the service: %s", error)
            else:
                await self._note(job)
                if reached(job):
                    return job
            await asyncio.sleep(min(2.0, 0.1 + (time.monotonic() - started) / 50))

    async def _listens(self, host: str, port: int) -> None:
        """Wait until the server has opened its port, or ended; not longer than the hub would wait for it.

        The hub asks at growing intervals, up to seconds apart, and takes no notice of a server that is dead.
        """
        deadline = time.monotonic() + self.http_timeout
        look_again = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(1):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                await asyncio.sleep(PORT_SECONDS)
            else:
                writer.close()
                return
            if time.monotonic() >= look_again:
                look_again = time.monotonic() + JOB_SECONDS
                job = await self._until(lambda _: True)
                if job.state.ended:
                    raise self._refusal(ConflictError(f"the server's job {job.label} {ending(job)}"))

    async def _note(self, job: Job) -> None:
        self._job = job
        async with self._changed:
            self._changed.notify_all()

    def _refusal(self, error: PerijoveError) -> HTTPError:
        """`error` as the hub shows it to the user."""
        refusal = HTTPError(error.status, "%s", str(error), reason=None)
        refusal.jupyterhub_message = str(error)  # type: ignore[attr-defined]
        return refusal


def address_of(endpoint: Endpoint) -> tuple[str, int]:
    """Host and port of the one port a server has."""
    host, _, port = next(iter(endpoint.ports.values())).rpartition(":")
    return host.strip("[]"), int(port)


def ending(job: Job) -> str:
    """How it ended, in words."""
    text = f"ended: {job.state}"
    if job.reason:
        text += f", {job.reason.code}" + (f" ({job.reason.message})" if job.reason.message else "")
    if job.exit_code is not None:
        text += f", exit code {job.exit_code}"
    return text


def progress_of(job: Job) -> tuple[int, str]:
    """How far a start is, in percent, and what it waits for."""
    reason = job.reason
    why = f": {reason.message or reason.code}" if reason else ""
    if job.state is State.PENDING:
        place = f", place {reason.position} in the queue" if reason and reason.position else ""
        return 10, f"Job {job.label} waits{place}{why}"
    if job.state is State.HELD:
        return 10, f"Job {job.label} is held until it is released"
    if job.state is State.STARTING:
        return 50, f"Job {job.label} starts on {job.node}{why}"
    if job.state.ended:
        return 100, f"Job {job.label} {ending(job)}"
    return 80, f"Job {job.label} runs on {job.node}; waiting for Jupyter to answer"
