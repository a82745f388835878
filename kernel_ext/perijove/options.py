"""Options of a submission as people type them -> fields of a JobSpec. Shared by magics and command line.

Values are passed on as they were typed: the service reads ``8G`` and ``1d12h`` itself and says which field
is wrong, so that nothing is checked twice and differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perijove.model.errors import FieldError, InvalidSpecError

_FIELDS = {
    "name": "name",
    "image": "image",
    "runenv": "runenv",
    "require": "require",
    "user": "user",
    "launcher": "launcher",
    "node": "node",
    "cpus": "cpu",
    "memory": "memory",
    "gpus": "gpus",
    "time": "time_limit",
    "shm": "shm_size",
    "tmp_disk": "tmp_disk",
    "resource": "resources",
    "array": "array",
    "depends": "depends_on",
    "constraint": "constraints",
    "partition": "partition",
    "reservation": "reservation",
    "nodes": "nodes",
    "exclusive": "exclusive",
    "signal": "signal",
    "priority": "priority",
    "preemptible": "preemptible",
    "project": "project",
    "volume": "volumes",
    "network": "network",
    "port": "ports",
    "ipc": "ipc",
    "gui": "gui",
    "env": "env",
    "secret": "secrets",
    "label": "labels",
    "cwd": "cwd",
    "hold": "hold",
    "retries": "retries",
    "retry_on": "retry_on",
    "oom_retry": "oom_retry",
}
"""Option -> the field it sets."""
OPTIONS = frozenset(_FIELDS)
"""The names :func:`spec_fields` takes."""
_PAIRS = frozenset({"constraint", "env", "label"})
_LISTS = frozenset({"depends", "require", "retry_on"})


def spec_fields(**options: Any) -> dict[str, Any]:
    """The fields of a spec for the `options` (of :data:`OPTIONS`) that were given, and are not None.

    Options that may be repeated are lists of what was typed. :class:`InvalidSpecError` names a bad one.
    """
    fields = {
        _FIELDS[option]: _value(option, given) for option, given in options.items() if given is not None
    }
    return {field: value for field, value in fields.items() if value != [] and value != {}}


def _value(option: str, given: Any) -> Any:
    if option == "cpus":
        return _number(option, given)
    if option == "volume":
        return _volumes(given)
    if option == "secret":
        return _secrets(given)
    if option == "port":
        return [_port(number) for number in words(given)]
    if option in _LISTS:
        return words(given)
    if option == "resource":
        return {name: _whole(name, count) for name, count in pairs(option, words(given)).items()}
    return pairs(option, given) if option in _PAIRS else given


def combined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `first` overruled by those of `then`; variables, labels and the like name by name."""
    joined = {**first, **then}
    for field in ("env", "secrets", "labels", "constraints", "resources"):
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


def _secrets(values: Sequence[str]) -> dict[str, str]:
    """``["a", "b=env:B"]`` -> ``{"a": "file", "b": "env:B"}``."""
    parts = (value.partition("=") for value in words(values))
    return {name: place or "file" for name, _, place in parts}


def _number(option: str, value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        text = "must be a number of cores such as 2 or 0.5"
        raise InvalidSpecError(errors=[FieldError(option, str(value), text)]) from None


def _port(value: str) -> int:
    if value.isascii() and value.isdecimal() and 0 < int(value) < 65536:
        return int(value)
    text = "must be the number of a port, from 1 to 65535"
    raise InvalidSpecError(errors=[FieldError("port", value, text)])


def _whole(name: str, value: str) -> int:
    if value.isascii() and value.isdecimal() and int(value) > 0:
        return int(value)
    text = "must be written NAME=COUNT, with a whole number of at least 1"
    raise InvalidSpecError(errors=[FieldError("resource", f"{name}={value}", text)])


def _volumes(values: Sequence[str]) -> list[str]:
    # A spec that lists volumes lists all of them, and who adds one does not mean to lose the home.
    volumes = words(values)
    if not volumes or any(volume.partition(":")[0] == "home" for volume in volumes):
        return volumes
    return ["home", *volumes]
