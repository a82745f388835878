"""From a launch to the body of ``POST /containers/create``: each limit and promise in the API's words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from perijove.model import Attempt, OperatorError, parse_size
from perijove_spawners.containers.log_records import Decode
from perijove_spawners.containers.program import OwnProgram, program
from perijove_spawners.launcher import JOB_DIRECTORY, Launch, LaunchError, Mount

INSTALLATION = "perijove.installation"
ATTEMPT = "perijove.attempt"
OWNER = "perijove.owner"
DIRECTORY = "perijove.directory"
PORTS = "perijove.ports"
NETWORK = "perijove.network"
PROBE = "perijove.probe"
MANIFEST = "perijove.manifest"
"""An image's id and its manifest's name, when the container was asked for."""

_NOTHING = OwnProgram()

Pull = Literal["missing", "always", "never"]
NETWORKS = frozenset({"none", "bridge", "host", "user", "project"})
ROOTS_CAPABILITIES = ("SETUID", "SETGID", "CHOWN")
"""What root in a container may do beyond what its uid may (capabilities(7))."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The operator's settings of one engine, from the node's configuration."""

    url: str
    network: str = "bridge"
    """Of jobs that do not ask for one."""
    pull: Pull = "missing"
    pull_timeout: float = 1800.0
    """Seconds an image may take to arrive."""
    pids_limit: int = 4096
    """Processes and threads of one job."""
    archive_limit: int = 20 << 30
    """Bytes of an image that a user gives as an archive, unpacked."""

    @classmethod
    def parse(cls, options: Mapping[str, str], *, url: str) -> EngineOptions:
        """Read `options`; :class:`~perijove.model.OperatorError` names the one that is wrong."""
        known: dict[str, Callable[[str], Any]] = {
            "url": str,
            "network": _one_of(*sorted(NETWORKS)),
            "pull": _one_of("missing", "always", "never"),
            "pull_timeout": float,
            "pids_limit": int,
            "archive_limit": parse_size,
        }
        values: dict[str, Any] = {"url": url}
        for name, text in options.items():
            if name not in known:
                raise OperatorError(f"unknown engine option {name!r}; known are {', '.join(sorted(known))}")
            try:
                values[name] = known[name](text)
            except ValueError as error:
                raise OperatorError(f"engine option {name}={text!r}: {error}") from None
        return cls(**values)


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return check


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where engines of the same API differ."""

    log: Mapping[str, Any]
    """A log driver that keeps every byte and can be read back."""
    log_file: str
    """Where that keeps its file; ``{root}`` is the engine's folder, ``{id}`` the container, ``{path}`` what
    inspect says. Read from there no byte is lost, while the API's streams lose some (see the engines)."""
    log_entries: Decode
    env: Mapping[str, str]
    """For the engine's init process."""
    no_healthcheck: bool
    """That of an image can be switched off."""
    cdi: bool
    """GPUs are asked for as CDI devices (``nvidia.com/gpu=0``) and not by device requests."""
    distribution: bool
    """It asks registries for manifests (``GET /distribution/{name}/json``)."""
    loses_oom: bool
    """It does not say that a container was killed for want of memory."""


def container_name(installation: str, attempt: Attempt) -> str:
    """The name that makes creating a container the claim to an attempt."""
    return f"perijove-{installation}-{attempt}"


def owner_network(installation: str, owner: str) -> str:
    """The network shared by the jobs of one owner; a digest, since owners have names that networks cannot."""
    return f"perijove-{installation}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}"


def project_network(installation: str, project: str) -> str:
    """The network shared by the jobs of one project; never that of an owner of the same name."""
    return f"perijove-{installation}-p{hashlib.sha256(b'project ' + project.encode()).hexdigest()[:12]}"


def network_mode(launch: Launch, installation: str, default: str) -> str:
    """The engine's word for the network of `launch`. What belongs to no project is on its owner's."""
    wanted = "none" if launch.sealed else launch.network or default
    if wanted == "project" and launch.project:
        return project_network(installation, launch.project)
    return owner_network(installation, launch.owner) if wanted in {"user", "project"} else wanted


def labels(launch: Launch, installation: str, network: str, manifest: str = "") -> dict[str, str]:
    """Ours stand last: a user's label cannot pass for one of them."""
    return {
        **launch.labels,
        INSTALLATION: installation,
        ATTEMPT: str(launch.attempt),
        OWNER: launch.owner,
        DIRECTORY: str(launch.directory),
        PORTS: ",".join(map(str, launch.ports)),
        NETWORK: network,
        MANIFEST: manifest,
    }


def create_body(
    launch: Launch,
    *,
    installation: str,
    options: EngineOptions,
    dialect: Dialect,
    identity: Sequence[Mount] = (),
    own: OwnProgram = _NOTHING,
    manifest: str = "",
) -> dict[str, Any]:
    """The container of `launch`.

    `identity` are account files mounted over the image's, `own` is what the image runs by itself, `manifest`
    the value of the label :data:`MANIFEST`.
    :class:`LaunchError` without an image.
    """
    if not launch.image:
        raise LaunchError(f"job {launch.attempt} names no image")
    launch = lowered(launch)
    network = network_mode(launch, installation, options.network)
    check_root(launch, network)
    host = _as_account(launch)
    return {
        "Image": launch.image,
        **program(launch, own),
        "Env": [f"{key}={value}" for key, value in {**dialect.env, **launch.env}.items()],
        "User": host.pop("User"),
        "WorkingDir": launch.cwd,
        "Labels": labels(launch, installation, network, manifest),
        "StopSignal": "SIGTERM",
        **({"Healthcheck": {"Test": ["NONE"]}} if dialect.no_healthcheck else {}),
        **({"ExposedPorts": {f"{port}/tcp": {} for port in launch.published}} if launch.published else {}),
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": [bind(mount) for mount in (*identity, *launch.mounts, _job_directory(launch))],
            **host,
            "SecurityOpt": ["no-new-privileges:true"],
            "Init": True,
            "IpcMode": launch.ipc,
            "PidsLimit": options.pids_limit,
            "LogConfig": dict(dialect.log),
            **_limits(launch),
            **_devices(launch, dialect),
            **_sealing(launch),
            **_publishing(launch),
        },
    }


