"""JupyterHub's configuration for Perijove, from a few typed values.

``perijove up`` uses it through :mod:`perijove_hub.jupyterhub_config`. An operator with a hub of their own
calls :func:`configure` in their ``jupyterhub_config.py`` and changes afterwards what they like.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from perijove_hub.auth.configuration import LoginSettings
from perijove_hub.auth.fetches import HEADERS, guard
from perijove_hub.identity import ACT_AS, ADMIN, LOGIN, READ, SUBMIT
from perijove_hub.private_files import kept_secret
from perijove_hub.settings import Settings
from perijove_hub.up.leash import PARENT, leashed

SERVICE = "perijove"
PREFIX = f"/services/{SERVICE}"
SPAWNER_ACCOUNT = "perijove-spawner"
SETUP_ACCOUNT = "perijove-setup"
LOGIN_ACCOUNT = "perijove-login"

_LABEL = re.compile(r"(?!.*--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Config = Any
"""A traitlets ``Config``: attributes are made by being named."""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """What JupyterHub has to be told; ports are TCP ports of this host."""

    host: str
    port: int
    hub_host: str
    """Address of the hub's own API; notebooks must reach it."""
    hub_port: int
    proxy_api_port: int
    service_port: int
    service_url: str
    """How notebooks reach the service, with its prefix."""
    proxy: list[str]
    """Command line of the proxy."""
    trial_user: str
    local_accounts: bool
    """Whether all local accounts may log in, or the trial account only."""

    def save(self, path: Path) -> None:
        """Keep them for :meth:`load`."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> HubOptions:
        """What :meth:`save` kept."""
        return cls(**json.loads(path.read_text()))


def configure(c: Config, options: HubOptions, state: Path) -> None:
    """Set up JupyterHub with Perijove's service, spawner and local accounts; state lies in ``DIR/hub``."""
    hub = state / "hub"
    _network(c, options, hub)
    _servers_outlive_the_hub(c)
    _service(c, options, hub)
    _roles(c, options)
    login = Settings(state=state).login
    _login(c, options, state, login)
    c.JupyterHub.spawner_class = "perijove"
    c.JupyterHub.allow_named_servers = True
    # A server may wait in Perijove's queue for as long as it takes; that is no load on the hub.
    c.JupyterHub.concurrent_spawn_limit = 0
    # To the page that says what the server waits for, after a second.
    c.JupyterHub.tornado_settings = {
        "slow_spawn_timeout": 1,
        "headers": dict(HEADERS),
        # It holds the token of forms: pages have that in themselves, and no script needs the cookie.
        "xsrf_cookie_kwargs": {"httponly": True, "secure": login.url.startswith("https://")},
    }
    c.Spawner.default_url = "/lab"
    c.PerijoveSpawner.api_url = f"http://127.0.0.1:{options.service_port}{PREFIX}"
    c.PerijoveSpawner.notebook_api_url = options.service_url
    c.PerijoveSpawner.token_file = str(hub / "spawner.token")


def _network(c: Config, options: HubOptions, hub: Path) -> None:
    c.JupyterHub.bind_url = f"http://{options.host}:{options.port}"
    c.JupyterHub.hub_bind_url = f"http://{options.hub_host}:{options.hub_port}"
    c.JupyterHub.db_url = f"sqlite:///{hub / 'jupyterhub.sqlite'}"
    c.JupyterHub.cookie_secret_file = str(hub / "cookie_secret")
    c.JupyterHub.pid_file = str(hub / "jupyterhub.pid")
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{options.proxy_api_port}"
    c.ConfigurableHTTPProxy.pid_file = str(hub / "proxy.pid")
    c.ConfigurableHTTPProxy.command = leashed(*options.proxy)
    # The proxy inherits it: its parent is this hub and not `up`.
    os.environ[PARENT] = str(os.getpid())


def _servers_outlive_the_hub(c: Config) -> None:
    # The only local process is the service: it is missed at once when it dies.
    c.LocalProcessSpawner.poll_interval = 2
    # SIGINT, SIGTERM and SIGKILL to it follow each other before `up` loses patience with the hub.
    c.LocalProcessSpawner.interrupt_timeout = 8
    c.LocalProcessSpawner.term_timeout = 2
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.shutdown_on_logout = False


