"""Spec and site -> the spec made complete, or every error in it that can be known before it runs."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from perijove.model import (
    Capabilities,
    FieldError,
    InvalidSpecError,
    JobSpec,
    Node,
    UnavailableError,
    format_duration,
    format_size,
)
from perijove.model.spec import FEATURES
from perijove_hub.accounts import Identity
from perijove_hub.placement import matching
from perijove_hub.settings import Settings


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the queue gets: nothing is left to be found wrong."""

    spec: JobSpec
    launcher: str


NOT_YET = frozenset({"cache", "gui", "interactive", "notify", "require", "runenv", "storage"})
"""Fields of the model that no part of this version acts on."""
_KEPT_FOR_ALL = frozenset({"constraints", "cpu", "memory", "time_limit", "volumes"})
"""What placement or the node agent sees to where a launcher cannot."""
_BY_LAUNCHER = frozenset(FEATURES) - NOT_YET - _KEPT_FOR_ALL
_BLANK = JobSpec(command=["true"])


def admit(
    spec: JobSpec,
    identity: Identity,
    settings: Settings,
    nodes: Sequence[Node],
    *,
    owns: Callable[[str], bool] = lambda _digest: True,
    job_exists: Callable[[int], bool] = lambda _job: True,
) -> Admitted:
    """Check `spec` against the site.

    `owns` tells whether the user uploaded a file of that digest, `job_exists` whether they have such a job.
    Raises :class:`InvalidSpecError` with one :class:`FieldError` for each thing wrong, and
    :class:`UnavailableError` while no node is known.
    """
    if not nodes:
        raise UnavailableError("no node has joined yet; try again in a few seconds")
    launcher = _launcher(spec, settings, nodes)
    errors = [
        *_unsupported(spec, launcher),
        *_image(spec, launcher, settings),
        *_network(spec, launcher, settings),
        *_volumes(spec, identity, settings),
        *_cwd(spec, identity, launcher, settings),
        *_time(spec, settings),
        *_size(spec, launcher, nodes),
        *_references(spec, owns, job_exists),
    ]
    if errors:
        raise InvalidSpecError(errors=errors)
    changes: dict[str, object] = {}
    if launcher.containers and spec.image is None:
        changes["image"] = settings.default_image
    if spec.time_limit is None and settings.max_time is not None:
        changes["time_limit"] = settings.max_time
    return Admitted(spec.model_copy(update=changes) if changes else spec, launcher.name)


def _launcher(spec: JobSpec, settings: Settings, nodes: Sequence[Node]) -> Capabilities:
    offered = {launcher.name: launcher for node in nodes for launcher in node.launchers}
    wanted = spec.launcher or settings.default_launcher or next(iter(offered), None)
    if wanted is None or wanted not in offered:
        known = ", ".join(sorted(offered)) or "none"
        error = FieldError("launcher", str(wanted), f"no node offers it; offered: {known}")
        raise InvalidSpecError(errors=[error])
    return offered[wanted]


def _unsupported(spec: JobSpec, launcher: Capabilities) -> list[FieldError]:
    given = spec.model_fields_set
    errors = [
        FieldError(name, "", "not supported by this version")
        for name in given & NOT_YET
        if getattr(spec, name) != getattr(_BLANK, name)
    ]
    for name in sorted(given & _BY_LAUNCHER):
        value = getattr(spec, name)
        if value != getattr(_BLANK, name) and name not in launcher.features:
            text = f"{FEATURES[name]} not supported by launcher {launcher.name}"
            errors.append(FieldError(name, _shown(value), text))
    if spec.user == "root":
        errors.append(FieldError("user", "root", "this site lets no job run as root; leave it out"))
    return errors


def _shown(value: object) -> str:
    return str(value.count) if hasattr(value, "count") and hasattr(value, "model") else str(value)[:80]


def _image(spec: JobSpec, launcher: Capabilities, settings: Settings) -> list[FieldError]:
    if spec.image is None:
        return []
    if not launcher.containers:
        return [
            FieldError("image", spec.image, f"not supported by launcher {launcher.name}: it runs no images")
        ]
    if any(fnmatchcase(spec.image, pattern) for pattern in settings.allowed_images):
        return []
    allowed = ", ".join(settings.allowed_images)
    return [FieldError("image", spec.image, f"not on this site's list of images; allowed: {allowed}")]


def _network(spec: JobSpec, launcher: Capabilities, settings: Settings) -> list[FieldError]:
    wanted = spec.network
    if wanted is None:
        return []
    if wanted not in launcher.networks:
        known = ", ".join(sorted(launcher.networks))
        text = f"not supported by launcher {launcher.name}; it has: {known}"
    elif launcher.containers and wanted not in settings.allowed_networks:
        known = ", ".join(sorted(launcher.networks & set(settings.allowed_networks)))
        text = f"this site does not give it to its users; allowed: {known}"
    else:
        return []
    return [FieldError("network", wanted, text)]


def _volumes(spec: JobSpec, identity: Identity, settings: Settings) -> list[FieldError]:
    user = identity.account.name
    mine = {
        name
        for name, volume in settings.volumes.items()
        if any(fnmatchcase(user, pattern) for pattern in volume.users)
    }
    known = ", ".join(["home", *sorted(mine)])
    return [
        FieldError("volumes", request.name, f"there is no such volume for you; you have: {known}")
        for request in spec.volumes
        if request.name not in mine and request.name != "home"
    ]


