"""``perijove up``: starts the plan's programs, says when work is accepted, and stops them in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx

from perijove.model import OperatorError
from perijove_hub.hub_config import PREFIX
from perijove_hub.private_files import kept_name, kept_secret
from perijove_hub.proxy import install_proxy
from perijove_hub.settings import Settings, usual_state
from perijove_hub.up import endpoint
from perijove_hub.up.engine import choose_launcher
from perijove_hub.up.lock import StateLock
from perijove_hub.up.plan import Plan, UpOptions, make_plan, ports_wanted
from perijove_hub.up.ports import is_free, keep_ports
from perijove_hub.up.supervisor import Child, end_leftovers
from perijove_hub.up.trial import TrialAccount, trial_account

log = logging.getLogger(__name__)

READY_SECONDS = 120.0
STOP_JOBS_SECONDS = 60.0
DIRECTORIES = {"log": 0o700, "run": 0o700, "hub": 0o700, "homes": 0o755, "tls": 0o700}


def _store(settings: Settings) -> dict[str, str]:
    """Where the settings have the content store, for the node, which does not read them."""
    return {"PERIJOVE_STORE": settings.store, "PERIJOVE_STORE_OPTIONS": json.dumps(settings.store_options)}


def run(options: UpOptions) -> None:
    """Keep Perijove running until SIGINT or SIGTERM. Raises :class:`OperatorError`."""
    _check_scheduler_host(options.scheduler_host)
    prepare_state(options.state)
    settings = Settings.read(options.state)
    with StateLock(options.state):
        if left := end_leftovers(options.state / "run"):
            log.warning("ended what an up that was killed had left: %s", left)
        choice = choose_launcher(options.launcher)
        say(f"Jobs run with the launcher {choice.name}: {choice.why}")
        for line in closed_to_others(options, choice.name):
            say(line)
        trial = trial_account(options.state)
        proxy = install_proxy() if options.hub else []
        ports = keep_ports(options.state / "ports.json", ports_wanted(options, choice))
        plan = make_plan(
            options,
            choice,
            ports,
            trial,
            {**os.environ, **_store(settings)},
            proxy,
            installation=kept_name(options.state / "installation"),
            root=os.geteuid() == 0,
            names=settings.login.url if settings.login.subdomains else "",
        )
        _check_public_port(options, plan)
        if plan.hub:
            plan.hub.save(options.state / "hub" / "options.json")
        else:
            token = str(endpoint.read_endpoint(options.state).get("token") or secrets.token_urlsafe(32))
            endpoint.write_endpoint(options.state, plan.api_url, token, [choice.name])
        asyncio.run(Up(options, plan, trial, settings).run())


def prepare_state(state: Path) -> None:
    """The directories of a state directory, as docs/architecture.md has them."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name, mode in DIRECTORIES.items():
            (state / name).mkdir(exist_ok=True, mode=mode)
    except OSError as error:
        raise OperatorError(f"the state directory {state} cannot be used: {error}") from error


def closed_to_others(options: UpOptions, launcher: str) -> list[str]:
    """What to say of directories that the accounts of jobs must pass through and may not.

    It only matters to plain processes that root starts for others.
    """
    if os.geteuid() != 0 or not options.hub or launcher != "process":
        return []
    needed = {
        "Python": Path(sys.executable).resolve(),
        "Perijove": Path(__file__),
        "the state": options.state,
    }
    found = []
    for what, path in needed.items():
        if closed := [parent for parent in path.parents if not parent.stat().st_mode & stat.S_IXOTH]:
            found.append(
                f"Only root can pass through {closed[0]}: jobs of others cannot use {what} in {path}"
            )
    return found


def _check_scheduler_host(host: str) -> None:
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104
        raise OperatorError("--scheduler-host: give the one address by which other hosts reach this one")
    if not is_free(host, 0):
        raise OperatorError(f"--scheduler-host: {host} is no address of this machine")


def _check_public_port(options: UpOptions, plan: Plan) -> None:
    port = int(plan.url.rpartition(":")[2])
    if not is_free(options.host, port):
        raise OperatorError(
            f"port {port} of {options.host} is taken; give another --port, or 0 for any free one"
        )


def say(line: str) -> None:
    """A line for the person, or the script, that started `up`."""
    print(line, flush=True)