def check_root(launch: Launch, network: str) -> None:
    """:class:`LaunchError` for root that would share more with the node than its kernel."""
    if launch.root and (network == "host" or launch.ipc == "host"):
        shared = "network" if network == "host" else "IPC namespace"
        raise LaunchError(
            f"job {launch.attempt} is root in its container and cannot have the node's {shared}"
        )


def _as_account(launch: Launch) -> dict[str, Any]:
    """Who it is. Root brings no groups along: it can take any, as it can any account."""
    account = launch.account
    if launch.root:
        return {"User": "0:0", "CapDrop": ["ALL"], "CapAdd": list(ROOTS_CAPABILITIES)}
    groups = [str(gid) for gid in account.groups if gid != account.gid]
    return {"User": f"{account.uid}:{account.gid}", "GroupAdd": groups, "CapDrop": ["ALL"]}


def _publishing(launch: Launch) -> dict[str, Any]:
    if not launch.published:
        return {}
    return {
        "PortBindings": {
            f"{port}/tcp": [{"HostIp": address, "HostPort": str(number)} for address in launch.publish_at]
            for port, number in launch.published.items()
        }
    }


def bind(mount: Mount) -> dict[str, Any]:
    """A mount as the API's type ``bind``, for which a missing source is an error and not a new directory.

    Read-only holds for one file system: what is mounted below would come along and stay writable, so it is
    left out. The node agent has it as mounts of their own (:func:`perijove_spawners.node.mounts.resolve`).
    """
    more = {"NonRecursive": True} if mount.read_only else {}
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate", **more},
    }


def lowered(launch: Launch) -> Launch:
    """Root writes only what goes with the job, whatever was asked for."""
    if not launch.root:
        return launch
    own = launch.own_mounts
    return replace(launch, mounts=tuple(m if m in own else replace(m, read_only=True) for m in launch.mounts))


def _job_directory(launch: Launch) -> Mount:
    return Mount(str(launch.directory / "job"), JOB_DIRECTORY)


def _sealing(launch: Launch) -> dict[str, Any]:
    """Of a sealed job: an image that cannot be written, and a ``/tmp`` in memory, half of the job's."""
    if not launch.sealed:
        return {}
    size = launch.memory // 2
    taken = any(mount.target == "/tmp" for mount in launch.mounts)  # noqa: S108 -- the job's own
    tmpfs = {} if taken else {"/tmp": f"rw,nosuid,nodev,mode=1777,size={size}"}  # noqa: S108
    return {"ReadonlyRootfs": True, "Tmpfs": tmpfs}


def _limits(launch: Launch) -> dict[str, int]:
    limits = {
        "NanoCpus": round(launch.cpu * 1e9),
        "Memory": launch.memory,
        # equal to Memory: no swap on top
        "MemorySwap": launch.memory,
    }
    if launch.shm_size is not None:
        limits["ShmSize"] = launch.shm_size
    return limits


def _devices(launch: Launch, dialect: Dialect) -> dict[str, Any]:
    """Device nodes by their paths; GPUs without one by the engine's way to ask NVIDIA's driver."""
    nodes = [*launch.devices, *(gpu.device for gpu in launch.gpus if gpu.device)]
    devices = [_device(path) for path in dict.fromkeys(nodes)]
    driven = [gpu for gpu in launch.gpus if not gpu.device]
    if driven and dialect.cdi:
        return {"Devices": devices + [_device(f"nvidia.com/gpu={gpu.index}") for gpu in driven]}
    if driven:
        request = {"Driver": "nvidia", "DeviceIDs": [gpu.uuid for gpu in driven], "Capabilities": [["gpu"]]}
        return {"Devices": devices, "DeviceRequests": [request]}
    return {"Devices": devices} if devices else {}


def _device(path: str) -> dict[str, str]:
    return {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}


def check_paths(launch: Launch) -> None:
    """:class:`LaunchError` for a mount or a working directory within a mount that is not there.

    Engines and runtimes make what is missing, as root: in the user's home that would be a directory the
    user cannot write. What may not be looked at is left to the engine, and so is what lies behind a link:
    from here that may be a place outside the mount, of which the user must not even learn that it is there.
    """
    for mount in launch.mounts:
        if not _exists(Path(mount.source)):
            raise LaunchError(f"{mount} does not exist on this node any more")
    cwd = Path(launch.cwd)
    holding = [mount for mount in launch.mounts if cwd.is_relative_to(mount.target)]
    if holding:
        mount = max(holding, key=lambda mount: len(mount.target))
        if not _may_exist(Path(mount.source), cwd.relative_to(mount.target)):
            raise LaunchError(f"working directory {launch.cwd} does not exist")


def _may_exist(folder: Path, below: Path) -> bool:
    try:
        for part in below.parts:
            folder /= part
            if folder.is_symlink():
                return True
    except OSError:
        return True
    return _exists(folder)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True
