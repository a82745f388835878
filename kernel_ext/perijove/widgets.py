"""The live view of a job in a notebook, and the plain one where widgets cannot be shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from perijove.display import text_of
from perijove.inert import html_text
from perijove.model.errors import PerijoveError
from perijove.model.quantities import format_duration
from perijove.model.states import State
from perijove.reading import tasks_text
from perijove.status import badge, detail, progress_text, status_bundle, usage_text
from perijove.waiting import blocker_lines, forecast_text, hint_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from perijove.sync import Job

TAIL_LINES = 5
LONG = 20
"""Lines of output behind which the last ones are out of sight and shown beside the buttons too."""
TAIL_CHARACTERS = 4000


class View(Protocol):
    """What shows how a job stands."""

    def open(self) -> None:
        """Show it in the cell that runs now."""

    def changed(self) -> None:
        """The job's record is new, or time has passed."""

    def progress(self, fraction: float, text: str) -> None:
        """The job told how far it is."""

    def stats(self, stats: dict[str, Any]) -> None:
        """What it uses now."""

    def why(self, why: dict[str, Any]) -> None:
        """Why it waits, and until when probably."""

    def log(self, text: str) -> None:
        """It printed something."""

    def close(self) -> None:
        """Leave what shall be saved with the notebook."""


def view_of(job: Job) -> View:
    """The best view this front end can show: widgets in a kernel, one updated line of text elsewhere."""
    from IPython import get_ipython

    shell = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return TextView(job)
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return HtmlView(job)
    return WidgetView(job)


class TextView:
    """For terminals: a line for each state."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._said = ""

    def open(self) -> None:
        self.changed()

    def changed(self) -> None:
        words = f"{self.job.state}: {self.job.reason}" if self.job.reason else str(self.job.state)
        if words != self._said:
            self._said = words
            sys.stderr.write(f"[perijove] job {self.job.label} {words}\n")

    def progress(self, fraction: float, text: str) -> None:
        pass

    def stats(self, stats: dict[str, Any]) -> None:
        pass

    def why(self, why: dict[str, Any]) -> None:
        pass

    def log(self, text: str) -> None:
        pass

    def close(self) -> None:
        self.changed()


class InPlace:
    """A display that is updated in place: works in every notebook, without ipywidgets."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._shown: dict[str, Any] = {}

    def bundle(self) -> dict[str, Any]:
        """What is shown now, by MIME type."""
        raise NotImplementedError

    def metadata(self) -> dict[str, Any]:
        """What a notebook that is opened again knows of this cell's output."""
        raise NotImplementedError

    def open(self) -> None:
        self._shown = self.bundle()
        self._handle.display(self._shown, raw=True, metadata=self.metadata())

    def changed(self) -> None:
        bundle = self.bundle()
        if bundle != self._shown:
            self._shown = bundle
            self._handle.update(bundle, raw=True, metadata=self.metadata())

    def close(self) -> None:
        self.changed()


class HtmlView(InPlace):
    """A job, updated in place."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def bundle(self) -> dict[str, Any]:
        return {**status_bundle(self.job)}

    def metadata(self) -> dict[str, Any]:
        """So that a notebook opened again knows which job this cell's output is of."""
        return {"perijove": {"job": self.job.label}}

    def progress(self, fraction: float, text: str) -> None:
        # The record learns of it from the service; this is sooner.
        self.job.document.update(progress=fraction, progress_text=text)
        self.changed()

    def stats(self, stats: dict[str, Any]) -> None:
        pass

    def why(self, why: dict[str, Any]) -> None:
        pass

    def log(self, text: str) -> None:
        pass


