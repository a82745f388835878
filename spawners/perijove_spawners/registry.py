"""Launchers by name: Perijove's own and those that other distributions register.

The entry-point group is ``perijove.launchers``; see :mod:`perijove_spawners.launcher` for the contract.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from perijove.model import OperatorError
from perijove_spawners.launcher import Launcher, LauncherContext

GROUP = "perijove.launchers"


class UnknownLauncherError(OperatorError):
    """No launcher of that name is installed."""


def available() -> dict[str, EntryPoint]:
    """Name -> where the class is. Nothing is imported, so what a launcher needs may be missing."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}


def create(name: str, context: LauncherContext) -> Launcher:
    """A launcher of that name, not opened yet.

    :class:`UnknownLauncherError` when there is none, and :class:`OperatorError` when it cannot be loaded.
    """
    found = available()
    if name not in found:
        raise UnknownLauncherError(
            f"there is no launcher {name!r}; installed are: {', '.join(found) or 'none'}"
        )
    try:
        cls = found[name].load()
    except (ImportError, AttributeError) as error:
        raise OperatorError(
            f"the launcher {name!r} ({found[name].value}) cannot be loaded: {error}"
        ) from error
    launcher = cls(context)
    if not isinstance(launcher, Launcher):
        raise OperatorError(f"{found[name].value} is no launcher: it lacks verbs of the contract")
    return launcher
