"""Options of a submission as people type them -> fields of a JobSpec. Shared by magics and command line.

Values are passed on as they were typed: the service reads ``8G`` and ``1d12h`` itself and says which field
is wrong, so that nothing is checked twice and differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perijove.model.errors import FieldError, InvalidSpecError


def spec_fields(
    *,
    name: str | None = None,
    image: str | None = None,
    launcher: str | None = None,
    node: str | None = None,
    cpus: str | float | None = None,
    memory: str | None = None,
    gpus: str | None = None,
    time: str | None = None,
    shm: str | None = None,
    array: str | None = None,
    depends: Sequence[str] = (),
    constraint: Sequence[str] = (),
    priority: int | None = None,
    project: str | None = None,
    volume: Sequence[str] = (),
    network: str | None = None,
    env: Sequence[str] = (),
    label: Sequence[str] = (),
    cwd: str | None = None,
    hold: bool | None = None,
    partition: str | None = None,
    reservation: str | None = None,
    nodes: int | None = None,
    exclusive: bool | None = None,
    signal: str | None = None,
    preemptible: bool | None = None,
    retries: int | None = None,
    retry_on: Sequence[str] = (),
    oom_retry: str | None = None,
) -> dict[str, Any]:
    """The fields of a spec for the options that were given; :class:`InvalidSpecError` names a bad one."""
    fields: dict[str, Any] = {
        "name": name,
        "image": image,
        "launcher": launcher,
        "node": node,
        "cpu": _number("cpus", cpus),
        "memory": memory,
        "gpus": gpus,
        "time_limit": time,
        "shm_size": shm,
        "array": array,
        "depends_on": words(depends),
        "constraints": pairs("constraint", constraint),
        "priority": priority,
        "project": project,
        "volumes": _volumes(volume),
        "network": network,
        "env": pairs("env", env),
        "labels": pairs("label", label),
        "cwd": cwd,
        "hold": hold,
        "partition": partition,
        "reservation": reservation,
        "nodes": nodes,
        "exclusive": exclusive,
        "signal": signal,
        "preemptible": preemptible,
        "retries": retries,
        "retry_on": words(retry_on),
        "oom_retry": oom_retry,
    }
    return {key: value for key, value in fields.items() if value is not None and value != [] and value != {}}


OPTIONS = frozenset(spec_fields.__kwdefaults__ or ())
"""The names :func:`spec_fields` takes."""


def combined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `first` overruled by those of `then`; variables, labels and the like name by name."""
    joined = {**first, **then}
    for field in ("env", "labels", "constraints"):
        if field in first and field in then:
            joined[field] = {**first[field], **then[field]}
    return joined


def words(values: Sequence[str]) -> list[str]:
    """Values given by repetition or with commas: ``["a,b", "c"]`` -> ``["a", "b", "c"]``."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """``["K=V"]`` -> ``{"K": "V"}``."""
    found = {}
    for value in values:
        key, equals, content = value.partition("=")
        if not equals or not key:
            raise InvalidSpecError(errors=[FieldError(option, value, "must be written KEY=VALUE")])
        found[key] = content
    return found


def _number(option: str, value: str | float | None) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        text = "must be a number of cores such as 2 or 0.5"
        raise InvalidSpecError(errors=[FieldError(option, str(value), text)]) from None


def _volumes(values: Sequence[str]) -> list[str]:
    # A spec that lists volumes lists all of them, and who adds one does not mean to lose the home.
    volumes = words(values)
    if not volumes or any(volume.partition(":")[0] == "home" for volume in volumes):
        return volumes
    return ["home", *volumes]