class WidgetView(HtmlView):
    """Badge, reason, time, progress, use, the last lines printed, and buttons.

    When the job has ended the widgets give way to one line of HTML in the same place: that is what the
    saved notebook shows next day, when no kernel knows the widgets any more. The line's own widget stays.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import ipywidgets as w

        self._line = w.HTML()
        self._bar = w.FloatProgress(min=0.0, max=1.0, layout=w.Layout(width="20em"))
        self._bar_text = w.Label()
        self._far = w.HBox([self._bar, self._bar_text], layout=w.Layout(display="none"))
        self._usage = w.Label(layout=w.Layout(display="none"))
        self._waits = w.HTML(layout=w.Layout(display="none"))
        self._tail = w.HTML(layout=w.Layout(display="none"))
        self._tail_text = ""
        self._printed_lines = 0
        self._said = w.HTML()
        self._kill = self._button("Kill", "Stop this job for good", "danger", job.kill)
        self._suspend = self._button("Suspend", "Freeze this job where it is", "", job.suspend)
        self._resume = self._button("Resume", "Let this job go on", "", job.resume)
        for widget, name in ((self._line, "state of the job"), (self._bar, "progress"), (self._tail, "log")):
            widget.tooltip = f"{name} (job {job.label})"
        self._buttons = w.HBox([self._kill, self._suspend, self._resume])
        self._box = w.VBox(
            [
                self._line,
                self._far,
                self._waits,
                self._usage,
                self._tail,
                w.HBox([self._buttons, self._said]),
            ]
        )
        self._closed = False

    def _button(self, text: str, tooltip: str, style: str, act: Callable[[], Any]) -> Any:
        return acting_button(text, tooltip, style, act, self._said)

    def open(self) -> None:
        self._refresh()
        super().open()

    def bundle(self) -> dict[str, Any]:
        bundle: dict[str, Any] = dict(super().bundle())
        if not self._closed:
            reference = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = reference
        return bundle

    def changed(self) -> None:
        # The widgets change by themselves; the display in the cell is exchanged at the end only.
        self._refresh()

    def _refresh(self) -> None:
        job = self.job
        name = f" <b>{html_text(job.name)}</b>" if job.name else ""
        words = detail(job, progress=False)
        self._set(self._line, "value", f"{badge(job)} job {html_text(job.label)}{name} {html_text(words)}")
        if job.state is not State.PENDING:
            self._waits.layout.display = "none"
        if job.is_array:
            self._far.layout.display = ""
            done = sum(number for state, number in job.tasks.items() if state.ended)
            self._set(self._bar, "value", done / len(job.task_numbers))
            self._set(self._bar_text, "value", tasks_text(job))
        elif (fraction := job.document.get("progress")) is not None:
            self._far.layout.display = ""
            self._set(self._bar, "value", float(fraction))
            self._set(self._bar_text, "value", progress_text(job)[:200])
        self._kill.disabled = job.ended
        self._suspend.layout.display = "" if job.state is State.RUNNING else "none"
        self._resume.layout.display = "" if job.state is State.SUSPENDED else "none"

    @staticmethod
    def _set(widget: Any, name: str, value: Any) -> None:
        if getattr(widget, name) != value:
            setattr(widget, name, value)

    def progress(self, fraction: float, text: str) -> None:
        self.job.document.update(progress=fraction, progress_text=text)
        self._refresh()

    def stats(self, stats: dict[str, Any]) -> None:
        self._set(self._usage, "value", usage_text(stats))
        self._usage.layout.display = "" if self._usage.value else "none"

    def why(self, why: dict[str, Any]) -> None:
        reason = why.get("reason") or {}
        lines = blocker_lines(reason.get("blockers") or [], shown=3)
        lines += filter(None, [forecast_text(why.get("forecast")), *map(hint_text, why.get("hints") or [])])
        shown = "".join(f"<li>{html_text(line)}</li>" for line in lines)
        self._set(self._waits, "value", f'<ul role="note" style="margin:0">{shown}</ul>' if shown else "")
        self._waits.layout.display = "" if shown and self.job.state is State.PENDING else "none"

    def log(self, text: str) -> None:
        text = text_of(text)
        self._printed_lines += text.count("\n")
        self._tail_text = (self._tail_text + text)[-TAIL_CHARACTERS:]
        if self._printed_lines <= LONG:
            return
        self._tail.layout.display = ""
        lines = "\n".join(self._tail_text.splitlines()[-TAIL_LINES:])
        style = "margin:0;font-size:90%;max-height:8em;overflow:auto"
        self._tail.value = f'<pre role="log" aria-live="polite" style="{style}">{html_text(lines)}</pre>'

    def close(self) -> None:
        self._closed = True
        super().changed()
        self._refresh()
        # A page that was opened since knows this display by its widgets only, and gets no outputs by its id.
        self._line.value += (
            f" <small>(<code>%job {html_text(self.job.label)} -o</code> shows its output)</small>"
        )
        _, *others = self._box.children
        self._box.children = [self._line]
        for widget in (*self._buttons.children, *others):
            widget.close()


def acting_button(text: str, tooltip: str, style: str, act: Callable[[], Any], said: Any) -> Any:
    """A button that calls `act`, also while a cell runs; what comes of it is shown in the widget `said`."""
    import ipywidgets as w

    button = w.Button(description=text, tooltip=tooltip, button_style=style, layout=w.Layout(width="auto"))

    def clicked(_: Any) -> None:
        try:
            act()
        except PerijoveError as error:
            said.value = html_text(str(error))
        else:
            said.value = f"{html_text(text)}: asked"

    button.on_click(clicked)
    _answer_while_busy(button)
    return button


def _answer_while_busy(button: Any) -> None:
    """Let clicks be handled while the cell that waits for the job keeps the kernel's main thread busy.

    Front ends send them to a thread of the kernel made for that (a subshell, JEP 91). ipykernel 7.4 overrules
    them and queues a widget's messages for the thread that wrote to it last, here the busy one.
    """
    if hasattr(button.comm, "_reply_subshell_for"):
        button.comm._reply_subshell_for = lambda _data, chosen: chosen


__all__ = ["HtmlView", "TextView", "View", "WidgetView", "acting_button", "format_duration", "view_of"]
