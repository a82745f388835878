"""Schedulers by name: the entry points of ``perijove.schedulers``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from perijove.model import OperatorError

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy
    from perijove_hub.policy.schedulers import Scheduler

GROUP = "perijove.schedulers"


@cache
def _available() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """The schedulers that are installed."""
    return sorted(_available())


def create(name: str, policy: Policy) -> Scheduler:
    """The scheduler `name` under `policy`. Raises ``OperatorError`` when it is not there or does not load."""
    point = _available().get(name)
    if point is None:
        raise OperatorError(f"there is no scheduler {name}; installed: {', '.join(names())}")
    try:
        made: Scheduler = point.load()(policy)
    except Exception as error:  # whatever a plugin raises
        raise OperatorError(f"scheduler {name} ({point.value}) does not load: {error}") from error
    return made
