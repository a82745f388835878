"""The service put together: settings in, a FastAPI application out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getpass
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import FastAPI

from perijove.model import OperatorError
from perijove_hub.announcing import Announcements
from perijove_hub.api import problems
from perijove_hub.api.description import describe
from perijove_hub.api.joining import renew_certificate
from perijove_hub.api.routes import PARTS, methods_at
from perijove_hub.auditing import AuditLog
from perijove_hub.headers import SafeAnswers
from perijove_hub.identity import HubUsers, Identities, OwnFirst, SingleUser
from perijove_hub.jobs.controller import Controller
from perijove_hub.listener import Door
from perijove_hub.pages import PAGES
from perijove_hub.pages.session import Sessions
from perijove_hub.private_files import kept_secret
from perijove_hub.settings import Settings
from perijove_hub.standby import Standby, led
from perijove_hub.store.database import Database
from perijove_hub.store.leadership import LOCK, Leadership, holder_at
from perijove_hub.tokens.book import Tokens
from perijove_hub.tokens.device import DeviceLogins
from perijove_hub.tokens.hub import Hub
from perijove_hub.tokens.revocation import Revocation
from perijove_hub.users.users import Users
from perijove_hub.users.watch import Watch
from perijove_hub.workflows.runs import Runs
from perijove_spawners.fabric.dask_fabric import DaskFabric
from perijove_spawners.fabric.news import news
from perijove_spawners.fabric.port import Fabric
from perijove_spawners.fabric.tls import ensure_tls

log = logging.getLogger(__name__)


def create_app(settings: Settings, *, fabric: Fabric, identities: Identities) -> FastAPI:
    """The application; `fabric` and `identities` are given so that tests can bring their own."""
    database = Database(settings.database_at)
    audit, announcements = AuditLog(database), Announcements(database)
    users = Users(settings, database, lambda: controller.policy, lambda: controller.clock())
    controller = Controller(
        settings, database, fabric, users.identity, groups_of=users.groups_of, terms_of=users.terms_of
    )
    store = controller.keeper.store
    runs = Runs(controller, store)
    tokens = Tokens(database, settings.longest_token)
    devices = DeviceLogins()
    revocation = Revocation(tokens, devices, *at_the_hub(identities))
    watch = Watch(users, controller, runs, audit.note, revocation.sign_out)
    leadership = _leadership_of(settings, database)

    async def begin() -> None:
        fabric.fence = leadership.fence or 0
        await announcements.recall()
        await users.open()
        await controller.open()
        await tokens.open()
        await runs.open()
        await revocation.resume(users.people)
        await watch.open()

    async def end() -> None:
        await revocation.close()
        await tokens.close()
        await controller.close()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(database.migrate_patiently)
        try:
            async with led(leadership, begin, end, lambda: controller.died()):
                yield
        finally:
            database.close()

    app = _answering(settings, lifespan, leadership)
    app.state.settings, app.state.controller, app.state.users = settings, controller, users
    app.state.leadership, app.state.watch = leadership, watch
    app.state.audit, app.state.announcements = audit, announcements
    app.state.identities, app.state.tokens = OwnFirst(tokens, identities), tokens
    app.state.devices, app.state.revocation = devices, revocation
    app.state.store, app.state.runs = store, runs
    app.state.sessions = _sessions_of(settings, identities)
    return app


def _sessions_of(settings: Settings, identities: Identities) -> Sessions:
    key, auth = kept_secret(settings.state / "cookie-key"), getattr(identities, "auth", None)
    return Sessions(key, settings.prefix, auth, apart=settings.login.apart)


def _leadership_of(settings: Settings, database: Database) -> Leadership:
    holder, lock = holder_at(settings.state), settings.state / LOCK
    return Leadership(database, holder, settings.own_url, ttl=settings.lease, lock=lock)


def _answering(settings: Settings, lifespan: Any, leadership: Leadership) -> FastAPI:
    """Pages and REST interface, without what they ask."""
    app = FastAPI(
        title="Perijove",
        version=version("perijove"),
        summary="One queue for notebooks, jobs and workflows",
        lifespan=lifespan,
        openapi_url=f"{settings.prefix}/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.add_middleware(Standby, leadership=leadership)
    app.add_middleware(SafeAnswers)
    rest = f"{settings.prefix}/api/v1"
    problems.install(app, lambda path: methods_at(path.removeprefix(rest)) if path.startswith(rest) else [])
    for page in PAGES:
        app.include_router(page, prefix=settings.prefix)
    for part in PARTS:
        app.include_router(part, prefix=rest)
    describe(app)
    return app


def at_the_hub(identities: Identities) -> tuple[Hub | None, Callable[[], None]]:
    """Where users are signed out too, and how what was learned there about tokens is forgotten."""
    if isinstance(identities, HubUsers):
        return identities.hub, identities.forget
    return None, lambda: None


def identities_of(settings: Settings) -> Identities:
    """Who may ask: the hub's users, or the user who runs the service alone."""
    if settings.mode == "hub":
        from jupyterhub.services.auth import HubOAuth

        auth = HubOAuth(cache_max_age=30)
        return HubUsers(auth, settings.admins, Hub(auth.api_url, auth.api_token))
    try:
        endpoint = json.loads((settings.state / "endpoint.json").read_text())
        return SingleUser(getpass.getuser(), str(endpoint["token"]))
    except (OSError, ValueError, KeyError) as error:
        raise OperatorError(f"no token in {settings.state / 'endpoint.json'}: {error}") from error


def listen(addresses: list[str]) -> list[socket.socket]:
    """Sockets bound to ``host:port`` each. :class:`OperatorError` names one that cannot be had."""
    sockets = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host.strip("[]"), int(port)))
        except (OSError, ValueError) as error:
            raise OperatorError(f"listen: cannot listen on {address}: {error}") from error
        sockets.append(bound)
    return sockets


def allow_connections(most: int = 65_536) -> None:
    """Have as many open files as this process may: each who listens to events is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT."""
    allow_connections()
    # The database holds the environments of jobs, tokens of notebook servers among them.
    os.umask(0o077)
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o711)
    fabric = DaskFabric(settings.scheduler, security=ensure_tls(settings.tls, "service"))
    fabric.refused = news(settings.tls)
    app = create_app(settings, fabric=fabric, identities=identities_of(settings))
    fabric.renew = partial(renew_certificate, settings.tls, app.state.audit)
    # Whoever watches over the service starts it again, from what is durable.
    app.state.controller.died = partial(os._exit, 1)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        http=Door,
    )
    # Jobs live long and make no cycles: looking at all of them again and again for garbage took a third of
    # the time with 100,000 pending. Few at a time: nothing else runs meanwhile.
    gc.freeze()
    gc.set_threshold(50_000, 5, 2000)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.Server(config).run(sockets=listen(settings.listen))