def targets(spec: JobSpec, identity: Identity, settings: Settings) -> list[str]:
    """Paths, as the job sees them, under which its volumes lie."""
    names = [request.name for request in spec.volumes]
    return [
        identity.account.home if name == "home" else expand(settings.volumes[name].target, identity)
        for name in names
        if name == "home" or name in settings.volumes
    ]


def expand(path: str, identity: Identity) -> str:
    """A configured path with ``{user}`` and ``{home}`` replaced."""
    return path.replace("{user}", identity.account.name).replace("{home}", identity.account.home)


def _cwd(spec: JobSpec, identity: Identity, launcher: Capabilities, settings: Settings) -> list[FieldError]:
    errors = []
    for name in ("cwd", "notebook", "output_notebook"):
        path = getattr(spec, name)
        if path is None:
            continue
        if name == "cwd" and not posixpath.isabs(path):
            errors.append(FieldError(name, path, "must be an absolute path"))
        elif launcher.containers and posixpath.isabs(path):
            real = posixpath.normpath(path)
            inside = [*targets(spec, identity, settings), "/tmp", "/run/perijove"]  # noqa: S108
            if not any(real == top or real.startswith(top.rstrip("/") + "/") for top in inside):
                text = f"outside the volumes of this job, which are at: {', '.join(inside[:-2]) or 'none'}"
                errors.append(FieldError(name, path, text))
    return errors


def _time(spec: JobSpec, settings: Settings) -> list[FieldError]:
    longest = settings.max_time
    if longest is None or spec.time_limit is None or spec.time_limit <= longest:
        return []
    text = f"at most {format_duration(longest)} here"
    return [FieldError("time_limit", format_duration(spec.time_limit), text)]


def _size(spec: JobSpec, launcher: Capabilities, nodes: Sequence[Node]) -> list[FieldError]:
    """Errors when no node could ever run it, each against the largest node there is."""
    of_kind = [
        node
        for node in nodes
        if launcher.name in {offered.name for offered in node.launchers}
        and (spec.os is None or node.labels.get("os") == spec.os)
        and all(node.labels.get(key) == value for key, value in spec.constraints.items())
    ]
    if not of_kind:
        wish = ", ".join(f"{key}={value}" for key, value in spec.constraints.items()) or f"os={spec.os}"
        return [FieldError("constraints", wish, "no node bears these labels")]
    if spec.node is not None:
        named = [node for node in of_kind if node.name == spec.node]
        if not named:
            names = ", ".join(sorted(node.name for node in of_kind))
            return [FieldError("node", spec.node, f"there is no such node; there are: {names}")]
        of_kind = named
    errors = _too_large(spec, of_kind)
    together = any(
        spec.cpu <= node.cpus
        and spec.memory <= node.memory
        and spec.gpus.count <= len(matching(spec.gpus, node.gpus))
        for node in of_kind
    )
    if not errors and not together:
        text = "no single node has this much of all three"
        shown = f"{spec.cpu:g} CPUs, {format_size(spec.memory)}, {spec.gpus.count} GPUs"
        errors.append(FieldError("cpu, memory, gpus", shown, text))
    return errors


def _too_large(spec: JobSpec, nodes: Sequence[Node]) -> list[FieldError]:
    errors = []
    if spec.cpu > (most := max(node.cpus for node in nodes)):
        text = f"no node has {spec.cpu:g} CPUs; the largest has {most:g}"
        errors.append(FieldError("cpu", f"{spec.cpu:g}", text))
    if spec.memory > (memory := max(node.memory for node in nodes)):
        text = f"no node has {format_size(spec.memory)} of memory; the largest has {format_size(memory)}"
        errors.append(FieldError("memory", format_size(spec.memory), text))
    gpus = max(len(matching(spec.gpus, node.gpus)) for node in nodes)
    if spec.gpus.count > gpus:
        wanted = f"{spec.gpus.count}{f' {spec.gpus.model}' if spec.gpus.model else ''}"
        text = f"no node has {wanted} GPU{'s' if spec.gpus.count > 1 else ''}; the largest has {gpus}"
        errors.append(FieldError("gpus", str(spec.gpus.count), text))
    for key, count in spec.resources.items():
        if count > (most_of := max(node.resources.get(key, 0) for node in nodes)):
            text = f"no node has {count} {key}; the largest has {most_of}"
            errors.append(FieldError(f"resources.{key}", str(count), text))
    return errors


def _references(
    spec: JobSpec, owns: Callable[[str], bool], job_exists: Callable[[int], bool]
) -> list[FieldError]:
    digests = {**{f"inputs.{name}": digest for name, digest in spec.inputs.items()}}
    if spec.function:
        digests["function"] = spec.function
    errors = [
        FieldError(name, digest, "no such file was uploaded by you; POST it to /files first")
        for name, digest in digests.items()
        if not owns(digest)
    ]
    errors += [
        FieldError("depends_on", str(dependency), "you have no such job")
        for dependency in spec.depends_on
        if not job_exists(dependency.job)
    ]
    return errors
