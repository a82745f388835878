"""Commands that run on the hosts which run jobs."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import platform
import signal
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from perijove.model import OperatorError, parse_size
from perijove_spawners import registry
from perijove_spawners.calls import notes
from perijove_spawners.launcher import Launcher, LauncherContext
from perijove_spawners.membership import Membership, find_membership
from perijove_spawners.node import gpus
from perijove_spawners.node.agent import NodeAgent, NodeConfig
from perijove_spawners.node.resources import parse_resources
from perijove_spawners.store import Store

log = logging.getLogger(__name__)


JoinUrl = Annotated[
    str, typer.Option(metavar="URL", help="The service to join, the first time; needs a token.")
]
TokenFile = Annotated[
    str, typer.Option(help="With the token of `perijove join-token create`; - for standard input.")
]
SchedulerAddress = Annotated[
    str,
    typer.Option(
        help="The Dask scheduler: tls://HOST:PORT, or the file that holds its address; of a node that joined,"
        " what it was told."
    ),
]
NodeName = Annotated[
    str, typer.Option(help="Name of the node; the host's when not given.", envvar="PERIJOVE_NODE_NAME")
]
Launchers = Annotated[
    list[str] | None, typer.Option(help="Launchers to offer, repeated or with commas; default: process.")
]
Cpus = Annotated[
    float, typer.Option(help="Cores to give out; 0: all there are.", envvar="PERIJOVE_NODE_CPUS")
]
Memory = Annotated[
    str,
    typer.Option(help="Memory to give out, as 64G; default: all there is.", envvar="PERIJOVE_NODE_MEMORY"),
]
GpuList = Annotated[
    str,
    typer.Option(
        "--gpus",
        help="auto (ask the NVIDIA driver), none, a number, or device nodes with commas.",
        envvar="PERIJOVE_NODE_GPUS",
    ),
]
ResourceList = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=N, a countable resource, or NAME=/dev/a,/dev/b;/dev/c: units that are devices.",
        envvar="PERIJOVE_NODE_RESOURCES",
    ),
]
StorePlace = Annotated[str, typer.Option(help="Folder or URL of the content store; default: STATE/store.")]
StoreOptions = Annotated[
    str,
    typer.Option(
        help='What the store\'s filesystem takes, as JSON: {"endpoint_url": "https://s3.example.org"}.',
        envvar="PERIJOVE_STORE_OPTIONS",
    ),
]
ScratchSize = Annotated[
    str,
    typer.Option(
        "--scratch",
        help="Scratch space (tmp_disk) to give out, as 500G; default: none.",
        envvar="PERIJOVE_NODE_SCRATCH",
    ),
]
ScratchSparse = Annotated[
    bool,
    typer.Option(
        "--scratch-sparse",
        help="Take scratch space from the disk as it is written, not at the start of a job.",
        envvar="PERIJOVE_NODE_SCRATCH_SPARSE",
    ),
]
PublishPorts = Annotated[
    str,
    typer.Option(
        help="Ports of this host for those of containers, as 30000-30999; default: none.",
        envvar="PERIJOVE_NODE_PUBLISH_PORTS",
    ),
]
PublishAddress = Annotated[
    str,
    typer.Option(
        help="Addresses of this host on which those are bound, with commas.",
        envvar="PERIJOVE_NODE_PUBLISH_ADDRESS",
    ),
]
LauncherOptions = Annotated[
    list[str] | None,
    typer.Option(
        help="LAUNCHER.KEY=VALUE, as docker.url=unix:///run/docker.sock.",
        envvar="PERIJOVE_NODE_LAUNCHER_OPTIONS",
    ),
]


def node(
    state: Annotated[Path, typer.Option(help="Directory of the node's own; kept between runs.")],
    join: JoinUrl = "",
    token_file: TokenFile = "",
    scheduler: SchedulerAddress = "",
    tls: Annotated[Path | None, typer.Option(help="Directory with the keys of the links; STATE/tls.")] = None,
    name: NodeName = "",
    launcher: Launchers = None,
    cpus: Cpus = 0,
    memory: Memory = "",
    gpu: GpuList = "auto",
    label: Annotated[list[str] | None, typer.Option(help="K=V, for constraints of jobs.")] = None,
    resource: ResourceList = None,
    store: StorePlace = "",
    store_options: StoreOptions = "{}",
    installation: Annotated[str, typer.Option(help="Name of this Perijove on shared engines.")] = "",
    launcher_option: LauncherOptions = None,
    scratch: ScratchSize = "",
    scratch_sparse: ScratchSparse = False,
    publish_ports: PublishPorts = "",
    publish_address: PublishAddress = "0.0.0.0",  # noqa: S104 -- the operator's choice
) -> None:
    """Run jobs on this host for a Perijove service, until SIGTERM; jobs that run then go on.

    perijove node --join https://hub.example.org/services/perijove --state /var/lib/perijove-node
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        given = Membership(name, scheduler, tls, store, installation)
        mine = find_membership(state.absolute(), given, join, token_file)
        resources = parse_resources(_pairs("--resource", resource))
        config = NodeConfig(
            name=mine.node,
            directory=state.absolute(),
            cpus=cpus or float(len(os.sched_getaffinity(0))),
            memory=_size("--memory", memory) or int(psutil.virtual_memory().total),
            gpus=tuple(gpus.inventory(gpu)),
            resources=resources.counts,
            slots=resources.slots,
            labels={**host_labels(), **_pairs("--label", label)},
            scratch=_size("--scratch", scratch),
            scratch_sparse=scratch_sparse,
            publish_ports=publish_ports,
            publish_address=publish_address,
        )
        names = [word for entry in launcher or ["process"] for word in entry.split(",") if word]
        launchers = make_launchers(
            names, config, mine.installation or "perijove", _pairs("--launcher-option", launcher_option)
        )
        opened = Store(mine.store or config.directory / "store", **_options(store_options))
        asyncio.run(_run(config, launchers, opened, mine))
    except OperatorError as error:
        typer.echo(f"perijove node: {error}", err=True)
        raise typer.Exit(2) from error