def _service(c: Config, options: HubOptions, hub: Path) -> None:
    c.JupyterHub.custom_scopes = {
        READ: {"description": "See one's own jobs in Perijove"},
        SUBMIT: {"description": "Submit jobs to Perijove, and see and end one's own", "subscopes": [READ]},
        ADMIN: {"description": "See and end everybody's jobs in Perijove", "subscopes": [SUBMIT]},
        ACT_AS: {"description": "Submit jobs to Perijove on behalf of users"},
        LOGIN: {"description": "Tell Perijove who logged in, and ask who may"},
    }
    c.JupyterHub.services = [
        {
            "name": SERVICE,
            "url": f"http://127.0.0.1:{options.service_port}",
            "command": leashed(sys.executable, "-m", "perijove_hub", "serve"),
            "environment": service_environment(os.environ),
            "oauth_client_allowed_scopes": [READ, SUBMIT, ADMIN],
            "oauth_no_confirm": True,
        },
        {"name": SPAWNER_ACCOUNT, "api_token": kept_secret(hub / "spawner.token"), "display": False},
        {"name": SETUP_ACCOUNT, "api_token": kept_secret(hub / "setup.token"), "display": False},
        {"name": LOGIN_ACCOUNT, "api_token": kept_secret(hub / "login.token"), "display": False},
    ]


def service_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Perijove's settings, as the hub hands them to its service."""
    ours = {name: value for name, value in env.items() if name.startswith("PERIJOVE_")}
    return {**ours, PARENT: str(os.getpid())}


REVOKING = ("read:users", "read:servers", "delete:servers", "tokens")
"""What the service may do at the hub: see who administers, and sign users out everywhere."""


def _roles(c: Config, options: HubOptions) -> None:
    access = f"access:services!service={SERVICE}"
    c.JupyterHub.load_roles = [
        {"name": SERVICE, "services": [SERVICE], "scopes": [*REVOKING]},
        {"name": "user", "scopes": ["self", access, SUBMIT]},
        # What a notebook server's own token may do: so `%%submit` needs no set-up.
        {"name": "server", "scopes": ["access:servers!server", "users:activity!user", access, SUBMIT]},
        {"name": SPAWNER_ACCOUNT, "services": [SPAWNER_ACCOUNT], "scopes": [access, ACT_AS]},
        {"name": LOGIN_ACCOUNT, "services": [LOGIN_ACCOUNT], "scopes": [access, LOGIN]},
        {
            "name": SETUP_ACCOUNT,
            "services": [SETUP_ACCOUNT],
            "scopes": [access, SUBMIT, ADMIN, f"tokens!user={options.trial_user}"],
        },
    ]


def host_of(name: str, domain: str, kind: str) -> str:
    """The name of the host of a user's servers, or of a service, where the hub is `domain`.

    What is no label of a name (RFC 1123, 2.1) becomes one with a digest too long to find another name for:
    JupyterHub's own has 28 bits of it, and two users would share an origin. The service stays with the hub,
    where its addresses are known: it runs nothing of users.
    """
    if kind == "service":
        return domain
    if _LABEL.fullmatch(name):
        return f"{name}.{domain}"
    hint = "".join(sign for sign in name.lower() if sign.isascii() and sign.isalnum())[:8] or "x"
    return f"u-{hint}--{sha256(name.encode()).hexdigest()[:32]}.{domain}"


def _login(c: Config, options: HubOptions, state: Path, login: LoginSettings) -> None:
    from jupyterhub.handlers.base import BaseHandler

    hub = state / "hub"
    guard(BaseHandler)
    c.JupyterHub.authenticator_class = "perijove"
    c.JupyterHub.template_paths = [str(Path(__file__).parent / "auth" / "templates")]
    if login.url:
        # What is redirected to and which cookies are Secure follows from it, and not from a request's header.
        c.JupyterHub.public_url = f"{login.url}/"
    if login.subdomains:
        c.JupyterHub.subdomain_host = login.url
        c.JupyterHub.subdomain_hook = host_of
        c.JupyterHub.cookie_host_prefix_enabled = login.apart
    # Named here so that there is such a user before anybody logs in: the command line gets a token of theirs.
    c.Authenticator.allowed_users = {options.trial_user}
    c.LocalAuthenticator.trial_user = options.trial_user
    c.LocalAuthenticator.password_file = str(state / "password")
    c.PerijoveAuthenticator.state = str(state)
    c.PerijoveAuthenticator.service_url = f"http://127.0.0.1:{options.service_port}{PREFIX}"
    c.PerijoveAuthenticator.token_file = str(hub / "login.token")
    c.PerijoveAuthenticator.local_accounts = options.local_accounts
    if not os.environ.get("JUPYTERHUB_CRYPT_KEY"):
        # What providers gave for a session is kept encrypted; 43 characters of base64 are 32 bytes.
        c.CryptKeeper.keys = [f"{kept_secret(hub / 'crypt-key')}=".encode()]
