"""What the plain client does with workflows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perijove.loop import LOOP

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.site import Document
    from perijove.sync_runs import Run


class WorkflowCalls:
    """The part of the plain client that is about workflows."""

    async_client: AsyncClient

    def workflow(self, run_id: int | str) -> Run:
        """The run of a workflow of this id, with its steps."""
        from perijove.sync_runs import Run

        return Run(LOOP.run(LOOP.run(self.async_client.workflow(run_id)).refresh()))

    def workflows(
        self, *, state: str | Sequence[str] | None = None, owner: str | None = None, limit: int = 100
    ) -> list[Run]:
        """At most `limit` runs of workflows, newest first."""
        from perijove.sync_runs import Run

        found = LOOP.run(self.async_client.workflows(state=state, owner=owner, limit=limit))
        return [Run(run) for run in found]

    def run_workflow(
        self,
        workflow: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        **how: Any,
    ) -> Run:
        """Start a run of a workflow: the path of a YAML or JSON file, or a :class:`perijove.Workflow`.

        Files, folders, URLs and notebooks that it names are imported; relative ones lie in `folder`, by
        default that of the file, else the current one. `how` is ``cache`` (``use``, ``refresh``, ``off``),
        ``hold``, ``priority``, ``project``, ``fail_fast``, ``labels``.
        """
        from perijove.importing import submit
        from perijove.sync_runs import Run

        return Run(LOOP.run(submit(self.async_client, workflow, parameters, folder, **how)))

    def explain_workflow(
        self,
        workflow: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        **how: Any,
    ) -> list[Document]:
        """What such a run would do, without starting it: of each step whether it would run, and why."""
        from perijove.importing import plan

        answer = LOOP.run(plan(self.async_client, workflow, parameters, folder, **how))
        return list(answer["steps"])
