"""The live view of a run of a workflow in a notebook, and the plain one where widgets cannot be shown."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from perijove.model.runs import Run as RunRecord
from perijove.model.runs import StepRun
from perijove.model.states import State
from perijove.run_display import (
    after_html,
    head_html,
    headline,
    pages_of,
    picture_html,
    run_bundle,
    table_html,
)
from perijove.widgets import InPlace, acting_button

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perijove.model.workflow import Workflow
    from perijove.sync_runs import Run

WIDGET = "application/vnd.jupyter.widget-view+json"


class RunView(Protocol):
    """What shows how a run stands."""

    def open(self) -> None:
        """Show it in the cell that runs now."""

    def changed(self) -> None:
        """Something is new, or time has passed."""

    def close(self) -> None:
        """Leave what shall be saved with the notebook."""


class Known:
    """What a handle knows, typed. Only what is new since the last look is checked again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.pages = pages_of(run.async_run.client.url)
        self._workflow: Workflow | None = None
        self._steps: dict[str, tuple[Mapping[str, Any], StepRun]] = {}

    @property
    def record(self) -> RunRecord:
        """The run; its workflow never changes."""
        if self._workflow is None:
            self._workflow = self.run.record.workflow
        bare = {**self.run.document, "workflow": None}
        return RunRecord.model_validate(bare).model_copy(update={"workflow": self._workflow})

    @property
    def steps(self) -> list[StepRun]:
        """All steps that are known."""
        # Another thread puts new ones in: the list is made at once.
        known, self._steps = self._steps, {}
        for label, document in list(self.run.step_documents.items()):
            before = known.get(label)
            if before is None or before[0] is not document:
                before = document, StepRun.model_validate(document)
            self._steps[label] = before
        return [step for _, step in self._steps.values()]


def run_view_of(run: Run) -> RunView:
    """The best view this front end can show: widgets in a kernel, lines of text elsewhere."""
    from IPython import get_ipython

    if getattr(get_ipython(), "kernel", None) is None:
        return RunTextView(run)
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return RunHtmlView(run)
    return RunWidgetView(run)


class RunTextView:
    """For terminals: a line for each change of how many steps are in which state."""

    def __init__(self, run: Run) -> None:
        self.known = Known(run)
        self._said = ""

    def open(self) -> None:
        self.changed()

    def changed(self) -> None:
        record = self.known.record
        words = f"{record.state} {record.steps}"
        if words != self._said:
            self._said = words
            sys.stderr.write(f"[perijove] {headline(record, time.time())}\n")

    def close(self) -> None:
        self.changed()


class RunHtmlView(InPlace):
    """A run, updated in place."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.known = Known(run)

    def bundle(self) -> dict[str, Any]:
        return dict(run_bundle(self.known.record, self.known.steps, pages=self.known.pages))

    def metadata(self) -> dict[str, Any]:
        """So that a notebook opened again knows which run this cell's output is of."""
        return {"perijove": {"run": self.known.run.id}}


class RunWidgetView(RunHtmlView):
    """State, graph, table of steps, and buttons.

    When the run has ended the buttons go, and the cell's display is exchanged for plain HTML: that is what
    the saved notebook shows next day, when no kernel knows the widgets any more.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        import ipywidgets as w

        self._head = w.HTML()
        self._picture = w.HTML(layout=w.Layout(width="100%", overflow="auto"))
        self._table = w.HTML(layout=w.Layout(width="100%", max_height="24em", overflow="auto"))
        self._said = w.HTML()
        for widget, name in ((self._head, "state"), (self._picture, "graph"), (self._table, "steps")):
            widget.tooltip = f"{name} of run {run.id}"
        kill = acting_button(
            "Kill", "Stop this run and all of its steps for good", "danger", run.kill, self._said
        )
        pause = acting_button(
            "Pause", "Start no further step; those that run go on", "", run.hold, self._said
        )
        go_on = acting_button("Continue", "Let further steps start", "", run.release, self._said)
        self._kill, self._pause, self._go_on = kill, pause, go_on
        self._controls = w.HBox([kill, pause, go_on, self._said])
        self._box = w.VBox([self._head, self._picture, self._controls, self._table])
        self._closed = False

    def open(self) -> None:
        self._refresh()
        super().open()

    def bundle(self) -> dict[str, Any]:
        bundle = super().bundle()
        if not self._closed:
            bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        return bundle

    def changed(self) -> None:
        # The widgets change by themselves; the display in the cell is exchanged at the end only.
        self._refresh()

    def _refresh(self) -> None:
        record, steps, pages, now = self.known.record, self.known.steps, self.known.pages, time.time()
        self._set(self._head, head_html(record, pages, now) + after_html(record, pages))
        if record.workflow is not None:
            picture = picture_html(record.workflow, record.id, steps, pages=pages, now=now)
            self._set(self._picture, picture)
            self._set(self._table, table_html(record.workflow, steps, pages=pages, now=now))
        held = record.state is State.HELD
        self._pause.layout.display = "none" if held else ""
        self._go_on.layout.display = "" if held else "none"

    @staticmethod
    def _set(widget: Any, value: str) -> None:
        if widget.value != value:
            widget.value = value

    def close(self) -> None:
        self._closed = True
        super().changed()
        self._refresh()
        # A page that was opened since knows this display by its widgets only, and gets no outputs by its id.
        self._box.children = [self._head, self._picture, self._table]
        for widget in (*self._controls.children, self._controls):
            widget.close()


__all__ = ["Known", "RunHtmlView", "RunTextView", "RunView", "RunWidgetView", "run_view_of"]
