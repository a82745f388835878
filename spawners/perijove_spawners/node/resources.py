"""Countable resources of a node, as its configuration names them: a number, or units that are devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from perijove.model import OperatorError
from perijove.model.records import Slot
from perijove.model.spec import TMP_DISK


class Resources(NamedTuple):
    """What a node announces."""

    counts: dict[str, int]
    """Name -> how many units there are, those of devices among them."""
    slots: dict[str, tuple[Slot, ...]]
    """Name -> its units, for resources that are devices."""


def parse_resources(settings: Mapping[str, str]) -> Resources:
    """The resources of ``{"scratch": "4", "gpu_10.5": "/dev/a,/dev/b;/dev/c"}``.

    A resource is a number of units, or the device nodes of each unit: commas between the devices of a unit,
    semicolons between units. :class:`OperatorError` for what is neither, a device that is not there, and
    a device that belongs to two units.
    """
    found = Resources({}, {})
    for name, text in settings.items():
        if name == TMP_DISK:
            raise OperatorError(f"--resource {name}: scratch space is given by --scratch SIZE")
        if text.startswith("/"):
            found.slots[name] = units = tuple(_unit(name, part) for part in text.split(";"))
            found.counts[name] = len(units)
        else:
            found.counts[name] = _number(name, text)
    _check_devices(found.slots)
    return found


def _unit(name: str, text: str) -> Slot:
    paths = [path.strip() for path in text.split(",")]
    for path in paths:
        if not path.startswith("/"):
            raise OperatorError(
                f"--resource {name}: {text!r} must be paths of device nodes, /dev/a,/dev/b;/dev/c"
            )
        if not Path(path).exists():
            raise OperatorError(f"--resource {name}: {path} does not exist")
    return Slot(devices=paths)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise OperatorError(
            f"--resource {name}={text}: must be a whole number from 1, or paths of device nodes"
        )
    return int(text)


def _check_devices(slots: Mapping[str, tuple[Slot, ...]]) -> None:
    owner: dict[str, str] = {}
    for name, units in slots.items():
        for number, unit in enumerate(units):
            for path in unit.devices:
                holder = f"unit {number} of {name}"
                if owner.setdefault(path, holder) != holder:
                    raise OperatorError(f"--resource {name}: {path} is part of {owner[path]} already")
