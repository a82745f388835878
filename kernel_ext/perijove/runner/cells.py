"""papermill's engine with an ear on it: progress by cell, each output as it comes, checkpoints between."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

from perijove.model.quantities import format_duration
from perijove.runner.directory import JobDirectory
from perijove.runner.display import DisplayLog
from perijove.runner.resuming import Resuming

SLOWEST = 3
"""Cells that the log names at the end."""
LONGEST = 90
"""Bytes of a folder for sockets, whose paths have at most 107 (unix(7))."""
DIED = "the kernel died; it may have run out of memory"


class ReportingClient(PapermillNotebookClient):  # type: ignore[misc]
    """Executes cells and tells of each, and of each output, in the display log."""

    def __init__(self, nb_man: Any, display_log: DisplayLog, resuming: Resuming, **more: Any) -> None:
        super().__init__(nb_man, **more)
        self.display_log, self.resuming = display_log, resuming
        self.current: int | None = None
        self._muted = False

    def papermill_execute_cells(self) -> None:
        total = len(self.nb.cells)
        signal.signal(signal.SIGTERM, self._stopped)
        first = self.resuming.begin(self)
        for index in range(first):
            self._show_again(index)
        try:
            for index in range(total):
                if index >= first or self.resuming.is_always(index):
                    self._reach(index, total)
                    if not self._run(index):
                        return
                    self.resuming.save(self, index)
        finally:
            say(_times(self.nb.cells))
        self.display_log.progress(1.0, f"{total} of {total} cells done", cell=total, cells=total)

    def _reach(self, index: int, total: int) -> None:
        text = f"cell {index + 1} of {total}"
        self.current = index
        self.display_log.progress(index / total, text, cell=index, cells=total)
        say(text)

    def _run(self, index: int) -> bool:
        cell = self.nb.cells[index]
        cell.metadata.pop("perijove", None)
        self.nb_man.cell_start(cell, index)
        try:
            self.execute_cell(cell, index)
        except CellExecutionError as error:
            self.nb_man.cell_exception(self.nb.cells[index], cell_index=index, exception=error)
            return False
        except DeadKernelError:
            self._note_error(index, "DeadKernelError", DIED)
            raise DeadKernelError(f"cell {index + 1}: {DIED}") from None
        finally:
            self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
        return True

    def _note_error(self, index: int, name: str, text: str) -> None:
        error = nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
        self.nb.cells[index].outputs.append(error)
        self._tell(dict(error), index)
        self.nb_man.cell_exception(self.nb.cells[index], cell_index=index)

    def _show_again(self, index: int) -> None:
        for output in self.nb.cells[index].get("outputs", []):
            self.display_log.output({**output, "cell": index})

    def _stopped(self, number: int, frame: Any) -> NoReturn:
        """SIGTERM: what there is of the notebook is kept, the unfinished cell's output too."""
        if self.current is not None and self.nb.cells[self.current].cell_type == "code":
            self._note_error(self.current, "Stopped", "the job was asked to end (SIGTERM)")
        self.nb_man.notebook_complete()
        provisioner = getattr(self.km, "provisioner", None)
        if (process := getattr(provisioner, "process", None)) is not None:
            process.kill()
        # No cleaning up: the event loop is in the middle of something.
        os._exit(128 + number)

    def in_kernel(self, code: str) -> bool:
        """Run `code` unseen by the notebook and its history; whether it ran without an error."""
        index, kept = len(self.nb.cells) - 1, self.nb.cells[-1]
        self._muted = True
        try:
            self.execute_cell(nbformat.v4.new_code_cell(code), index, store_history=False)
        except CellExecutionError:
            return False
        finally:
            self._muted = False
            self.nb.cells[index] = kept
        return True

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        output = super().process_message(msg, cell, cell_index)
        if self._muted:
            return output
        content = msg["content"]
        if msg["msg_type"] == "update_display_data":
            line = {key: content[key] for key in ("data", "metadata", "transient") if key in content}
            self._tell({"output_type": "update_display_data", **line}, cell_index)
        elif msg["msg_type"] == "clear_output":
            self._tell({"output_type": "clear_output", "wait": bool(content.get("wait"))}, cell_index)
        elif output is not None:
            line = dict(output)
            if content.get("transient"):
                line["transient"] = content["transient"]
            self._tell(line, cell_index)
        return output

    def _tell(self, line: dict[str, Any], cell_index: int) -> None:
        self.display_log.output({**line, "cell": cell_index})
        if line["output_type"] == "stream":
            stream = sys.stdout if line["name"] == "stdout" else sys.stderr
            stream.write(line["text"])
            stream.flush()


class ReportingEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine, with :class:`ReportingClient` in it."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        display_log: DisplayLog,
        directory: JobDirectory,
        given: Mapping[str, Any],
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **_: Any,
    ) -> Any:
        return ReportingClient(
            nb_man,
            display_log,
            Resuming(nb_man.nb, directory, given, kernel_name, say),
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=execution_timeout,
            # The graceful way leaves a kernel behind for 4 s about once in 15 runs.
            shutdown_kernel="immediate",
            config=_socket_files(directory, kernel_name),
        ).execute()


def _socket_files(directory: JobDirectory, kernel: str) -> Config:
    """Settings by which the kernel is talked to through socket files.

    Jupyter's way is five TCP ports that are free when they are looked for: on a busy node others have one of
    them by the time the kernel binds it. Only ipykernel is known to take files.
    """
    if not any("ipykernel" in word for word in KernelSpecManager().get_kernel_spec(kernel).argv):
        return Config()
    place = directory.path / ".kernel"
    if len(os.fsencode(place)) > LONGEST:
        place = Path(tempfile.mkdtemp(prefix="perijove-"))
    place.mkdir(mode=0o700, exist_ok=True)
    return Config(KernelManager={"transport": "ipc", "ip": str(place / "ipc")})


def _times(cells: Sequence[Any]) -> str:
    """How long `cells` took, for the log: ``36 cells in 1m12s; the slowest: cell 7 (40s)``."""
    took = {
        number: cell.metadata.papermill.get("duration") or 0.0
        for number, cell in enumerate(cells, 1)
        if cell.metadata.papermill.get("end_time") and "restored" not in cell.metadata.get("perijove", {})
    }
    slowest = sorted(took, key=lambda number: -took[number])[:SLOWEST]
    named = ", ".join(f"cell {number} ({format_duration(took[number])})" for number in slowest)
    return f"{len(took)} cells in {format_duration(sum(took.values()))}" + (
        f"; the slowest: {named}" if len(took) > SLOWEST else ""
    )


def say(text: str) -> None:
    """A remark in the job's log."""
    sys.stderr.write(f"[{text}]\n")
    sys.stderr.flush()
