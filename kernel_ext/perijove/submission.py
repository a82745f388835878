"""What ``%%submit`` does: build the job, submit it, show it, bring back what it made."""

from __future__ import annotations

import contextvars
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from perijove.arguments import header_options, parameter_value
from perijove.display import CellOutput, OutputList
from perijove.handle import JobFailedError
from perijove.model.states import State
from perijove.options import OPTIONS, combined, spec_fields, words
from perijove.payload import Payload, cell_payload, notebook_payload
from perijove.sync import LOOP, Client, Job
from perijove.watch import Watch
from perijove.widgets import HtmlView, view_of
from perijove.workplace import place

if TYPE_CHECKING:
    import argparse


class Detached(KeyboardInterrupt):
    """The cell was interrupted and the job goes on; shown without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Submission:
    """One use of ``%%submit`` in `shell`."""

    def __init__(self, shell: Any, client: Client, arguments: argparse.Namespace) -> None:
        self.shell, self.client, self.arguments = shell, client, arguments
        given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
        self.fields = spec_fields(**given)

    def run(self, cell: str) -> None:
        """Submit, and stay with the job unless it is to run in the background."""
        job = self._submitted(cell)
        self.shell.user_ns["job"] = self.shell.user_ns["_perijove_job"] = job
        job.deliver = self._deliver
        if self.arguments.background:
            attend_in_background(job)
            return
        attend(job)
        if self.arguments.outputs or self.arguments.notebook:
            job.result()

    def _submitted(self, cell: str) -> Job:
        arguments = self.arguments
        if arguments.shell and arguments.notebook:
            raise UsageError("%%submit: --shell and --notebook exclude each other")
        if arguments.notebook:
            return self._sent(self._notebook(cell))
        if not cell.strip():
            raise UsageError(
                "%%submit: there is nothing to run: the cell has no body, and no --notebook is given"
            )
        if arguments.parameter:
            raise UsageError("%%submit: -p is for notebooks; send names to a cell by --in")
        if arguments.shell:
            return self._script(cell)
        inputs, outputs = words(arguments.inputs), words(arguments.outputs)
        if missing := [name for name in inputs if name not in self.shell.user_ns]:
            raise UsageError(f"%%submit: --in {missing[0]}: no such name in this notebook")
        return self._sent(cell_payload(cell, {name: self.shell.user_ns[name] for name in inputs}, outputs))

    def _script(self, cell: str) -> Job:
        if self.arguments.inputs or self.arguments.outputs:
            raise UsageError("%%submit: --in and --out carry Python names; a shell script has none")
        script = cell if cell.startswith("#!") else f"#!/bin/bash\n{cell}"
        # Counted as in the notebook, where the magic is the first line.
        asked = combined(header_options(f"\n{cell}", "cell"), self.fields)
        fields = {"name": "script", **asked, "script": script}
        return self.client.submit(place(fields, self.client.connection.launchers))

    def _notebook(self, cell: str) -> Payload:
        if cell.strip():
            raise UsageError("%%submit: with --notebook the cell must have no body")
        if self.arguments.inputs or self.arguments.outputs:
            raise UsageError("%%submit: --in and --out are for cells; a notebook takes -p NAME VALUE")
        parameters = {name: parameter_value(value) for name, value in self.arguments.parameter}
        return notebook_payload(Path(self.arguments.notebook).expanduser(), parameters)

    def _sent(self, payload: Payload) -> Job:
        return Job(LOOP.run(payload.submit(self.client.async_client, self.fields)))

    def _deliver(self, job: Job, values: Any) -> None:
        if self.arguments.notebook:
            self._save_notebook(job)
        elif isinstance(values, dict):
            self.shell.user_ns.update(values)

    def _save_notebook(self, job: Job) -> None:
        source = Path(self.arguments.notebook).expanduser()
        given = self.arguments.output
        target = Path(given).expanduser() if given else source.with_suffix(f".{job.label}.ipynb")
        target.write_bytes(job.output("notebook.ipynb"))
        sys.stdout.write(f"executed notebook: {target}\n")


def attend(job: Job) -> None:
    """Show `job` and its output in this cell until it has ended.

    Raises :class:`~perijove.handle.JobFailedError` when it does not succeed, and :class:`Detached` on an
    interrupt, after which it runs on.
    """
    view = view_of(job)
    output = CellOutput(job.label, after_clear=view.open)
    view.open()
    try:
        error = _follow(job, view, output)
    except KeyboardInterrupt:
        view.close()
        ways = f"%job {job.label} -w returns to it, %kill {job.label} stops it"
        raise Detached(f"left job {job.label}, which goes on: {ways}") from None
    view.close()
    if error is not None:
        raise error
    if job.state is not State.SUCCEEDED:
        raise LOOP.run(job.async_job.failure(tail=job.rich))


def _follow(job: Job, view: Any, output: Any) -> BaseException | None:
    with Watch(job) as watch:
        for happening in watch:
            if happening.kind == "output":
                output.show(happening.content)
                if happening.content.get("output_type") == "stream":
                    view.log(happening.content.get("text", ""))
            elif happening.kind == "progress":
                view.progress(float(happening.content["progress"]), str(happening.content.get("text", "")))
            elif happening.kind == "stats":
                view.stats(happening.content)
            elif happening.kind == "why":
                view.why(happening.content)
            elif happening.kind == "over":
                return happening.error
            view.changed()
    return None


def attend_in_background(job: Job) -> None:
    """The same without staying: a thread keeps this cell's display up to date while others run."""
    view = view_of(job)
    view.open()
    shown = Shown(job)
    context = contextvars.copy_context()
    # The context carries which cell is running, so that what the thread shows lands here.
    thread = threading.Thread(target=context.run, args=(_background, job, view, shown), daemon=True)
    thread.name = f"perijove-job-{job.label}"
    thread.start()


def _background(job: Job, view: Any, shown: Shown) -> None:
    error = _follow(job, view, shown)
    view.close()
    shown.flush()
    if error is not None and not isinstance(error, JobFailedError):
        shown.show({"output_type": "stream", "name": "stderr", "text": f"watching ended: {error}\n"})
        shown.flush()


class Shown:
    """All of a job's output in one display of its own, which may be updated when its cell is long done."""

    INTERVAL = 0.5
    """Seconds between two updates at least: each carries the whole output."""

    def __init__(self, job: Job) -> None:
        from IPython.display import DisplayHandle

        self._outputs = OutputList()
        self._handle = DisplayHandle()
        self._metadata = {"perijove": {"job": job.label}}
        self._handle.display({"text/plain": ""}, raw=True, metadata=self._metadata)
        self._later: threading.Timer | None = None
        self._lock = threading.Lock()

    def show(self, line: dict[str, Any]) -> None:
        """Take an output in; it is shown soon."""
        with self._lock:
            self._outputs.show(line)
            if self._later is None:
                context = contextvars.copy_context()
                self._later = threading.Timer(self.INTERVAL, context.run, args=(self.flush,))
                self._later.daemon = True
                self._later.start()

    def flush(self) -> None:
        """Show all of it now."""
        with self._lock:
            self._later = None
            bundle = {"text/plain": self._outputs.text(), "text/html": self._outputs.html()}
        self._handle.update(bundle, raw=True, metadata=self._metadata)


__all__ = ["Detached", "HtmlView", "Shown", "Submission", "attend", "attend_in_background"]