def host_labels() -> dict[str, str]:
    """What a node says of its host: ``os``, ``arch``, ``kernel``."""
    try:
        system = platform.freedesktop_os_release().get("ID", "linux")
    except OSError:
        system = platform.system().lower()
    return {"os": system, "arch": platform.machine(), "kernel": platform.release()}


def make_launchers(
    names: list[str], config: NodeConfig, installation: str, options: dict[str, str]
) -> dict[str, Launcher]:
    """Launchers by name, each with a directory of its own below the node's.

    On its engine a node answers for what it started itself, so its name is part of the installation's.
    """
    made = {}
    for name in dict.fromkeys(names):
        directory = config.directory / "launchers" / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = {k.partition(".")[2]: v for k, v in options.items() if k.partition(".")[0] == name}
        note = notes(config.directory / "attempts", name)
        context = LauncherContext(f"{installation}-{config.name}", directory, own, note)
        made[name] = registry.create(name, context)
    return made


async def _run(config: NodeConfig, launchers: dict[str, Launcher], store: Store, mine: Membership) -> None:
    from perijove_spawners.fabric.dask_settings import configure_dask
    from perijove_spawners.fabric.tls import load_tls
    from perijove_spawners.fabric.worker import DaskNode

    configure_dask()
    try:
        assert mine.tls is not None
        security = load_tls(mine.tls, config.name)
    except FileNotFoundError as error:
        raise OperatorError(str(error)) from error
    agent = NodeAgent(config, launchers, store)
    # What is here now stays, and so do the records of thousands of running jobs: look for garbage seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    await agent.open()
    link = asyncio.ensure_future(DaskNode(agent, mine.scheduler, security, config.directory / "dask").run())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    link.cancel()
    await asyncio.gather(link, return_exceptions=True)
    await agent.close()


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text) if text else 0
    except ValueError as error:
        raise OperatorError(f"{option} {text}: {error}") from error


def _options(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OperatorError("--store-options: must be a JSON object")
    return found


def _pairs(option: str, entries: list[str] | None) -> dict[str, str]:
    pairs = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise OperatorError(f"{option} {entry}: must be KEY=VALUE")
        pairs[key] = value
    return pairs
