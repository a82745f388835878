"""Places at which a test may have a process die, as if it were killed there with -9.

``PERIJOVE_FAILPOINTS=NAME=FILE`` kills the process the first time it reaches NAME; FILE is made before, so
that the process started in its stead goes on. Without the variable a place costs one look at an empty dict.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, str] = dict(
    entry.split("=", 1) for entry in os.environ.get("PERIJOVE_FAILPOINTS", "").split(",") if "=" in entry
)

SERVICE = (
    "serve.before-commit",
    "serve.after-commit",
    "serve.order-sent",
    "serve.stop-sent",
    "serve.before-forget",
    "serve.forget-sent",
)
"""Places in the service."""
WORKFLOWS = ("serve.steps-submitted", "serve.result-noted", "serve.run-ended")
"""Places in the service that runs of workflows reach."""
NODE = (
    "node.order-taken",
    "node.staged",
    "node.before-start",
    "node.started",
    "node.before-outcome",
    "node.outcome-kept",
    "node.before-remove",
    "node.removed",
)
"""Places in the node agent."""
HOMES = ("serve.promoted", "node.home-part", "serve.home-moved")
"""Places that are reached when files change their owner: the decision is durable; after the second file on
the node; the node has done it and that is not noted yet."""
SCRATCH = ("node.scratch-made", "node.scratch-mounted", "node.scratch-unmounted")
"""Places in the node agent that are reached for jobs with scratch space."""
OUTPUTS = ("node.output-piece", "node.output-kept")
"""Places in the node agent that are reached for jobs with outputs: within one, and after each."""


def reach(name: str) -> None:
    """Die here when a test asked for it."""
    if _armed and (mark := _armed.get(name)) is not None:
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
