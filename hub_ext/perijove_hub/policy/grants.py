"""What goes beyond a plain job, and who may have it."""

from __future__ import annotations

from typing import Literal

from perijove_hub.policy.limits import Part
from perijove_hub.policy.who import are_meant

Grant = Literal["root", "host_network", "host_ipc", "gui", "any_image", "ports"]
NEVER_FOR_GUESTS: frozenset[Grant] = frozenset({"root", "host_network", "host_ipc"})


class Grants(Part):
    """Lists of names and patterns, ``@GROUP`` and ``project:NAME``."""

    root: list[str] = []
    """May be root in their containers."""
    host_network: list[str] | None = None
    """May have the node's network; when not given, who the setting ``networks`` gives it to."""
    host_ipc: list[str] = []
    """May share the node's IPC namespace."""
    gui: list[str] = []
    """May open windows on the screen of the node."""
    any_image: list[str] = []
    """May run any image."""
    ports: list[str] | None = None
    """May publish ports; everybody when not given."""

    def say(
        self,
        grant: Grant,
        user: str,
        project: str | None,
        groups: frozenset[str] = frozenset(),
        *,
        guest: bool = False,
    ) -> bool | None:
        """Whether a job of `user` in `project` has it; None when that is not said here."""
        if guest and grant in NEVER_FOR_GUESTS:
            return False
        names: list[str] | None = getattr(self, grant)
        return None if names is None else are_meant(names, user, project, groups)
