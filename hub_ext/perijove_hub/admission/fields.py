"""What a launcher can: features, paths; and whether the jobs waited for are there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from perijove.model import Capabilities, Dependency, FieldError, Job, JobSpec, Kind
from perijove.model.spec import FEATURES

NOT_YET = frozenset({"cache", "interactive", "notify", "storage"})
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


def path_errors(spec: JobSpec, launcher: Capabilities, volumes: Sequence[str]) -> list[FieldError]:
    """Whether the paths of a container's job lie in what it mounts; `volumes` are where it sees its own."""
    errors = []
    for name in ("cwd", "notebook", "output_notebook"):
        path = getattr(spec, name)
        if path is None:
            continue
        if name == "cwd" and not posixpath.isabs(path):
            errors.append(FieldError(name, path, "must be an absolute path"))
        elif launcher.containers and posixpath.isabs(path):
            real = posixpath.normpath(path)
            inside = [*volumes, "/tmp", "/run/perijove"]  # noqa: S108
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
