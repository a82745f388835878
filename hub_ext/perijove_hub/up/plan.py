"""What `up` will run: from options and what the machine has to programs, without doing anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from perijove_hub.hub_config import PREFIX, HubOptions
from perijove_hub.up.engine import LauncherChoice
from perijove_hub.up.supervisor import Program
from perijove_hub.up.trial import TrialAccount

HUB_PORT = 8000
SINGLE_PORT = 8008
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What was asked for on the command line."""

    state: Path
    hub: bool = True
    host: str = LOOPBACK
    port: int | None = None
    """0 means any free one."""
    launcher: str | None = None
    on_exit: Literal["leave", "stop"] = "leave"
    scheduler_host: str = LOOPBACK
    """Address of this host by which nodes on others reach the Dask scheduler."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, in this order, and where it will be found."""

    url: str
    """For people: the hub's page, or the service's address."""
    api_url: str
    """Of the service, with its prefix; on this host."""
    programs: tuple[Program, ...]
    hub: HubOptions | None = None
    names: str = ""
    """The hub's public URL when its proxy goes by names of hosts, and so does not know `url`."""

    @property
    def shown(self) -> str:
        """What people open."""
        return self.names or self.url

    @property
    def host(self) -> str:
        """The header ``Host`` with which the hub is found at `url`."""
        return urlsplit(self.shown).netloc

    @property
    def client_url(self) -> str:
        """The service for the client on this host, where the public name may lead elsewhere."""
        return self.api_url if self.names or self.hub is None else f"{self.url}{PREFIX}"


def ports_wanted(options: UpOptions, choice: LauncherChoice) -> dict[str, tuple[str, ...]]:
    """The ports to be chosen, each with the addresses where it must be free."""
    service = tuple(dict.fromkeys([LOOPBACK, choice.gateway]))
    wanted: dict[str, tuple[str, ...]] = {"scheduler": (options.scheduler_host,)}
    if options.hub:
        wanted |= {"service": service, "hub": (choice.gateway,), "proxy": (LOOPBACK,)}
    if options.port == 0:
        wanted["public"] = (options.host,) if options.hub else (options.host, *service)
    return wanted


def make_plan(
    options: UpOptions,
    choice: LauncherChoice,
    ports: Mapping[str, int],
    trial: TrialAccount,
    env: Mapping[str, str],
    proxy: list[str],
    *,
    installation: str,
    root: bool,
    names: str = "",
) -> Plan:
    """The programs for `options`.

    `env` is what they inherit, `proxy` the proxy's command line, and `installation` what tells the
    containers of this Perijove from those of another on the same engine. `names` is the hub's public URL
    where users' servers have names of their own below it.
    """
    usual = HUB_PORT if options.hub else SINGLE_PORT
    public = usual if options.port is None else options.port or ports["public"]
    common = {
        **env,
        "PERIJOVE_STATE": str(options.state),
        "PERIJOVE_SCHEDULER": _scheduler_url(options.scheduler_host, ports["scheduler"]),
        "PERIJOVE_DEFAULT_LAUNCHER": choice.name,
    }
    fabric = (
        _scheduler(options.scheduler_host, ports["scheduler"], common),
        _node(options, choice, installation, common),
    )
    url = f"http://{_name(options.host)}:{public}"
    if not options.hub:
        return Plan(url, url, (*fabric, _serve(options, choice, public, common)))
    hub = HubOptions(
        host=options.host,
        port=public,
        hub_host=choice.gateway,
        hub_port=ports["hub"],
        proxy_api_port=ports["proxy"],
        service_port=ports["service"],
        service_url=f"http://{choice.gateway}:{ports['service']}{PREFIX}",
        proxy=proxy,
        trial_user=trial.name,
        local_accounts=root,
    )
    api_url = f"http://{LOOPBACK}:{ports['service']}{PREFIX}"
    return Plan(url, api_url, (*fabric, _hub(hub, {**common, **_accounts(trial, env)})), hub, names)


def _serve(options: UpOptions, choice: LauncherChoice, port: int, env: Mapping[str, str]) -> Program:
    everywhere = options.host == "0.0.0.0"  # noqa: S104
    hosts = [options.host] if everywhere else dict.fromkeys([options.host, LOOPBACK, choice.gateway])
    own = {
        "PERIJOVE_MODE": "single",
        "PERIJOVE_LISTEN": ",".join(f"{host}:{port}" for host in hosts),
    }
    return Program("serve", _module("perijove_hub", "serve"), {**env, **own})


def _hub(hub: HubOptions, env: Mapping[str, str]) -> Program:
    """The hub; what it inherits here it hands to the service that it starts."""
    hosts = dict.fromkeys([LOOPBACK, hub.hub_host])
    own = {
        "PERIJOVE_MODE": "hub",
        "PERIJOVE_PREFIX": PREFIX,
        "PERIJOVE_LISTEN": ",".join(f"{host}:{hub.service_port}" for host in hosts),
    }
    return Program("hub", _module("jupyterhub", "-f", _config_file()), {**env, **own}, grace=30)


def _scheduler_url(host: str, port: int) -> str:
    return f"tls://[{host}]:{port}" if ":" in host else f"tls://{host}:{port}"


def _scheduler(host: str, port: int, env: Mapping[str, str]) -> Program:
    arguments = ["--host", host, "--port", str(port), "--tls", str(Path(env["PERIJOVE_STATE"]) / "tls")]
    return Program("scheduler", _module("perijove_spawners.fabric.scheduler", *arguments), env)


def _node(options: UpOptions, choice: LauncherChoice, installation: str, env: Mapping[str, str]) -> Program:
    """Users of a hub get the one launcher of the site; whoever is alone may also run plain processes."""
    state = options.state
    launchers = [choice.name] if options.hub else dict.fromkeys([choice.name, "process"])
    arguments = {
        "--state": str(state / "node"),
        "--scheduler": env["PERIJOVE_SCHEDULER"],
        "--tls": str(state / "tls"),
        "--store": env.get("PERIJOVE_STORE") or f"file://{state / 'store'}",
        "--installation": installation,
        "--launcher": ",".join(launchers),
    }
    command = _module("perijove_hub", "node", *(word for pair in arguments.items() for word in pair))
    needs = state / "tls" / "ca.pem"
    # It makes directories that the accounts of jobs pass through.
    return Program("node", command, env, grace=20, needs=needs, umask=0o022)


def _accounts(trial: TrialAccount, env: Mapping[str, str]) -> dict[str, str]:
    """The trial account, beside what the operator may have set in the same variable."""
    if trial.uid is None:
        return {}
    ours = {trial.name: {"uid": trial.uid, "gid": trial.uid}}
    return {"PERIJOVE_ACCOUNTS": json.dumps({**ours, **json.loads(env.get("PERIJOVE_ACCOUNTS") or "{}")})}


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _config_file() -> str:
    spec = find_spec("perijove_hub")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "jupyterhub_config.py")


def _name(host: str) -> str:
    """How people call an address to listen on."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104
        return "localhost"
    return f"[{host}]" if ":" in host else host
