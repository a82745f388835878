"""What a launcher and the site's lists allow: features, image, network, paths, dependencies."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from fnmatch import fnmatchcase

from perijove.model import Capabilities, Dependency, FieldError, Job, JobSpec, Kind
from perijove.model.spec import FEATURES
from perijove_hub.accounts import Identity
from perijove_hub.settings import Settings

NOT_YET = frozenset({"cache", "gui", "interactive", "notify", "require", "runenv", "secrets", "storage"})
"""Fields of the model that no part of this version acts on."""
_KEPT_FOR_ALL = frozenset({"constraints", "cpu", "memory", "time_limit", "volumes"})
"""What placement or the node agent sees to where a launcher cannot."""
_BY_LAUNCHER = (frozenset(FEATURES) - NOT_YET - _KEPT_FOR_ALL) & frozenset(JobSpec.model_fields)
_BLANK = JobSpec(command=["true"])


def unsupported(spec: JobSpec, launcher: Capabilities) -> list[FieldError]:
    """Fields that nothing here acts on."""
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
    if spec.kind is Kind.SERVER:
        errors += [
            FieldError(name, str(getattr(spec, name)), "a notebook server is one job on one node")
            for name in ("array", "nodes")
            if getattr(spec, name) != getattr(_BLANK, name)
        ]
    if spec.retry_on and not spec.retries:
        causes = ", ".join(map(str, spec.retry_on))
        errors.append(FieldError("retry_on", causes, "says after what, and retries how often: give it too"))
    return errors


def _shown(value: object) -> str:
    return str(value.count) if hasattr(value, "count") and hasattr(value, "model") else str(value)[:80]


def image_errors(spec: JobSpec, launcher: Capabilities, settings: Settings) -> list[FieldError]:
    """Whether the launcher runs images and the site allows this one."""
    if spec.image is None:
        return []
    if not launcher.containers:
        text = f"not supported by launcher {launcher.name}: it runs no images"
        return [FieldError("image", spec.image, text)]
    if any(fnmatchcase(spec.image, pattern) for pattern in settings.allowed_images):
        return []
    allowed = ", ".join(settings.allowed_images)
    return [FieldError("image", spec.image, f"not on this site's list of images; allowed: {allowed}")]


def network_errors(spec: JobSpec, launcher: Capabilities, settings: Settings) -> list[FieldError]:
    """Whether the launcher has the network and the site gives it."""
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


def targets(spec: JobSpec, identity: Identity, settings: Settings) -> list[str]:
    """Paths, as the job sees them, under which its volumes lie."""
    if spec.sealed:
        return []
    names = [request.name for request in spec.volumes]
    return [
        identity.account.home if name == "home" else expand(settings.volumes[name].target, identity)
        for name in names
        if name == "home" or name in settings.volumes
    ]


def expand(path: str, identity: Identity) -> str:
    """A configured path with ``{user}`` and ``{home}`` replaced."""
    return path.replace("{user}", identity.account.name).replace("{home}", identity.account.home)


def path_errors(
    spec: JobSpec, identity: Identity, launcher: Capabilities, settings: Settings
) -> list[FieldError]:
    """Whether the paths of a container's job lie in what it mounts."""
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


def dependency_errors(spec: JobSpec, known: Mapping[int, Job]) -> list[FieldError]:
    """Whether the jobs it waits for are there. They are older than it, so there are no cycles."""
    errors = []
    for dependency in spec.depends_on:
        text = _wrong(dependency, known.get(dependency.job))
        if text:
            errors.append(FieldError("depends_on", str(dependency), text))
    return errors


def _wrong(dependency: Dependency, on: Job | None) -> str:
    if on is None:
        return "you have no such job"
    if dependency.task is None:
        return ""
    if on.array_id is not None or (on.spec.array is None and on.spec.nodes == 1):
        return f"job {on.label} has no members"
    tasks = on.spec.array.tasks if on.spec.array is not None else range(on.spec.nodes)
    if dependency.task in tasks:
        return ""
    step = f" in steps of {tasks.step}" if tasks.step > 1 else ""
    return f"array {on.id} has no such member; it has {tasks[0]} to {tasks[-1]}{step}"
