"""The engine calls made for a job, for people: as lines, and as a command line of the engine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

Call = Mapping[str, Any]
"""A line of the log stream ``engine``; see docs/architecture.md."""

ENGINES = ("docker", "podman")
_HIDDEN = "***"


def pieces(call: Call) -> Iterator[tuple[str, str]]:
    """`call` in one line, as words and what each of them is: time, engine, what, answer, failure."""
    if call.get("at") is not None:
        moment = datetime.fromtimestamp(call["at"]).astimezone()
        yield f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}", "time"
    yield str(call.get("engine", "")), "engine"
    yield str(call.get("what", "")), "what"
    if (answer := call.get("answer")) is not None:
        yield str(answer), "answer" if answer < 400 else "failure"
    if call.get("ms") is not None:
        yield f"{call['ms']:.0f} ms", "time"
    if message := call.get("message"):
        yield str(message), "failure"


def body_text(call: Call) -> str:
    """What was sent, indented; empty when nothing was."""
    if size := call.get("left_out"):
        return f"({size:,} bytes, left out)"
    return json.dumps(call["body"], indent=2, ensure_ascii=False) if call.get("body") is not None else ""


def command_line(call: Call) -> str:
    """The command of docker-run(1) or podman-run(1) that makes such a container as `call` and starts it.

    Empty for any other call. A variable whose value is hidden is taken from the shell's environment. Name and
    labels of Perijove are left out: by these the node would take the container for the job's, and remove it.
    """
    body, (path, query) = call.get("body"), _target(call)
    if call.get("engine") not in ENGINES or not path.endswith("/containers/create") or "name" not in query:
        return ""
    if not isinstance(body, Mapping):
        return ""
    entrypoint, words = list(body.get("Entrypoint") or ()), list(body.get("Cmd") or ())
    options = [*_own(body), *_host(body.get("HostConfig") or {})]
    if entrypoint:
        options.append(("--entrypoint", entrypoint[0]))
    parts = [f"{call['engine']} run", *(shlex.join(option) for option in options)]
    return " \\\n  ".join([*parts, shlex.join([str(body.get("Image")), *entrypoint[1:], *words])])


def _target(call: Call) -> tuple[str, dict[str, list[str]]]:
    method, _, target = str(call.get("what", "")).partition(" ")
    parts = urlsplit(target if method == "POST" else "")
    return parts.path, parse_qs(parts.query)


def _own(body: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What belongs to the container wherever it runs."""
    for each in body.get("Env") or ():
        name, _, value = each.partition("=")
        yield "--env", name if value == _HIDDEN else each
    for field, option in (("User", "--user"), ("WorkingDir", "--workdir"), ("StopSignal", "--stop-signal")):
        if value := body.get(field):
            yield option, str(value)
    for name, value in (body.get("Labels") or {}).items():
        if not name.startswith("perijove."):
            yield "--label", f"{name}={value}"
    if (body.get("Healthcheck") or {}).get("Test") == ["NONE"]:
        yield ("--no-healthcheck",)


_VALUES = {
    "NetworkMode": "--network",
    "IpcMode": "--ipc",
    "PidsLimit": "--pids-limit",
    "Memory": "--memory",
    "MemorySwap": "--memory-swap",
    "ShmSize": "--shm-size",
}


def _host(host: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The fields of ``HostConfig`` that Perijove sets."""
    for field, option in _VALUES.items():
        if host.get(field) is not None:
            yield option, str(host[field])
    if cpus := host.get("NanoCpus"):
        yield "--cpus", f"{cpus / 1e9:.9f}".rstrip("0").rstrip(".")
    for mount in host.get("Mounts") or ():
        yield "--mount", _mount(mount)
    for path, how in (host.get("Tmpfs") or {}).items():
        yield "--tmpfs", f"{path}:{how}"
    for gid in host.get("GroupAdd") or ():
        yield "--group-add", gid
    for capability in host.get("CapDrop") or ():
        yield "--cap-drop", capability
    for capability in host.get("CapAdd") or ():
        yield "--cap-add", capability
    for port, places in (host.get("PortBindings") or {}).items():
        for place in places:
            yield "--publish", f"{place.get('HostIp', '')}:{place['HostPort']}:{port}"
    for each in host.get("SecurityOpt") or ():
        yield "--security-opt", each.removesuffix(":true")
    for field, flag in (("Init", "--init"), ("ReadonlyRootfs", "--read-only")):
        if host.get(field):
            yield (flag,)
    log = host.get("LogConfig") or {}
    if log.get("Type"):
        yield "--log-driver", log["Type"]
    for name, value in (log.get("Config") or {}).items():
        yield "--log-opt", f"{name}={value}"
    yield from _devices(host)


def _devices(host: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for device in host.get("Devices") or ():
        path = device["PathOnHost"]
        how = f"{path}:{device['PathInContainer']}:{device['CgroupPermissions']}"
        yield "--device", how if path.startswith("/") else path
    for request in host.get("DeviceRequests") or ():
        yield "--gpus", f'"device={",".join(request.get("DeviceIDs") or ())}"'


def _mount(mount: Mapping[str, Any]) -> str:
    """As ``--mount`` has it: fields with commas, quoted as in a CSV file."""
    propagation = (mount.get("BindOptions") or {}).get("Propagation")
    fields = [
        f"type={mount['Type']}",
        f"source={mount['Source']}",
        f"target={mount['Target']}",
        *(["readonly"] if mount.get("ReadOnly") else []),
        *([f"bind-propagation={propagation}"] if propagation else []),
        *(["bind-nonrecursive"] if (mount.get("BindOptions") or {}).get("NonRecursive") else []),
    ]
    quoted = ('"' + each.replace('"', '""') + '"' if set(each) & {",", '"'} else each for each in fields)
    return ",".join(quoted)