class Up:
    """One run of the plan."""

    def __init__(self, options: UpOptions, plan: Plan, trial: TrialAccount, settings: Settings) -> None:
        self.options, self.plan, self.trial, self.settings = options, plan, trial, settings
        self.children: list[Child] = []

    async def run(self) -> None:
        """Start all, wait for the end that was asked for, stop all."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            try:
                for program in self.plan.programs:
                    child = Child(program, self.options.state)
                    self.children.append(child)
                    await child.start()
                if await self._first(stop, self._ready(http), READY_SECONDS):
                    await self._first(stop)
                if stop.is_set() and self.options.on_exit == "stop":
                    await self._stop_jobs(http)
            finally:
                say("Stopping; jobs that run go on" if self.options.on_exit == "leave" else "Stopping")
                for child in reversed(self.children):
                    await child.stop()

    async def _first(
        self, stop: asyncio.Event, work: Coroutine[Any, Any, None] | None = None, seconds: float | None = None
    ) -> bool:
        """Wait for `work` or for `stop`; whether it was `work`.

        Raises :class:`OperatorError` when `seconds` have passed or a child cannot be kept running.
        """
        stopped = asyncio.create_task(stop.wait())
        task = asyncio.create_task(work) if work is not None else None
        failures = [child.failed for child in self.children]
        waiting: list[asyncio.Future[Any]] = [stopped, *failures, *([task] if task else [])]
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for failure in failures:
                if failure.done():
                    failure.result()
            if not done:
                raise OperatorError(f"not ready after {seconds:.0f} s; see {self.options.state / 'log'}")
            if task is not None and task.done():
                task.result()
                return True
            return False
        finally:
            stopped.cancel()
            if task:
                task.cancel()

    async def _ready(self, http: httpx.AsyncClient) -> None:
        await endpoint.wait_healthy(http, f"{self.plan.api_url}/api/v1/health")
        if self.plan.hub:
            for path in ("/hub/health", f"{PREFIX}/api/v1/health"):
                await endpoint.wait_healthy(http, f"{self.plan.url}{path}", self.plan.host)
        token = await self._endpoint(http)
        say(f"Perijove is ready at {self.plan.shown}")
        for line in self._what_next(token_file=bool(token)):
            say(line)

    def _what_next(self, *, token_file: bool) -> Iterator[str]:
        """What a person does now."""
        state, hub, trial = self.options.state, self.plan.hub, self.trial
        if hub:
            yield f"Log in as {trial.name} with the password {trial.password} ({state / 'password'})"
            if hub.local_accounts:
                yield "or with a local account of this machine and its own password"
        if token_file:
            yield f"Or in a terminal: {in_a_terminal(state, str(Path(sys.argv[0]).absolute()))}"
        if hub and not self.settings.admins:
            yield f"No administrator is named yet: admins: [NAME] in {state / 'perijove.yaml'}"

    async def _endpoint(self, http: httpx.AsyncClient) -> str:
        """Leave address, token and launchers for the client; the token."""
        state, hub = self.options.state, self.plan.hub
        token = str(endpoint.read_endpoint(state).get("token") or "")
        launchers = await endpoint.launchers_of(http, self.plan.api_url, token) if token else []
        if hub and not launchers:
            api = f"http://{hub.hub_host}:{hub.hub_port}/hub/api"
            setup = kept_secret(state / "hub" / "setup.token")
            try:
                token = await endpoint.new_user_token(http, api, setup, self.trial.name)
            except httpx.HTTPError as error:
                log.error("no token for the command line: %s", error)
                return ""
            launchers = await endpoint.launchers_of(http, self.plan.api_url, token)
        endpoint.write_endpoint(state, self.plan.client_url, token, launchers)
        return token

    async def _stop_jobs(self, http: httpx.AsyncClient) -> None:
        state = self.options.state
        token = (
            kept_secret(state / "hub" / "setup.token")
            if self.plan.hub
            else str(endpoint.read_endpoint(state)["token"])
        )
        say("Stopping the jobs")
        try:
            left = await endpoint.stop_jobs(http, self.plan.api_url, token, STOP_JOBS_SECONDS)
        except httpx.HTTPError as error:
            say(f"The jobs could not be stopped: {error or type(error).__name__}")
            return
        if left:
            say(f"{left} jobs did not end within {STOP_JOBS_SECONDS:.0f} s")


def in_a_terminal(state: Path, program: str) -> str:
    """A first command that works as it stands for who started `up` as `program`, wherever that lies."""
    if shutil.which("perijove") == program:
        program = "perijove"
    where = "" if state == usual_state() else f"PERIJOVE_STATE={shlex.quote(str(state))} "
    return f"{where}{program} run -- hostname"
